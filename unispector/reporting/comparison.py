"""The report's section that puts what was measured beside what is published."""

from collections.abc import Iterator, Sequence

from unispector.evaluation.results import MAIN_VARIANT, EvaluationReport, variant_name
from unispector.reporting.measured import mean_of_report, measured
from unispector.reporting.model import (
    Block,
    BoxesMasks,
    Cell,
    Fold,
    Measured,
    Row,
    Section,
    Subheading,
    Table,
    Text,
)
from unispector.reporting.published import (
    ABLATION,
    ABLATION_SET,
    IN_CONTEXT,
    MAIN_TABLE,
    PUBLISHED_SETS,
    RESULTS_SOURCE,
    PublishedMethod,
)
from unispector.reporting.result_sections import unfair_seeds

_ABLATION_FIGURES = ("bbox.AP", "bbox.AP50", "bbox.AP75", "segm.AP", "segm.AP50")
_ABLATION_COLUMNS = ("boxes, AP", "boxes, AP50", "boxes, AP75", "masks, AP", "masks, AP50")


def comparison_section(report: EvaluationReport) -> Section:
    """The published tables, with this run's rows where a set bears its published name."""
    shared = [name for name in PUBLISHED_SETS if name in report.data_sets]
    source = f"Published figures: {RESULTS_SOURCE}."
    columns = (*PUBLISHED_SETS, "mean")
    rows = (*map(_published_row, MAIN_TABLE), *_own_rows(report, shared))
    main = Table.of(("method",), columns, rows, "main")
    others = Table.of(("method",), columns, map(_published_row, IN_CONTEXT), "in-context")
    blocks: list[Block] = []
    if shared:
        blocks += [Text(f"{_COMPARABLE} {_LEGEND} {source}", True), main]
    else:
        blocks += [
            Text(f"{_NOT_COMPARABLE.format(sets=', '.join(report.data_sets))} {source}", True),
            Fold("The published main table", (Text(_LEGEND, True), main)),
        ]
    blocks.append(Fold("Published in-context methods", (others,)))
    blocks += _ablation_blocks(report)
    return Section("Beside the published", tuple(blocks), "published")


_LEGEND = (
    "AP50 in percent of unseen classes, boxes / masks. † = trained on the benchmark's seen classes; the "
    "others as they were released."
)
_COMPARABLE = (
    "The same data sets. Splits and draws of prompts are this project's, unless split.official names the "
    "published ones; size of model, images and training are those of params.yaml, not the published ones."
)
_NOT_COMPARABLE = (
    "The sets of this run ({sets}) are not those the published figures were measured on. The embedded mini "
    "sets are drawn, not photographed: their figures cannot be compared with the published ones, which are "
    "folded here for reference."
)


def _published_row(method: PublishedMethod) -> Row:
    name = f"{method.name} †" if method.tuned else method.name
    return Row((name, *method.sets, method.mean))


def _own_rows(report: EvaluationReport, shared: Sequence[str]) -> Iterator[Row]:
    for variant in report.variants if shared else ():
        pairs = [_own_pair(report, variant, name) for name in PUBLISHED_SETS]
        name = f"{variant_name(variant)}, this run"
        yield Row((name, *pairs, _mean_pair(pairs)), variant == MAIN_VARIANT)


def _own_pair(report: EvaluationReport, variant: str, data_set: str) -> BoxesMasks | None:
    rows = report.rows_of(variant, data_set, "unseen")
    boxes, masks = measured(rows, "bbox.AP50"), measured(rows, "segm.AP50")
    return BoxesMasks(boxes.mean, masks.mean) if boxes and masks else None


def _mean_pair(pairs: Sequence[BoxesMasks | None]) -> BoxesMasks | None:
    """The mean over all published sets; None where one was not measured."""
    boxes = [pair.boxes for pair in pairs if pair and pair.boxes is not None]
    masks = [pair.masks for pair in pairs if pair and pair.masks is not None]
    if min(len(boxes), len(masks)) < len(PUBLISHED_SETS):
        return None
    return BoxesMasks(sum(boxes) / len(boxes), sum(masks) / len(masks))


def _ablation_blocks(report: EvaluationReport) -> tuple[Block, ...]:
    fair = unfair_seeds(report) or report
    on_it = ABLATION_SET in fair.data_sets
    where = ABLATION_SET if on_it else f"mean of {len(fair.data_sets)} sets"
    if len(fair.data_sets) == 1:
        where = fair.data_sets[0]
    rows = [Row(("published", ABLATION_SET, line.components, *line.boxes, *line.masks)) for line in ABLATION]
    for variant in reversed(fair.variants):
        figures = _own_ablation(fair, variant, on_it)
        rows.append(Row(("this run", where, variant_name(variant), *figures), variant == MAIN_VARIANT))
    note = (
        "What the parts add, on unseen classes: spectral branch (SSPE), contrastive prompts (CPE) and "
        "prompt-guided queries (PQS). Base is this project's detector without any of them, Untrained is "
        "UniSpector before its first step."
    )
    if not on_it:
        note += " Only the order of the lines can be compared, as the data sets differ."
    table = Table.of(("", "data set", "model"), _ABLATION_COLUMNS, rows, "ablation")
    return (Subheading("Ablation"), Text(note, True), table)


def _own_ablation(report: EvaluationReport, variant: str, on_it: bool) -> list[Cell]:
    figures: list[Measured | None]
    if on_it:
        rows = report.rows_of(variant, ABLATION_SET, "unseen")
        figures = [measured(rows, figure) for figure in _ABLATION_FIGURES]
    else:
        figures = [mean_of_report(report, variant, "unseen", figure) for figure in _ABLATION_FIGURES]
    return [figure and Measured(figure.mean, figure.deviation) for figure in figures]
