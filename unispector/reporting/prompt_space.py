"""The distances between prompts of different classes: angles, and a chart in two dimensions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter

from unispector.errors import DataError
from unispector.evaluation.results import VARIANTS, variant_name
from unispector.ops.directions import (
    Floats,
    Labels,
    angle_between,
    angle_within,
    class_means,
    principal_plane,
    unit_vectors,
)
from unispector.reporting.charts import NAMED_CLASSES, ScatterChart
from unispector.reporting.model import Block, Charts, Section, Table, Text

ANGLE_TEXTS = ("data set", "split seed", "model")
ANGLE_NUMBERS = ("instances", "classes", "angle within a class", "angle between classes")

NOTE = (
    "How far apart a model places the marked defects of unseen classes when it sees them as prompts: mean "
    "angle of two embeddings of a class, and of the means of two classes. Small within a class and large "
    "between classes is what contrastive training (CPE) aims at; in a collapsed prompt space both are small."
)
CHART_NOTE = (
    "Each point is one marked defect: its embedding at unit length, on the plane that keeps most of the "
    "variance (PCA, a plane for each model). Charts of one row have one scale; above "
    f"{NAMED_CLASSES} classes none is named."
)


@dataclass(frozen=True)
class PromptSpace:
    """Prompt embeddings of one data set in figures."""

    class_names: tuple[str, ...]  # the classes that have an instance, in the order given
    labels: tuple[int, ...]  # class of each instance, position in `class_names`
    # (x, y) of each instance: the first two principal components of the embeddings at unit length, so within
    # -2 to 2.
    points: tuple[tuple[float, float], ...]
    explained: tuple[float, float]  # share of the variance along x and along y, 0 to 1
    # Mean angle of two instances of a class, 0 to 180, each class counting alike; None if every class has one
    # instance.
    within_degrees: float | None
    between_degrees: float | None  # mean angle of the means of two classes; None for a single class

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        places = set(range(len(self.class_names)))
        if len(self.labels) != len(self.points) or set(self.labels) != places:
            raise ValueError("a label for each point, and a point for each class")

    @classmethod
    def of(cls, embeddings: npt.ArrayLike, labels: Sequence[int], class_names: Sequence[str]) -> Self:
        """Measure embeddings.

        Args:
            embeddings: [N, D], one per instance, of any length but 0.
            labels: [N] class of each, position in `class_names`.
            class_names: names may have no instance; they are left out.

        Raises:
            DataError: no embedding, one that is zero or not finite, a class whose embeddings cancel out, or
                numbers that do not fit.
        """
        vectors = np.asarray(embeddings, dtype=np.float64)
        given = np.asarray(labels, dtype=np.int64)
        _check(vectors, given, class_names)
        present, renumbered = np.unique(given, return_inverse=True)
        names = tuple(class_names[label] for label in present)
        means = _class_means(vectors, renumbered, names)
        points, explained = principal_plane(unit_vectors(vectors))
        return cls(
            class_names=names,
            labels=tuple(renumbered.tolist()),
            points=tuple((float(x), float(y)) for x, y in points),
            explained=explained,
            within_degrees=angle_within(vectors, renumbered),
            between_degrees=angle_between(means),
        )

    @property
    def reach(self) -> float:
        """Return the half length of a chart's axes that shows all points; 0 if all lie in the middle."""
        return 1.08 * max(abs(value) for point in self.points for value in point)


@dataclass(frozen=True)
class PromptSpaceRecord:
    """The prompt space of one model on one data set."""

    data_set: str
    variant: str  # kind of model, see `results.VARIANTS`
    split_seed: int
    space: PromptSpace

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


def scatter_chart(space: PromptSpace, title: str, reach: float) -> ScatterChart:
    """The points of a space, a colour for each class.

    Args:
        reach: how far the axes go; 0 stands for 1.
    """
    labels = (f"first component ({space.explained[0]:.0%})", f"second component ({space.explained[1]:.0%})")
    return ScatterChart(title, labels, space.points, space.labels, space.class_names, reach or 1.0)


def records_json(records: Sequence[PromptSpaceRecord]) -> str:
    """Records as JSON text, a line each; points and shares to 4 decimals, angles to 3."""
    lines = ",\n".join(json.dumps(_as_dict(record), ensure_ascii=False) for record in records)
    return f'{{"prompt_spaces": [\n{lines}\n]}}\n'


def read_records(path: Path) -> tuple[PromptSpaceRecord, ...]:
    """Read what `records_json` wrote.

    Raises:
        DataError: the file is absent, of another kind, or empty of records.
    """
    again = "run the stage that writes it again"
    try:
        content = TypeAdapter(dict[str, tuple[PromptSpaceRecord, ...]]).validate_json(path.read_bytes())
        records = content["prompt_spaces"]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: not a record of prompt spaces; {again}") from error
    if not records:
        raise DataError(f"{path}: no prompt space in it; {again}")
    return records


def prompt_space_section(records: Sequence[PromptSpaceRecord]) -> Section:
    """Charts of the models beside each other, and their angles.

    Args:
        records: charts of one set and split seed share a row.
    """
    rows = groupby(_ordered(records), key=lambda record: (record.data_set, record.split_seed))
    charts = [_row_of_charts(number, list(group)) for number, (_, group) in enumerate(rows)]
    angles = Table.of(ANGLE_TEXTS, ANGLE_NUMBERS, angle_rows(records))
    plain = [
        {
            "data set": record.data_set,
            "split seed": record.split_seed,
            "model": record.variant,
            "instances": len(record.space.labels),
            "classes": len(record.space.class_names),
            "within_degrees": record.space.within_degrees,
            "between_degrees": record.space.between_degrees,
        }
        for record in records
    ]
    blocks: tuple[Block, ...] = (Text(NOTE, True), *charts, angles)
    return Section("Prompt space", blocks, "prompt-space", plain)


def angle_rows(records: Sequence[PromptSpaceRecord]) -> list[list[str]]:
    """Rows of `ANGLE_TEXTS` and `ANGLE_NUMBERS`."""
    return [
        [
            record.data_set,
            str(record.split_seed),
            variant_name(record.variant),
            str(len(record.space.labels)),
            str(len(record.space.class_names)),
            _degrees(record.space.within_degrees),
            _degrees(record.space.between_degrees),
        ]
        for record in _ordered(records)
    ]


def _check(vectors: Floats, labels: Labels, class_names: Sequence[str]) -> None:
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1] or not vectors.size:
        raise DataError(
            f"embeddings {list(vectors.shape)} with labels {list(labels.shape)}; give [N, D] and [N], N > 0"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(f"labels {labels.min()} to {labels.max()} for {len(class_names)} class names")
    lengths = np.linalg.norm(vectors, axis=1)
    broken = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if broken.size:
        name = class_names[labels[broken[0]]]
        raise DataError(
            f"class {name}: the embedding of instance {broken[0]} is zero or not finite; "
            "train the model again or leave the instance out"
        )


def _class_means(vectors: Floats, labels: Labels, class_names: Sequence[str]) -> Floats:
    means = class_means(vectors, labels)
    cancelled = np.flatnonzero(np.linalg.norm(means, axis=1) == 0)
    if len(means) > 1 and cancelled.size:
        raise DataError(
            f"class {class_names[cancelled[0]]}: its embeddings cancel out, so their mean has no direction; "
            "train the model again or leave the class out"
        )
    return means


def _as_dict(record: PromptSpaceRecord) -> dict[str, Any]:
    space = record.space
    rounded = {
        "points": [[round(x, 4), round(y, 4)] for x, y in space.points],
        "explained": [round(share, 4) for share in space.explained],
        "within_degrees": space.within_degrees and round(space.within_degrees, 3),
        "between_degrees": space.between_degrees and round(space.between_degrees, 3),
    }
    return {**vars(record), "space": {**vars(space), **rounded}}


def _ordered(records: Sequence[PromptSpaceRecord]) -> list[PromptSpaceRecord]:
    """Set by set as given, within a set by split seed, and then by variant in the report's order."""
    sets = list(dict.fromkeys(record.data_set for record in records))
    variants = [*VARIANTS, *sorted({record.variant for record in records} - set(VARIANTS))]
    return sorted(
        records,
        key=lambda record: (sets.index(record.data_set), record.split_seed, variants.index(record.variant)),
    )


def _row_of_charts(number: int, records: Sequence[PromptSpaceRecord]) -> Charts:
    reach = max(record.space.reach for record in records)
    charts = {}
    for record in records:
        title = f"{record.data_set}: {variant_name(record.variant)}, split {record.split_seed}"
        charts[f"prompts-{number}-{record.variant}"] = scatter_chart(record.space, title, reach)
    return Charts(charts, note=CHART_NOTE if number == 0 else "")


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{angle:.1f}°"
