"""Every door by which the name of a class comes in refuses what is no name, in one printable line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from source_layouts import LAYOUTS, Painted
from unispector.cli.main import main
from unispector.config.params import parse_config
from unispector.data.coco import Annotations
from unispector.data.sources.fields import to_name
from unispector.detections import Detections
from unispector.errors import ConfigError, DataError, PromptBankError
from unispector.inference.detector import Prompt
from unispector.inference.export import export
from unispector.inference.geometry import Geometry
from unispector.inference.marking import mark
from unispector.inference.prompt_bank import PromptBank
from unispector.names import shown
from unispector.ops.rle import encode_rle
from unispector.prompts.marks import checked_label
from unispector.prompts.store import PromptStore
from unispector.serving.forms import check_label
from unispector.serving.refusal import RefusedError
from unispector.workbench.session import State

BAD = {
    "line break": "a\nb",
    "terminal": "a\x1b[2Jb",
    "surrogate": "a\ud800",
    "foreign byte": "a\udce4",
    "right to left": "a\u202eb",
    "invisible": "a\u200bb",
    "blank": "  ",
    "endless": "a" * 5000,
}
IMAGE = np.zeros((64, 64, 3), np.uint8)


def coco(folder: Path, name: str, key: str = "name") -> Path:
    Image.fromarray(IMAGE).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30]}],
        "categories": [{"id": 1, "name": "a", "supercategory": "b", key: name}],
    }
    (folder / "marks.json").write_text(json.dumps(content))
    return folder / "marks.json"


def by_prompt(name: str, folder: Path) -> None:
    mark(Prompt(IMAGE, [(4, 4, 30, 30)], label=name), 0, Geometry(64, 8, "interp", 8))


def by_record(name: str, folder: Path) -> None:
    found = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [{"id": 1, "name": name}],
    }
    (folder / "detections.json").write_text(json.dumps(found))
    export(folder / "detections.json", "yolo", folder / "out")


def by_params(name: str, folder: Path) -> None:
    parse_config(
        json.dumps({"data": {"sets": {name: {"source": "coco", "path": "x"}}}}).encode(), "params.yaml"
    )


def by_mask_folder(name: str, folder: Path) -> None:
    from unispector.data.convert_release import convert_release

    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 10:30] = 255
    for top, pixels in (("images", IMAGE), ("masks", mask)):
        (folder / "set" / top / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "set" / top / name / "a.png")
    convert_release("masks", folder / "set", folder / "set.json", workers=1)


DOORS: dict[str, Callable[[str, Path], object]] = {
    "mark": by_prompt,
    "bank": lambda name, folder: PromptBank(torch.ones(1, 2), (name,), (1,), "f" * 64, (64,)),
    "COCO": lambda name, folder: Annotations.read(coco(folder, name)),
    "sources": lambda name, folder: to_name(name),
    "enrolment": lambda name, folder: checked_label(name),
    "store": lambda name, folder: PromptStore(folder / "store").add(name, [], "me", "", {}),
    "service": lambda name, folder: check_label(name),
    "session": lambda name, folder: State().with_class(name),
    "record": by_record,
    "params": by_params,
}
REFUSED = (DataError, PromptBankError, ConfigError, RefusedError, ValueError)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("door", DOORS)
def test_a_bad_name_is_refused_in_one_printable_line(door: str, kind: str, tmp_path: Path) -> None:
    if (door, kind) == ("sources", "line break"):
        return  # blanks of any kind are joined there, as in the names of VOC's indented XML
    with pytest.raises(REFUSED) as caught:
        DOORS[door](BAD[kind], tmp_path)
    assert len(shown(str(caught.value))) < 1000


@pytest.mark.parametrize("name", ["a\u202eb", "a\u200bb"])
def test_a_folder_that_names_a_class_is_a_door(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: the name .* of its class holds an invisible character"):
        by_mask_folder(name, tmp_path)


@pytest.mark.parametrize("source", ["labelme", "voc", "yolo", "cvat", "label_studio", "coco"])
def test_a_source_refuses_an_invisible_character_by_file(source: str, tmp_path: Path) -> None:
    from unispector.data.convert_release import convert_release

    root = tmp_path / "set"
    LAYOUTS[source].write(
        root, [Painted("a", "dent", (4, 5, 20, 15)), Painted("b", "scratch", (6, 5, 9, 12))]
    )
    for file in [*root.rglob("*.json"), *root.rglob("*.xml"), *root.rglob("*.yaml"), *root.rglob("*.txt")]:
        file.write_text(file.read_text().replace("dent", "de\u202ent"), encoding="utf-8")
    with pytest.raises(DataError, match="an invisible character") as caught:
        convert_release(source, root, tmp_path / "set.json", workers=1)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("key", ["name", "supercategory"])
def test_a_bad_name_in_a_file_is_told_on_a_terminal_as_text(key: str, tmp_path: Path, capsys) -> None:
    file = coco(tmp_path, "a\x1b[2J\nb", key)
    out = tmp_path / "bank.safetensors"
    code = main(
        ["prompts", "build", "--annotations", str(file), "--images", str(tmp_path), "--out", str(out)]
    )
    told = capsys.readouterr().err
    assert code == 1
    assert told.count("\n") == 1
    assert "\\x1b" in told
    assert "\x1b" not in told


def test_a_label_that_is_no_utf_8_draws_as_text_and_ends_nothing() -> None:
    (code,) = encode_rle(np.ones((1, 64, 64), np.bool_))
    found = Detections(
        torch.tensor([[4.0, 4.0, 30.0, 30.0]]),
        torch.tensor([0.5]),
        torch.tensor([0]),
        (code,),
        ("a\ud800\udcff",),
        (64, 64),
    )
    assert found.plot(IMAGE).shape[2] == 3
