"""Stage `validate`: Great Expectations on one InsA file, its images and masks."""

from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.expectations import CheckReport, check_set
from unispector.errors import DataError
from unispector.stages.convert import set_config
from unispector.stages.paths import annotation_file, check_report


def validate(config: Config, set_name: str, root: Path = Path()) -> CheckReport:
    """Check `data/insa/<set>.json`; the report is written whatever it says.

    Args:
        config: its section `data` is read.
        set_name: a key of `data.sets`.
        root: the project's folder.

    Returns:
        The report, also in `reports/validation/<set>.json`.

    Raises:
        DataError: a rule is broken (one line names set, rule and image), or the file cannot be read.
    """
    raw = root / config.data.root / set_config(config, set_name).path
    annotations = Annotations.read(root / annotation_file(set_name))
    report = check_set(set_name, annotations, raw, config.data.min_side)
    path = root / check_report(set_name)
    report.write(path)
    if not report.passed:
        raise DataError(f"{report.summary()}; all of it is in {path}")
    return report
