"""Stage `validate`: Great Expectations on every InsA file and its survey; no image is opened."""

import logging
from pathlib import Path

from unispector.config import Config, SetConfig
from unispector.data.checks.expectations import CheckReport, DataDocs, check_set
from unispector.data.coco import Annotations
from unispector.data.sources import SOURCES
from unispector.data.survey import read_survey
from unispector.errors import DataError
from unispector.project.paths import DATA_DOCS, annotation_file, check_report, survey_file

logger = logging.getLogger(__name__)


def validate(config: Config, root: Path = Path()) -> tuple[CheckReport, ...]:
    """Check `data/insa/<set>.json` and its survey, set by set; a broken set does not stop the others.

    Returns:
        The reports in the order of `data.sets`, also in `reports/validation/<set>.json` and as pages in
        `reports/data_docs/`, which are written whatever they say.

    Raises:
        DataError: a rule is broken or a file cannot be read. The line names the first such set, with rule,
            file and value, and how many more there are.
    """
    docs = DataDocs()
    reports = []
    for number, (name, member) in enumerate(config.data.sets.items(), start=1):
        logger.info("validate %s (%d of %d)", name, number, len(config.data.sets))
        report = _check(name, member, config.data.min_side, root, docs)
        report.write(root / check_report(name))
        if report.asked:
            logger.warning(report.summary())
        reports.append(report)
    docs.write(root / DATA_DOCS, reports)
    broken = [report for report in reports if not report.passed]
    if broken:
        more = "".join(f"; {report.name} is broken too" for report in broken[1:])
        raise DataError(f"{broken[0].summary()}; all of it is in {root / check_report(broken[0].name)}{more}")
    return tuple(reports)


def _check(name: str, member: SetConfig, min_side: float, root: Path, docs: DataDocs) -> CheckReport:
    source = SOURCES[member.source]
    try:
        annotations = Annotations.read(root / annotation_file(name))
        survey = read_survey(root / survey_file(name))
    except DataError as error:
        return CheckReport.unreadable(name, error)
    return check_set(
        name,
        annotations,
        survey,
        min_side=min_side if source.drops_small else 0.0,
        categories=source.categories,
        docs=docs,
    )
