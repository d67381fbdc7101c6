"""How long stages took is recorded when they end well, and read in the order of the pipeline."""

import json
import time
from datetime import UTC, datetime

import pytest

from unispector.errors import DataError
from unispector.project.timings import STAGES, TIMINGS, read_timings, timed


def test_a_stage_that_ends_well_is_recorded(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    with timed("train", tmp_path):
        time.sleep(0.05)
        assert read_timings(tmp_path) == ()
    (timing,) = read_timings(tmp_path)
    assert timing.name == "train"
    assert 0.05 <= timing.seconds < 5
    assert before <= datetime.fromisoformat(timing.ended) <= datetime.now(UTC)
    assert timing.ended.endswith("+00:00")


def test_a_stage_that_fails_leaves_the_record_of_its_last_run(tmp_path):
    with timed("train", tmp_path):
        pass
    before = read_timings(tmp_path)
    with pytest.raises(ValueError, match="broken"), timed("train", tmp_path):
        raise ValueError("broken")
    assert read_timings(tmp_path) == before
    assert [path.name for path in (tmp_path / TIMINGS).iterdir()] == ["train.json"]


def test_records_come_in_the_order_of_the_pipeline_and_set_by_set(tmp_path):
    names = ["own", "report", "train", "convert@b", "convert@a", "own-2", "own@a", "generate"]
    for name in names:
        with timed(name, tmp_path):
            pass
    (tmp_path / TIMINGS / ".train.0.json").write_text("half-writ")  # another process is at it
    read = [timing.name for timing in read_timings(tmp_path)]
    assert read == ["generate", "convert@a", "convert@b", "train", "report", "own", "own@a", "own-2"]


def test_stages_are_those_of_the_pipeline_in_its_order(pytestconfig):
    lines = (pytestconfig.rootpath / "dvc.yaml").read_text().splitlines()
    pipeline = [line[2:].partition(":")[0] for line in lines if line[:2] == "  " and line[2:3].isalpha()]
    assert [stage for stage in STAGES if stage in pipeline] == pipeline


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "long", "ended": ""}', '{"seconds": 1}'])
def test_a_damaged_record_is_named_in_one_line(text, tmp_path):
    (tmp_path / TIMINGS).mkdir(parents=True)
    (tmp_path / TIMINGS / "split.json").write_text(text)
    with pytest.raises(DataError, match=r"split\.json: .* run the stage again") as caught:
        read_timings(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_record_is_plain_json(tmp_path):
    with timed("split", tmp_path):
        pass
    assert set(json.loads((tmp_path / TIMINGS / "split.json").read_text())) == {"seconds", "ended"}
