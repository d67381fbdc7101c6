"""The time each stage of the pipeline took in its last run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from unispector.errors import DataError
from unispector.ops.files import atomic_write_json
from unispector.ops.json_text import parse_json

TIMINGS = Path("artifacts/timings")

STAGES = (
    "generate", "convert", "survey", "validate", "split", "statistics", "fingerprint", "train", "evaluate",
    "sweep", "systems", "report",
)  # fmt: skip
"""Stages in the order of the pipeline."""


class StageTiming(NamedTuple):
    """One run of a stage: `stage`, or `stage@set`; its seconds; when it ended (ISO 8601, UTC)."""

    name: str
    seconds: float
    ended: str


@contextmanager
def timed(name: str, root: Path = Path()) -> Iterator[None]:
    """Record how long the block takes in `artifacts/timings/<name>.json`, if it ends well.

    Args:
        name: `stage`, or `stage@set` for a stage that runs once per set.
    """
    start = time.perf_counter()
    yield
    seconds = round(time.perf_counter() - start, 3)
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    atomic_write_json(root / TIMINGS / f"{name}.json", {"seconds": seconds, "ended": ended})


def read_timings(root: Path = Path()) -> tuple[StageTiming, ...]:
    """Read the records of `timed`, in the order of the pipeline; unknown stages come last.

    Raises:
        DataError: a record is damaged.
    """
    files = (path for path in (root / TIMINGS).glob("*.json") if not path.name.startswith("."))
    return tuple(sorted(map(_read, files), key=_place))


def _read(path: Path) -> StageTiming:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return StageTiming(path.stem, float(content["seconds"]), str(content["ended"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a record of a stage's time; remove it or run the stage again"
        ) from error


def _place(timing: StageTiming) -> tuple[int, str, str]:
    stage, _, data_set = timing.name.partition("@")
    return STAGES.index(stage) if stage in STAGES else len(STAGES), stage, data_set
