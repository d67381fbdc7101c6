"""Tables, figure and page section of the data."""

import io

import numpy as np
import pytest
from PIL import Image

from html_page import Page
from unispector.data.checks.duplicates import NearDuplicates, PairCount
from unispector.data.checks.expectations import CheckReport, CheckResult
from unispector.data.convert import ConversionReport, DropCount
from unispector.data.protocol.split_tree import SetReport, SplitReport
from unispector.data.protocol.splits import Lost
from unispector.data.statistics import (
    ClassStatistics,
    Colour,
    Moments,
    PromptRules,
    Quantiles,
    SetStatistics,
    Statistics,
)
from unispector.reporting.data_section import DataRecord, data_section
from unispector.reporting.model import Report
from unispector.reporting.published import PUBLISHED
from unispector.reporting.render import html, markdown
from unispector.reporting.statistics_report import (
    ADAPTIVE_COLOUR,
    FIXED_COLOUR,
    ratio_figure,
    statistics_report,
    table_rows,
)

RULES = PromptRules(5, 10)
URI = "data:image/png;base64,UE5H"


def set_of(name, counts):
    classes = tuple(
        ClassStatistics(f"part_{n}", count, 2 * count, ratio(count, 5), ratio(count, 1 if count <= 10 else 5))
        for n, count in enumerate(counts)
    )
    colour = Colour(Moments(1.25, 2.0), Moments(3.0, 4.0), Moments(109.57, 47.45))
    sides = Quantiles(105, 200, 246.5, 300, 632)
    shares = Quantiles(0.0001, 0.002, 0.0123, 0.1, 0.5)
    return SetStatistics(name, 384, 440, colour, sides, sides, Quantiles(1, 1, 1, 2, 9), shares, classes)


def ratio(images, prompts):
    return min(prompts, images - 1) / (images - min(prompts, images - 1))


def test_published_figures_stand_under_sets_of_that_very_name():
    found = table_rows(Statistics(RULES, (set_of("MagneticTile", [115, 85]), set_of("mini-MVTec", [9]))))
    colour = ["1.2 ± 2.0", "3.0 ± 4.0", "109.6 ± 47.5"]
    assert found == [
        ["MagneticTile", "measured", "384", "2", "440", *colour],
        ["", "published", "about 400", "5", "-", "0.0 ± 0.0", "0.0 ± 0.0", "109.4 ± 47.4"],
        ["mini-MVTec", "measured", "384", "1", "440", *colour],
    ]
    assert set(PUBLISHED) == {"GC10", "MagneticTile", "RealIAD", "MVTec", "3CAD", "VISION", "VisA"}


def test_markdown_names_its_source_only_where_something_is_published():
    text = markdown(
        statistics_report(Statistics(RULES, (set_of("MagneticTile", [115, 7]),)), "statistics.png")
    )
    assert "| MagneticTile | measured | 384 | 2 | 440 |" in text
    assert (
        "| MagneticTile | 105 / 246.5 / 632 | 105 / 246.5 / 632 | 1 / 1 / 9 | 0.01 / 0.2 / 1.2 / 10 / 50 |"
        in text
    )
    assert "arXiv 2604.02905" in text
    assert "![Ratios](<statistics.png>)" in text
    assert "ublished" not in markdown(
        statistics_report(Statistics(RULES, (set_of("mini-x", [115]),)), "x.png")
    )


def shares_of(png):
    """Size of an image, and how many of its pixels are orange and blue."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    colours = [[int(code[n : n + 2], 16) for n in (1, 3, 5)] for code in (FIXED_COLOUR, ADAPTIVE_COLOUR)]
    orange, blue = (int((np.abs(image - colour).max(axis=2) < 8).sum()) for colour in colours)
    return (image.shape[1], image.shape[0]), orange, blue


@pytest.mark.parametrize("count", [1, 5, 60, 61, 360])
def test_figure_shows_both_rules_for_few_and_for_many_classes(count):
    counts = [2 + 700 // (1 + n) for n in range(count)]
    statistics = Statistics(RULES, (set_of("x", counts),))
    size, orange, blue = shares_of(ratio_figure(statistics))
    assert 800 <= size[0] <= 1800
    assert 150 <= size[1] <= 2800
    assert min(orange, blue) > 10 * count
    assert ratio_figure(statistics) == ratio_figure(statistics)


def page_of(record):
    report = Report("a title", sections=(data_section(record),))
    source = html(report, {record.figure: URI})
    return Page(source[source.index("<main>") : source.index("</body>")])


def test_fragment_carries_its_figure():
    statistics = Statistics(RULES, (set_of("<b>set", [20, 5]),))
    page = Page(html(statistics_report(statistics, "ratios.png"), {"ratios.png": URI}))
    assert page.values("src", "href") == [URI]
    assert "b" not in page.tags
    assert "<b>set" in page.texts


def record(lost):
    dropped = (
        DropCount("mask marks nothing", 4, 0, ("a",)),
        DropCount("component <too> small", 9, 12, ("b",)),
    )
    conversion = ConversionReport("x", 0.01, 392, 384, {"a": 300, "b": 162}, {"a": 290, "b": 150}, dropped)
    trained = SetReport("x", 42, ("a",), ("b", "c"), (), {}, {}, 300, 320, 0, 40, lost, ())
    tested = SetReport("y", None, (), ("a",), (), {}, {}, 0, 0, 0, 0, None, ())
    rules = (CheckResult("image <opens>", 384, 0, ()), CheckResult("ids are unique", 384, 3, ("1",)))
    asked = (rules[0], CheckResult("masks cover little", 384, 1, ("a.png",), asks=True))
    return DataRecord(
        statistics=Statistics(RULES, (set_of("x", [20, 5]),)),
        figure="statistics.png",
        conversions=(conversion,),
        splits=SplitReport((trained, tested), "clean", notes=("a & note",)),
        near_duplicates=NearDuplicates(
            16,
            400,
            3,
            0,
            (PairCount(42, "training and test", 7, 7), PairCount(None, "prompt and target", 2, 2)),
        ),
        checks=(
            CheckReport("x", False, rules),
            CheckReport("y", True, rules[:1]),
            CheckReport("z", True, asked),
        ),
        docs=("data_docs/index.html", "data_docs_splits/index.html"),
    )


def test_section_tells_what_was_read_lost_and_checked():
    page = page_of(record(Lost(30, 41, {"b": 22, "c": 0}, {"b": 25, "c": 0})))
    assert page.values("src", "href") == [URI, "data_docs/index.html", "data_docs_splits/index.html"]
    text = "|".join(page.words())
    for expected in (
        "x|read|392|462",
        "kept|384|440",
        "dropped: mask marks nothing|4|0",
        "dropped: component <too> small|9|12",
        "x|42|1|2|300|30|41",
        "with b|22|25",
        "a & note",
        "they are lost",
        "x: 2 rules, 1 broken|rule|checked|failed|image <opens>|384|0|ids are unique|384|3",
        "y: 1 rules, all hold",
        "z: 2 rules, 1 to be looked at",
        "42|training and test|7|-|prompt and target|2",
    ):
        assert expected in text
    assert "with c" not in text
    assert "|y|" not in text  # a set that is only tested loses nothing


def test_section_without_known_losses():
    page = page_of(record(None))
    assert "x|42|1|2|300|-|-" in "|".join(page.words())
