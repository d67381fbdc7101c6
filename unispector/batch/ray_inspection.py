"""Ray Data as an adapter: images are looked at by a pool of worker processes, here or on a cluster.

Each worker loads the model and holds the prompts once. Rows come back as they are ready, in no order. A
worker that dies is replaced; images that were with it are tried once more, each by itself, so that one
that kills its worker is kept apart from its neighbours.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from unispector.batch.inspection import Inspection, as_table, failed_row, look
from unispector.batch.source import ImageFile
from unispector.errors import ServiceError
from unispector.inference.detector import UniSpector

logger = logging.getLogger(__name__)

_BLOCK_IMAGES = 32
_BLOCKS_A_WORKER = 8
_LOST = "its worker died or failed while looking at it, twice; start again with one worker to see why"


def prepare_ray() -> None:
    """Silence what Ray's core would print in this process; call it before Ray starts."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def look_on_ray(
    inspection: Inspection, files: Sequence[ImageFile], workers: int, *, gpu: bool
) -> Iterator[pa.Table]:
    """Look at images on the running Ray cluster.

    Args:
        inspection: what to look for; model and images lie where every machine sees them.
        workers: processes, a CPU each.

    Yields:
        All rows of some images, as `look` gives them; tables come in no fixed order.

    Raises:
        ServiceError: no worker can start, or the cluster is lost.
    """
    block = max(1, min(_BLOCK_IMAGES, len(files) // (workers * _BLOCKS_A_WORKER)))
    lost = {file.path: file for file in files}
    for size in (block, 1):
        for table in _looks(inspection, list(lost.values()), size, workers, gpu):
            for path in table["path"].unique().to_pylist():
                lost.pop(path, None)
            yield table
        if not lost:
            return
        if size > 1:
            logger.warning("%d images were with a worker that died; each is tried again", len(lost))
    yield as_table([failed_row(file, _LOST) for file in lost.values()])


class _Worker:
    """The state of a worker process."""

    def __init__(self, inspection: Inspection) -> None:
        import torch

        # Ray already limits OpenMP; this also holds where a cluster sets other limits.
        torch.set_num_threads(1)
        self._inspection = inspection
        self._detector = UniSpector.load(inspection.model, "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        return look(self._detector, self._inspection, [ImageFile(**row) for row in block.to_pylist()])


def _looks(
    inspection: Inspection, files: Sequence[ImageFile], size: int, workers: int, gpu: bool
) -> Iterator[pa.Table]:
    import ray.data
    from ray.exceptions import RayError

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    blocks = [
        pa.Table.from_pylist([vars(file) for file in files[first : first + size]])
        for first in range(0, len(files), size)
    ]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        looks = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(inspection,),
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=min(workers, len(blocks)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=1,
            num_gpus=1 if gpu else None,
            ray_remote_args_fn=_endurance,
        )
    try:
        for table in looks.iter_batches(batch_format="pyarrow", batch_size=None):
            if len(table):
                yield table
    except RayError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("unispector.errors.")
        raise ServiceError(
            f"the workers of the inspection cannot go on ({reason}); mend that and start it again, what was "
            "looked at is kept"
        ) from error


def _endurance() -> dict[str, Any]:
    """Workers are replaced without end (without any, Ray Data waits for a dead one), tries end at two."""
    return {"max_restarts": -1, "max_task_retries": 1}
