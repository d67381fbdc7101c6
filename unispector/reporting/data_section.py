"""The report's section on the data: figures, what was kept, what training lost, what was checked."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from unispector.data.checks.duplicates import NearDuplicates
from unispector.data.checks.expectations import CheckReport
from unispector.data.convert import ConversionReport
from unispector.data.protocol.split_tree import SplitReport
from unispector.data.protocol.splits import TrainingRule
from unispector.data.statistics import Statistics
from unispector.reporting.model import Block, Fold, Section, Span, Subheading, Table, Text
from unispector.reporting.statistics_report import statistics_blocks

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
    """Facts about the data, from the stages before."""

    statistics: Statistics
    figure: str  # PNG of the ratios of prompts to targets, relative to the report
    conversions: tuple[ConversionReport, ...]
    splits: SplitReport
    near_duplicates: NearDuplicates  # images on both sides of a split that look alike
    checks: tuple[CheckReport, ...]  # rules tried on each set and on the splits
    # Links to the pages of the checks, of the sets and of the splits, relative to the report.
    docs: tuple[str, str]


def data_section(record: DataRecord) -> Section:
    """The section; its plain numbers are all that the stages before told."""
    found = record.near_duplicates
    sets, splits = record.docs
    rows = [
        (None if count.split_seed is None else str(count.split_seed), count.kind, str(count.pairs))
        for count in found.counts
    ]
    pairs = (
        f"Pairs whose 256-bit hashes differ in at most {found.threshold} bits. They are reported, not "
        "refused; data/splits/near-duplicates.csv lists them."
    )
    docs = (
        "Rule by rule, with what broke it: ",
        Span("the sets", "link", sets),
        ", ",
        Span("the splits", "link", splits),
        " (Great Expectations' Data Docs).",
    )
    lost = ("seen", "unseen", "images", "lost images", "lost instances")
    conversions = _conversion_rows(record.conversions)
    blocks: tuple[Block, ...] = (
        *statistics_blocks(record.statistics, record.figure),
        Subheading("Read, kept and dropped"),
        Table.of(("data set", ""), ("images or files", "instances"), conversions),
        Subheading("Training images"),
        Text(LOST_NOTES[record.splits.training_rule], True),
        Table.of(("data set", "split seed"), lost, _training_rows(record.splits)),
        *map(Text, record.splits.notes),
        Subheading("Checks"),
        *map(_checks, record.checks),
        Text(docs),
        Subheading("Near-duplicates across a split"),
        Text(pairs, True),
        Table.of(("split seed", "kind"), ("pairs",), rows),
    )
    plain = {
        "statistics": asdict(record.statistics),
        "conversions": [asdict(report) for report in record.conversions],
        "splits": asdict(record.splits),
        "near duplicates": asdict(found),
        "checks": [asdict(report) for report in record.checks],
    }
    return Section("Data", blocks, "data", plain)


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
        both = ("-", "-") if lost is None else (str(lost.images), str(lost.instances))
        yield [report.name, str(report.split_seed), *counts, *both]
        if lost is not None:
            for name, images in sorted(lost.images_by_class.items()):
                if images:
                    yield ["", f"with {name}", "", "", "", str(images), str(lost.instances_by_class[name])]


def _checks(report: CheckReport) -> Fold:
    broken = sum(result.failed > 0 and not result.asks for result in report.results)
    verdict = (
        f"{broken} broken"
        if broken
        else f"{len(report.asked)} to be looked at"
        if report.asked
        else "all hold"
    )
    rows = [(result.rule, str(result.checked), str(result.failed)) for result in report.results]
    table = Table.of(("rule",), ("checked", "failed"), rows)
    return Fold(f"{report.name}: {len(rows)} rules, {verdict}", (table,))
