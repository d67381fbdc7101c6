"""Means and spreads of evaluations, their files, and the pages made of them."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from unispector.errors import DataError
from unispector.evaluation.coco_metrics import AveragePrecision, ClassAP, SetMetrics
from unispector.evaluation.page import html_page
from unispector.evaluation.report import markdown, terminal_table, unfair_seeds
from unispector.evaluation.results import (
    EvaluationReport,
    EvaluationRow,
    PictureRecord,
    class_scores,
    mean_over_sets,
)


def precision(value):
    return AveragePrecision(
        value / 2, value, value / 4, {"crack": ClassAP(value / 2, value, value / 4, 3), "hole": None}
    )


def row(variant, data_set, subset, split_seed, prompt_seed, value):
    metrics = SetMetrics(precision(value), precision(value / 2), 5, 3)
    return EvaluationRow(variant, data_set, subset, split_seed, prompt_seed, metrics)


@pytest.fixture
def report():
    rows = [
        row("untrained", "tile", "unseen", 42, 1, 1.0),
        row("unispector", "tile", "unseen", 42, 1, 40.0),
        row("unispector", "tile", "unseen", 42, 2, 50.0),
        row("unispector", "tile", "unseen", 82, 1, 60.0),
        row("unispector", "tile", "seen", 42, 1, 90.0),
        row("unispector", "steel <b>", "unseen", 42, 1, 10.0),
    ]
    picture = PictureRecord("pictures/a b-01.jpg", "tile", "unseen", ("crack", "<hole>"), "x/1.png")
    return EvaluationReport(tuple(rows), (picture,))


def test_mean_and_spread_over_seeds_and_draws(report):
    summary = report.summaries("unispector")[0]
    assert (summary.data_set, summary.subset, summary.rows, summary.split_seeds) == (
        "tile",
        "unseen",
        3,
        (42, 82),
    )
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


def test_variants_come_in_the_order_of_the_report(report):
    assert report.variants == ("unispector", "untrained")


def test_comparison_is_made_on_the_seeds_all_variants_share(report):
    shared = unfair_seeds(report)
    assert {row.split_seed for row in shared.rows} == {42}
    assert shared.summaries("unispector")[0].figures["bbox.AP50"].mean == pytest.approx(45)
    assert unfair_seeds(shared) is None


def test_class_scores_leave_out_classes_without_ground_truth(report):
    scores = class_scores([row for row in report.rows if row.variant == "unispector"], "bbox.AP50")
    assert list(scores) == [
        ("tile", "unseen", "crack"),
        ("tile", "seen", "crack"),
        ("steel <b>", "unseen", "crack"),
    ]
    assert scores["tile", "unseen", "crack"] == pytest.approx(50)


def test_terminal_table_fits_80_columns_and_cuts_no_number(report):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(report))
    text = console.export_text()
    for expected in ("50.0 ± 8.2", "90.0", "steel <b>", "Untrained", "mean of the sets", "30.0"):
        assert expected in text
    assert "…" not in text


class Page(HTMLParser):
    """Checks nesting, and collects links and text."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_well_formed_and_asks_for_nothing_but_its_pictures(report):
    page = Page()
    source = html_page(report, "mlflow ui --backend-store-uri 'sqlite:///a&b.db'")
    page.feed(source)
    page.close()
    assert page.open == []
    assert set(page.links) == {"pictures/a%20b-01.jpg"}
    assert not page.tags & {"script", "iframe", "link", "b", "hole"}
    assert "http" not in source
    assert "url(" not in source
    text = " ".join(page.text)
    for expected in ("50.0 ± 8.2", "steel <b>", "crack, <hole>", "sqlite:///a&b.db", "30.0"):
        assert expected in text


def test_markdown_has_the_same_figures(report):
    text = markdown(report, "mlflow ui")
    assert "| tile | UniSpector | 42, 82 | 50.0 ± 8.2 | 25.0 ± 4.1 | 90.0 | 45.0 |" in text
    assert "](<pictures/a b-01.jpg>)" in text
    assert r"steel \<b\>" in text
    assert "    mlflow ui\n" in text
