"""The data stages on a small release made here: generate, convert, validate, split."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.config import Config, DataConfig, MiniConfig, SetConfig, SplitConfig
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.stages.convert import convert
from unispector.stages.generate import generate
from unispector.stages.paths import SPLIT_CHECKS, SPLITS, annotation_file, check_report, conversion_report
from unispector.stages.split import split
from unispector.stages.validate import validate

IMAGES = 14


def write_release(folder: Path) -> None:
    """Four defects in Magnetic Tile's layout, `IMAGES` pictures each, one or two spots per picture."""
    rng = np.random.default_rng(3)
    for defect in ("Crack", "Dent", "Hole", "Stain"):
        images = folder / f"MT_{defect}" / "Imgs"
        images.mkdir(parents=True)
        for number in range(IMAGES):
            mask = np.zeros((48, 64), np.uint8)
            for _ in range(1 + number % 2):
                x, y = rng.integers(4, 40, 2).tolist()
                mask[y : y + 6, x : x + 9] = 255
            picture = np.where(mask > 0, 40, 160).astype(np.uint8)
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
        mini=MiniConfig(images_per_family=2, defect_free_images=1, size=64),
        data=DataConfig(sets={"Tile": inside, "Other": cross}),
        split=SplitConfig(seeds=(42,), prompt_seeds=(42, 82)),
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_release(tmp_path / "data/raw/small/Tile")
    write_release(tmp_path / "data/raw/other")
    return tmp_path


def test_raw_to_splits(config: Config, project: Path) -> None:
    for name in config.data.sets:
        report = convert(config, name, project)
        assert report.images_kept == 4 * IMAGES
        assert json.loads((project / conversion_report(name)).read_text())["images_read"] == 4 * IMAGES
        assert validate(config, name, project).passed
        assert json.loads((project / check_report(name)).read_text())["name"] == name
    annotations = Annotations.read(project / annotation_file("Tile"))
    assert annotations.class_names == tuple(
        f"magnetic_tile_{name}" for name in ("crack", "dent", "hole", "stain")
    )

    report = split(config, project)

    assert [item.name for item in report.sets] == ["Tile", "Other"]
    assert json.loads((project / SPLIT_CHECKS).read_text())["passed"] is True
    training = Annotations.read(project / SPLITS / "in-domain/seen/InsA_train_seen_seed42.json")
    assert len(training.categories) == 3
    assert all((project / config.data.root / image.file_name).is_file() for image in training.images)
    target = Annotations.read(project / SPLITS / "out-domain/Other/target/Other_prompt_seed82.json")
    assert all((project / "data/raw/other" / image.file_name).is_file() for image in target.images)


def test_stages_give_the_same_bytes_again(config: Config, project: Path) -> None:
    def run() -> dict[str, bytes]:
        for name in config.data.sets:
            convert(config, name, project)
        split(config, project)
        return {str(path): path.read_bytes() for path in (project / "data").rglob("*.json")}

    assert run() == run()


def test_validate_fails_in_one_line_and_leaves_its_report(config: Config, project: Path) -> None:
    convert(config, "Tile", project)
    image = project / "data/raw/small/Tile/MT_Hole/Imgs/exp1_num_3.jpg"
    image.write_bytes(image.read_bytes()[:200])

    with pytest.raises(DataError) as caught:
        validate(config, "Tile", project)

    message = str(caught.value)
    assert message.startswith("Tile: rule broken: image opens: MT_Hole/Imgs/exp1_num_3.jpg: ")
    assert "\n" not in message
    assert json.loads((project / check_report("Tile")).read_text())["passed"] is False


def test_stages_name_what_is_missing(config: Config, project: Path) -> None:
    with pytest.raises(
        DataError, match=r"Nope: no such set under data.sets in params.yaml; it has Tile, Other"
    ):
        convert(config, "Nope", project)
    with pytest.raises(DataError, match="Nope: no such set"):
        validate(config, "Nope", project)
    with pytest.raises(DataError, match=r"data/insa/Tile.json: cannot be read"):
        validate(config, "Tile", project)
    with pytest.raises(DataError, match=r"data/insa/Tile.json: cannot be read"):
        split(config, project)
    (project / "data/raw/small/Tile/MT_Dent/Imgs/exp1_num_0.png").unlink()
    with pytest.raises(DataError, match=r"exp1_num_0.jpg: no mask"):
        convert(config, "Tile", project)
    assert not (project / annotation_file("Tile")).exists()


def test_the_embedded_data_convert(config: Config, tmp_path: Path) -> None:
    made = generate(config, tmp_path)
    mini = SetConfig(source="magnetic_tile", path="insa-mini/MagneticTile")
    config = config.model_copy(update={"data": DataConfig(sets={"mini": mini}, min_side=0.0)})

    report = convert(config, "mini", tmp_path)

    defects = {name: count for name, count in made.instances.items() if made.images[name] and name != "Free"}
    assert report.instances_read == {
        f"magnetic_tile_{name.lower()}": count for name, count in defects.items()
    }
    assert report.images_read == 2 * len(defects)
