"""The prompts in production: versions, checks before writing, concurrent writers, kills, damage."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import tracemalloc
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations
from unispector.errors import DataError, PromptBankError
from unispector.inference.detector import Prompt, UniSpector
from unispector.ops.rle import decode_rle, encode_rle
from unispector.prompts.store import MarkedImage, PromptSet, PromptStore

BOX = (10.0, 12.0, 20.0, 16.0)


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (60, 80)) -> bytes:
    """The file of a noisy image of (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def boxed(seed: int, *boxes: tuple[float, ...]) -> MarkedImage:
    return MarkedImage(encoded(seed), f"{seed}.png", boxes or (BOX,))


def mask(top: int, left: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    pixels = np.zeros(size, dtype=bool)
    pixels[top : top + 9, left : left + 14] = True
    return pixels


@pytest.fixture
def prompts(tmp_path: Path) -> PromptStore:
    return PromptStore(tmp_path / "prompts")


@pytest.fixture
def filled(prompts: PromptStore) -> PromptStore:
    """Three versions: a class, another one, and more of the first."""
    prompts.add("scratch", [boxed(1)], "ann", "first", {"source": "masks"})
    prompts.add("dent/deep", [boxed(2), boxed(1, (40, 20, 9, 9))], "bob", "second", {})
    prompts.add("scratch", [boxed(3)], "ann", "third", {})
    return prompts


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model)


def content(folder: Path) -> dict[str, bytes]:
    """All files but the lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_new_store_is_empty_and_reading_makes_nothing(prompts, detector):
    assert prompts.current() == PromptSet()
    assert (prompts.history(), prompts.bank(detector)) == ((), None)
    assert prompts.annotations(prompts.current()) == Annotations((), (), ())
    assert not prompts.folder.exists()


def test_each_change_is_a_version_that_says_where_it_came_from(filled):
    newest, second, first = filled.history()
    assert newest == filled.current()
    assert [(each.version, each.parent) for each in filled.history()] == [(3, 2), (2, 1), (1, 0)]
    assert (first.by, first.note, first.lineage) == ("ann", "first", {"source": "masks"})
    assert {label: len(own) for label, own in newest.classes.items()} == {"scratch": 2, "dent/deep": 2}
    assert list(first.classes) == ["scratch"]
    assert second.classes["scratch"] == first.classes["scratch"]
    assert time.strptime(first.time, "%Y-%m-%dT%H:%M:%S+00:00")


def test_only_as_much_history_is_read_as_was_asked_for(filled, monkeypatch):
    read, read_text = [], Path.read_text

    def counted(self: Path, *args: str, **named: str) -> str:
        read.append(self.name)
        return read_text(self, *args, **named)

    monkeypatch.setattr(Path, "read_text", counted)
    assert [each.version for each in filled.history(most=2)] == [3, 2]
    assert read == ["CURRENT", "000003.json", "000002.json"]
    assert [len(filled.history(most)) for most in (0, 1, 3, 9, None)] == [0, 1, 3, 3, 3]


def test_pictures_are_kept_once_as_they_came(filled):
    kept = {file.name: file.read_bytes() for file in (filled.folder / "pictures").iterdir()}
    assert kept == {f"{hashlib.sha256(encoded(n)).hexdigest()}.png": encoded(n) for n in (1, 2, 3)}
    assert filled.current().pictures == kept.keys()


def test_versions_are_never_rewritten(filled):
    before = content(filled.folder)
    filled.remove("scratch", "ann", "no longer")
    filled.revert(1, "ann")
    after = content(filled.folder)
    assert {name: after[name] for name in before if name != "CURRENT"} == {
        name: data for name, data in before.items() if name != "CURRENT"
    }
    assert filled.version(2).note == "second"


def test_a_revert_is_a_new_version_that_equals_an_earlier_one(filled):
    assert filled.revert(None, "eve").classes == filled.version(2).classes
    assert filled.current().version == 4
    assert filled.current().note == "as version 2"
    assert filled.revert(0, "eve").classes == {}
    assert filled.revert(None, "eve").classes == filled.version(4).classes
    with pytest.raises(PromptBankError, match="no version 9 of the prompts; there are 0 to 6"):
        filled.revert(9, "eve")


def test_nothing_to_revert(prompts):
    with pytest.raises(PromptBankError, match="nothing to revert"):
        prompts.revert(None, "eve")


def test_removing(filled):
    assert list(filled.remove("scratch", "eve", "").classes) == ["dent/deep"]
    with pytest.raises(PromptBankError, match="no class 'scratch' to remove; it has dent/deep"):
        filled.remove("scratch", "eve", "")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_prompts_are_what_came(prompts, kind):
    data, masks = encoded(5, kind), np.stack([mask(3, 4), mask(30, 50)])
    prompts.add("spot", [MarkedImage(data, "a", masks_rle=encode_rle(masks))], "ann", "", {})
    boxes = [(1.5, 2.25, 30, 40.125), (-3.5, 50, 10, 20)]
    prompts.add("dent", [MarkedImage(data, "a", boxes)], "ann", "", {})
    marks = prompts.annotations(prompts.current())
    assert marks.class_names == ("spot", "dent")
    (image,) = marks.images
    assert (image.width, image.height) == (80, 60)
    assert (prompts.folder / "pictures" / image.file_name).read_bytes() == data
    with_masks, with_boxes = marks.instances[:2], marks.instances[2:]
    for own, pixels in zip(with_masks, masks, strict=True):
        assert (decode_rle(own.segmentation) == pixels).all()
    assert [own.bbox for own in with_masks] == [(4, 3, 14, 9), (50, 30, 14, 9)]
    assert [(own.bbox, own.segmentation) for own in with_boxes] == [
        (boxes[0], None),
        ((0, 50, 6.5, 10), None),  # cut at the image's edge
    ]
    kept = prompts.current().classes
    assert [len(kept[label][0].marks()) for label in ("spot", "dent")] == [2, 2]
    assert kept["dent"][0].boxes_xywh == tuple(boxes)


def test_text_that_could_hide_something_is_made_plain(prompts):
    picture = MarkedImage(encoded(1), "a\x1b[31m\n\udce4.png", [BOX])
    prompts.add("spot", [picture], "a\nb", "c\u202ed\x00", {"k\n": "v\x1b"})
    now = prompts.current()
    assert (now.by, now.note, now.lineage) == ("a b", "c d", {"k": "v"})
    assert now.classes["spot"][0].source == "a [31m .png"


@pytest.mark.parametrize(
    "label",
    [
        "a",
        "deep scratch",
        "Kratzer_ä/2-b.c",
        "x" * 80,
        "裂纹",
        "a..b",
        ".a",
        "Öl & Fett",
        "Riss (innen), d'r",
    ],
)
def test_labels_that_can_be(prompts, label):
    assert list(prompts.add(label, [boxed(1)], "ann", "", {}).classes) == [label]


@pytest.mark.parametrize(
    "label",
    [
        "",
        " ",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        "./a",
        " a",
        "a ",
        "a\n",
        "a\x00",
        "a:b",
        "x" * 81,
        "<b>",
        "a\\b",
    ],
)
def test_labels_that_cannot(prompts, label):
    with pytest.raises(DataError, match="not the name of a class"):
        prompts.add(label, [boxed(1)], "ann", "", {})
    assert not prompts.folder.exists()


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (MarkedImage(b"", "a.png", [BOX]), "a.png: not a readable PNG, JPEG"),
        (MarkedImage(b"GIF89a" + bytes(50), "a.gif", [BOX]), "a.gif: not a readable PNG, JPEG"),
        (MarkedImage(encoded(1, "GIF"), "a.gif", [BOX]), "a.gif: not a readable PNG, JPEG"),
        (MarkedImage(cut(encoded(1)), "a.png", [BOX]), "a.png: not a readable image"),
        (MarkedImage(encoded(1), "a.png"), "a.png: mark the defect with boxes or with masks"),
        (
            MarkedImage(encoded(1), "a.png", [BOX], encode_rle(mask(3, 4)[None])),
            "a.png: mark the defect with boxes or with masks",
        ),
        (boxed(1, (80, 2, 5, 5)), "1.png: box 80,2,5,5 has less than a pixel inside the image of 80x60"),
        (boxed(1, (1, 2, 0, 5)), "1.png: box 1,2,0,5 must be"),
        (boxed(1, (1, 2, float("nan"), 5)), "1.png: box 1,2,nan,5 must be"),
        (boxed(1, (1, 2, 3)), "1.png: a box must be four numbers"),
        (boxed(1, BOX, BOX), "1.png: the same mark twice"),
        (
            MarkedImage(encoded(1), "a.png", masks_rle=encode_rle(mask(3, 4, (80, 60))[None])),
            "a.png: mask is 60x80 but the image is 80x60",
        ),
        (
            MarkedImage(encoded(1), "a.png", masks_rle=[{"size": [10**5, 10**5], "counts": "1"}]),
            "a.png: mask is 100000x100000 but",
        ),
        (
            MarkedImage(encoded(1), "a.png", masks_rle=encode_rle(np.zeros((1, 60, 80), dtype=bool))),
            "a.png: its mask is all black",
        ),
    ],
)
def test_what_no_model_could_read_is_refused_before_anything_is_written(prompts, picture, message):
    with pytest.raises(DataError) as refused:
        prompts.add("spot", [boxed(2), picture], "ann", "", {})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    assert not prompts.folder.exists()


def test_a_mark_is_in_a_class_once(filled):
    before = content(filled.folder)
    with pytest.raises(DataError, match=r"1\.png: the class has this mark on this image already"):
        filled.add("scratch", [boxed(4), boxed(1)], "ann", "", {})
    with pytest.raises(DataError, match=r"9\.png: the class has this mark"):
        filled.add("new", [boxed(9), boxed(9)], "ann", "", {})
    with pytest.raises(DataError, match="no image to add"):
        filled.add("new", [], "ann", "", {})
    assert content(filled.folder) == before
    filled.add("other", [boxed(1)], "ann", "the same mark in another class", {})
    filled.add("scratch", [boxed(1, (50, 30, 8, 8))], "ann", "another mark on the same image", {})


def test_the_bank_is_that_of_all_pictures_and_is_made_once(filled, detector):
    shown = [
        Prompt(
            cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded(n), np.uint8), 1), cv2.COLOR_BGR2RGB),
            [box],
            label=label,
        )
        for n, box, label in ((1, BOX, "scratch"), (3, BOX, "scratch"), (2, BOX, "dent/deep"))
    ]
    # Marks on one image belong together: the surroundings are what none of them covers.
    shown.append(Prompt(shown[0].image, [(40, 20, 9, 9)], label="dent/deep"))
    expected, bank = detector.encode(shown), filled.bank(detector)
    assert bank is not None
    assert (bank.class_names, bank.counts) == (expected.class_names, expected.counts)
    torch.testing.assert_close(bank.embeddings, expected.embeddings)
    shutil.rmtree(filled.folder / "pictures")  # read from its file from now on
    again = filled.bank(detector)
    assert again is not None
    assert torch.equal(again.embeddings, bank.embeddings)


def test_every_version_and_model_has_its_own_bank(filled, detector, other_tiny_model):
    other = UniSpector.load(other_tiny_model)
    first, foreign = filled.bank(detector), filled.bank(other)
    assert foreign.fingerprint == other.fingerprint != first.fingerprint
    filled.remove("scratch", "ann", "")
    assert filled.bank(detector).class_names == ("dent/deep",)
    filled.revert(3, "ann")
    assert torch.equal(filled.bank(detector).embeddings, first.embeddings)
    filled.add("scratch", [boxed(6)], "ann", "the same classes, one more mark", {})
    assert filled.bank(detector).counts == (3, 2)


def test_marks_of_all_kinds_give_the_bank_of_their_prompts(prompts, detector):
    """Boxes over the edge, masks, one that vanishes in the network's frame, and classes on one image."""
    size = (700, 900)
    dot = np.zeros(size, dtype=bool)
    dot[333, 444] = True
    masks = np.stack([mask(3, 4, size), mask(691, 880, size), dot])
    boxes, data = [(-5, 300.5, 200, 80), (700, 600, 300, 300)], encoded(4, size=size)
    prompts.add("a", [MarkedImage(data, "p", masks_rle=encode_rle(masks)), boxed(1)], "ann", "", {})
    prompts.add("b", [boxed(2), MarkedImage(data, "p", boxes)], "ann", "", {})
    image = prompts.folder / "pictures" / f"{hashlib.sha256(data).hexdigest()}.png"
    small = [image.with_name(f"{hashlib.sha256(encoded(n)).hexdigest()}.png") for n in (1, 2)]
    expected = detector.encode(
        [
            Prompt(image, masks=masks, label="a"),
            Prompt(small[0], [BOX], label="a"),
            Prompt(small[1], [BOX], label="b"),
            Prompt(image, boxes, label="b"),
        ]
    )
    bank = prompts.bank(detector)
    assert (bank.class_names, bank.counts, bank.owners) == (("a", "b"), (4, 3), expected.owners)
    torch.testing.assert_close(bank.embeddings, expected.embeddings)
    for side in ("inside", "outside"):
        torch.testing.assert_close(getattr(bank.memory, side), getattr(expected.memory, side))


def test_masks_are_pixels_one_at_a_time(prompts, detector):
    size, count = (1000, 1500), 20
    codes = encode_rle(np.stack([mask(40 * number, 60 * number, size) for number in range(count)]))
    prompts.add("a", [MarkedImage(encoded(1, "JPEG", size), "p", masks_rle=codes)], "ann", "", {})
    tracemalloc.start()
    prompts.bank(detector)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count * size[0] * size[1]  # bytes: what all masks at once would take


def test_banks_of_other_versions_go(filled, detector, other_tiny_model):
    banks = filled.folder / "banks"
    filled.bank(detector)
    (banks / ".half.safetensors").write_bytes(b"another process writes it")
    filled.bank(UniSpector.load(other_tiny_model))
    assert len(list(banks.glob("[!.]*"))) == 4  # two models, each a bank and its hash
    filled.remove("scratch", "ann", "")
    filled.bank(detector)
    left = {file.name for file in banks.iterdir()}
    name = f"{filled.current().digest[:12]}-{detector.fingerprint[:12]}"
    assert left == {f"{name}.safetensors", f"{name}.sha256", ".half.safetensors"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "folder"])
def test_a_bad_bank_file_is_made_anew(filled, detector, other_tiny_model, damage):
    good = filled.bank(detector)
    (file,) = (filled.folder / "banks").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-3] ^= 64
        file.write_bytes(data)
    elif damage == "foreign":
        filled.bank(UniSpector.load(other_tiny_model))
        (foreign,) = set((filled.folder / "banks").glob("*.safetensors")) - {file}
        shutil.copy(foreign, file)
        shutil.copy(foreign.with_suffix(".sha256"), file.with_suffix(".sha256"))
    else:
        file.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    again = filled.bank(detector)
    assert again.fingerprint == detector.fingerprint
    torch.testing.assert_close(again.embeddings, good.embeddings)


def one_line(refused: pytest.ExceptionInfo[PromptBankError], *parts: str) -> None:
    message = str(refused.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "7",
        lambda text: text.replace("10.0", "11.0"),
        lambda text: text.replace('"scratch"', '"dent"'),
        lambda text: text.replace("prompts 2", "prompts 9"),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_version_is_named(filled, detector, change):
    file = filled.folder / "versions/000003.json"
    file.write_text(change(file.read_text()))
    for use in (filled.current, lambda: filled.annotations(filled.current()), lambda: filled.bank(detector)):
        with pytest.raises(PromptBankError) as refused:
            use()
        remedy = f"write 2 into {filled.folder / 'CURRENT'}"
        one_line(refused, "versions/000003.json: damaged; restore the file", remedy)
    with pytest.raises(PromptBankError, match="damaged"):
        filled.add("new", [boxed(7)], "ann", "", {})
    assert filled.version(2).version == 2
    damaged, *rest = filled.history()
    assert (damaged.version, damaged.classes) == (3, {})
    assert damaged.note.startswith("versions/000003.json: damaged; restore")  # not where the store lies
    assert [each.version for each in rest] == [2, 1]
    (filled.folder / "CURRENT").write_text("2")  # the remedy
    assert filled.add("new", [boxed(7)], "ann", "", {}).version == 3
    assert list(filled.current().classes) == ["scratch", "dent/deep", "new"]


def forge(store, change):
    """Change a version as one who knows the checksum would."""
    file = store.folder / "versions/000003.json"
    content = json.loads(file.read_text())
    del content["format"], content["sha256"]
    change(content["classes"]["scratch"][0])
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({"format": "unispector prompts 1", "sha256": digest, **content}))


def test_a_forged_version_leads_out_of_no_folder(filled):
    forge(filled, lambda prompt: prompt.update(picture="../../secret.png"))
    with pytest.raises(PromptBankError, match=r"000003\.json: damaged"):
        filled.current()


def test_a_forged_mark_that_its_image_does_not_have_is_named(filled):
    code = {"size": [9], "counts": "9"}
    forge(filled, lambda prompt: prompt.update(boxes_xywh=[], masks_rle=[code]))
    with pytest.raises(PromptBankError, match=r"pictures/.*: the marks kept of it are damaged \(mask code"):
        filled.annotations(filled.current())


def test_what_is_gone_is_named(filled):
    (filled.folder / "versions/000002.json").unlink()
    assert filled.current().version == 3
    assert [each.note.partition(";")[0] for each in filled.history()] == [
        "third",
        "versions/000002.json: gone",
        "first",
    ]
    with pytest.raises(PromptBankError, match=r"000002\.json: gone; restore"):
        filled.version(2)
    (filled.folder / "CURRENT").write_text("three")
    with pytest.raises(PromptBankError, match="CURRENT: not the number of the newest"):
        filled.current()
    (filled.folder / "CURRENT").unlink()
    with pytest.raises(PromptBankError, match="CURRENT: gone or damaged; write that of the newest"):
        filled.current()
    with pytest.raises(PromptBankError, match="CURRENT: gone"):
        filled.add("new", [boxed(7)], "ann", "", {})


def test_a_picture_gone_or_changed_is_named(filled, detector):
    kept = filled.folder / "pictures" / f"{hashlib.sha256(encoded(2)).hexdigest()}.png"
    kept.write_bytes(encoded(8))
    for use in (
        lambda: filled.annotations(filled.current()),
        lambda: filled.bank(detector),
        lambda: filled.revert(2, "ann"),
    ):
        with pytest.raises(PromptBankError) as refused:
            use()
        one_line(refused, f"{kept}: changed since it was enrolled; restore")
    kept.unlink()
    with pytest.raises(PromptBankError, match="cannot be read"):
        filled.annotations(filled.current())
    assert filled.current().version == 3
    filled.add("new", [boxed(2, (30, 30, 9, 9))], "ann", "brings the image again", {})
    assert len(filled.annotations(filled.current()).instances) == 5


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PromptBankError) as refused:
        PromptStore(tmp_path / "file").add("new", [boxed(7)], "ann", "", {})
    one_line(refused, "cannot be written")


def test_a_full_temporary_folder_is_one_line(prompts, monkeypatch):
    full = partial(open, "/dev/full", "wb")  # never has space left
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda suffix: full())
    with pytest.raises(PromptBankError) as refused:
        prompts.add("new", [boxed(7)], "ann", "", {})
    one_line(refused, "7.png: cannot be checked, the temporary folder cannot be written (No space left")
    assert not prompts.folder.exists()


def test_a_version_that_was_not_checked_with_is_not_added_to(filled):
    before = content(filled.folder)
    with pytest.raises(PromptBankError) as refused:
        filled.add("new", [boxed(7)], "ann", "", {}, checked=2)
    one_line(refused, "version 2 was checked, but version 3 is in use by now; start again")
    assert content(filled.folder) == before
    assert filled.add("new", [boxed(7)], "ann", "", {}, checked=3).version == 4


def write(folder: Path, name: str, count: int) -> None:
    """Add classes of a name, and take every third one out again."""
    own = PromptStore(folder)
    for number in range(count):
        own.add(f"{name} {number}", [boxed(number), boxed(number + 1)], name, "", {})
        if number % 3 == 2:
            own.remove(f"{name} {number}", name, "")


def writer(folder: Path, name: str, count: int) -> BaseProcess:
    # A fork starts at once: a fresh interpreter would import for seconds.
    process = multiprocessing.get_context("fork").Process(target=write, args=(folder, name, count))
    process.start()
    return process


def whole(prompts: PromptStore) -> None:
    """Every version up to the current one can be read, and every image of the current one."""
    now = prompts.current()
    assert [prompts.version(number).version for number in range(now.version)] == list(range(now.version))
    marks = sum(len(prompt.marks()) for own in now.classes.values() for prompt in own)
    assert len(prompts.annotations(prompts.current()).instances) == marks


def test_two_writers_at_once_lose_nothing(prompts):
    processes = [writer(prompts.folder, name, 12) for name in ("ann", "bob")]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    whole(prompts)
    # Twelve additions and four removals each.
    assert prompts.current().version == 32
    kept = [number for number in range(12) if number % 3 != 2]
    assert set(prompts.current().classes) == {
        f"{name} {number}" for name in ("ann", "bob") for number in kept
    }


def test_a_kill_leaves_the_old_version_or_the_new_one(prompts):
    random.seed(5)
    versions = [0]
    for _ in range(8):
        process = writer(prompts.folder, f"w{len(versions)}", 10**6)
        time.sleep(random.uniform(0.02, 0.3))
        process.kill()
        process.join()
        whole(prompts)
        versions.append(prompts.current().version)
        new = prompts.add(f"after {len(versions)}", [boxed(1)], "ann", "", {})
        assert prompts.current() == new
        assert new.version == versions[-1] + 1
    assert versions[-1] > len(versions)  # the writers did write


def add_and_die(folder: Path, replacements: int) -> None:
    """Add a class, but die when so many files have taken their place and the next one is about to."""
    done, replace = 0, Path.replace

    def counted(self: Path, target: Path) -> Path:
        nonlocal done
        if done == replacements:
            os._exit(9)
        done += 1
        return replace(self, target)

    Path.replace = counted  # type: ignore[assignment]
    PromptStore(folder).add("new", [boxed(7), boxed(8)], "ann", "", {})


# Two images, the version, the pointer: the version counts once the pointer is there.
@pytest.mark.parametrize(("replacements", "version"), [(0, 3), (1, 3), (2, 3), (3, 3), (4, 4)])
def test_killed_before_each_file_in_turn(filled, replacements, version):
    before = filled.current()
    process = multiprocessing.get_context("fork").Process(
        target=add_and_die, args=(filled.folder, replacements)
    )
    process.start()
    process.join()
    assert process.exitcode == (9 if version == 3 else 0)
    whole(filled)
    assert filled.current().version == version
    assert ("new" in filled.current().classes) == (version == 4)
    if version == 3:
        assert filled.current() == before
    assert filled.add("next", [boxed(9)], "ann", "", {}).version == version + 1
    whole(filled)


def test_what_a_killed_writer_left_goes_with_the_next_change(filled):
    folder = filled.folder
    left = (
        ".CURRENT.0a1b2c3d", ".CURRENT.0a1b2c3d~", "versions/.000004.0a1b2c3d~.json",
        f"pictures/.{'a' * 64}.0a1b2c3d~.png", f"pictures/.{'a' * 64}.0a1b2c3d.png",
    )  # fmt: skip
    for name in (*left, ".notes.12345678"):
        (folder / name).write_text("half")
    filled.current()
    assert (folder / left[0]).exists()  # who only reads removes nothing
    filled.remove("scratch", "ann", "")
    assert not [name for name in left if (folder / name).exists()]
    assert (folder / ".notes.12345678").exists()


@pytest.mark.parametrize("number", ["1", "0", "1_0", "-1", "", "9999999", "9" * 300, "9" * 5000, "99", "5"])
def test_a_number_that_was_set_back_overwrites_no_version(filled, number):
    kept = {file: file.read_bytes() for file in (filled.folder / "versions").iterdir()}
    (filled.folder / "CURRENT").write_text(number)
    with pytest.raises(PromptBankError, match="CURRENT: not the number of the newest version; write that"):
        filled.add("new", [boxed(7)], "ann", "", {})
    assert {file: file.read_bytes() for file in (filled.folder / "versions").iterdir()} == kept


def test_a_version_whose_number_is_taken_again_is_set_aside(filled):
    newest = filled.folder / "versions/000003.json"
    data = newest.read_bytes()
    (filled.folder / "CURRENT").write_text("2")
    filled.add("new", [boxed(7)], "ann", "", {})
    filled.add("newer", [boxed(8)], "ann", "", {})
    aside = newest.with_suffix(f".{hashlib.sha256(data).hexdigest()[:12]}")
    assert aside.read_bytes() == data
    assert [each.version for each in filled.history()] == [4, 3, 2, 1]
    aside.replace(newest)  # as one who wants it back would: nothing reads the name it had aside
    (filled.folder / "versions/000004.json").unlink()
    (filled.folder / "CURRENT").write_text("3")
    assert "new" not in filled.current().classes
