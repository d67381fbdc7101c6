"""Several sets measured one class at a time, on one page."""

from collections.abc import Sequence
from typing import Any

from unispector.evaluation.one_class import OneClassReport
from unispector.reporting.one_class_report import (
    MARKS,
    ap50_table,
    one_class_json,
    protocol_lines,
    reliability_table,
    summary_table,
)
from unispector.reporting.tables import escaped


def real_markdown(reports: Sequence[OneClassReport]) -> str:
    """A section a set; boxes and masks as prompts stand side by side.

    Args:
        reports: of a set one for each kind of prompt, one after the other; all of the same detectors.
    """
    lines = ["# Real sets, one class at a time", "", "`make reports-real` writes this page.", ""]
    lines += [
        f"- {escaped(figures.name)}: model {figures.fingerprint[:12]}"
        for figures in reports[0].detectors
        if figures.fingerprint
    ]
    lines.append("- floor: nearest prototypes on frozen ImageNet features, without training")
    for name in dict.fromkeys(report.data_set for report in reports):
        lines += _section([report for report in reports if report.data_set == name])
    return "\n".join(lines) + "\n"


def real_json(reports: Sequence[OneClassReport]) -> list[dict[str, Any]]:
    """Every figure as plain numbers."""
    return [one_class_json(report) for report in reports]


def _section(reports: Sequence[OneClassReport]) -> list[str]:
    lines = ["", f"## {escaped(reports[0].data_set)}", ""]
    lines += protocol_lines(reports[0], "boxes and masks, apart" if len(reports) > 1 else "boxes")
    lines += ["", *ap50_table(reports), "", *summary_table(reports)]
    for report in reports:
        title = f"How far a score can be trusted, {MARKS[report.roi]} as prompts"
        lines += ["", f"### {title}", "", *reliability_table(report.detectors)]
    skipped = [f"- Left out, {escaped(one.class_name)}: {one.reason}" for one in reports[0].skipped]
    return [*lines, *(["", *skipped] if skipped else [])]
