"""The stages survey and statistics, and the data on the report's page, on a small release."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.config import Config, DataConfig, SetConfig
from unispector.data.checks.duplicates import report_near_duplicates
from unispector.data.checks.expectations import CheckReport, CheckResult
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.data.survey import read_survey
from unispector.errors import DataError
from unispector.evaluation.coco_metrics import AveragePrecision, SetMetrics
from unispector.evaluation.results import EvaluationReport, EvaluationRow
from unispector.ops.files import atomic_write_text
from unispector.pipeline.convert import convert
from unispector.pipeline.report import report
from unispector.pipeline.statistics import statistics
from unispector.pipeline.survey import survey
from unispector.project.paths import SPLIT_CHECKS, SPLITS, annotation_file, check_report, survey_file
from unispector.tracking.run import TrackingStore

CONFIG = Config(data=DataConfig(sets={"tiles": SetConfig(source="magnetic_tile", path="tiles")}, workers=1))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A release of 40 tiles in three classes, converted and surveyed."""
    rng = np.random.default_rng(0)
    for defect, count in (("Crack", 20), ("Fray", 12), ("Break", 8)):
        folder = tmp_path / "data/raw/tiles" / f"MT_{defect}" / "Imgs"
        folder.mkdir(parents=True)
        for n in range(count):
            mask = np.zeros((50, 60), np.uint8)
            mask[10 : 20 + n, 5:30] = 255
            cv2.imwrite(str(folder / f"{n}.jpg"), rng.integers(60, 200, (50, 60), dtype=np.uint8))
            cv2.imwrite(str(folder / f"{n}.png"), mask)
    convert(CONFIG, "tiles", tmp_path)
    survey(CONFIG, "tiles", tmp_path)
    return tmp_path


def test_survey_and_statistics_leave_their_files(project: Path) -> None:
    table = read_survey(project / survey_file("tiles"))
    images = Annotations.read(project / annotation_file("tiles")).images
    assert table.file_name.tolist() == [image.file_name for image in images]
    assert (table.mask_difference == 0).all()
    found = statistics(CONFIG, project)
    assert sorted(path.name for path in (project / "reports").iterdir()) == [
        "statistics.json",
        "statistics.md",
        "statistics.png",
    ]
    assert [(item.name, item.images, item.instances) for item in found.sets] == [("tiles", 40, 40)]
    ratios = {item.name: (item.fixed_ratio, item.adaptive_ratio) for item in found.sets[0].classes}
    assert ratios["magnetic_tile_break"] == pytest.approx((5 / 3, 1 / 7))
    assert ratios["magnetic_tile_crack"] == pytest.approx((1 / 3, 1 / 3))
    assert "| tiles | measured | 40 | 3 | 40 |" in (project / "reports/statistics.md").read_text()


def test_stages_refuse_what_is_missing(project: Path) -> None:
    with pytest.raises(DataError, match="no such set"):
        survey(CONFIG, "other", project)
    (project / survey_file("tiles")).unlink()
    with pytest.raises(DataError, match=r"tiles\.survey\.parquet: no such file; run the survey stage"):
        statistics(CONFIG, project)
    assert not (project / "reports").exists()


def test_the_page_tells_of_the_data_once_there_are_statistics(project: Path) -> None:
    empty = AveragePrecision(0.0, 0.0, 0.0, {}, {"small": None, "medium": None, "large": None})
    row = EvaluationRow("unispector", "tiles", "unseen", 42, 42, SetMetrics(empty, empty, 1, 1), {}, None)
    reports, store = project / "reports", TrackingStore(project / "mlflow")
    atomic_write_text(reports / "evaluation.json", EvaluationReport((row,), (), (), False).evaluation_json())
    assert "Read, kept and dropped" not in report(reports, store).page.read_text()

    member = BenchmarkSet("tiles", "tiles", "in", Annotations.read(project / annotation_file("tiles")))
    write_splits([member], SplitRules(0.25, 5, 10, 0.2), (42,), (42,), project / SPLITS)
    surveys = {"tiles": read_survey(project / survey_file("tiles"))}
    report_near_duplicates([member], surveys, SplitTree(project / SPLITS), (42,), (42,))
    statistics(CONFIG, project)
    with pytest.raises(DataError, match=r"validation/tiles\.json: cannot be read .* run make repro"):
        report(reports, store)
    CheckReport("tiles", True, (CheckResult("image opens", 40, 0, ()),)).write(
        project / check_report("tiles")
    )
    CheckReport("splits", True, ()).write(project / SPLIT_CHECKS)
    page = report(reports, store).page.read_text()
    for expected in ("Read, kept and dropped", "data:image/png;base64,", "tiles: 1 rules, all hold"):
        assert expected in page
    assert 'href="data_docs/index.html"' in page

    ConversionFiles.beside(project / annotation_file("tiles")).report.write_text("{}")
    with pytest.raises(DataError, match=r"tiles\.report\.json: not a ConversionReport; run make repro"):
        report(reports, store)
