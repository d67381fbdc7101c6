"""What the report says: figures against their rows, the published beside them, and the plain numbers."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.evaluation.intervals import Interval
from unispector.evaluation.results import EvaluationReport
from unispector.reporting.measured import mean_over_sets, measured
from unispector.reporting.model import (
    BoxesMasks,
    Bullets,
    Duration,
    Fold,
    Measured,
    Section,
    Table,
    Text,
    cell_text,
    interval_text,
    plain_cell,
)
from unispector.reporting.published import ABLATION, IN_CONTEXT, MAIN_TABLE, PUBLISHED_SETS
from unispector.reporting.render import markdown, plain_numbers
from unispector.reporting.report import HOW_MEASURED, Sources, evaluation_report


@pytest.fixture
def content(evaluation):
    return evaluation_report(Sources(evaluation, "ui"))


def section(content, key):
    return next(section for section in content.sections if section.key == key)


def blocks_of(blocks, folded=True):
    for block in blocks:
        yield block
        if isinstance(block, Fold) and folded:
            yield from blocks_of(block.blocks)


def table(content, key, name):
    found = blocks_of(section(content, key).blocks)
    return next(block for block in found if isinstance(block, Table) and block.key == name)


def rows_by_name(table):
    """Cells below the number columns, by the texts before them."""
    texts = len(table.texts)
    return {row.cells[:texts]: row.cells[texts:] for row in table.rows}


def words(content, key):
    return " ".join(block.text for block in section(content, key).blocks if isinstance(block, Text))


@pytest.mark.parametrize("method", [*MAIN_TABLE, *IN_CONTEXT], ids=lambda method: method.name)
@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_published_means_follow_from_their_rows(method, kind):
    values = [getattr(pair, kind) for pair in method.sets]
    mean = getattr(method.mean, kind)
    assert len(values) == len(PUBLISHED_SETS)
    if mean is None:
        assert values == [None] * len(PUBLISHED_SETS)
    else:
        assert mean == pytest.approx(sum(values) / len(values), abs=0.05 + 1e-9)


def test_published_ablation_ends_where_the_main_table_stands():
    best = next(method for method in MAIN_TABLE if method.name == "UniSpector")
    pair = best.sets[PUBLISHED_SETS.index("RealIAD")]
    assert (ABLATION[-1].boxes[1], ABLATION[-1].masks[1]) == (pair.boxes, pair.masks)


def test_a_figure_has_mean_spread_and_the_mean_of_its_intervals(evaluation):
    rows = evaluation.rows[:3]
    figure = measured(rows, "bbox.AP50")
    assert (figure.mean, figure.deviation) == (pytest.approx(50), pytest.approx(np.std([40, 50, 60])))
    assert figure.interval == Interval(pytest.approx(50 - 4), pytest.approx(50 + 4))
    assert measured(rows, "bbox.AP").interval is None  # no row has one
    assert measured(rows[:1], "bbox.AP50").deviation is None
    assert measured([], "bbox.AP50") is None


def test_one_evaluation_without_an_interval_leaves_the_figure_without(evaluation, new_row):
    rows = [*evaluation.rows[:2], new_row("unispector", "tile", "unseen", (42, 3), 50.0)]
    assert measured(rows, "bbox.AP50").interval is None


def test_distances_to_the_ends_add_up_as_squares_over_sets():
    figures = [Measured(20, None, Interval(17, 26)), Measured(40, 2.0, Interval(36, 48)), None]
    mean = mean_over_sets(figures)
    assert mean == Measured(30, None, Interval(pytest.approx(30 - 5 / 2), pytest.approx(30 + 10 / 2)))
    assert mean_over_sets([*figures, Measured(30)]) == Measured(30)
    assert mean_over_sets([None]) is None


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(5)
    truth, spread = rng.uniform(30, 70, 7), rng.uniform(1, 6, 7)
    drawn = rng.normal(truth, spread, (2000, 7))
    held = 0
    for means in drawn:
        figures = [
            Measured(mean, None, Interval(mean - 1.96 * s, mean + 1.96 * s))
            for mean, s in zip(means, spread, strict=True)
        ]
        interval = mean_over_sets(figures).interval
        held += interval.low <= truth.mean() <= interval.high
    assert 0.935 < held / len(drawn) < 0.965


def test_results_show_every_set_and_their_mean(evaluation, hostile):
    rows = rows_by_name(table(evaluation_report(Sources(evaluation, "ui")), "results", "AP50"))
    tile = rows["tile", "UniSpector (42, 82)"]
    assert [cell and cell_text(cell) for cell in tile] == ["50.0 ± 8.2", "25.0 ± 4.1", "90.0", "45.0"]
    assert rows["tile", "Base (42)"][2:] == (None, None)
    mean = rows["mean of the sets", "UniSpector (42, 82)"]
    assert [figure.mean for figure in mean] == pytest.approx([30, 15, 90, 45])
    assert interval_text(mean[0]) == "27.5 to 32.5"  # halves of 4 and 3, as squares
    assert rows[hostile, "UniSpector (42, 82)"][0] == Measured(10, None, Interval(7, 13))


def test_models_of_other_seeds_are_compared_on_the_shared_ones_too(content, evaluation):
    fair = rows_by_name(table(content, "results", "AP50 on the same seeds"))
    assert fair["tile", "UniSpector"][0].mean == pytest.approx(45)
    alike = EvaluationReport(tuple(row for row in evaluation.rows if row.split_seed == 42), (), (), False)
    keys = [
        b.key for b in section(evaluation_report(Sources(alike, "ui")), "results").blocks if type(b) is Table
    ]
    assert keys == ["AP50"]


def test_false_alarms_are_told_of_sets_with_good_images(content, hostile):
    rows = rows_by_name(table(content, "alarms", "false alarms, unseen classes"))
    good, alarms, threshold, boxes, masks = rows["tile", "UniSpector"]
    assert (good, threshold) == (8, 0.625)
    assert (alarms.mean, alarms.deviation) == pytest.approx((1.0, np.std([0.5, 1.5, 1.0])))
    assert (boxes.mean, masks.mean) == pytest.approx((70, 35))
    assert {name for name, _ in rows} == {"tile"}
    assert "false alarms, seen classes" not in plain_numbers(content)["sections"]["alarms"]  # none has any
    assert f"{hostile} has none" in words(content, "alarms")
    assert "score of at least 0.3" in words(content, "alarms")
    assert "at most 0.1 alarms" in words(content, "alarms")


def test_without_good_images_the_report_says_so(evaluation, new_row):
    report = EvaluationReport((new_row("unispector", "tile", "unseen", (42, 1), 40.0),), (), (), False)
    content = evaluation_report(Sources(report, "ui"))
    assert "tile has none" in words(content, "alarms")
    tables = [block.key for block in section(content, "alarms").blocks if isinstance(block, Table)]
    assert tables == ["AP50 by size, unseen classes"]


def test_sizes_leave_out_evaluations_without_such_an_instance(content):
    cells = rows_by_name(table(content, "alarms", "AP50 by size, unseen classes"))["tile", "UniSpector"]
    small, medium, large, masks_small, *_ = cells
    assert small is None
    assert masks_small is None
    assert medium.mean == pytest.approx(25)
    assert large.mean == pytest.approx(50)  # of 40 and 60; the second has no large instance
    counts = rows_by_name(table(content, "alarms", "instances by size"))
    assert counts["tile", "seen classes"] == (0, 2, 1, 0, 2, 1)


def insa_report(new_row, names):
    rows = [new_row("unispector", name, "unseen", (42, 1), 10.0 * n) for n, name in enumerate(names, start=1)]
    rows += [new_row("unispector", name, "seen", (42, 1), 99.0) for name in names]
    return EvaluationReport(tuple(rows), (), (), False)


def test_sets_of_published_names_stand_in_the_published_table(new_row):
    content = evaluation_report(Sources(insa_report(new_row, ["MVTec", "GC10", "bolts"]), "ui"))
    published = next(block for block in section(content, "published").blocks if isinstance(block, Table))
    rows = rows_by_name(published)
    assert len(rows) == len(MAIN_TABLE) + 1
    own = dict(zip((*PUBLISHED_SETS, "mean"), rows["UniSpector, this run",], strict=True))
    assert (own["MVTec"], own["GC10"]) == (BoxesMasks(10, 5), BoxesMasks(20, 10))
    assert own["VisA"] is None
    assert own["mean"] is None
    best = rows["UniSpector †",]
    assert best[PUBLISHED_SETS.index("3CAD")] == BoxesMasks(14.1, 10.0)
    assert cell_text(rows["GroundingDINO",][-1]) == "5.4 / -"


def test_the_own_mean_is_that_of_all_seven_sets(new_row):
    content = evaluation_report(Sources(insa_report(new_row, PUBLISHED_SETS), "ui"))
    rows = rows_by_name(table(content, "published", "main"))
    assert rows["UniSpector, this run",][-1] == BoxesMasks(pytest.approx(40), pytest.approx(20))
    ablation = rows_by_name(table(content, "published", "ablation"))
    assert ablation["this run", "RealIAD", "UniSpector"][1] == Measured(30)


def test_drawn_sets_never_stand_beside_published_figures(content):
    part = section(content, "published")
    assert "main" not in {block.key for block in part.blocks if isinstance(block, Table)}
    assert not [name for (name,) in rows_by_name(table(content, "published", "main")) if "this run" in name]
    assert "cannot be compared" in words(content, "published")
    ablation = rows_by_name(table(content, "published", "ablation"))
    assert ablation["this run", "mean of 2 sets", "UniSpector"][1].mean == pytest.approx((45 + 10) / 2)
    assert ablation["published", "RealIAD", "base"] == (13.6, 24.0, 14.5, 7.7, 20.0)


def test_sections_come_in_order_and_only_where_there_is_something(evaluation):
    parts = [Section(key, (), key) for key in ("robust", "space", "data")]
    everything = Sources(evaluation, "ui", *parts, timings=(("train", 1.0, "2026-01-02T03:04:05+00:00"),))
    keys = [section.key for section in evaluation_report(everything).sections]
    assert keys[:6] == ["results", "published", "alarms", "robust", "space", "classes"]
    assert keys[6:] == ["pictures", "failures", "data", "timing", "models", "method", "runs"]
    bare = EvaluationReport(evaluation.rows, (), (), False)
    keys = [section.key for section in evaluation_report(Sources(bare, "ui")).sections]
    assert keys == ["results", "published", "alarms", "classes", "method", "runs"]


def test_stages_that_run_once_per_set_are_added_up(evaluation):
    timings = (
        ("convert@a", 1.5, "2026-01-02T03:04:05+00:00"),
        ("convert@b", 60.0, "2026-01-02T03:05:05+00:00"),
        ("train", 3600.0, "2026-01-02T05:00:00+00:00"),
    )
    content = evaluation_report(Sources(evaluation, "ui", timings=timings))
    assert rows_by_name(table(content, "timing", "stages")) == {
        ("convert", "2026-01-02 03:05:05"): (2, Duration(61.5)),
        ("train", "2026-01-02 05:00:00"): (1, Duration(3600.0)),
        ("all", ""): (3, Duration(3661.5)),
    }
    assert len(table(content, "timing", "every run").rows) == 3


def test_models_are_named_with_what_produced_them(content):
    rows = [row.cells for row in table(content, "models", "models").rows]
    assert rows[0] == ("UniSpector", "42", "f" * 12, "d" * 12, "c" * 12 + "-dirty", "-")
    full = [row.cells[2:] for row in table(content, "models", "provenance").rows]
    assert ("git_commit", "c" * 40 + "-dirty") in full
    assert ("fingerprint", "e" * 64) in full


def test_plain_numbers_are_those_of_the_evaluation(evaluation, hostile):
    content = evaluation_report(Sources(evaluation, "ui", warnings=("Beware.",)))
    plain = json.loads(json.dumps(plain_numbers(content), allow_nan=False))
    assert plain["warnings"] == ["Beware."]
    assert plain["headline"]["bbox.AP50"] == {"mean": 30, "low": 27.5, "high": 32.5}
    results = plain["sections"]["results"]["AP50"]
    assert results[0] == {
        "data set": "tile",
        "model": "UniSpector (42, 82)",
        "unseen, boxes": {"mean": 50, "std": pytest.approx(8.165, abs=1e-4), "low": 46, "high": 54},
        "unseen, masks": {"mean": 25, "std": pytest.approx(4.0825, abs=1e-4), "low": 21, "high": 29},
        "seen, boxes": {"mean": 90, "low": 88, "high": 92},
        "seen, masks": {"mean": 45, "low": 43, "high": 47},
    }
    classes = plain["sections"]["classes"]["tile"]
    assert {"class": hostile, "subset": "seen classes", "instances": 3, "boxes": 90, "masks": 45} in classes
    assert plain["sections"]["pictures"]["pictures"][0]["file"] == "pictures/a b-01.jpg"
    assert {picture["kind"] for picture in plain["sections"]["failures"]["pictures"]} == {
        "false alarm",
        "miss",
    }


def test_markdown_has_the_same_figures(evaluation):
    text = markdown(evaluation_report(Sources(evaluation, "mlflow ui", warnings=("Beware.",))))
    assert "| tile | UniSpector (42, 82) | 50.0 ± 8.2 (46.0 to 54.0) | 25.0 ± 4.1 (21.0 to 29.0) |" in text
    assert "**Beware.**" in text
    assert "](<pictures/a b-01.jpg>)" in text
    assert r"\<b\>&" in text
    assert "<b>" not in text
    assert "    mlflow ui\n" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_how_it_is_measured_is_told_in_full(evaluation):
    (told,) = section(evaluation_report(Sources(evaluation, "ui")), "method").blocks
    assert told == Bullets(HOW_MEASURED)
    text = " ".join(told.items)
    for word in ("100 detections", "Equal scores", "no prompt image is a target", "bootstrap", "±", "1/300"):
        assert word in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (247, "4 min 07 s"), (3599.7, "1 h 00 min")],
)
def test_times_are_told_as_people_do(seconds, text):
    assert cell_text(Duration(seconds)) == text


numbers = st.floats() | st.none()


@given(
    numbers
    | st.text()
    | st.integers()
    | st.builds(BoxesMasks, numbers, numbers)
    | st.builds(Measured, st.floats(), numbers, st.builds(Interval, st.floats(), st.floats()) | st.none())
    | st.builds(Duration, st.floats(0, 1e7))
)
def test_every_cell_has_a_text_and_a_value_that_json_can_hold(cell):
    assert isinstance(cell_text(cell, 2), str)
    assert isinstance(interval_text(cell, 2), str)
    json.dumps(plain_cell(cell), allow_nan=False)
