"""Parts of the report that have their own makers: robustness, prompt space and data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from unispector.evaluation.results import FIGURES
from unispector.evaluation.sweeps import SweepReport
from unispector.reporting import prompt_space, sweep_section
from unispector.reporting.content import PreparedSection
from unispector.reporting.data_section import DataRecord, data_section
from unispector.reporting.statistics_report import COLOUR_NOTE, NUMBERS, TEXTS, table_rows
from unispector.reporting.tables import escaped, markdown_table


def robustness_part(report: SweepReport, figure_paths: Mapping[str, str]) -> PreparedSection:
    """The sweeps; plain are all points of the main variant's curves: sweep -> set -> figure.

    Args:
        report: all sweeps.
        figure_paths: where each of `sweep_section.chart_pngs` lies, relative to the Markdown page.
    """
    curves = {
        sweep: {
            data_set: {
                figure: [asdict(point) for point in report.curve(sweep, data_set, figure)]
                for figure in FIGURES
            }
            for data_set in report.data_sets
        }
        for sweep in report.sweeps()
    }
    return PreparedSection(
        key="robustness",
        title="Robustness",
        html=sweep_section.html_section(report),
        markdown="\n".join(sweep_section.markdown_section(report, figure_paths)),
        plain=curves,
    )


def prompt_space_part(records: Sequence[prompt_space.PromptSpaceRecord]) -> PreparedSection:
    """The angles within and between classes; the page shows the points too."""
    table = markdown_table(
        prompt_space.ANGLE_TEXTS, prompt_space.ANGLE_NUMBERS, prompt_space.angle_rows(records)
    )
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
    return PreparedSection(
        key="prompt-space",
        title="Prompt space",
        html=prompt_space.html_section(records),
        markdown="\n".join(("## Prompt space", "", escaped(prompt_space.NOTE), "", *table)),
        plain=plain,
    )


def data_part(record: DataRecord) -> PreparedSection:
    """What is known of the data; the Markdown points to the statistics' own page."""
    statistics = markdown_table(TEXTS, NUMBERS, table_rows(record.statistics))
    notes = [line for note in record.splits.notes for line in ("", escaped(note))]
    more = "More: [sizes and ratios of prompts to targets](statistics.md)."
    plain = {
        "statistics": asdict(record.statistics),
        "conversions": [asdict(report) for report in record.conversions],
        "splits": asdict(record.splits),
        "near duplicates": asdict(record.near_duplicates),
        "checks": [asdict(report) for report in record.checks],
    }
    return PreparedSection(
        key="data",
        title="Data",
        html=data_section(record),
        markdown="\n".join(("## Data", "", COLOUR_NOTE, "", *statistics, *notes, "", more)),
        plain=plain,
    )
