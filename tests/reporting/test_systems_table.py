"""The table of all systems: each has a row, and only what was measured has figures."""

import json

import pytest

from made_up_evaluation import make_alarms, make_row
from unispector.errors import DataError
from unispector.evaluation.results import EvaluationReport, ModelRecord
from unispector.evaluation.system_record import Clock, SystemRecord
from unispector.reporting.model import BoxesMasks
from unispector.reporting.published import IN_CONTEXT, MAIN_TABLE
from unispector.reporting.systems import NOT_MEASURED, MeasuredSystem, catalogue_table, systems_section
from unispector.systems.catalogue import BY_NAME, SYSTEMS


def record(system, roi="box", **changes):
    values = {
        "system": system, "name": system, "roi": roi, "weights": "", "seconds": 0.25,
        "seconds_spread": (0.2, 0.3), "images": 40, "peak_mib": 812.0, "threads": 2, "parameters": 4_500_000,
        "commit": "a" * 40, "date": "2026-11-30T12:00:00+00:00",
    }  # fmt: skip
    return SystemRecord(**values | changes)


def measured_system(system, boxes, roi="box", **changes):
    rows = tuple(make_row(system, "tile", "unseen", (42, 42), value) for value in boxes)
    models = (ModelRecord(system, 42, "", {}),)
    return MeasuredSystem(record(system, roi, **changes), EvaluationReport(rows, (), models, False))


def table_of(known):
    (table,) = [block for block in systems_section(known).blocks if hasattr(block, "rows")]
    return table


def test_every_system_has_a_row_and_says_when_it_was_not_measured():
    table = table_of([])
    assert [row.cells[0] for row in table.rows] == [system.title for system in SYSTEMS]
    assert {row.cells[5] for row in table.rows} == {NOT_MEASURED}
    # Nothing of what is published stands in a measured column.
    assert table.numbers[0].title == "published mean"
    assert all(cell is None for row in table.rows for cell in row.cells[7:])


def test_what_was_measured_stands_beside_what_is_published():
    table = table_of([measured_system("persam", (20.0, 30.0)), measured_system("persam", (50.0,), "mask")])
    rows = [row for row in table.rows if row.cells[0] == BY_NAME["persam"].title]
    assert [row.cells[1] for row in rows] == ["box", "mask"]
    columns = [column.title for column in table.columns]
    first = dict(zip(columns, rows[0].cells, strict=True))
    assert first["tile"].boxes == pytest.approx(25.0)
    assert first["published mean"] == BoxesMasks(None, 6.0)
    assert (first["s an image"], first["MiB"]) == (0.25, 812.0)
    assert (
        first["measured"]
        == "2026-11-30, aaaaaaaaa, 2 threads, 4.5 M parameters; split 42, draw 42, 10 unseen targets"
    )
    table = table_of([measured_system("persam", (20.0,), weights="sam-vit-huge")])
    assert f"{BY_NAME['persam'].title}, weights sam-vit-huge" in [row.cells[0] for row in table.rows]
    other = next(row for row in table.rows if row.cells[0] == BY_NAME["vrp-sam"].title)
    assert dict(zip(columns, other.cells, strict=True))["tile"] is None


def test_seen_classes_have_columns_of_their_own():
    rows = tuple(
        make_row("maskdino", "tile", subset, (42, 42), value)
        for subset, value in (("seen", 40.0), ("unseen", 0.0))
    )
    one = MeasuredSystem(record("maskdino"), EvaluationReport(rows, (), (), False))
    table = table_of([measured_system("persam", (20.0,)), one])
    assert [column.title for column in table.numbers[:2]] == ["tile", "tile, seen classes"]
    figures = {
        row.cells[0]: tuple(cell and cell.boxes for cell in row.cells[6:8])
        for row in table.rows
        if row.cells[5] != NOT_MEASURED
    }
    assert figures == {
        BY_NAME["maskdino"].title: (pytest.approx(0.0), pytest.approx(40.0)),
        BY_NAME["persam"].title: (pytest.approx(20.0), None),
    }


def test_false_alarms_stand_beside_what_is_found_when_they_are_few():
    rows = tuple(
        make_row("persam", "tile", subset, (42, seed), 10.0, alarms=make_alarms(false, recall))
        for subset, seed, false, recall in (
            ("unseen", 42, 2.0, 30.0),
            ("unseen", 82, 4.0, 50.0),
            ("seen", 42, 99.0, 99.0),
        )
    )
    table = table_of([MeasuredSystem(record("persam"), EvaluationReport(rows, (), (), False))])
    (row,) = [row for row in table.rows if row.cells[5] != NOT_MEASURED]
    cells = dict(zip([column.title for column in table.columns], row.cells, strict=True))
    assert cells["false alarms"] == pytest.approx(3.0)
    assert cells["found at 0.1 alarms"] == BoxesMasks(pytest.approx(40.0), pytest.approx(20.0))


def test_a_detector_of_ones_own_has_a_row_after_the_catalogue():
    table = table_of([measured_system("my_package.my_module:make", (20.0,), name="mine")])
    assert len(table.rows) == len(SYSTEMS) + 1
    assert table.rows[-1].cells[0] == "mine"
    assert table.rows[-1].cells[6].boxes == pytest.approx(20.0)
    assert (
        dict(zip([column.title for column in table.columns], table.rows[-1].cells, strict=True))[
            "published mean"
        ]
        is None
    )


def test_every_published_name_of_the_catalogue_is_one_of_the_papers_tables():
    known = {(method.name, method.tuned) for method in (*MAIN_TABLE, *IN_CONTEXT)}
    named = {system.published for system in SYSTEMS if system.published[0]}
    assert named <= known
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS) == len(BY_NAME)


def test_the_list_says_what_to_install(capsys):
    from rich.console import Console

    Console(width=300).print(catalogue_table())
    told = capsys.readouterr().out
    assert "pip install 'unispector[ultralytics]'" in told
    assert all(system.name in told for system in SYSTEMS)


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_named(tmp_path):
    clock = Clock([0.1, 0.2, 0.3, 0.4, 0.5])
    made = SystemRecord.of("persam", "mine", "box", "sam", clock, tmp_path, 12)
    assert (made.seconds, made.seconds_spread, made.images) == (0.3, (0.2, 0.4), 5)
    made.write(tmp_path / "system.json")
    assert SystemRecord.read(tmp_path / "system.json") == made
    content = json.loads((tmp_path / "system.json").read_text())
    for broken in ({**content, "seconds": "fast"}, {**content, "more": 1}, {"system": "persam"}):
        (tmp_path / "system.json").write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"system\.json: no record of a system; run unispector benchmark"):
            SystemRecord.read(tmp_path / "system.json")


def test_the_clock_counts_the_system_and_not_its_judge(monkeypatch):
    now = iter([0.0, 1.0, 10.0, 12.0, 20.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock()
    assert list(clock.timed(iter("ab"))) == ["a", "b"]
    assert clock.seconds == [1.0, 2.0]
