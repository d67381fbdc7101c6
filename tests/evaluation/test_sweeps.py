"""Sweeps: their curves against plain arithmetic, and the file they live in."""

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.errors import DataError
from unispector.evaluation.results import FIGURES
from unispector.evaluation.sweeps import SWEEPS, SweepReport, SweepRow


def row(
    sweep, level, value, *, trial=0, data_set="tile", split_seed=42, variant="unispector", subset="unseen"
):
    figures = {figure: value * (0.5 if figure.startswith("segm") else 1) for figure in FIGURES}
    return SweepRow(sweep, level, trial, variant, data_set, subset, split_seed, 1, figures, 7)


def curve_of(rows, sweep="prompt_blur", figure="bbox.AP50", **of):
    return SweepReport(tuple(rows)).curve(sweep, "tile", figure, **of)


def test_a_curve_has_mean_spread_and_drop_at_each_level_lowest_first():
    rows = [
        row("prompt_blur", 3.0, 10.0),
        row("prompt_blur", 0.0, 40.0),
        row("prompt_blur", 0.0, 60.0, split_seed=82),
        row("prompt_blur", 3.0, 30.0, split_seed=82),
        row("prompt_blur", 1.5, 55.0),
    ]
    first, second, third = curve_of(rows)
    assert (first.level, first.mean, first.deviation, first.drop, first.rows) == (0.0, 50.0, 10.0, 0.0, 2)
    assert (second.level, second.mean, second.deviation, second.drop, second.rows) == (
        1.5,
        55.0,
        0.0,
        -10.0,
        1,
    )
    assert (third.level, third.mean, third.deviation, third.drop, third.rows) == (3.0, 20.0, 10.0, 60.0, 2)
    assert [point.mean for point in curve_of(rows, figure="segm.AP50")] == [25.0, 27.5, 10.0]


def test_a_curve_is_of_one_sweep_set_variant_and_subset():
    rows = [
        row("prompt_blur", 0.0, 50.0),
        row("target_blur", 0.0, 1.0),
        row("prompt_blur", 0.0, 2.0, data_set="steel"),
        row("prompt_blur", 0.0, 3.0, variant="base"),
        row("prompt_blur", 0.0, 4.0, subset="seen"),
    ]
    assert [point.mean for point in curve_of(rows)] == [50.0]
    assert [point.mean for point in curve_of(rows, variant="base")] == [3.0]
    assert [point.mean for point in curve_of(rows, subset="seen")] == [4.0]
    assert curve_of(rows, sweep="prompt_count") == ()
    report = SweepReport(tuple(rows))
    assert report.data_sets == ("tile", "steel")
    assert report.sweeps() == ("prompt_blur", "target_blur")


@pytest.mark.parametrize(
    "rows",
    [
        [row("prompt_blur", 0.0, 0.0), row("prompt_blur", 1.0, 5.0)],
        [row("prompt_blur", 1.0, 5.0), row("prompt_blur", 2.0, 4.0)],
    ],
    ids=["reference of 0", "no reference"],
)
def test_no_drop_without_a_reference_above_0(rows):
    assert [point.drop for point in curve_of(rows)] == [None, None]


def test_levels_that_differ_by_rounding_are_one():
    rows = [row("prompt_box_iou", 3 * 0.1, 10.0), row("prompt_box_iou", 0.3, 20.0, trial=1)]
    (point,) = curve_of(rows, sweep="prompt_box_iou")
    assert (point.level, point.mean, point.rows) == (0.3, 15.0, 2)


def test_every_level_of_the_protocol_is_a_whole_step():
    levels = {
        "prompt_blur": np.arange(0, 3.1, 0.5),
        "prompt_box_iou": [0.1 * n for n in range(1, 11)],
        "prompt_count": range(1, 11),
        "prompt_kind": (0, 1),
    }
    for name, kind in SWEEPS.items():
        of_kind = [float(level) for level in levels.get(name, range(6))]
        assert any(math.isclose(kind.reference, level) for level in of_kind)
        for level in of_kind:
            assert math.isclose(level, kind.step * round(level / kind.step), abs_tol=1e-9)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["prompt_count", "target_noise"]),
            st.integers(0, 6),
            st.integers(0, 2),
            st.sampled_from(["tile", "Größe \u2028 <b>"]),
            st.floats(0, 100),
        ),
        min_size=1,
        unique_by=lambda drawn: drawn[:4],
    )
)
def test_file_and_curves_of_any_rows(tmp_path_factory, drawn):
    rows = [row(s, float(level), value, trial=t, data_set=name) for s, level, t, name, value in drawn]
    path = tmp_path_factory.mktemp("sweeps") / "sweep.json"
    path.write_text(SweepReport(tuple(rows)).as_json(), encoding="utf-8")
    report = SweepReport.read(path)
    assert report.as_json() == path.read_text(encoding="utf-8")
    assert len(report.rows) == len(rows)
    values = defaultdict(list)
    for each in rows:
        values[each.sweep, each.data_set, each.level].append(each.figures["segm.AP75"])
    for sweep, name in {(s, n) for s, n, _ in values}:
        curve = report.curve(sweep, name, "segm.AP75")
        assert [p.level for p in curve] == sorted(lv for s, n, lv in values if (s, n) == (sweep, name))
        for point in curve:
            own = values[sweep, name, point.level]
            assert point.rows == len(own)
            assert point.mean == pytest.approx(sum(own) / len(own), abs=1e-4)


def test_the_file_is_rounded_and_has_a_line_for_each_row():
    text = SweepReport((row("prompt_box_iou", 3 * 0.1, 100 / 3), row("prompt_blur", 0, 1))).as_json()
    first = json.loads(text)["rows"][0]
    assert first["level"] == 0.3
    assert first["figures"]["bbox.AP50"] == 33.3333
    assert text.count("\n") == 4


def refused(path):
    with pytest.raises(DataError) as caught:
        SweepReport.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_an_absent_file_is_named(tmp_path):
    assert "cannot be read" in refused(tmp_path / "sweep.json")


def with_changes(**changes):
    content = json.loads(SweepReport((row("prompt_blur", 0.0, 1.0),)).as_json())
    content["rows"][0] |= changes
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"rows": 3}',
        '{"rows": [3]}',
        '{"rows": [{}]}',
        with_changes(sweep="prompt_smell"),
        with_changes(subset="all"),
        with_changes(level="high"),
        with_changes(level=math.nan),
        with_changes(figures={"bbox.AP50": 3.0}),
        with_changes(figures=dict.fromkeys(FIGURES, math.nan)),
        with_changes(figures=dict.fromkeys(FIGURES, "3")),
        with_changes(figures=None),
        with_changes(data_set=["a", "b"]),
        with_changes(colour="red"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, text):
    path = tmp_path / "sweep.json"
    path.write_text(text)
    assert "not a record of sweeps" in refused(path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not a record of sweeps" in refused(path)


def test_no_sweep_at_all_is_a_record_too(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_text(SweepReport(()).as_json())
    assert SweepReport.read(path) == SweepReport(())


def test_the_same_twice_is_refused(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_text(SweepReport((row("prompt_blur", 0.0, 1.0), row("prompt_blur", 0.0, 2.0))).as_json())
    assert "twice" in refused(path)
