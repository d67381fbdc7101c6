"""The doctor as a whole: with the shipped model on drawn images, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from drawn_holes import SIDE, holes
from unispector.cli import main
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.inference.calibration import Calibration
from unispector.inference.detector import UniSpector
from unispector.prompts.doctor import diagnose_prompts, diagnose_store
from unispector.prompts.doctor_report import terminal_lines, write_diagnosis
from unispector.prompts.marks import read_marks
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.scores import DEFAULT_SCORE

SPOILED = 3


@pytest.fixture(scope="module")
def detector() -> UniSpector:
    return UniSpector.load("fast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("holes")


@pytest.fixture(scope="module")
def diagnosis(detector, folder):
    """Six holes, of which one is marked beside it."""
    return diagnose_prompts(detector, holes(folder, 6, {SPOILED}), folder, quick=True)


def test_a_spoiled_prompt_is_named_and_no_other(diagnosis):
    (found,) = diagnosis.classes
    assert found.suspects == (f"{SPOILED}.png",)
    assert found.to_drop == ()
    (advice,) = found.on_image(f"{SPOILED}.png")
    assert (advice.kind, advice.text.partition(":")[0]) == ("look", "look at the mark")
    assert [advice.kind for advice in found.on_image("1.png")] == ["fine"]


def test_what_is_written(diagnosis, tmp_path):
    write_diagnosis(diagnosis, tmp_path / "out")
    page = (tmp_path / "out/doctor.md").read_text()
    assert "- `3.png`: look at the mark: neither the others nor its own prompt find it" in page
    assert [file.name for file in (tmp_path / "out/pictures").iterdir()] == ["001-3.png"]
    assert "](<pictures/001-3.png>)" in page
    (record,) = json.loads((tmp_path / "out/doctor.json").read_text())["classes"]
    assert record["images"][SPOILED - 1]["advice"][0]["kind"] == "look"
    assert len(record["images"]) == 6
    lines = list(terminal_lines(diagnosis))
    assert lines[0].startswith("hole: 5 of 6 marks are found by prompts from the other images, AP50 ")
    assert lines[1 + SPOILED].split()[0] == "3.png"


def tiny_class(folder: Path, count: int = 3) -> Annotations:
    return holes(folder, count)


@pytest.fixture(scope="module")
def tiny(tiny_model) -> UniSpector:
    return UniSpector.load(tiny_model)


def test_the_chart_and_several_classes(tiny, tmp_path):
    first = tiny_class(tmp_path / "images", 4)
    second = [replace(mark, id=mark.id + 4, category_id=2) for mark in first.instances[:2]]
    both = replace(
        first,
        instances=(*first.instances, *second),
        categories=(*first.categories, CategoryRecord(2, "dent", "")),
    )
    found = diagnose_prompts(tiny, both, tmp_path / "images")
    assert [one.label for one in found.classes] == ["hole", "dent"]
    assert [len(one.figures.images) for one in found.classes] == [4, 2]
    (dent,) = diagnose_prompts(tiny, both, tmp_path / "images", only=["dent"]).classes
    assert dent.as_dict() == found.classes[1].as_dict()
    write_diagnosis(found, tmp_path / "out")
    assert (tmp_path / "out/curve-1.png").read_bytes()[:4] == b"\x89PNG"
    assert "](<./curve-1.png>)" in (tmp_path / "out/doctor.md").read_text()


def test_the_prompts_in_production(tiny, tmp_path):
    marked = tiny_class(tmp_path / "images")
    store = PromptStore(tmp_path / "prompts")
    pictures = [
        MarkedImage((tmp_path / "images" / image.file_name).read_bytes(), image.file_name, [mark.bbox])
        for image, mark in zip(marked.images, marked.instances, strict=True)
    ]
    store.add("hole", pictures, "ann", "", {})
    found = diagnose_store(tiny, tmp_path / "prompts", quick=True)
    assert set(found.names.values()) == {"1.png", "2.png", "3.png"}
    assert any(line.split()[0] == "2.png" for line in terminal_lines(found))
    direct = diagnose_prompts(tiny, marked, tmp_path / "images", quick=True)
    scores = [
        sorted(mark.score for check in one.classes[0].figures.checks for mark in check.marks)
        for one in (found, direct)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert found.classes[0].figures.score == DEFAULT_SCORE


def test_in_production_a_mark_counts_as_found_from_its_calibrated_threshold(tiny, tmp_path):
    marked = tiny_class(tmp_path / "images")
    store = PromptStore(tmp_path / "prompts")
    for image, mark in zip(marked.images, marked.instances, strict=True):
        content = (tmp_path / "images" / image.file_name).read_bytes()
        store.add("hole", [MarkedImage(content, image.file_name, [mark.bbox])], "ann", "", {})
    bank = store.bank(tiny)
    # A raw score of 0.3 becomes 0.6, which is the threshold.
    told = Calibration(slope=1.0, offset=math.log(0.6 / 0.4) - math.log(0.3 / 0.7), threshold=0.6)
    store.calibrate(bank.calibrated({"hole": told}), "ann", "", {}, store.current().version)
    (hole,) = diagnose_store(tiny, tmp_path / "prompts", quick=True).classes
    assert hole.figures.score == pytest.approx(0.3)


def test_one_image_and_a_mark_of_one_pixel(tiny, tmp_path):
    (one,) = diagnose_prompts(tiny, tiny_class(tmp_path, 1), tmp_path).classes
    assert [advice.text for advice in one.on_class] == [
        "one image only, so nothing can be left out: mark two more"
    ]
    marked = tiny_class(tmp_path)
    point = replace(marked.instances[0], bbox=(20.0, 20.0, 1.0, 1.0), area=1.0)
    small = replace(marked, instances=(point, *marked.instances[1:]))
    (one,) = diagnose_prompts(tiny, small, tmp_path).classes
    assert len(one.figures.checks) == 3


def test_what_cannot_be_diagnosed_is_refused_in_a_line(tiny, tmp_path):
    marked = tiny_class(tmp_path)
    empty = replace(marked, categories=(*marked.categories, CategoryRecord(2, "dent", "")))
    with pytest.raises(DataError, match="class 'dent' has no mark; mark it on two images or more"):
        diagnose_prompts(tiny, empty, tmp_path)
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        diagnose_prompts(tiny, marked, tmp_path)
    wrong = Annotations(
        (ImageRecord(1, "1.png", SIDE + 1, SIDE),),
        (InstanceRecord(1, 1, 1, (1.0, 1.0, 9.0, 9.0), 81.0, None),),
        marked.categories,
    )
    with pytest.raises(DataError, match=r"1\.png: the image has 200x200 pixels, its record says 201x200"):
        diagnose_prompts(tiny, wrong, tmp_path)
    with pytest.raises(DataError, match="no prompt in this store"):
        diagnose_store(tiny, tmp_path / "none")
    (tmp_path / "bank.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"bank\.safetensors: a bank keeps no images; give the COCO file"):
        read_marks(tmp_path / "bank.safetensors")
    with pytest.raises(DataError, match="a file, but no store of prompts"):
        diagnose_store(tiny, tmp_path / "bank.safetensors")


def test_the_verb(tiny_model, tmp_path, capsys):
    marked = tiny_class(tmp_path / "images")
    marked.write(tmp_path / "prompts.json")
    given = ["--annotations", str(tmp_path / "prompts.json"), "--images", str(tmp_path / "images")]
    more = ["--model", str(tiny_model), "--out", str(tmp_path / "out"), "--quick"]
    assert main(["prompts", "doctor", *given, *more]) == 0
    assert "marks are found by prompts from the other images" in capsys.readouterr().out
    assert (tmp_path / "out/doctor.md").exists()
    assert main(["prompts", "doctor", *given[:2]]) == 1
    assert "error: give the folder of a prompt store, or both" in capsys.readouterr().err
