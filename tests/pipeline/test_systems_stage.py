"""The stage measures each system by itself and writes the table of all."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from unispector.config import SystemsConfig
from unispector.errors import ConfigError
from unispector.evaluation.results import EvaluationReport
from unispector.evaluation.system_record import SystemRecord
from unispector.pipeline.systems import systems, write_systems_page
from unispector.project.paths import BENCHMARKED, SYSTEM_RECORDS, SYSTEMS_PAGE


def configured(config, *measure, sets=("tile",)):
    split = config.split.model_copy(update={"prompt_seeds": (1,)})
    return config.model_copy(update={"systems": SystemsConfig(measure=measure, sets=sets), "split": split})


def test_each_system_has_a_folder_and_a_row(benchmark, new_project, short):
    root = new_project(variants=("unispector",))
    reports = systems(configured(short, "unispector", "prototypes/mask"), root)
    assert [report.variants for report in reports] == [("unispector",), ("prototypes/mask",)]
    folders = {path.name: path for path in (root / SYSTEM_RECORDS).iterdir()}
    assert set(folders) == {"unispector", "prototypes-mask"}
    records = {name: SystemRecord.read(path / "system.json") for name, path in folders.items()}
    assert {name: (one.system, one.roi) for name, one in records.items()} == {
        "unispector": ("unispector", "box"),
        "prototypes-mask": ("prototypes", "mask"),
    }
    for report, name in zip(reports, ("unispector", "prototypes-mask"), strict=True):
        assert EvaluationReport.read(folders[name] / "evaluation.json") == report
        assert {row.data_set for row in report.rows} == {"tile"}
    page = (root / SYSTEMS_PAGE).read_text()
    assert page.count("\n| nearest prototypes |") == 1
    assert "PerSAM" in page
    assert page.count("not measured here") > 10

    own = root / BENCHMARKED / "again"
    shutil.copytree(folders["prototypes-mask"], own)
    record = json.loads((own / "system.json").read_text())
    (own / "system.json").write_text(json.dumps({**record, "roi": "box", "peak_mib": 123456.0}))
    write_systems_page(root)
    assert "123456" in (root / SYSTEMS_PAGE).read_text()


def test_each_stands_beside_unispector_in_four_columns(benchmark, new_project, short):
    root = new_project(variants=("unispector",))
    systems(configured(short, "unispector", "prototypes/mask"), root)
    own, floor = (
        SystemRecord.read(root / SYSTEM_RECORDS / name / "system.json").samples
        for name in ("unispector", "prototypes-mask")
    )
    assert [sample.key for sample in own] == [sample.key for sample in floor]
    assert len(own) == short.evaluate.pictures
    target = benchmark.annotations["tile"]
    for sample in floor:
        name = Path(sample.target_image).name
        image = next(image for image in target.images if image.file_name == name)
        boxes = [one.bbox for one in target.instances_of(image.id)]
        assert {(x, y, x + w, y + h) for x, y, w, h in boxes} >= set(sample.truth) > set()
        assert sample.target_image != sample.prompt_image
    figure = "systems/prototypes-mask/beside.jpg"
    page = (root / SYSTEMS_PAGE).read_text()
    assert f"](<{figure}>)" in page
    assert "systems/unispector/beside.jpg" not in page
    height, width = cv2.imread(str((root / SYSTEMS_PAGE).parent / figure)).shape[:2]
    assert (width - 16) % 4 == 0
    assert (height - 44) % len(own) == 0

    for file in (root / SYSTEM_RECORDS).glob("*/system.json"):
        file.write_text(file.read_text().replace(floor[0].target_image, "gone.png"))
    write_systems_page(root)  # without that row
    assert cv2.imread(str((root / SYSTEMS_PAGE).parent / figure)).shape[0] < height


def test_nothing_is_lost_where_a_system_is_unknown(benchmark, new_project, short):
    root = new_project(variants=())
    (root / SYSTEM_RECORDS).mkdir(parents=True)
    (root / SYSTEM_RECORDS / "kept").mkdir()
    for config, told in ((configured(short, "nobody"), "give package.module:callable, or a system"),):
        with pytest.raises(ConfigError, match=told):
            systems(config, root)
        assert [path.name for path in (root / SYSTEM_RECORDS).iterdir()] == ["kept"]


def test_a_set_that_is_not_there_is_told_and_costs_nothing(benchmark, new_project, short, caplog):
    root = new_project(variants=())
    assert systems(configured(short, "prototypes", sets=("mini-MagneticTile",)), root) == []
    assert caplog.messages == [
        "systems.sets: mini-MagneticTile is not among data.sets; nothing is measured on it"
    ]
    assert (root / SYSTEM_RECORDS).is_dir()
    assert "nearest prototypes" in (root / SYSTEMS_PAGE).read_text()


@pytest.mark.parametrize(("sets", "judged"), [("all", {"tile", "steel"}), ((), set())])
def test_all_sets_or_none(benchmark, new_project, short, sets, judged):
    reports = systems(configured(short, "prototypes", sets=sets), new_project(variants=()))
    assert {row.data_set for report in reports for row in report.rows} == judged


def test_a_bad_record_is_told_and_hides_no_other(benchmark, new_project, short, caplog):
    root = new_project(variants=())
    systems(configured(short, "prototypes"), root)
    record = (root / SYSTEM_RECORDS / "prototypes/system.json").read_text()
    bad = {
        "empty": "{}",
        "infinite": record.replace('"parameters": ', '"parameters": 1' + 400 * "0"),
        "nan": json.dumps({**json.loads(record), "seconds": float("nan")}),
    }
    for name, text in bad.items():
        (root / BENCHMARKED / name).mkdir(parents=True)
        shutil.copy(root / SYSTEM_RECORDS / "prototypes/evaluation.json", root / BENCHMARKED / name)
        (root / BENCHMARKED / name / "system.json").write_text(text)
    write_systems_page(root)
    assert (root / SYSTEMS_PAGE).read_text().count("\n| nearest prototypes |") == 1
    for name in bad:
        assert any(f"{name}/system.json" in told for told in caplog.messages), name


@pytest.mark.parametrize(("second", "told"), [("nobody", "nobody"), ("persam", "persam needs --weights")])
def test_a_system_that_cannot_be_made_is_told_before_the_first_is_measured(
    benchmark, new_project, short, second, told
):
    root = new_project(variants=())
    (root / SYSTEM_RECORDS / "kept").mkdir(parents=True)
    with pytest.raises(ConfigError, match=told):
        systems(configured(short, "prototypes", second), root)
    assert [path.name for path in (root / SYSTEM_RECORDS).iterdir()] == ["kept"]


KILLED = """
import os, signal, sys
from pathlib import Path
from unispector.pipeline import systems
def wait(*given, **options):
    Path("worker").write_text(str(os.getpid()))
    signal.pause()
if __name__ == "__main__":
    systems.benchmark = wait
    systems._alone("a", "a")
"""


def test_the_process_of_a_system_ends_with_the_stage(tmp_path, project_root):
    """However the stage ends: by SIGKILL too."""
    (tmp_path / "stage.py").write_text(KILLED)
    env = {**os.environ, "PYTHONPATH": str(project_root)}
    stage = subprocess.Popen([sys.executable, "stage.py"], cwd=tmp_path, env=env)
    worker = int(until((tmp_path / "worker"), Path.is_file).read_text() or 0)
    stage.kill()
    stage.wait()
    until(Path(f"/proc/{worker}"), gone)


def gone(process):
    return not process.exists() or "State:\tZ" in (process / "status").read_text()


def until(path, holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds(path):
        assert time.monotonic() < end, path
        time.sleep(0.1)
    time.sleep(0.2)
    return path
