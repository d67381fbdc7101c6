"""The stage measures each system by itself and writes the table of all."""

import json
import shutil
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
