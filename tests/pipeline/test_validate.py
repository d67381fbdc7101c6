"""Stage `validate` behind the real conversion and survey of two small releases."""

import importlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.config import Config, DataConfig, SetConfig
from unispector.errors import DataError
from unispector.pipeline.convert import convert
from unispector.pipeline.survey import survey
from unispector.pipeline.validate import validate
from unispector.project.paths import DATA_DOCS, annotation_file, check_report, survey_file

SETS = {"Tile": "tiles", "Other": "others"}


@pytest.fixture(scope="module", autouse=True)
def _expectations_are_imported() -> None:
    """It takes seconds once; no single test should pay for it."""
    importlib.import_module("great_expectations")


@pytest.fixture
def config() -> Config:
    sets = {name: SetConfig(source="magnetic_tile", path=path) for name, path in SETS.items()}
    return Config(data=DataConfig(sets=sets, workers=1))


@pytest.fixture
def project(config: Config, tmp_path: Path) -> Path:
    """Two releases in Magnetic Tile's layout, converted and surveyed; then the images are gone."""
    for path in SETS.values():
        for number, defect in enumerate(("Crack", "Fray")):
            images = tmp_path / config.data.root / path / f"MT_{defect}" / "Imgs"
            images.mkdir(parents=True)
            mask = np.zeros((48, 64), np.uint8)
            mask[8 : 20 + number, 10:30] = 255
            cv2.imwrite(str(images / "exp1_num_1.png"), mask)
            cv2.imwrite(str(images / "exp1_num_1.jpg"), 160 - mask // 2)
    for name in SETS:
        convert(config, name, tmp_path)
        survey(config, name, tmp_path)
    (tmp_path / config.data.root).rename(tmp_path / "elsewhere")
    return tmp_path


def change_annotations(project: Path, name: str, **changes: object) -> None:
    """Change the first instance in the set's file."""
    path = project / annotation_file(name)
    content = json.loads(path.read_text())
    content["annotations"][0] |= changes
    path.write_text(json.dumps(content))


def test_all_sets_are_checked_without_their_images(config, project, caplog):
    caplog.set_level("INFO", "unispector.pipeline.validate")
    reports = validate(config, project)
    assert [report.name for report in reports] == ["Tile", "Other"]
    assert all(report.passed for report in reports)
    for report in reports:
        assert json.loads((project / check_report(report.name)).read_text())["passed"] is True
    links = re.findall(r'href="([^"]+)"', (project / DATA_DOCS / "index.html").read_text())
    assert [link.rpartition("-")[2] for link in links] == ["Tile.html", "Other.html"]
    assert all((project / DATA_DOCS / link).is_file() for link in links)
    assert [m for m in caplog.messages if m.startswith("validate")] == [
        "validate Tile (1 of 2)",
        "validate Other (2 of 2)",
    ]


def test_a_broken_set_is_named_and_the_others_are_checked(config: Config, project: Path) -> None:
    change_annotations(project, "Tile", area=7.0)
    with pytest.raises(DataError) as caught:
        validate(config, project)
    path = project / check_report("Tile")
    assert str(caught.value) == (
        "Tile: rule broken: area is the mask's: MT_Crack/Imgs/exp1_num_1.jpg (annotation 1): area 7, "
        f"mask_area 240; all of it is in {path}"
    )
    assert json.loads(path.read_text())["passed"] is False
    assert json.loads((project / check_report("Other")).read_text())["passed"] is True
    page = (project / DATA_DOCS / "index.html").read_text()
    assert page.count("broken</b>") == 1
    assert "MT_Crack/Imgs/exp1_num_1.jpg (annotation 1): area 7, mask_area 240" in page


def test_unreadable_files_are_rules_broken(config: Config, project: Path) -> None:
    (project / survey_file("Tile")).unlink()
    change_annotations(project, "Other", bbox=[1, 1, 500, 3])
    with pytest.raises(DataError) as caught:
        validate(config, project)
    message = str(caught.value)
    assert message.startswith("Tile: rule broken: annotation file and survey can be read: ")
    assert "data/insa/Tile.survey.parquet: no such file; run the survey stage" in message
    assert message.endswith("; Other is broken too")
    assert "\n" not in message
    other = json.loads((project / check_report("Other")).read_text())
    assert "leaves image MT_Crack/Imgs/exp1_num_1.jpg" in other["results"][0]["examples"][0]


def test_the_size_rule_is_that_of_the_source(config: Config, project: Path) -> None:
    """The same file, once as a release of masks and once as instances that people drew."""
    strict = config.model_copy(update={"data": config.data.model_copy(update={"min_side": 0.4})})
    with pytest.raises(DataError, match=r"box width is at least 0.4 of its image's: .* width_share 0.3125"):
        validate(strict, project)
    sets = {name: SetConfig(source="voc", path=path) for name, path in SETS.items()}
    drawn = strict.model_copy(update={"data": strict.data.model_copy(update={"sets": sets})})
    for report in validate(drawn, project):
        assert [rule.rule for rule in report.left_out] == [
            "box is no smaller than the size rule allows",
            "category is on the release's list",
        ]


def test_a_category_that_the_release_does_not_have_is_told(config: Config, project: Path) -> None:
    path = project / annotation_file("Other")
    path.write_text(path.read_text().replace("magnetic_tile_fray", "magnetic_tile_frog"))
    with pytest.raises(
        DataError, match=r"^Other: rule broken: category is on .*magnetic_tile_frog: listed 0"
    ):
        validate(config, project)
