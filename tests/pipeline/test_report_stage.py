"""The stage `report` on files as the stages before leave them."""

import json

import cv2
import numpy as np
import pytest

from unispector.errors import DataError
from unispector.evaluation.coco_metrics import AveragePrecision, ClassAP, SetMetrics, SizeAP
from unispector.evaluation.results import FIGURES, DrawnImage, EvaluationReport, EvaluationRow
from unispector.evaluation.sweeps import SweepReport, SweepRow
from unispector.pipeline.report import report
from unispector.project.timings import timed
from unispector.reporting.prompt_space import PromptSpace, PromptSpaceRecord, records_json
from unispector.tracking.run import TrackingStore


@pytest.fixture
def project(tmp_path):
    """One evaluation, and an image of it."""
    figures = AveragePrecision(
        20.0, 40.0, 10.0, {"crack": ClassAP(20.0, 40.0, 10.0, 3)}, dict.fromkeys(("small", "medium", "large"))
    )
    figures.by_size["large"] = SizeAP(40.0, 3)
    row = EvaluationRow("unispector", "tile", "unseen", 42, 1, SetMetrics(figures, figures, 5, 3), {}, None)
    picture = DrawnImage("pictures/tile-01.jpg", "sample", "tile", "unseen", ("crack",), "1.png", "")
    (tmp_path / "reports/pictures").mkdir(parents=True)
    stripes = np.zeros((60, 90, 3), dtype=np.uint8)
    stripes[:, ::30] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "reports" / picture.file), stripes)
    text = EvaluationReport((row,), (picture,), (), False).evaluation_json()
    (tmp_path / "reports/evaluation.json").write_text(text)
    return tmp_path


def write(project):
    return report(project / "reports", TrackingStore(project / "mlflow"))


def test_page_markdown_and_numbers_are_written_and_the_page_stands_alone(project):
    files = write(project)
    reports = project / "reports"
    assert (files.page, files.markdown, files.numbers) == tuple(
        reports / name for name in ("index.html", "report.md", "report.json")
    )
    page = files.page.read_text()
    assert "pictures/tile-01.jpg" not in page
    assert page.count("data:image/webp;base64,") == 1
    assert "(<pictures/tile-01.jpg>)" in files.markdown.read_text()
    assert json.loads(files.numbers.read_text())["headline"]["bbox.AP50"] == 40
    assert list((reports / "robustness").iterdir()) == []
    for absent in ("Robustness", "Prompt space", "<h2>Data</h2>", "Timing"):
        assert absent not in page


def test_the_same_files_give_the_same_report(project):
    first = [path.read_bytes() for path in vars(write(project)).values()]
    assert [path.read_bytes() for path in vars(write(project)).values()] == first


def test_sweeps_prompt_space_and_timings_are_told_where_they_were_made(project):
    rows = tuple(
        SweepRow(
            "prompt_blur", level, 0, "unispector", "tile", "unseen", 42, 1, dict.fromkeys(FIGURES, figure), 5
        )
        for level, figure in ((0.0, 40.0), (3.0, 30.0))
    )
    (project / "reports/sweep.json").write_text(SweepReport(rows).as_json())
    space = PromptSpace.of(np.eye(4)[:, :3] + 0.1, [0, 0, 1, 1], ["crack", "hole"])
    record = PromptSpaceRecord("tile", "unispector", 42, space)
    (project / "reports/prompt_space.json").write_text(records_json([record]))
    with timed("split", project):
        pass
    files = write(project)
    page, told = files.page.read_text(), files.markdown.read_text()
    for text in (page, told):
        assert text.index("What AP cannot see") < text.index("Robustness") < text.index("Prompt space")
        assert "split" in text[text.index("Timing") :]
    charts = sorted(path.name for path in (project / "reports/robustness").iterdir())
    assert len(charts) == 2
    assert all(f"(<robustness/{name}>)" in told for name in charts)
    assert "robustness/" not in page
    numbers = json.loads(files.numbers.read_text())["sections"]
    assert [point["mean"] for point in numbers["robustness"]["prompt_blur"]["tile"]["bbox.AP50"]] == [40, 30]
    assert numbers["prompt-space"][0]["classes"] == 2


def test_a_picture_that_is_gone_is_named(project):
    (project / "reports/pictures/tile-01.jpg").unlink()
    with pytest.raises(DataError, match=r"tile-01\.jpg: no such image"):
        write(project)
    assert not (project / "reports/index.html").exists()
