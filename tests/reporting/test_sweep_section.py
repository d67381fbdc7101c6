"""The section on robustness: findings, charts and tables, read back from what a reader gets."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from html_page import Page
from unispector.evaluation.results import FIGURES
from unispector.evaluation.sweeps import SweepReport, SweepRow
from unispector.reporting.charts import COLOURS, INK, Line, LineChart, png, svg
from unispector.reporting.model import Report
from unispector.reporting.published import BLUR_LEVELS, PUBLISHED_BLUR
from unispector.reporting.render import charts_of, html, markdown
from unispector.reporting.sweep_section import findings, robustness_section

AWKWARD = "_set $x^2$ <b> | *"


def figures_of(value):
    return {f: value * (0.5 if f.startswith("segm") else 1) for f in FIGURES}


def rows_of(sweep, values, data_set="tile", spread=0.0):
    """A row for each level; two, `spread` apart on either side, where there is a spread."""
    return [
        SweepRow(sweep, level, 0, "unispector", data_set, "unseen", seed, 1, figures_of(value + shift), 5)
        for level, value in values.items()
        for seed, shift in (((42, -spread), (82, spread)) if spread else ((42, 0.0),))
    ]


def page_of(report):
    """The section on a page, without the page's own head and navigation."""
    page = html(Report("a title", sections=(robustness_section(report),)))
    return page[page.index('<section id="robustness">') : page.index("</main>")]


def report_of(*groups):
    return SweepReport(tuple(row for group in groups for row in group))


@pytest.fixture(scope="module")
def everything():
    return report_of(
        rows_of("prompt_blur", {0: 60.0, 1.5: 50.0, 3: 30.0}, "VisA", spread=2.0),
        rows_of("prompt_blur", {0: 20.0, 1.5: 20.0, 3: 14.0}, AWKWARD),
        rows_of("prompt_box_iou", {0.1: 10.0, 0.2: 36.0, 0.3: 35.0, 0.9: 41.0, 1.0: 40.0}),
        rows_of("prompt_count", {1: 20.0, 5: 40.0, 10: 42.0}),
        rows_of("prompt_kind", {0: 40.0, 1: 44.0}),
        rows_of("target_noise", {0: 40.0, 1: 30.0, 5: 10.0}, AWKWARD),
        rows_of("target_jpeg", {0: 40.0, 5: 38.0}, AWKWARD),
    )


@pytest.fixture(scope="module")
def source(everything):
    return page_of(everything)


@pytest.fixture(scope="module")
def pngs(everything):
    return {name: png(chart) for name, chart in charts_of(robustness_section(everything)).items()}


def test_findings_are_computed(everything):
    assert findings(everything) == [
        # The sets' mean: 40 -> 22.
        "Blurred prompts: AP50 of boxes falls by 45 % at a sigma of 3 pixels.",
        # 0.2 is within 10 % again, but 0.3 is not.
        "Inexact prompt boxes: AP50 of boxes holds to an IoU of 0.9 (a drop of at most 10 %); it falls by "
        "75 % at 0.1.",
        "Number of prompts: compared with 5 prompt images a class, AP50 of boxes falls by 50 % with 1 and "
        "rises by 5 % with 10.",
        "Box or mask as prompt: AP50 of boxes rises by 10 % with masks in place of boxes.",
        "Changed target images: most is lost by noise (AP50 of boxes falls by 75 % at severity 5), least by "
        "JPEG compression (AP50 of boxes falls by 5 % at severity 5).",
    ]


@pytest.mark.parametrize(
    ("sweep", "values", "finding"),
    [
        ("prompt_blur", {0: 0.0, 3: 0.0}, "it takes another level than 0, and an AP50 above 0 there"),
        ("prompt_blur", {0: 40.0}, "no drop can be given"),
        ("prompt_count", {1: 10.0, 2: 20.0}, "it takes another level than 5"),
        ("prompt_kind", {1: 10.0}, "it takes another level than box"),
        ("target_scale", {1: 10.0, 2: 5.0}, "it takes another level than severity 0"),
        (
            "target_scale",
            {0: 10.0, 2: 10.02},
            "most is lost by scale (AP50 of boxes stays the same at severity 2).",
        ),
        ("prompt_blur", {0: 10.0, 1: 10.02}, "stays the same at a sigma of 1 pixels"),
        ("prompt_box_iou", {0.5: 30.0, 0.9: 35.0, 1: 40.0}, "falls by 12 % at an IoU of 0.9 already"),
        ("prompt_count", {5: 10.0, 8: 15.0}, "AP50 of boxes rises by 50 % with 8."),
    ],
)
def test_findings_at_the_edges(sweep, values, finding):
    (found,) = findings(report_of(rows_of(sweep, values)))
    assert finding in found


def test_a_mean_over_sets_is_of_levels_all_have():
    first, second = {0: 40.0, 1: 20.0, 3: 4.0}, {0: 20.0, 1: 10.0}
    (found,) = findings(report_of(rows_of("prompt_blur", first), rows_of("prompt_blur", second, "steel")))
    assert "falls by 50 % at a sigma of 1 " in found


def test_the_page_asks_for_nothing_and_every_id_is_its_own(source):
    page = Page(source)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 50
    assert not {"style", "script", "link", "image", "img"} & set(page.tags)
    references = page.values("href")
    for name, value in page.attributes:
        assert not name.startswith("xmlns")
        references += re.findall(r"url\(([^)]*)\)", value or "")
    assert {reference.removeprefix("#") for reference in references} <= set(ids)
    assert not re.search(r"https?:|<\?xml|<!DOCTYPE|<metadata", source, re.IGNORECASE)


def test_the_page_shows_names_to_the_letter(source):
    page = Page(source)
    assert AWKWARD in page.words()  # the legend
    assert f"{AWKWARD}, changed targets: masks" in page.words()
    assert "b" not in page.tags
    assert AWKWARD in [row[0] for row in page.tables[0]]
    assert page.words()[0] == "Robustness"


def test_prompt_kind_has_a_table_alone_and_others_two_charts(source, pngs):
    titles = Page(source).values("aria-label")
    shown = ("Blurred prompts", "Inexact prompt boxes", "Number of prompts", f"{AWKWARD}, changed targets")
    assert titles == [f"{title}: {kind}" for title in shown for kind in ("boxes", "masks")]
    assert len(pngs) == len(titles)


def test_level_tables_have_means_spreads_and_drops(source):
    blur, *_, kind, targets, severities = Page(source).tables
    assert blur[1:5] == [
        ["VisA", "0", "60.0 ± 2.0", "reference", "30.0 ± 1.0", "reference", "2"],
        ["", "1.5", "50.0 ± 2.0", "16.7", "25.0 ± 1.0", "16.7", "2"],
        ["", "3", "30.0 ± 2.0", "50.0", "15.0 ± 1.0", "50.0", "2"],
        [AWKWARD, "0", "20.0", "reference", "10.0", "reference", "1"],
    ]
    assert kind[1:] == [
        ["tile", "box", "40.0", "reference", "20.0", "reference", "1"],
        ["", "mask", "44.0", "-10.0", "22.0", "-10.0", "1"],
    ]
    assert targets == [
        ["change", "AP50", "0", "1", "5", "last drop, %"],
        ["Noise", "boxes", "40.0", "30.0", "10.0", "75.0"],
        ["", "masks", "20.0", "15.0", "5.0", "75.0"],
        ["JPEG compression", "boxes", "40.0", "-", "38.0", "5.0"],
        ["", "masks", "20.0", "-", "19.0", "5.0"],
    ]
    assert severities[0] == ["change", "value", "1", "2", "3", "4", "5"]
    assert len(severities) == 8


def test_the_published_curve_stands_beside_the_set_of_that_very_name(source):
    assert "VisA, published" in source
    assert "appendix, table 2" in source
    assert "MagneticTile" not in source
    other = page_of(report_of(rows_of("prompt_blur", {0: 40.0, 3: 30.0}, "mini-VisA")))
    assert "published" not in other
    assert "table 2" not in other


def test_published_figures_are_those_of_the_paper():
    assert [PUBLISHED_BLUR["VisA"]["bbox.AP50"][BLUR_LEVELS.index(level)] for level in (0, 3)] == [32.5, 23.4]
    assert [PUBLISHED_BLUR["MagneticTile"]["segm.AP50"][BLUR_LEVELS.index(level)] for level in (1, 3)] == [
        38.8,
        31.0,
    ]
    assert all(len(figure) == len(BLUR_LEVELS) for own in PUBLISHED_BLUR.values() for figure in own.values())


def test_markdown_has_every_chart_and_table(everything, pngs):
    paths = {name: f"charts/{name}.png" for name in pngs}
    text = markdown(Report("a title", sections=(robustness_section(everything, "charts"),)))
    assert re.findall(r"!\[.*\]\(<(.*)>\)", text) == list(paths.values())
    assert "| VisA | 0 | 60.0 ± 2.0 | reference | 30.0 ± 1.0 | reference | 2 |" in text
    assert "- Box or mask as prompt: AP50 of boxes rises by 10 % with masks in place of boxes." in text
    assert "**\\_set $x^2$ \\<b\\> \\| \\*: all figures**" in text
    assert re.findall(r"^#+ .*", text, re.MULTILINE)[1:3] == ["## Robustness", "### Blurred prompts"]
    assert text.count("| --- |") == 6


def line_path(source, colour):
    """Points of the line of that colour, in the SVG's units."""
    paths = re.findall(r'<path d="([^"]*)" clip-path=[^>]*style="fill: none; stroke: ([^;"]*)', source)
    (path,) = [path for path, stroke in paths if stroke == colour]
    return np.array(
        [[float(v) for v in point.split()] for point in re.findall(r"[ML] ([\d.]+ [\d.]+)", path)]
    )


def test_points_lie_where_the_figures_say():
    x, y = (0.0, 0.5, 1.5, 3.0), (50.0, 25.0, 12.5, 0.0)
    steady = Line("steady", x, (50.0, 50.0, 50.0, 50.0))
    published = Line("published", x, (30.0, 20.0, 10.0, 5.0), published=True)
    chart = LineChart(
        "a title", "sigma", 0.0, (Line("falling", x, y, (5.0, 5.0, 5.0, 0.0)), published, steady)
    )
    source = svg(chart, "a")
    falling = line_path(source, COLOURS[0])
    assert (falling[:, 0] - falling[0, 0]) / (falling[-1, 0] - falling[0, 0]) == pytest.approx(
        np.array(x) / 3, abs=1e-3
    )
    fall = (falling[:, 1] - falling[0, 1]) / (falling[-1, 1] - falling[0, 1])
    assert fall == pytest.approx((50 - np.array(y)) / 50, abs=1e-3)
    other = line_path(source, COLOURS[1])  # the published one takes no colour
    assert other[:, 1] == pytest.approx(np.full(4, falling[0, 1]), abs=1e-3)


def test_the_band_is_a_deviation_to_either_side_and_the_reference_is_marked():
    line = Line("a", (0.0, 1.0), (50.0, 20.0), (5.0, 2.0))
    (axes,) = LineChart("t", "x", 1.0, (line, Line("b", (0.0, 1.0), (1.0, 1.0)))).draw().axes
    (band,) = axes.collections
    corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(0, 45), (0, 55), (1, 18), (1, 22)}
    assert list(axes.lines[0].get_xdata()) == [1.0, 1.0]
    assert axes.get_ylim()[0] == 0


def test_axes_take_the_colour_of_the_text_around():
    source = svg(LineChart("t", "x", 0, (Line("a", (0, 1), (1, 2)),)), "a")
    assert INK not in source
    assert "currentColor" in source
    assert "DejaVu" not in source
    assert source == svg(LineChart("t", "x", 0, (Line("a", (0, 1), (1, 2)),)), "a")
    assert set(re.findall(r"#[0-9a-f]{6}", source)) <= {COLOURS[0]}


def test_png_is_the_same_every_time_and_has_no_ground():
    chart = LineChart("t", "x", 0, (Line("a", (0, 1, 2), (10, 20, 15)), Line("b", (0, 1, 2), (8, 8, 8))))
    data = png(chart)
    assert data == png(chart)
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert image[0, 0, 3] == 0
    for colour in COLOURS[:2]:
        wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        assert (image[..., :3] == wanted).all(axis=-1).sum() > 100
