"""Reports of sets measured one class at a time, as Markdown and as plain numbers for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, get_args

from unispector.evaluation.one_class import DetectorFigures, Figure, OneClassReport, ScoreBin
from unispector.evaluation.results import Spread
from unispector.reporting.tables import escaped, markdown_table

NOTHING = "-"
MARKS = {"box": "boxes", "mask": "masks"}


def one_class_markdown(report: OneClassReport) -> str:
    """The report as a page; pictures are linked relative to its folder."""
    lines = [
        f"# {escaped(report.data_set)}, one class at a time",
        "",
        *protocol_lines(report, MARKS[report.roi]),
    ]
    lines += ["", "## AP50", "", *ap50_table([report])]
    for figures in report.detectors:
        lines += ["", f"## Beside AP50: {escaped(figures.name)}", "", *_class_table(figures)]
    lines += ["", "## How far a score can be trusted", "", *reliability_table(report.detectors)]
    if report.skipped:
        left_out = [f"- {escaped(skipped.class_name)}: {skipped.reason}" for skipped in report.skipped]
        lines += ["", "## Classes left out", "", *left_out]
    if report.pictures:
        lines += ["", "## Failures", ""]
    for picture in report.pictures:
        title = escaped(f"{picture.class_name}, {picture.image}: {picture.note}")
        lines += [title, "", f"![{title}](<{picture.file}>)", ""]
    return "\n".join(lines).rstrip() + "\n"


def protocol_lines(report: OneClassReport, marks: str) -> list[str]:
    """What was done, as bullets: prompts, targets and whether they were capped, defect-free images.

    Args:
        report: a measurement.
        marks: what the instances of prompts are marked by.
    """
    rows = report.detectors[0].rows
    seeds = dict.fromkeys(row.prompt_seed for row in rows)
    more = dict.fromkeys(row.class_name for row in rows if row.possible_targets > row.targets)
    classes = len(report.detectors[0].class_names)
    capped = (
        f"capped at {report.target_limit} a class, by lot: {len(more)} of {classes} classes have more"
        if more
        else f"not capped: no class has more than {report.target_limit}"
    )
    return [
        f"- Prompts: up to {report.prompt_images} images a class, all instances of the class on them marked "
        f"by {marks}; prompt seeds {', '.join(map(str, seeds))}. The class is looked for alone.",
        f"- Targets: other images that show the class, {capped}.",
        f"- Defect-free images: {report.good_images or 'none'}.",
        "- AP50 in percent; ± is the standard deviation over the prompt seeds.",
    ]


def ap50_table(reports: Sequence[OneClassReport]) -> list[str]:
    """Classes against detectors, boxes / masks, as Markdown lines.

    Args:
        reports: of one set, with the same classes: one for each kind of prompt.
    """
    columns = [(report, figures) for report in reports for figures in report.detectors]
    heads = [f"{figures.name}, {MARKS[report.roi]} as prompts" for report, figures in columns]
    first = columns[0][1]
    rows = [
        [name, _targets(first, name), *(_both(figures, name) for _, figures in columns)]
        for name in first.class_names
    ]
    rows.append(["mean", "", *(_both(figures, None) for _, figures in columns)])
    kinds = "boxes" if first.mean("mask_ap50") is None else "boxes / masks"
    return markdown_table([f"class ({kinds})"], ["targets", *map(escaped, heads)], rows)


def summary_table(reports: Sequence[OneClassReport]) -> list[str]:
    """A line a detector and kind of prompt: what AP50 does not say, as Markdown lines."""
    rows = [
        [
            figures.name,
            MARKS[report.roi],
            *(number(figures.mean(figure)) for figure in ("box_fit_50", "box_fit_80")),
            _alarms(figures),
            f"{figures.seconds:.2f}",
        ]
        for report in reports
        for figures in report.detectors
    ]
    heads = [
        "own box given back, IoU 0.5, %",
        "IoU 0.8, %",
        "false alarms an image at half of the defects",
        "CPU s an image",
    ]
    return markdown_table(["detector", "prompts"], heads, rows)


def reliability_table(detectors: Sequence[DetectorFigures]) -> list[str]:
    """Findings by score and the share of them that is right at box IoU 0.5, as Markdown lines."""
    heads = [escaped(f"{figures.name}, {what}") for figures in detectors for what in ("findings", "right, %")]
    lines = zip(*(figures.bins for figures in detectors), strict=True)
    rows = [
        [f"{bins[0].low:g} to {bins[0].high:g}", *(cell for bin_ in bins for cell in _bin_cells(bin_))]
        for bins in lines
    ]
    return markdown_table(["score"], heads, rows)


def one_class_json(report: OneClassReport) -> dict[str, Any]:
    """Everything of a report as plain numbers: means first, then every row."""
    content = asdict(report)
    for plain, figures in zip(content["detectors"], report.detectors, strict=True):
        plain["mean"] = {name: _plain(figures.mean(name)) for name in get_args(Figure)}
        plain["classes"] = {
            class_name: {name: _plain(figures.of_class(class_name, name)) for name in get_args(Figure)}
            for class_name in figures.class_names
        }
        plain["median_seconds"] = figures.seconds
        plain["bins"] = [asdict(bin_) for bin_ in figures.bins]
    return content


def number(spread: Spread | None, digits: int = 1) -> str:
    """A figure as text, with its spread where there is any; a dash for None."""
    if spread is None:
        return NOTHING
    mean = f"{spread.mean:.{digits}f}"
    return f"{mean} ± {spread.deviation:.{digits}f}" if spread.deviation else mean


def _class_table(figures: DetectorFigures) -> list[str]:
    heads = ["own box given back, IoU 0.5, %", "IoU 0.8, %", "score that finds half", "false alarms there"]
    columns: tuple[tuple[Figure, int], ...] = (
        ("box_fit_50", 1),
        ("box_fit_80", 1),
        ("half_score", 2),
        ("false_alarms", 2),
    )
    rows = [
        [name, *(number(figures.of_class(name, figure), digits) for figure, digits in columns)]
        for name in figures.class_names
    ]
    rows.append(["mean", *(number(figures.mean(figure), digits) for figure, digits in columns)])
    note = (
        f"Half of the defects are found in {figures.having('half_score')} of {len(figures.rows)} draws; only "
        f"these have a score and false alarms (detections a defect-free image). An image takes "
        f"{figures.seconds:.2f} s of processor time (median)."
    )
    return [*markdown_table(["class"], heads, rows), "", note]


def _targets(figures: DetectorFigures, class_name: str) -> str:
    """Images judged a draw, as all draws of a class have the same number."""
    return str(next(row.targets for row in figures.rows if row.class_name == class_name))


def _both(figures: DetectorFigures, class_name: str | None) -> str:
    """Boxes / masks of a class, or of all; boxes alone where the set has no masks."""
    kinds: tuple[Figure, ...] = ("box_ap50", "mask_ap50")
    spreads = [
        figures.mean(kind) if class_name is None else figures.of_class(class_name, kind) for kind in kinds
    ]
    return " / ".join(number(spread) for spread in spreads if spread is not None)


def _alarms(figures: DetectorFigures) -> str:
    reached, draws = figures.having("half_score"), len(figures.rows)
    return f"{number(figures.mean('false_alarms'), 2)} ({reached} of {draws} draws find half)"


def _bin_cells(bin_: ScoreBin) -> Iterator[str]:
    yield str(bin_.findings)
    yield f"{100 * bin_.true / bin_.findings:.0f}" if bin_.findings else NOTHING


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else asdict(spread)
