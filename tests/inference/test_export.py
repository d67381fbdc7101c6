"""Records of detections, exported for tools: each tool's files are read back to the same masks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from releases import convert, put, put_image
from unispector.cli import main
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.inference.export import TOOLS, export, read_record
from unispector.ops.rle import decode_rle, encode_rle, segmentation_to_mask

SIZE = (40, 60)


def found(*places: tuple[slice, slice], labels: tuple[int, ...], scores: tuple[float, ...]) -> Detections:
    masks = np.zeros((len(places), *SIZE), np.bool_)
    for mask, place in zip(masks, places, strict=True):
        mask[place] = True
    boxes = [[x.start, y.start, x.stop, y.stop] for y, x in places]
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
        tuple(encode_rle(masks)),
        ("crack", "hole & co"),
        SIZE,
    )


FOUND = {
    "line1/a b.png": found(
        (slice(3, 9), slice(2, 30)), (slice(20, 30), slice(40, 50)), labels=(1, 0), scores=(0.9, 0.3)
    ),
    "line2/a b.png": found((slice(1, 5), slice(7, 9)), labels=(0,), scores=(0.2,)),
    "line2/none.png": found(labels=(), scores=()),
}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`found/detections.json` of three images below `photos`; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    content: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    for number, (name, one) in enumerate(FOUND.items(), start=1):
        put_image(tmp_path / "photos" / name)
        own = one.to_coco(number, f"photos/{name}", len(content["annotations"]) + 1)
        content["images"] += own["images"]
        content["annotations"] += own["annotations"]
        content["categories"] = own["categories"]
    return put(tmp_path / "found/detections.json", content)


@pytest.mark.parametrize("shape", ["mask", "polygon"])
@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_is_read_back(record: Path, tmp_path: Path, tool, shape) -> None:
    export(record, tool, tmp_path / "set" / tool, shape=shape)
    written = tmp_path / "set" / tool
    if tool == "label_studio":  # as if somebody had submitted all
        tasks = json.loads((written / "tasks.json").read_text())
        for task in tasks:
            task["annotations"] = task.pop("predictions")
        put(written / "tasks.json", tasks)
    if tool == "labelme":
        written = tmp_path  # its files name the images from where they are
        record.unlink()
    else:
        shutil.copytree(tmp_path / "photos", written / "images")
    read = convert(tool, written, tmp_path / "out")
    marks = {"/".join(Path(file).parts[-2:]): of for file, of in read.marks.items()}
    assert set(marks) == {name for name, one in FOUND.items() if len(one)}
    for name, of in marks.items():
        one = FOUND[name]
        assert [label for label, _ in of] == [one.class_names[label] for label in one.labels.tolist()]
        for (_, mark), rle in zip(of, one.masks_rle, strict=True):
            assert (segmentation_to_mask(mark.segmentation, *SIZE) == decode_rle(rle)).all()


def test_what_scores_less_is_left_out(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["export", str(record), "label_studio", "--out", str(tmp_path / "out"), "--min-score", "0.25"]
    assert main([*arguments, "--address", "s3://bucket/"]) == 0
    assert capsys.readouterr().out.startswith("2 detections on 3 images: ")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"s3://bucket/{name}" for name in FOUND]
    assert [len(task["predictions"][0]["result"]) for task in tasks] == [2, 0, 0]
    assert 'value="hole &amp; co"' in (tmp_path / "out/labelling.xml").read_text()


def test_a_local_address_is_a_query(record: Path, tmp_path: Path) -> None:
    export(record, "label_studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=line1/a%20b.png"


def test_a_record_is_what_was_found(record: Path) -> None:
    for image, (name, one) in zip(read_record(record), FOUND.items(), strict=True):
        assert image.path == f"photos/{name}"
        assert torch.equal(image.found.boxes_xyxy, one.boxes_xyxy)
        assert torch.allclose(image.found.scores, one.scores)
        assert replace(image.found, boxes_xyxy=one.boxes_xyxy, scores=one.scores, labels=one.labels) == one


def test_a_folder_with_something_in_it_is_kept(record: Path, tmp_path: Path) -> None:
    kept = put(tmp_path / "out/mine.txt", "mine")
    with pytest.raises(DataError, match="holds something already; give a folder that is empty or new"):
        export(record, "cvat", tmp_path / "out")
    assert kept.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(record, "cvat", tmp_path / "empty")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["annotations.xml"]


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ('"score"', '"skore"', "no record of detections .'score'"),
        ('"image_id": 1', '"image_id": 9', "no record of detections .9"),
        ('"category_id": 2', '"category_id": 9', "no record of detections .9"),
        ('"width": 60', '"width": 61', "the mask of annotation 1 is not of its image's size"),
        ('"images"', '"pictures"', "'images'"),
        ("{", "[{", "no record of detections"),
    ],
)
def test_what_is_no_record_is_refused(record: Path, tmp_path: Path, pattern, replacement, message) -> None:
    record.write_text(record.read_text().replace(pattern, replacement, 1))
    with pytest.raises(DataError, match=rf"detections\.json: .*{message}.*; give the detections.json"):
        export(record, "cvat", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", ["cvat", "labelme", "yolo"])
def test_two_images_of_one_name_are_refused(record: Path, tmp_path: Path, tool) -> None:
    record.write_text(record.read_text().replace("line2/none.png", "line2/a b.png"))
    with pytest.raises(DataError, match=r"photos/line2/a b\.png would share a file; rename one of them"):
        export(record, tool, tmp_path / "out")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ["ABSOLUTE/x/c.png", "../../x/c.png", "../c.png"])
def test_wherever_images_lie_nothing_is_written_beside_the_folder(
    record: Path, tmp_path: Path, tool, name: str
) -> None:
    name = name.replace("ABSOLUTE", str(tmp_path / "photos"))
    record.write_text(record.read_text().replace("photos/line2/none.png", name))
    out = tmp_path / "deep/down/out"
    before = sorted(tmp_path.parent.rglob("*"))
    export(record, tool, out)
    after = [path for path in tmp_path.parent.rglob("*") if path not in before]
    beside = [path for path in after if path.is_file() and not path.is_relative_to(out)]
    assert beside == []
    assert len([path for path in out.rglob("*") if path.is_file()]) == {"cvat": 1, "label_studio": 2}.get(
        tool, 4 if tool == "yolo" else 3
    )
    assert all("../" not in file.read_text() for file in out.rglob("*.xml"))
    assert all("../" not in file.read_text() for file in out.rglob("tasks.json"))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("old", "new"), [("line2/none.png", r"latin\udce4.png"), ("crack", r"cr\nack"), ("hole & co", "")]
)
def test_names_that_no_tool_can_read_are_refused(record: Path, tmp_path: Path, tool, old, new) -> None:
    record.write_text(record.read_text().replace(old, new))
    with pytest.raises(
        DataError, match=r"detections\.json: .* (is no line of UTF-8|line break .*|is empty); rename"
    ):
        export(record, tool, tmp_path / "out")


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*; give detect's detections\.json"):
        export(tmp_path / "none.json", "cvat", tmp_path / "out")
