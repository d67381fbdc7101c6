"""The report page's section on the data: figures, what was kept, what training lost, what was checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from unispector.data.checks.duplicates import NearDuplicates
from unispector.data.checks.expectations import CheckReport
from unispector.data.convert import ConversionReport
from unispector.data.protocol.split_tree import SplitReport
from unispector.data.protocol.splits import TrainingRule
from unispector.data.statistics import Statistics
from unispector.reporting.statistics_report import html_fragment
from unispector.reporting.tables import html_table

_LOST = (
    "Images that show a seen and an unseen class, and instances of seen classes on them. An image with "
    "several unseen classes is in the line of each. "
)
LOST_NOTES: dict[TrainingRule, str] = {
    "clean": _LOST + "They do not train: they are lost.",
    "naive": _LOST + "They train all the same, with the unseen instances unlabelled.",
}


@dataclass(frozen=True)
class DataRecord:
    """What is known of the data.

    Attributes:
        statistics: all sets in figures.
        figure: PNG of the ratios of prompts to targets.
        conversions: what each release gave.
        splits: what trains and what tests.
        near_duplicates: images on both sides of a split that look alike.
        checks: rules tried on each set and on the splits.
        docs: links to the pages of the checks, of the sets and of the splits, relative to the report.
    """

    statistics: Statistics
    figure: bytes
    conversions: tuple[ConversionReport, ...]
    splits: SplitReport
    near_duplicates: NearDuplicates
    checks: tuple[CheckReport, ...]
    docs: tuple[str, str]


def data_section(record: DataRecord) -> str:
    """The section as HTML, heading and all; asks for no other file."""
    return "\n".join(
        (
            "<h2>Data</h2>",
            html_fragment(record.statistics, record.figure),
            "<h3>Read, kept and dropped</h3>",
            html_table(
                ("data set", ""), ("images or files", "instances"), list(_conversion_rows(record.conversions))
            ),
            "<h3>Training images</h3>",
            f'<p class="muted">{LOST_NOTES[record.splits.training_rule]}</p>',
            html_table(
                ("data set", "split seed"),
                ("seen", "unseen", "images", "lost images", "lost instances"),
                list(_training_rows(record.splits)),
            ),
            *(f'<p class="after">{escape(note)}</p>' for note in record.splits.notes),
            "<h3>Checks</h3>",
            *(_checks(report) for report in record.checks),
            _docs(record.docs),
            "<h3>Near-duplicates across a split</h3>",
            f'<p class="muted">Pairs whose 256-bit hashes differ in at most '
            f"{record.near_duplicates.threshold} bits. They are reported, not refused; "
            "data/splits/near-duplicates.csv lists them.</p>",
            html_table(
                ("split seed", "kind"), ("pairs",), list(_near_duplicate_rows(record.near_duplicates))
            ),
        )
    )


def _conversion_rows(conversions: tuple[ConversionReport, ...]) -> Iterator[list[str]]:
    for report in conversions:
        yield [report.name, "read", str(report.images_read), str(sum(report.instances_read.values()))]
        yield ["", "kept", str(report.images_kept), str(sum(report.instances_kept.values()))]
        for item in report.dropped:
            yield ["", f"dropped: {item.reason}", str(item.files), str(item.instances)]


def _training_rows(splits: SplitReport) -> Iterator[list[str]]:
    for report in splits.sets:
        if report.split_seed is None:
            continue
        counts = [str(count) for count in (len(report.seen), len(report.unseen), report.training_images)]
        lost = report.lost
        if lost is None:
            yield [report.name, str(report.split_seed), *counts, "-", "-"]
            continue
        yield [report.name, str(report.split_seed), *counts, str(lost.images), str(lost.instances)]
        for name, images in sorted(lost.images_by_class.items()):
            if images:
                yield ["", f"with {name}", "", "", "", str(images), str(lost.instances_by_class[name])]


def _checks(report: CheckReport) -> str:
    broken = sum(result.failed > 0 for result in report.results)
    verdict = "all hold" if not broken else f"{broken} broken"
    rows = [[result.rule, str(result.checked), str(result.failed)] for result in report.results]
    return (
        f"<details><summary>{escape(report.name)}: {len(rows)} rules, {verdict}</summary>\n"
        + html_table(("rule",), ("checked", "failed"), rows)
        + "\n</details>"
    )


def _near_duplicate_rows(found: NearDuplicates) -> Iterator[list[str]]:
    for count in found.counts:
        seed = "-" if count.split_seed is None else str(count.split_seed)
        yield [seed, count.kind, str(count.pairs)]


def _docs(links: tuple[str, str]) -> str:
    sets, splits = map(escape, links)
    return (
        f'<p class="after">Rule by rule, with what broke it: <a href="{sets}">the sets</a>, '
        f'<a href="{splits}">the splits</a> (Great Expectations\' Data Docs).</p>'
    )
