"""The report's page: well-formed, whole in itself, and safe from what the data are called."""

import re

import pytest

from html_page import Page
from unispector.evaluation.results import EvaluationReport
from unispector.reporting.model import Charts, Section, Text
from unispector.reporting.render import html
from unispector.reporting.report import Sources, evaluation_report
from unispector.reporting.result_sections import results_section

PIXEL = "data:image/webp;base64,UklGRg=="
COMMAND = "mlflow ui --backend-store-uri 'sqlite:///a&b.db'"


@pytest.fixture
def source(evaluation, hostile):
    data = Section("Data", (Text("told elsewhere"),), "data")
    timings = (("train@<i>", 247.0, "2026-01-02T03:04:05+00:00"),)
    content = evaluation_report(
        Sources(evaluation, COMMAND, data=data, timings=timings, warnings=(f"Beware of {hostile}.",))
    )
    return html(content, {picture.file: PIXEL for picture in evaluation.pictures})


def test_page_is_well_formed_and_asks_for_nothing(source, evaluation):
    page = Page(source)
    links = page.values("src", "href", "srcset", "data", "action", "poster")
    assert links.count(PIXEL) == len(evaluation.pictures)
    assert all(link.startswith("#") or link == PIXEL for link in links)
    assert not set(page.tags) & {"script", "iframe", "link", "object", "embed", "form", "base", "i"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for loader in ("http:", "https:", "//", "url(", "@import"):
        assert loader not in source.replace(COMMAND.replace("&", "&amp;").replace("'", "&#39;"), "").replace(
            "url(#",
            "",  # a chart's own parts
        )


def test_whatever_the_data_are_called_is_shown_to_the_letter(source, hostile):
    page = Page(source)
    text = " ".join(page.texts)
    # As a set, a class, a model's origin, a warning, an image file and a note.
    for shown in (
        f"Beware of {hostile}.",
        f"unseen classes: {hostile}, hole",
        f"{hostile}: 1 class, boxes",
        f"hole · {hostile}",
        COMMAND,
        "train@<i>",
    ):
        assert shown in text
    assert page.tags.count("b") == 2  # the two notes of failures
    assert [alt for alt in page.values("alt") if hostile in alt]


def test_contents_lead_to_every_section_once(source):
    page = Page(source)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    sections = re.findall(r'<section id="([^"]*)"', source)
    assert re.findall(r'<a href="#([^"]*)"', source) == sections
    assert {"results", "published", "alarms", "classes", "failures", "data", "runs"} <= set(sections)


def test_figures_are_shown_with_spread_and_interval(source):
    text = " ".join("".join(Page(source).texts).split())
    for expected in (
        "50.0 ± 8.2",
        "46.0 to 54.0",
        "95 % interval 27.5 to 32.5",
        "4 min 07 s",
        "told elsewhere",
    ):
        assert expected in text


def test_a_set_is_named_once_for_its_models(source):
    results = source[source.index('id="results"') : source.index('id="published"')]
    assert results.count("<td>tile</td>") == 3  # a table each: all seeds, shared seeds, every figure
    assert results.count("<td>Untrained</td>") == 3 - 1  # of the two tables whose models have one seed


def test_a_report_without_intervals_pictures_or_alarms_is_a_page_too(new_row, hostile):
    report = EvaluationReport((new_row("base", hostile, "unseen", (42, 1), 40.0),), (), (), False)
    page = Page(html(evaluation_report(Sources(report, "ui")), {}))
    assert "interval" not in page.values("class")
    assert "40.0" in page.texts
    assert f"Boxes, unseen classes, {hostile}" in page.texts


def test_the_charts_show_figures_and_intervals_where_they_are(new_row):
    rows = [new_row("unispector", "tile", "unseen", (42, 1), value, 10.0) for value in (40.0, 60.0)]
    report = EvaluationReport((*rows, new_row("base", "steel", "unseen", (42, 1), 20.0, 4.0)), (), (), False)
    charts = next(block.charts for block in results_section(report).blocks if isinstance(block, Charts))
    figure = charts["results-boxes"].draw()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(report.data_sets)
    drawn = {}
    for container, text in zip(axes.containers, figure.legends[0].get_texts(), strict=True):
        ((x,), (y,)), (whisker,) = container[0].get_data(), container[2][0].get_segments()
        drawn[text.get_text(), report.data_sets[round(y)]] = (whisker[0][0], x, whisker[1][0])
    assert drawn == {
        ("UniSpector", "tile"): pytest.approx((40, 50, 60)),
        ("Base", "steel"): pytest.approx((16, 20, 24)),
    }
