"""Any raw release to one annotation file, outside of the pipeline: converted, surveyed, checked."""

from dataclasses import dataclass
from pathlib import Path

from unispector.data.checks.expectations import CheckReport, check_set
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources import SOURCES
from unispector.data.survey import read_survey, survey_set
from unispector.errors import DataError
from unispector.project.progress import progress_bar


@dataclass(frozen=True)
class Outcome:
    """The counts of images and instances read, kept and dropped, and the checks, which all passed."""

    conversion: ConversionReport
    checks: CheckReport


def convert_release(
    source_name: str, raw: Path, out: Path, *, min_side: float = 0.01, workers: int = 0
) -> Outcome:
    """Write `out` (COCO) and beside it `.report.json`, `.dropped.csv`, `.survey.parquet`, `.checks.json`.

    The rules are those of the pipeline's gate. Where one is broken the files stay, to be looked into.
    `source_name` is a key of `SOURCES`; `min_side` the share of the image's sides under which a component is
    dropped, in [0, 1); `workers` processes read images, 0 = one per core.

    Raises:
        DataError: unknown source, `out` is no `.json`, the release cannot be read as it is, or a rule is
            broken (one line names rule and image).
    """
    if source_name not in SOURCES:
        raise DataError(f"{source_name}: no such source; known are {', '.join(SOURCES)}")
    if out.suffix != ".json":
        raise DataError(f"{out}: the annotation file must end in .json")
    source, name = SOURCES[source_name], out.stem
    files = ConversionFiles.beside(out)
    with progress_bar(f"convert {name}") as progress:
        report = convert_set(name, source, raw, files, min_side=min_side, workers=workers, progress=progress)
    annotations, survey = Annotations.read(out), out.with_suffix(".survey.parquet")
    table = out.with_suffix(".checks.json")
    for older in (survey, table):  # of another conversion: they must not vouch for this one
        older.unlink(missing_ok=True)
    with progress_bar(f"survey {name}") as progress:
        survey_set(annotations, source, raw, survey, min_side=min_side, workers=workers, progress=progress)
    checks = check_set(
        name, annotations, read_survey(survey), min_side=report.min_side, categories=source.categories
    )
    checks.write(table)
    if not checks.passed:
        raise DataError(f"{checks.summary()}; all of it is in {table}")
    return Outcome(report, checks)


def list_sources() -> str:
    """The sources as text: name, what it reads, the layout it expects, where it is published."""
    blocks = []
    for group, own in (("InsA's seven releases", False), ("Your own images", True)):
        blocks.append(f"{group}:")
        for name, source in SOURCES.items():
            if own != bool(source.insa_name):
                lines = (
                    f"  {name}: {source.title}",
                    f"layout:  {source.layout}",
                    f"from:    {source.published}",
                )
                blocks.append("\n      ".join(lines))
    return "\n\n".join(blocks)
