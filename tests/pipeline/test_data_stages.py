"""The data stages on a small release made here: generate, convert, survey, validate, split."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from unispector.config import Config, DataConfig, MiniConfig, SetConfig, SplitConfig
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.convert_release import convert_release, list_sources
from unispector.data.defect_free import defect_free_for_tests
from unispector.data.sources import SOURCES
from unispector.errors import DataError
from unispector.pipeline.convert import convert
from unispector.pipeline.fingerprint import fingerprint
from unispector.pipeline.generate import generate
from unispector.pipeline.split import split
from unispector.pipeline.survey import survey
from unispector.pipeline.validate import validate
from unispector.project.paths import SPLIT_CHECKS, SPLITS, annotation_file, check_report, dropped_file

IMAGES = 14


def write_release(folder: Path) -> None:
    """Four defects in Magnetic Tile's layout, `IMAGES` images each, one or two spots per image."""
    rng = np.random.default_rng(3)
    for defect in ("Blowhole", "Break", "Crack", "Fray"):
        images = folder / f"MT_{defect}" / "Imgs"
        images.mkdir(parents=True)
        for number in range(IMAGES):
            mask = np.zeros((48, 64), np.uint8)
            for _ in range(1 + number % 2):
                x, y = rng.integers(4, 40, 2).tolist()
                mask[y : y + 6, x : x + 9] = 255
            picture = np.where(mask > 0, 40, rng.integers(120, 200, mask.shape)).astype(np.uint8)
            cv2.imwrite(str(images / f"exp1_num_{number}.jpg"), picture)
            cv2.imwrite(str(images / f"exp1_num_{number}.png"), mask)


@pytest.fixture(scope="module", autouse=True)
def _expectations_are_imported() -> None:
    """It takes seconds once; no single test should pay for it."""
    importlib.import_module("great_expectations")


@pytest.fixture
def config() -> Config:
    inside = SetConfig(source="magnetic_tile", path="small/Tile")
    cross = SetConfig(source="magnetic_tile", path="other", domain="cross")
    return Config(
        mini=MiniConfig(images_per_class=2, defect_free_images=1, size=64),
        data=DataConfig(sets={"Tile": inside, "Other": cross}, workers=1),
        split=SplitConfig(seeds=(42,), prompt_seeds=(42, 82)),
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_release(tmp_path / "data/raw/small/Tile")
    write_release(tmp_path / "data/raw/other")
    return tmp_path


def bring_in(config: Config, project: Path) -> None:
    for name in config.data.sets:
        convert(config, name, project)
        survey(config, name, project)


def test_raw_to_splits(config: Config, project: Path) -> None:
    for name in config.data.sets:
        report = convert(config, name, project)
        assert report.images_kept == 4 * IMAGES
        files = ConversionFiles.beside(project / annotation_file(name))
        assert json.loads(files.report.read_text())["images_read"] == 4 * IMAGES
        survey(config, name, project)
    assert [checks.name for checks in validate(config, project) if checks.passed] == ["Tile", "Other"]
    assert json.loads((project / check_report("Tile")).read_text())["name"] == "Tile"
    annotations = Annotations.read(project / annotation_file("Tile"))
    assert annotations.class_names == tuple(
        f"magnetic_tile_{name}" for name in ("blowhole", "break", "crack", "fray")
    )

    splits = split(config, project)

    assert [item.name for item in splits.sets] == ["Tile", "Other"]
    assert json.loads((project / SPLIT_CHECKS).read_text())["passed"] is True
    training = Annotations.read(project / SPLITS / "in-domain/seen/InsA_train_seen_seed42.json")
    assert len(training.categories) == 3
    assert all((project / config.data.root / image.file_name).is_file() for image in training.images)
    target = Annotations.read(project / SPLITS / "out-domain/Other/target/Other_prompt_seed82.json")
    assert all((project / "data/raw/other" / image.file_name).is_file() for image in target.images)


def test_images_without_a_defect_train_or_are_tested_never_both(config: Config, project: Path) -> None:
    for folder in ("small/Tile", "other"):
        for number in range(20):
            file = project / "data/raw" / folder / f"MT_Free/Imgs/exp1_num_{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.full((30 + number, 50, 3), 128, np.uint8))
    bring_in(config, project)
    report = split(config, project)

    training = Annotations.read(project / SPLITS / "in-domain/seen/InsA_train_seen_seed42.json")
    free = [image for image in training.images if not training.instances_of(image.id)]
    assert 5 <= len(free) <= 15
    assert [item.training_defect_free for item in report.sets] == [len(free), 0]
    tested = defect_free_for_tests(project / dropped_file("Tile"), 99)
    assert not {image.file_name for image in free} & {f"small/Tile/{name}" for name in tested}
    assert len(free) + len(tested) == 20
    for image in free:
        number = int(Path(image.file_name).stem.rpartition("_")[2])
        assert image.file_name == f"small/Tile/MT_Free/Imgs/exp1_num_{number}.jpg"
        assert (image.width, image.height) == (50, 30 + number)
    assert len(fingerprint(config, project)) == 1


def test_packed_releases_give_the_same_files(config: Config, project: Path) -> None:
    def run() -> dict[str, bytes]:
        bring_in(config, project)
        split(config, project)
        files = [file for part in ("insa", "splits") for file in (project / "data" / part).rglob("*.*")]
        assert len(files) > 10
        return {file.relative_to(project).as_posix(): file.read_bytes() for file in files}

    loose = run()
    for folder in ("small/Tile/MT_Crack", "other/MT_Fray"):
        path = project / "data/raw" / folder
        shutil.make_archive(str(path), "zip", path.parent, path.name)
        shutil.rmtree(path)
    assert run() == loose


def test_validate_fails_in_one_line_and_leaves_its_report(config: Config, project: Path) -> None:
    image = project / "data/raw/small/Tile/MT_Fray/Imgs/exp1_num_3.jpg"
    image.write_bytes(image.read_bytes()[:900])
    bring_in(config, project)

    with pytest.raises(DataError) as caught:
        validate(config, project)

    message = str(caught.value)
    assert message.startswith("Tile: rule broken: image ")
    assert "MT_Fray/Imgs/exp1_num_3.jpg" in message
    assert "\n" not in message
    assert json.loads((project / check_report("Tile")).read_text())["passed"] is False
    assert json.loads((project / check_report("Other")).read_text())["passed"] is True


def test_stages_name_what_is_missing(config: Config, project: Path) -> None:
    with pytest.raises(
        DataError, match=r"Nope: no such set under data.sets in params.yaml; it has Tile, Other"
    ):
        convert(config, "Nope", project)
    with pytest.raises(DataError, match="Nope: no such set"):
        survey(config, "Nope", project)
    with pytest.raises(DataError, match=r"data/insa/Tile.json: cannot be read"):
        survey(config, "Tile", project)
    with pytest.raises(DataError, match=r"data/insa/Tile.json: cannot be read"):
        validate(config, project)
    with pytest.raises(DataError, match=r"data/insa/Tile.json: cannot be read"):
        split(config, project)
    (project / "data/raw/small/Tile/MT_Crack/Imgs/exp1_num_0.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(DataError, match=r"exp1_num_0.png: not a readable image"):
        convert(config, "Tile", project)
    assert not list((project / "data").glob("insa/*"))


def test_the_embedded_data_pass_through_every_source(config: Config, tmp_path: Path) -> None:
    made = generate(config, tmp_path)
    sets = {
        "GC10": "gc10",
        "MagneticTile": "magnetic_tile",
        "RealIAD": "real_iad",
        "MVTec": "mvtec_ad",
        "3CAD": "three_cad",
        "VISION": "vision",
        "VisA": "visa",
    }
    members = {
        name: SetConfig.model_validate({"source": source, "path": f"insa-mini/{name}"})
        for name, source in sets.items()
    }
    config = config.model_copy(update={"data": DataConfig(sets=members, min_side=0.0, workers=1)})
    assert set(made.images) == set(sets)
    for name in sets:
        report = convert(config, name, tmp_path)
        assert sum(report.instances_kept.values()) > 0
        survey(config, name, tmp_path)
    assert all(report.passed for report in validate(config, tmp_path))


@pytest.mark.integration
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_conversion_leaves_what_was_there(project: Path, workers: int) -> None:
    """SIGKILL half-way: the older files stay as they were, no half of a new one appears."""
    raw, out = project / "data/raw/other", project / "tiles.json"
    files = ConversionFiles.beside(out)
    convert_set("tiles", SOURCES["magnetic_tile"], raw, files, min_side=0.01)
    before = {path: path.read_bytes() for path in (files.annotations, files.report, files.dropped)}
    for number in range(220):  # enough for more workers than one
        for suffix in (".jpg", ".png"):
            shutil.copy(raw / f"MT_Crack/Imgs/exp1_num_0{suffix}", raw / f"MT_Crack/Imgs/n{number}{suffix}")
    program = (
        "from pathlib import Path\n"
        "from unispector.data.convert import ConversionFiles, convert_set\n"
        "from unispector.data.sources import SOURCES\n"
        "def wait(done, total):\n"
        "    if done == total // 2:\n"
        "        print('half', flush=True)\n"
        "        input()\n"
        f"files = ConversionFiles.beside(Path({str(out)!r}))\n"
        f"convert_set('tiles', SOURCES['magnetic_tile'], Path({str(raw)!r}), files,\n"
        f"            min_side=0.01, workers={workers}, progress=wait)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "half\n"
        running.kill()
    assert {path: path.read_bytes() for path in before} == before

    report = convert_set("tiles", SOURCES["magnetic_tile"], raw, files, min_side=0.01)
    assert report.images_kept == 4 * IMAGES + 220


def test_a_release_outside_the_pipeline(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "found" / "tiles.json"
    outcome = convert_release("magnetic_tile", project / "data/raw/other", out, workers=1)
    assert outcome.conversion.images_kept == 4 * IMAGES
    assert outcome.checks.passed
    assert sorted(file.name for file in out.parent.iterdir()) == [
        "tiles.checks.json",
        "tiles.dropped.csv",
        "tiles.json",
        "tiles.report.json",
        "tiles.survey.parquet",
    ]
    image = project / "data/raw/other/MT_Fray/Imgs/exp1_num_3.jpg"
    image.write_bytes(image.read_bytes()[:900])
    with pytest.raises(DataError, match=r"tiles: rule broken: .*exp1_num_3.jpg.*tiles.checks.json"):
        convert_release("magnetic_tile", project / "data/raw/other", out, workers=1)
    with pytest.raises(DataError, match=r"must end in .json"):
        convert_release("magnetic_tile", project / "data/raw/other", tmp_path / "tiles", workers=1)
    with pytest.raises(DataError, match=r"tiles: no such source; known are gc10, "):
        convert_release("tiles", project, out)


def test_every_source_is_listed() -> None:
    text = list_sources()
    ours, yours = text.split("Your own images:")
    assert ours.count("layout:") == 7
    assert yours.count("layout:") == 7
    assert all(
        word in yours for word in ("coco:", "voc:", "yolo:", "labelme:", "label_studio:", "cvat:", "masks:")
    )


def test_config_names_the_sources() -> None:
    assert get_args(SetConfig.model_fields["source"].annotation) == tuple(SOURCES)
