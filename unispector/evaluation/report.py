"""The evaluation as a table for the terminal and as a Markdown page."""

from itertools import groupby
from typing import TYPE_CHECKING

from unispector.evaluation.results import (
    MAIN_VARIANT,
    SUBSETS,
    VARIANTS,
    EvaluationReport,
    Spread,
    Subset,
    Summary,
    class_scores,
    mean_over_sets,
)
from unispector.evaluation.tables import escaped, markdown_table

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: tuple[tuple[str, Subset, str], ...] = (
    ("unseen, boxes", "unseen", "bbox.AP50"),
    ("unseen, masks", "unseen", "segm.AP50"),
    ("seen, boxes", "seen", "bbox.AP50"),
    ("seen, masks", "seen", "segm.AP50"),
)
"""Figures of the result table: heading, subset and figure."""

CLASS_TEXTS, CLASS_NUMBERS = ("data set", "class", "subset"), ("boxes", "masks")

HOW_MEASURED = (
    "AP50 in percent by pycocotools, over all target images of a set; all of its prompted classes are looked "
    "for in one pass, and a class counts in the mean if the targets show it. No prompt image is a target. "
    "Unseen classes took no part in training. Figures are the mean and, after ±, the standard deviation over "
    "the trained models (split seeds) and the draws of prompts. Base is the ablation: the same recipe "
    "without what UniSpector adds (spectral branch, aligner, CPE, PQS, prompts that queries see). Untrained "
    "is UniSpector before its first step."
)


def table_rows(report: EvaluationReport) -> list[tuple[str, str, str, list[str]]]:
    """Rows of the result table, set by set; with several sets, their mean at the end.

    Returns:
        (data set, variant, seeds of its models, one text per column of `COLUMNS`).
    """
    summaries = {variant: report.summaries(variant) for variant in report.variants}
    rows = []
    for data_set in report.data_sets:
        for variant, all_sets in summaries.items():
            of_set = {summary.subset: summary for summary in all_sets if summary.data_set == data_set}
            if of_set:
                seeds = ", ".join(str(seed) for seed in next(iter(of_set.values())).split_seeds)
                rows.append((data_set, variant, seeds, [_cell(of_set, *column[1:]) for column in COLUMNS]))
    if len(report.data_sets) > 1:
        for variant, all_sets in summaries.items():
            means = [mean_over_sets(all_sets, subset, figure) for _, subset, figure in COLUMNS]
            rows.append(("mean of the sets", variant, "", ["-" if v is None else f"{v:.1f}" for v in means]))
    return rows


def variant_name(variant: str) -> str:
    """How the report calls a kind of model."""
    return VARIANTS.get(variant, variant)


def shown_spread(spread: Spread, rows: int) -> str:
    """`41.2 ± 3.1`, or `41.2` for a single evaluation."""
    return f"{spread.mean:.1f} ± {spread.deviation:.1f}" if rows > 1 else f"{spread.mean:.1f}"


def class_rows(report: EvaluationReport) -> list[list[str]]:
    """The main variant's AP50 in percent: rows of `CLASS_TEXTS` and `CLASS_NUMBERS`."""
    main = [row for row in report.rows if row.variant == MAIN_VARIANT]
    masks = class_scores(main, "segm.AP50")
    return [
        [data_set, name, SUBSETS[subset], f"{boxes:.1f}", f"{masks[data_set, subset, name]:.1f}"]
        for (data_set, subset, name), boxes in class_scores(main, "bbox.AP50").items()
    ]


def unfair_seeds(report: EvaluationReport) -> EvaluationReport | None:
    """The report on the seeds all variants share, where the variants' seeds differ; else None."""
    shared = report.on_shared_seeds()
    return shared if 0 < len(shared.rows) < len(report.rows) else None


def terminal_table(report: EvaluationReport) -> "Table":
    """The result table for a rich console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="AP50 in percent, mean ± standard deviation",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for heading, _, _ in COLUMNS:
        table.add_column(heading.replace(", ", "\n"), justify="right", no_wrap=True)
    for data_set, rows in groupby(table_rows(report), key=lambda row: row[0]):
        table.add_row(Text(data_set, style="bold"))
        for _, variant, _, cells in rows:
            style = "bold green" if variant == MAIN_VARIANT else None
            table.add_row(f"  {variant_name(variant)}", *cells, style=style)
        table.add_section()
    return table


def markdown(report: EvaluationReport, ui_command: str) -> str:
    """The report as a Markdown page; pictures are linked relative to the report's folder.

    Args:
        report: all evaluations.
        ui_command: shell command that opens the experiment store.
    """
    lines = ["# UniSpector evaluation", "", HOW_MEASURED, "", *_markdown_results(report)]
    if shared := unfair_seeds(report):
        lines += ["", "## On the same seeds", "", *_markdown_results(shared)]
    lines += ["", "## By class", "", f"{variant_name(MAIN_VARIANT)}, AP50.", ""]
    lines += markdown_table(CLASS_TEXTS, CLASS_NUMBERS, class_rows(report))
    if report.pictures:
        lines += ["", "## Pictures", "", "Prompt, ground truth, prediction; the images are chosen by lot."]
        for picture in report.pictures:
            title = escaped(f"{picture.data_set}, {SUBSETS[picture.subset]}: {', '.join(picture.classes)}")
            lines += ["", f"**{title}**", "", f"![{title}](<{picture.file}>)"]
    lines += [
        "",
        "## Runs",
        "",
        "Parameters, curves, tables and pictures of every model:",
        "",
        f"    {ui_command}",
    ]
    return "\n".join(lines) + "\n"


def _cell(of_set: dict[Subset, Summary], subset: Subset, figure: str) -> str:
    if subset not in of_set:
        return "-"
    return shown_spread(of_set[subset].figures[figure], of_set[subset].rows)


def _markdown_results(report: EvaluationReport) -> list[str]:
    rows = [
        [data_set, variant_name(variant), seeds, *cells]
        for data_set, variant, seeds, cells in table_rows(report)
    ]
    return markdown_table(("data set", "model", "seeds"), [column[0] for column in COLUMNS], rows)
