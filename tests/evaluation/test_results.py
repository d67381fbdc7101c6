"""Means and spreads of evaluations, their files, and the terminal's table."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from made_up_evaluation import HOSTILE, make_alarms, make_row
from unispector.errors import DataError
from unispector.evaluation.results import (
    DrawnImage,
    EvaluationReport,
    ModelRecord,
    class_scores,
    mean_over_sets,
)
from unispector.reporting.report import terminal_table
from unispector.reporting.result_sections import unfair_seeds


@pytest.fixture
def report():
    rows = [
        make_row("untrained", "tile", "unseen", (42, 1), 1.0, 1.0, make_alarms(0.5, 60.0)),
        make_row("unispector", "tile", "unseen", (42, 1), 40.0, 1.0, make_alarms(0.5, 60.0)),
        make_row("unispector", "tile", "unseen", (42, 2), 50.0, 2.0, make_alarms(0.5, 60.0)),
        make_row("unispector", "tile", "unseen", (82, 1), 60.0, 2.0, make_alarms(0.5, 60.0)),
        make_row("unispector", "tile", "seen", (42, 1), 90.0, size=False),
        make_row("unispector", "steel <b>", "unseen", (42, 1), 10.0),
    ]
    picture = DrawnImage(
        "pictures/a b-01.jpg", "miss", "tile", "unseen", ("crack", "<hole>"), "x/1.png", "found nowhere"
    )
    model = ModelRecord("unispector", 42, "f" * 64, {"git_commit": "abc"})
    return EvaluationReport(tuple(rows), (picture,), (model,), prompts_judged=True)


def test_mean_and_spread_over_seeds_and_draws(report):
    summary = report.summaries("unispector")[0]
    assert (summary.data_set, summary.subset) == ("tile", "unseen")
    assert (summary.rows, summary.split_seeds) == (3, (42, 82))
    assert summary.figures["bbox.AP50"].mean == pytest.approx(50)
    assert summary.figures["bbox.AP50"].deviation == pytest.approx(np.std([40, 50, 60]))
    assert summary.figures["segm.AP"].mean == pytest.approx(12.5)


def test_mean_over_sets_weighs_sets_alike(report):
    assert mean_over_sets(report.summaries("unispector"), "unseen", "bbox.AP50") == pytest.approx(
        (50 + 10) / 2
    )
    assert mean_over_sets(report.summaries("untrained"), "seen", "bbox.AP50") is None


def test_metrics_file_has_the_headline_and_every_mean(report):
    content = json.loads(report.metrics_json())
    assert content["bbox"]["AP50"] == pytest.approx(30)
    assert content["segm"]["AP50"] == pytest.approx(15)
    assert content["unispector"]["tile"]["seen"]["bbox"]["AP50"] == pytest.approx(90)
    assert content["unispector"]["tile"]["unseen"]["bbox"]["AP50_std"] == pytest.approx(8.165, abs=1e-3)
    assert content["untrained"]["mean"] == {
        "unseen": {
            "bbox": {"AP": 0.5, "AP50": 1.0, "AP75": 0.25},
            "segm": {"AP": 0.25, "AP50": 0.5, "AP75": 0.125},
        }
    }


def test_rows_survive_their_file(report, tmp_path):
    file = tmp_path / "evaluation.json"
    file.write_text(report.evaluation_json())
    assert EvaluationReport.read(file) == report


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"rows": [], "pictures": []}', '{"rows": [{}], "pictures": []}']
)
def test_damaged_files_are_refused_in_one_line(text, tmp_path):
    file = tmp_path / "evaluation.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=r"evaluation\.json.*evaluate") as caught:
        EvaluationReport.read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "damaged"),
    [
        ('"split_seed": 42', '"split_seed": "42"'),
        ('"rows":', '"x": 1, "rows":'),
        (',\n "prompts_judged": true', ""),
    ],
)
def test_a_file_with_another_type_or_key_is_refused(report, written, damaged, tmp_path):
    text = report.evaluation_json()
    assert written in text
    (tmp_path / "evaluation.json").write_text(text.replace(written, damaged, 1))
    with pytest.raises(DataError, match="not a record"):
        EvaluationReport.read(tmp_path / "evaluation.json")


def test_variants_come_in_the_order_of_the_report(report):
    assert report.variants == ("unispector", "untrained")


def test_comparison_is_made_on_the_seeds_all_variants_share(report):
    shared = unfair_seeds(report)
    assert {row.split_seed for row in shared.rows} == {42}
    assert shared.summaries("unispector")[0].figures["bbox.AP50"].mean == pytest.approx(45)
    assert unfair_seeds(shared) is None


def test_class_scores_leave_out_classes_without_ground_truth(report):
    scores = class_scores([row for row in report.rows if row.variant == "unispector"], "bbox.AP50")
    where = [("tile", "unseen"), ("tile", "seen"), ("steel <b>", "unseen")]
    assert list(scores) == [(*one, HOSTILE) for one in where]
    assert scores["tile", "unseen", HOSTILE] == pytest.approx(50)


def test_terminal_table_fits_80_columns_and_cuts_no_number(report):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(report))
    text = console.export_text()
    for expected in ("50.0 ± 8.2", "90.0", "steel <b>", "Untrained", "mean of the sets", "30.0"):
        assert expected in text
    assert "…" not in text
