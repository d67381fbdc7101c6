"""Sections of the report on what was measured: results, false alarms, sizes and classes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from unispector.evaluation.intervals import Interval
from unispector.evaluation.results import (
    FIGURES,
    MAIN_VARIANT,
    SUBSETS,
    EvaluationReport,
    EvaluationRow,
    Subset,
    class_scores,
    variant_name,
)
from unispector.reporting.charts import IntervalChart
from unispector.reporting.measured import mean_over_sets, measured, spread_of
from unispector.reporting.model import (
    Block,
    Cell,
    Charts,
    Column,
    Fold,
    Measured,
    Row,
    Section,
    Subheading,
    Table,
    Text,
    counted,
)

MEAN_ROW = "mean of the sets"
AP50_COLUMNS: tuple[tuple[str, Subset, str], ...] = (
    ("unseen, boxes", "unseen", "bbox.AP50"),
    ("unseen, masks", "unseen", "segm.AP50"),
    ("seen, boxes", "seen", "bbox.AP50"),
    ("seen, masks", "seen", "segm.AP50"),
)
"""Figures of the result table: heading, subset and figure."""

ALL_COLUMNS: tuple[tuple[str, Subset, str], ...] = tuple(
    (f"{'boxes' if figure.startswith('bbox') else 'masks'}, {figure.split('.')[1]}", "unseen", figure)
    for figure in FIGURES
)
"""Every figure of the unseen classes."""

SIZES = {"small": "below 1/300", "medium": "to 3 %", "large": "above 3 %"}
"""Bins of an instance's share of its image."""

_MODEL = ("data set", "model")
_KINDS = {"bbox": "boxes", "segm": "masks"}


def unfair_seeds(report: EvaluationReport) -> EvaluationReport | None:
    """The report on the seeds all variants share, where the variants' seeds differ; else None."""
    shared = report.on_shared_seeds()
    return shared if 0 < len(shared.rows) < len(report.rows) else None


def result_rows(
    report: EvaluationReport, columns: tuple[tuple[str, Subset, str], ...] = AP50_COLUMNS
) -> Iterator[Row]:
    """Set by set and variant by variant; with several sets, their mean at the end.

    Yields:
        Cells: data set, the model's name (with its seeds where the models' differ), and a figure or None
        per column.
    """
    names = _model_names(report)

    def cells(variant: str, data_set: str) -> list[Measured | None]:
        groups = {subset: report.rows_of(variant, data_set, subset) for subset in SUBSETS}
        if not any(groups.values()):
            return []
        return [measured(groups[subset], figure) for _, subset, figure in columns]

    return _set_rows(names, report.data_sets, cells)


def _set_rows(
    names: dict[str, str],
    data_sets: Sequence[str],
    cells: Callable[[str, str], Sequence[Cell]],
    least: int = 1,
) -> Iterator[Row]:
    """Set by set and model by model; with several sets the means of what was measured at the end.

    Args:
        cells: of a variant on a set; empty = no row.
        least: sets of a variant that make a mean.
    """
    found: dict[str, list[Sequence[Cell]]] = {variant: [] for variant in names}
    for data_set in data_sets:
        for variant, name in names.items():
            if own := cells(variant, data_set):
                found[variant].append(own)
                yield Row((data_set, name, *own), variant == MAIN_VARIANT)
    for variant, name in names.items():
        if len(data_sets) > 1 and len(found[variant]) >= least:
            means = map(_mean, zip(*found[variant], strict=True))
            yield Row((MEAN_ROW, name, *means), variant == MAIN_VARIANT)


def _mean(column: Iterable[Cell]) -> Measured | None:
    return mean_over_sets(cell for cell in column if isinstance(cell, Measured))


def split_seeds(report: EvaluationReport, variant: str) -> str:
    """Seeds of a variant's models: `42, 82`."""
    return ", ".join(map(str, sorted({row.split_seed for row in report.rows if row.variant == variant})))


def _names(report: EvaluationReport) -> dict[str, str]:
    return {variant: variant_name(variant) for variant in report.variants}


def _model_names(report: EvaluationReport) -> dict[str, str]:
    seeds = {variant: split_seeds(report, variant) for variant in report.variants}
    if len(set(seeds.values())) == 1:
        return _names(report)
    return {variant: f"{variant_name(variant)} ({own})" for variant, own in seeds.items()}


def _results_charts(report: EvaluationReport) -> Charts:
    def point(variant: str, data_set: str, figure: str) -> tuple[float, float, float] | None:
        found = measured(report.rows_of(variant, data_set, "unseen"), figure)
        if found is None:
            return None
        interval = found.interval or Interval(found.mean, found.mean)
        return interval.low, found.mean, interval.high

    def chart(title: str, figure: str) -> IntervalChart:
        series = {
            name: tuple(point(variant, data_set, figure) for data_set in report.data_sets)
            for variant, name in _names(report).items()
        }
        return IntervalChart(f"{title}, AP50 of unseen classes", tuple(report.data_sets), series)

    return Charts(
        {"results-boxes": chart("Boxes", "bbox.AP50"), "results-masks": chart("Masks", "segm.AP50")}
    )


def results_section(report: EvaluationReport) -> Section:
    """AP50 of seen and unseen classes, with everything else about them folded."""
    note = "AP50 in percent: mean ± standard deviation over models and draws of prompts."
    if any(row.intervals for row in report.rows):
        note += (
            " The range with it is the 95 % interval of one evaluation under other draws of its test images "
            "(bootstrap), averaged over the evaluations; in the last rows it is that of the mean."
        )
    blocks: list[Block] = [
        Text(note, True),
        _results_charts(report),
        _result_table("AP50", report, AP50_COLUMNS),
    ]
    if shared := unfair_seeds(report):
        fair = (
            "The models compared were not trained on the same number of splits; this is the fair comparison."
        )
        table = _result_table("AP50 on the same seeds", shared, AP50_COLUMNS)
        blocks += [Subheading("On the same seeds"), Text(fair, True), table]
    every = _result_table("every figure", report, ALL_COLUMNS)
    blocks.append(Fold("AP, AP50 and AP75 of the unseen classes", (every,)))
    return Section("Results", tuple(blocks), "results")


def _result_table(key: str, report: EvaluationReport, columns: tuple[tuple[str, Subset, str], ...]) -> Table:
    return Table.of(_MODEL, (heading for heading, _, _ in columns), result_rows(report, columns), key)


def alarm_section(report: EvaluationReport) -> Section:
    """False alarms on defect-free images, and AP50 by size."""
    return Section("What AP cannot see", (*_alarm_blocks(report), *_size_blocks(report)), "alarms")


def _alarm_blocks(report: EvaluationReport) -> Iterator[Block]:
    yield Subheading("False alarms")
    with_good = [
        name for name in report.data_sets if any(row.alarms for row in report.rows if row.data_set == name)
    ]
    if with_good:
        found = [row.alarms for row in report.rows if row.alarms]
        score = " or ".join(f"{score:g}" for score in sorted({alarms.score for alarms in found}))
        rate = " or ".join(f"{rate:g}" for rate in sorted({alarms.rate for alarms in found}))
        yield Text(
            "Images of good parts, with every class of the set prompted. An alarm is a detection with a "
            f"score of at least {score}; then, with the threshold set so that there are at most {rate} "
            "alarms per good image, the share of the defects that are still found at IoU 0.5, in percent.",
            True,
        )
        alarms = Column(f"alarms per image, score ≥ {score}", 2)
        columns = ("good images", alarms, Column(f"threshold for {rate}", 3), "boxes found", "masks found")
        for subset, title in SUBSETS.items():
            rows = _alarm_rows(report, with_good, subset)
            table = Table.of(_MODEL, columns, rows, f"false alarms, {title}")
            if table.rows:
                yield table if subset == "unseen" else Fold(f"Prompted with {title}", (table,))
    if without := [name for name in report.data_sets if name not in with_good]:
        verb = "has" if len(without) == 1 else "have"
        yield Text(
            f"No defect-free images to raise a false alarm on: {', '.join(without)} {verb} none.", True
        )


_ALARM_FIGURES = ("good_images", "false_alarms", "threshold", "recall_boxes", "recall_masks")


def _alarm_rows(report: EvaluationReport, data_sets: list[str], subset: Subset) -> Iterator[Row]:
    def cells(variant: str, data_set: str) -> list[Cell]:
        rows = [row for row in report.rows_of(variant, data_set, subset) if row.alarms]
        if not rows:
            return []
        good, alarms, threshold, *found = (
            spread_of(getattr(row.alarms, name) for row in rows) for name in _ALARM_FIGURES
        )
        return [good and round(good.mean), alarms, threshold and threshold.mean, *found]

    return _set_rows(_names(report), data_sets, cells)


def _size_blocks(report: EvaluationReport) -> Iterator[Block]:
    yield Subheading("Results by size of the defect")
    yield Text(
        "AP50 in percent. By an instance's share of its image: small is "
        f"{SIZES['small']}, medium {SIZES['medium']}, large {SIZES['large']}; of masks the mask's area, of "
        "boxes the box's.",
        True,
    )
    columns = [f"{things}, {size}" for things in _KINDS.values() for size in SIZES]
    for subset, title in SUBSETS.items():
        table = Table.of(_MODEL, columns, _size_rows(report, subset), f"AP50 by size, {title}")
        if table.rows:
            yield table if subset == "unseen" else Fold(title.capitalize(), (table,))
    counts = Table.of(("data set", "subset"), columns, _count_rows(report), "instances by size")
    yield Fold("Instances of each size", (counts,))


def _size_rows(report: EvaluationReport, subset: Subset) -> Iterator[Row]:
    def cells(variant: str, data_set: str) -> list[Measured | None]:
        rows = report.rows_of(variant, data_set, subset)
        return _by_size(rows, "AP50") if rows else []

    return _set_rows(_names(report), report.data_sets, cells, least=2)


def _count_rows(report: EvaluationReport) -> Iterator[tuple[Cell, ...]]:
    """Instances in an evaluation; draws of prompts leave about as many, so the mean is shown."""
    for data_set in report.data_sets:
        for subset, title in SUBSETS.items():
            if rows := [row for row in report.rows if (row.data_set, row.subset) == (data_set, subset)]:
                counts = _by_size(rows, "instances")
                yield (data_set, title, *(0 if count is None else round(count.mean) for count in counts))


def _by_size(rows: Sequence[EvaluationRow], name: str) -> list[Measured | None]:
    """A number of boxes in `SIZES`, then of masks."""
    bins = [[getattr(row.metrics, kind).by_size for row in rows] for kind in _KINDS]
    return [
        spread_of(found and getattr(found, name) for found in (by_size[size] for by_size in of_kind))
        for of_kind in bins
        for size in SIZES
    ]


def class_section(report: EvaluationReport) -> Section:
    """The main variant's AP50 of every class, a fold for each set."""
    main = [row for row in report.rows if row.variant == MAIN_VARIANT]
    boxes, masks = class_scores(main, "bbox.AP50"), class_scores(main, "segm.AP50")
    instances = class_scores(main, "bbox.instances")
    folds = []
    for data_set in dict.fromkeys(key[0] for key in boxes):
        keys = [key for key in boxes if key[0] == data_set]
        rows = [(key[2], SUBSETS[key[1]], round(instances[key]), boxes[key], masks[key]) for key in keys]
        table = Table.of(("class", "subset"), ("instances", "boxes", "masks"), rows, data_set)
        values = [boxes[key] for key in keys]
        spread = f"boxes {min(values):.1f} to {max(values):.1f}"
        summary = f"{data_set}: {counted(len(keys), 'class', 'classes')}, {spread}"
        folds.append(Fold(summary, (table,)))
    note = f"{variant_name(MAIN_VARIANT)}, AP50 in percent, mean over models and draws of prompts."
    return Section("By class", (Text(note, True), *folds), "classes")
