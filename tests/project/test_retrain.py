"""What counts as new, and how a pipeline that fails is told; with DVC for real on a pipeline of one stage."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from unispector.config import load_config
from unispector.errors import RetrainingError
from unispector.project.paths import RETRAINING, TRAINING_SUMMARY
from unispector.project.retrain import CHECKS, DataRefusedError, LastRetraining, look, reproduce, version_key

pytestmark = pytest.mark.integration


def dvc(project, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, check=True, capture_output=True)


@pytest.fixture(scope="module")
def template_project(tmp_path_factory, project_root):
    """A project with one raw set in DVC's care."""
    project = tmp_path_factory.mktemp("factory")
    parameters = yaml.safe_load((project_root / "params.yaml").read_text())
    parameters["data"]["sets"] = {"line": {"source": "coco", "path": "line"}}
    parameters["retrain"]["settle"] = 0.0
    (project / "params.yaml").write_text(yaml.safe_dump(parameters))
    (project / "dvc.yaml").write_text("stages: {}\n")
    (project / "data/raw/line/first").mkdir(parents=True)
    (project / "data/raw/line/first/a.png").write_bytes(b"a")
    dvc(project, "init", "--no-scm", "-q")
    dvc(project, "add", "-q", "data/raw/line")
    return project


@pytest.fixture
def project(template_project, tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(template_project, project, symlinks=True)
    return project


def seen(project):
    return look(load_config(project / "params.yaml"), project)


def decided(project):
    LastRetraining(seen(project).key, "decided", "version 1 was promoted", 1).write(project)


def test_a_state_never_retrained_on_is_work(project):
    assert seen(project).work


def test_nothing_new_is_no_work_however_often_it_is_asked(project):
    decided(project)
    for _ in range(2):
        found = seen(project)
        assert not found.work
        assert found.reason.startswith("nothing new since 20")


def test_new_raw_files_are_work_until_they_are_decided(project):
    decided(project)
    before = seen(project).key
    batch = project / "data/raw/line/second"
    batch.mkdir()
    (batch / "b.png").write_bytes(b"b")
    found = seen(project)
    assert found.work
    assert found.changed == ("line",)
    assert found.key != before
    # DVC has them now; as long as nobody has decided, it stays work.
    again = seen(project)
    assert (again.work, again.changed, again.key) == (True, (), found.key)
    decided(project)
    assert not seen(project).work


def test_a_file_taken_away_is_new_too_and_its_return_is_the_old_state(project):
    batch = project / "data/raw/line/second"
    batch.mkdir()
    (batch / "b.png").write_bytes(b"b")
    decided(project)
    key = seen(project).key
    shutil.rmtree(batch)
    assert seen(project).work
    batch.mkdir()
    (batch / "b.png").write_bytes(b"b")
    assert seen(project).key == key


@pytest.mark.parametrize("file", ["params.yaml", "dvc.yaml", "requirements.lock"])
def test_parameters_pipeline_and_packages_are_part_of_the_state(project, file):
    decided(project)
    with (project / file).open("a") as stream:
        stream.write("\n# changed\n")
    assert seen(project).work


def test_what_training_starts_from_is_part_of_the_state(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("start: null", "start: start.pt"))
    (project / "start.pt").write_bytes(b"weights")
    decided(project)
    assert not seen(project).work
    (project / "start.pt").write_bytes(b"other weights")
    assert seen(project).work
    (project / "start.pt").unlink()  # the stage fingerprint says so
    assert seen(project).work


def test_files_that_still_arrive_are_left_for_the_next_run(project):
    decided(project)
    recorded = (project / "data/raw/line.dvc").read_text()
    file = project / "data/raw/line/b.png"
    file.write_bytes(b"b")
    os.utime(file, (0, 0))  # a copy that keeps its source's time
    config = load_config(project / "params.yaml")
    patient = config.model_copy(update={"retrain": config.retrain.model_copy(update={"settle": 60.0})})
    found = look(patient, project)
    assert not found.work
    assert "still arriving" in found.reason
    assert (project / "data/raw/line.dvc").read_text() == recorded


def test_a_folder_of_no_set_is_named(project):
    (project / "data/raw/stranger").mkdir()
    (note,) = seen(project).notes
    assert note.startswith("stranger among the raw data belongs to no set")


def test_a_set_that_dvc_does_not_watch_is_named(project):
    (project / "data/raw/line.dvc").unlink()
    (note,) = seen(project).notes
    assert note.startswith("line is not in DVC's care")


def test_a_damaged_record_counts_as_none(project):
    decided(project)
    (project / RETRAINING).write_text('{"key": ')
    assert seen(project).work


def test_a_lock_file_that_a_kill_left_half_written_stops_nothing(project):
    decided(project)
    lock = project / ".dvc/tmp/rwlock"
    for content in ("", '{"data": {"wri'):
        lock.write_text(content)
        assert not seen(project).work
    (project / "data/raw/line/b.png").write_bytes(b"b")
    lock.write_text("")
    stage(project, "echo done > made.txt")
    reproduce(root=project)


@pytest.mark.parametrize("content", ["", "schema: '2.0'\nstages:\n  check:\n    cmd: x\n    dep"])
def test_a_half_written_dvc_lock_is_moved_away(project, content):
    stage(project, "echo done > made.txt")
    (project / "dvc.lock").write_text(content)
    reproduce(root=project)
    assert (project / "made.txt").exists()
    assert (project / "dvc.lock.damaged").read_text() == content


def stage(project, command, name="check"):
    stages = {"stages": {name: {"cmd": command}}}
    (project / "dvc.yaml").write_text(yaml.safe_dump(stages))


def test_a_stage_that_says_what_to_mend_is_refused_data(project):
    stage(project, "echo 'error: line: marks.json names no image' >&2; exit 1", name="split")
    with pytest.raises(DataRefusedError, match=r"^split: line: marks.json names no image$"):
        reproduce(CHECKS, project)


def test_what_a_later_stage_says_is_told_but_no_matter_of_data(project):
    stage(project, "echo 'error: disk: no space left' >&2; exit 1")
    with pytest.raises(
        RetrainingError, match=r"^check: disk: no space left; the next run goes on$"
    ) as caught:
        reproduce(root=project)
    assert not isinstance(caught.value, DataRefusedError)


def test_a_stage_that_dies_may_be_tried_again(project):
    stage(project, "kill -9 $$")
    with pytest.raises(RetrainingError, match="the next run goes on") as caught:
        reproduce(root=project)
    assert not isinstance(caught.value, DataRefusedError)


def test_a_stage_that_ends_well_is_silent(project):
    stage(project, "echo done > made.txt")
    reproduce(("check",), project)
    assert (project / "made.txt").read_text() == "done\n"


def test_dvc_and_its_stage_end_when_the_wait_for_them_is_cut_off(project, tmp_path):
    mark = tmp_path / "pid"
    stage(project, f"echo $$ > {mark}; sleep 60")
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from unispector.project.retrain import reproduce\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "reproduce(root=Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(project)])
    end = time.monotonic() + 60
    while not mark.exists() or not mark.read_text().strip():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.terminate()
    process.wait(30)
    left = Path("/proc", mark.read_text().strip(), "stat")
    # Nobody may be there to ask how the orphan ended.
    assert not left.exists() or left.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_key_of_a_version_is_that_of_its_models(project):
    config = load_config(project / "params.yaml")
    with pytest.raises(RetrainingError, match=r"training\.json"):
        version_key(config, project)

    def trained(fingerprint):
        (project / TRAINING_SUMMARY).parent.mkdir(exist_ok=True)
        models = {"unispector-seed42": {"fingerprint": fingerprint}}
        (project / TRAINING_SUMMARY).write_text(json.dumps(models))
        return version_key(config, project)

    assert trained("a") == trained("a") != trained("b")
