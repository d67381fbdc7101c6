"""`unispector inspect`: thousands of images in, one Parquet table out, on one machine or many."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unispector.batch.inspection import Inspection, look, one_thread
from unispector.batch.results import InspectionResults, InspectionSummary
from unispector.batch.source import ImageFile, ImageSource
from unispector.errors import DataError
from unispector.inference.detector import UniSpector
from unispector.ops.files import IMAGE_SUFFIXES
from unispector.project.progress import progress_bar
from unispector.prompts.bank import find_bank

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 128
"""So many images are looked at sooner than Ray starts."""


@dataclass(frozen=True)
class InspectionReport:
    """The result of a run of `inspect`."""

    summary: InspectionSummary
    looked: int  # images looked at by this run; the rest an earlier one had seen
    output: Path


def inspect(
    place: str,
    output: Path,
    model_directory: Path,
    prompts: Path,
    *,
    min_score: float | None = None,
    workers: int = 0,
) -> InspectionReport:
    """Look for the prompted classes on every image of a folder or bucket.

    A killed run goes on where it was, and a later one looks only at images that are new or changed, or
    that failed. What the table holds does not depend on the number of workers.

    Args:
        place: a folder, or `s3://bucket/prefix`; all images at any depth are taken.
        output: Parquet file to write; `inspection.SCHEMA` has its columns.
        prompts: the file of a prompt bank, or the folder of a prompt store.
        min_score: lowest score of a detection that is kept; None = the threshold of each class.
        workers: processes, 0 = one for each CPU, or for each GPU where there is one; of one, or for few
            images, Ray is not started.

    Raises:
        DataError: no images, or the file is in use or no inspection's.
        CheckpointError: the model cannot be loaded.
        PromptBankError: the bank is unreadable, of another model, or there is no class in the store.
        ServiceError: no worker can start.
        TrainingError: nobody answers at `RAY_ADDRESS`.
    """
    source = ImageSource.at(place)
    detector = UniSpector.load(model_directory)
    bank = find_bank(prompts, detector)
    inspection = Inspection(source, model_directory.resolve(), bank, min_score)
    pictures = source.pictures(IMAGE_SUFFIXES)
    results = InspectionResults(output, inspection)
    with results.held():
        missing = results.missing(pictures)
        done = len(pictures) - len(missing)
        with progress_bar("inspect", "picture") as show:
            show(done, len(pictures))
            for count in results.keep(_looks(detector, inspection, missing, workers)):
                done += count
                show(done, len(pictures))
        return InspectionReport(results.finish(pictures), len(missing), output)


def _looks(
    detector: UniSpector, inspection: Inspection, files: Sequence[ImageFile], workers: int
) -> "Iterator[pa.Table]":
    """All rows of some images at a time."""
    alone = workers == 1 and not os.environ.get("RAY_ADDRESS")
    if alone or len(files) <= FEW:
        with one_thread():
            for file in files:
                yield look(detector, inspection, [file])
        return
    from unispector.batch.ray_inspection import look_on_ray, prepare_ray
    from unispector.training.ray_trainer import cluster, machines, room

    prepare_ray()
    with cluster(workers or len(os.sched_getaffinity(0))):
        where = machines()
        places = room(where, processes=1, threads=1)
        if not places:
            raise DataError("the Ray cluster has no free CPU, or on no machine both a CPU and a GPU; add one")
        gpu = any(machine.gpus for machine in where)
        yield from look_on_ray(inspection, files, min(workers or places, places), gpu=gpu)
