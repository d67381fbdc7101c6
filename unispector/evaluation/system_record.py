"""What a system took: time and memory an image, size, and where its figures come from."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError

from unispector.errors import DataError
from unispector.evaluation.system_sample import SystemSample
from unispector.ops.files import atomic_write_json
from unispector.ops.peak_memory import peak_mib
from unispector.project.lineage import git_state

Result = TypeVar("Result")

RECORD = "system.json"
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass
class Clock:
    """Wall-clock seconds of each image that was looked at."""

    seconds: list[float] = field(default_factory=list)

    def timed(self, results: Iterator[Result]) -> Iterator[Result]:
        """Pass results on, and note how long each took."""
        start = time.perf_counter()
        for result in results:
            self.seconds.append(time.perf_counter() - start)
            yield result
            start = time.perf_counter()  # what the judge does with a result is not the system's


@dataclass(frozen=True)
class SystemRecord:
    """One measurement of a system beside its figures in `evaluation.json`."""

    system: str  # name in the catalogue; another detector's import path
    name: str  # how the report calls it
    roi: str  # `box` or `mask`; empty = it is not prompted by an example
    weights: str  # as given on the command line; empty = none
    seconds: Cost  # wall clock, median over the images
    seconds_spread: tuple[Cost, Cost]  # the quartiles
    images: int  # looked at, defect-free ones too
    peak_mib: Cost  # most memory the process held, interpreter and weights too; on a GPU its tensors
    threads: int  # of the processor, or 0 where a GPU did the work
    parameters: (
        Annotated[int, Field(ge=0, lt=2**63)] | None
    )  # of the networks; None where the system does not say
    commit: str  # of the working tree, with `-dirty` where it has changes
    date: str  # ISO 8601, UTC
    samples: tuple[SystemSample, ...] = ()  # of unseen classes, to draw

    @classmethod
    def of(
        cls, system: str, name: str, roi: str, weights: str, clock: Clock, root: Path, parameters: int | None
    ) -> Self:
        """Read the clock, the process and the working tree."""
        low, middle, high = np.quantile(clock.seconds or [0.0], [0.25, 0.5, 0.75]).tolist()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state = git_state(root)
        return cls(
            system=system,
            name=name,
            roi=roi,
            weights=weights,
            seconds=middle,
            seconds_spread=(low, high),
            images=len(clock.seconds),
            peak_mib=peak_mib(device),
            threads=0 if device.type == "cuda" else torch.get_num_threads(),
            parameters=parameters,
            commit=state["commit"] + ("-dirty" if state["dirty"] == "true" else ""),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        atomic_write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            DataError: the file is absent or no such record.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes(), strict=True, extra="forbid")
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: no record of a system; run unispector benchmark again") from error
