"""Sections of the report on what was measured: results, false alarms, sizes and classes."""

from collections.abc import Callable, Iterator

from unispector.evaluation.alarms import AlarmFigures
from unispector.evaluation.results import (
    FIGURES,
    MAIN_VARIANT,
    SUBSETS,
    VARIANTS,
    EvaluationReport,
    EvaluationRow,
    Subset,
    class_scores,
)
from unispector.reporting.content import (
    Block,
    Cell,
    Column,
    Drawing,
    Fold,
    Measured,
    Row,
    Section,
    Subheading,
    Table,
    Text,
    counted,
)
from unispector.reporting.measured import (
    mean_of_report,
    mean_over_sets,
    measured,
    measured_values,
    rows_of,
)
from unispector.reporting.results_chart import results_chart

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

_KINDS = {"bbox": "boxes", "segm": "masks"}


def variant_name(variant: str) -> str:
    """How the report calls a kind of model."""
    return VARIANTS.get(variant, variant)


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
    for data_set in report.data_sets:
        for variant, name in names.items():
            groups = {s: rows_of(report, variant, data_set, s) for s in SUBSETS}
            if any(groups.values()):
                cells = (measured(groups[subset], figure) for _, subset, figure in columns)
                yield Row((data_set, name, *cells), variant == MAIN_VARIANT)
    if len(report.data_sets) > 1:
        for variant, name in names.items():
            means = (mean_of_report(report, variant, subset, figure) for _, subset, figure in columns)
            yield Row((MEAN_ROW, name, *means), variant == MAIN_VARIANT)


def split_seeds(report: EvaluationReport, variant: str) -> str:
    """Seeds of a variant's models: `42, 82`."""
    return ", ".join(map(str, sorted({row.split_seed for row in report.rows if row.variant == variant})))


def _model_names(report: EvaluationReport) -> dict[str, str]:
    seeds = {variant: split_seeds(report, variant) for variant in report.variants}
    if len(set(seeds.values())) == 1:
        return {variant: variant_name(variant) for variant in seeds}
    return {variant: f"{variant_name(variant)} ({own})" for variant, own in seeds.items()}


def results_section(report: EvaluationReport) -> Section:
    """AP50 of seen and unseen classes, with everything else about them folded."""
    has_intervals = any(row.intervals for row in report.rows)
    intervals = (
        " The range with it is the 95 % interval of one evaluation under other draws of its test images "
        "(bootstrap), averaged over the evaluations; in the last rows it is that of the mean."
        if has_intervals
        else ""
    )
    blocks: list[Block] = [
        Text(
            f"AP50 in percent: mean ± standard deviation over models and draws of prompts.{intervals}", True
        ),
        Drawing(results_chart(report, {v: variant_name(v) for v in report.variants})),
        _result_table("AP50", report, AP50_COLUMNS),
    ]
    if shared := unfair_seeds(report):
        note = (
            "The models compared were not trained on the same number of splits; this is the fair comparison."
        )
        blocks += [
            Subheading("On the same seeds"),
            Text(note, True),
            _result_table("AP50 on the same seeds", shared, AP50_COLUMNS),
        ]
    every = _result_table("every figure", report, ALL_COLUMNS)
    blocks.append(Fold("AP, AP50 and AP75 of the unseen classes", (every,)))
    return Section("results", "Results", tuple(blocks))


def _result_table(key: str, report: EvaluationReport, columns: tuple[tuple[str, Subset, str], ...]) -> Table:
    headings = tuple(Column(heading) for heading, _, _ in columns)
    return Table(key, ("data set", "model"), headings, tuple(result_rows(report, columns)))


def alarm_section(report: EvaluationReport) -> Section:
    """False alarms on defect-free images, and AP50 by size."""
    return Section("alarms", "What AP cannot see", (*_alarm_blocks(report), *_size_blocks(report)))


def _alarm_blocks(report: EvaluationReport) -> Iterator[Block]:
    yield Subheading("False alarms")
    with_good = [name for name in report.data_sets if _has_good_images(report, name)]
    without = [name for name in report.data_sets if name not in with_good]
    if with_good:
        yield Text(_alarm_note(report), True)
        for subset, title in SUBSETS.items():
            rows = tuple(_alarm_rows(report, with_good, subset))
            table = Table(f"false alarms, {title}", ("data set", "model"), _alarm_columns(report), rows)
            if rows:
                yield table if subset == "unseen" else Fold(f"Prompted with {title}", (table,))
    if without:
        verb = "has" if len(without) == 1 else "have"
        yield Text(
            f"No defect-free images to raise a false alarm on: {', '.join(without)} {verb} none.", True
        )


def _has_good_images(report: EvaluationReport, data_set: str) -> bool:
    return any(row.alarms for row in report.rows if row.data_set == data_set)


def _alarm_note(report: EvaluationReport) -> str:
    scores, rates = _alarm_settings(report)
    return (
        "Pictures of good parts, with every class of the set prompted. An alarm is a detection with a score "
        f"of at least {scores}; then, with the threshold set so that there are at most {rates} alarms per "
        "good picture, the share of the defects that are still found at IoU 0.5, in percent."
    )


def _alarm_settings(report: EvaluationReport) -> tuple[str, str]:
    alarms = [row.alarms for row in report.rows if row.alarms]
    scores = sorted({figures.score for figures in alarms})
    rates = sorted({figures.rate for figures in alarms})
    return " or ".join(f"{score:g}" for score in scores), " or ".join(f"{rate:g}" for rate in rates)


def _alarm_columns(report: EvaluationReport) -> tuple[Column, ...]:
    score, rate = _alarm_settings(report)
    return (
        Column("good images", 0),
        Column(f"alarms per image, score ≥ {score}", 2),
        Column(f"threshold for {rate}", 3),
        Column("boxes found", 1),
        Column("masks found", 1),
    )


_ALARM_FIGURES = ("good_images", "false_alarms", "threshold", "recall_boxes", "recall_masks")


def _alarm_rows(report: EvaluationReport, data_sets: list[str], subset: Subset) -> Iterator[Row]:
    means: dict[str, list[list[Measured | None]]] = {variant: [] for variant in report.variants}
    for data_set in data_sets:
        for variant in report.variants:
            rows = [row for row in rows_of(report, variant, data_set, subset) if row.alarms]
            if rows:
                figures = [_alarm_figure(rows, name) for name in _ALARM_FIGURES]
                means[variant].append(figures)
                good, alarms, threshold, *found = figures
                shown: tuple[Cell, ...] = (good and round(good.mean), alarms, threshold and threshold.mean)
                yield Row((data_set, variant_name(variant), *shown, *found), variant == MAIN_VARIANT)
    for variant, of_sets in means.items():
        if len(data_sets) > 1 and of_sets:
            _, alarms, _, boxes, masks = (mean_over_sets(column) for column in zip(*of_sets, strict=True))
            names = (MEAN_ROW, variant_name(variant))
            yield Row((*names, None, alarms, None, boxes, masks), variant == MAIN_VARIANT)


def _alarm_figure(rows: list[EvaluationRow], name: str) -> Measured | None:
    def value(row: EvaluationRow) -> float | None:
        alarms: AlarmFigures | None = row.alarms
        return None if alarms is None else float(getattr(alarms, name))

    return measured_values(rows, value)


def _size_blocks(report: EvaluationReport) -> Iterator[Block]:
    yield Subheading("Results by size of the defect")
    yield Text(
        "AP50 in percent. By an instance's share of its image: small is "
        f"{SIZES['small']}, medium {SIZES['medium']}, large {SIZES['large']}; of masks the mask's area, of "
        "boxes the box's.",
        True,
    )
    columns = tuple(Column(f"{things}, {size}") for things in _KINDS.values() for size in SIZES)
    counts = tuple(Column(column.title, 0) for column in columns)
    for subset, title in SUBSETS.items():
        rows = tuple(_size_rows(report, subset))
        if rows:
            table = Table(f"AP50 by size, {title}", ("data set", "model"), columns, rows)
            yield table if subset == "unseen" else Fold(title.capitalize(), (table,))
    of_sets = tuple(_count_rows(report))
    yield Fold(
        "Instances of each size", (Table("instances by size", ("data set", "subset"), counts, of_sets),)
    )


def _size_rows(report: EvaluationReport, subset: Subset) -> Iterator[Row]:
    means: dict[str, list[list[Measured | None]]] = {variant: [] for variant in report.variants}
    for data_set in report.data_sets:
        for variant in report.variants:
            if rows := rows_of(report, variant, data_set, subset):
                figures = _by_size(rows, "AP50")
                means[variant].append(figures)
                yield Row((data_set, variant_name(variant), *figures), variant == MAIN_VARIANT)
    for variant, of_sets in means.items():
        if len(of_sets) > 1:
            sizes = (mean_over_sets(column) for column in zip(*of_sets, strict=True))
            yield Row((MEAN_ROW, variant_name(variant), *sizes), variant == MAIN_VARIANT)


def _count_rows(report: EvaluationReport) -> Iterator[Row]:
    """Instances in an evaluation; draws of prompts leave about as many, so the mean is shown."""
    for data_set in report.data_sets:
        for subset, title in SUBSETS.items():
            rows = [row for row in report.rows if (row.data_set, row.subset) == (data_set, subset)]
            if rows:
                counts = _by_size(rows, "instances")
                whole = (0 if count is None else round(count.mean) for count in counts)
                yield Row((data_set, title, *whole))


def _by_size(rows: list[EvaluationRow], name: str) -> list[Measured | None]:
    """A number of boxes in `SIZES`, then of masks."""

    def of(kind: str, size: str) -> Callable[[EvaluationRow], float | None]:
        def value(row: EvaluationRow) -> float | None:
            found = getattr(row.metrics, kind).by_size[size]
            return None if found is None else float(getattr(found, name))

        return value

    return [measured_values(rows, of(kind, size)) for kind in _KINDS for size in SIZES]


def class_section(report: EvaluationReport) -> Section:
    """The main variant's AP50 of every class, a fold for each set."""
    main = [row for row in report.rows if row.variant == MAIN_VARIANT]
    boxes, masks = class_scores(main, "bbox.AP50"), class_scores(main, "segm.AP50")
    instances = class_scores(main, "bbox.instances")
    folds = []
    for data_set in dict.fromkeys(key[0] for key in boxes):
        keys = [key for key in boxes if key[0] == data_set]
        rows = tuple(
            Row((key[2], SUBSETS[key[1]], round(instances[key]), boxes[key], masks[key])) for key in keys
        )
        numbers = (Column("instances", 0), Column("boxes"), Column("masks"))
        values = [boxes[key] for key in keys]
        spread = f"boxes {min(values):.1f} to {max(values):.1f}"
        summary = f"{data_set}: {counted(len(keys), 'class', 'classes')}, {spread}"
        folds.append(Fold(summary, (Table(data_set, ("class", "subset"), numbers, rows),)))
    note = f"{variant_name(MAIN_VARIANT)}, AP50 in percent, mean over models and draws of prompts."
    return Section("classes", "By class", (Text(note, True), *folds))
