"""Robustness: the figures of one model again and again, with one thing changed a step at a time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from unispector.errors import DataError
from unispector.evaluation.results import FIGURES, MAIN_VARIANT, SUBSETS, Subset
from unispector.ops.json_text import parse_json


@dataclass(frozen=True)
class SweepKind:
    """One thing that is changed."""

    title: str
    axis: str  # what a level is, with its unit
    reference: float  # level that drops are relative to
    step: float  # distance of levels; level = `step` times the whole step number of the experiment store


_SEVERITY = "severity"

SWEEPS = {
    "prompt_blur": SweepKind("Blurred prompts", "sigma of the blur, pixels", 0, 0.5),
    "prompt_box_iou": SweepKind("Inexact prompt boxes", "IoU with the box as drawn", 1, 0.1),
    "prompt_count": SweepKind("Number of prompts", "prompt images per class", 5, 1),
    "prompt_kind": SweepKind("Box or mask as prompt", "0 = box, 1 = mask", 0, 1),
    "target_blur": SweepKind("Blur", _SEVERITY, 0, 1),
    "target_noise": SweepKind("Noise", _SEVERITY, 0, 1),
    "target_jpeg": SweepKind("JPEG compression", _SEVERITY, 0, 1),
    "target_brightness": SweepKind("Brightness", _SEVERITY, 0, 1),
    "target_contrast": SweepKind("Contrast", _SEVERITY, 0, 1),
    "target_rotation": SweepKind("Rotation", _SEVERITY, 0, 1),
    "target_scale": SweepKind("Scale", _SEVERITY, 0, 1),
}
"""Changes of the prompts (paper appendix 4.1; number and kind are this project's) and of the targets (this
project's; severity 0 = the image as it is, 5 = the strongest), in the report's order."""


@dataclass(frozen=True)
class SweepRow:
    """One model on one data set at one level of one change.

    Attributes:
        level: by how much, in the unit of the sweep's axis.
        variant, data_set, subset, split_seed, prompt_seed: as of an `EvaluationRow`.
        figures: each of `FIGURES`, in percent.

    Raises:
        ValueError: an unknown sweep or subset, a level that is no number, or other figures.
    """

    sweep: str
    level: float
    trial: int
    variant: str
    data_set: str
    subset: Subset
    split_seed: int
    prompt_seed: int
    figures: dict[str, float]
    images: int

    def __post_init__(self) -> None:
        if self.sweep not in SWEEPS or self.subset not in SUBSETS or not math.isfinite(self.level):
            raise ValueError(f"no level of a known sweep: {self.sweep} {self.level} on {self.subset}")
        if set(self.figures) != set(FIGURES) or not all(map(math.isfinite, self.figures.values())):
            raise ValueError(f"{self.sweep} {self.level}: not the figures {', '.join(FIGURES)}")


@dataclass(frozen=True)
class CurvePoint:
    """One level of a curve, over trials, split seeds and prompt seeds."""

    level: float  # in the unit of the sweep's axis
    # Mean and standard deviation (population) in percent.
    mean: float
    deviation: float
    # Percent of the mean at the reference level that is lost (negative: gained); None if that mean is 0 or
    # was not measured.
    drop: float | None
    rows: int


@dataclass(frozen=True)
class SweepReport:
    """Everything the sweeps found: one row per evaluation; none where no set is swept."""

    rows: tuple[SweepRow, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of sweeps.

        Raises:
            DataError: the file is absent, was not written by `as_json`, or has an evaluation twice.
        """
        again = "run the stage that measures robustness again"
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            rows = tuple(SweepRow(**row) for row in content["rows"])
            distinct = {_identity(row) for row in rows}
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {again}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a record of sweeps; {again}") from error
        if len(distinct) < len(rows):
            raise DataError(f"{path}: an evaluation is in it twice; {again}")
        return cls(rows)

    def as_json(self) -> str:
        """All rows as JSON text, a line each; figures to 4 decimals, levels to 6."""
        lines = ",\n".join(json.dumps(_row_as_dict(row), ensure_ascii=False) for row in self.rows)
        return f'{{"rows": [\n{lines}\n]}}\n'

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Data sets in the order of evaluation."""
        return tuple(dict.fromkeys(row.data_set for row in self.rows))

    def sweeps(self) -> tuple[str, ...]:
        """Keys of the sweeps that were made, in the order of `SWEEPS`."""
        present = {row.sweep for row in self.rows}
        return tuple(sweep for sweep in SWEEPS if sweep in present)

    def curve(
        self,
        sweep: str,
        data_set: str,
        figure: str,
        *,
        variant: str = MAIN_VARIANT,
        subset: Subset = "unseen",
    ) -> tuple[CurvePoint, ...]:
        """One of `FIGURES` over the levels of a sweep, lowest level first; empty where there are none."""
        values: dict[float, list[float]] = {}
        for row in self.rows:
            if (row.sweep, row.data_set, row.variant, row.subset) == (sweep, data_set, variant, subset):
                values.setdefault(_level(row), []).append(row.figures[figure])
        reference = values.get(SWEEPS[sweep].reference)
        return tuple(_point(level, values[level], reference) for level in sorted(values))


def _level(row: SweepRow) -> float:
    """3 * 0.1 and 0.3 are one level."""
    return round(float(row.level), 6)


def _point(level: float, values: Sequence[float], reference: Sequence[float] | None) -> CurvePoint:
    mean = float(np.mean(values))
    whole = float(np.mean(reference)) if reference else 0.0
    drop = 100 * (whole - mean) / whole if whole else None
    return CurvePoint(level, mean, float(np.std(values)), drop, len(values))


def _identity(row: SweepRow) -> tuple[object, ...]:
    model = (row.variant, row.split_seed)
    return (row.sweep, _level(row), row.trial, *model, row.data_set, row.subset, row.prompt_seed)


def _row_as_dict(row: SweepRow) -> Mapping[str, Any]:
    figures = {figure: round(row.figures[figure], 4) for figure in FIGURES}
    return {**vars(row), "level": _level(row), "figures": figures}
