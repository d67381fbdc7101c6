"""A new defect joins the prompts in production: what passes, what is refused, what is written."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from unispector.config import Config, DataConfig, EnrollConfig, PromptConfig
from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import DataError, PromptBankError
from unispector.inference.detector import UniSpector
from unispector.ops.rle import decode_rle
from unispector.prompts.enroll import enroll
from unispector.prompts.figures import ImageCheck, MarkCheck
from unispector.prompts.folder import look_alike
from unispector.prompts.report import EnrollReport, refusals, write_report
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.tracking.model_reference import find_model

CONFIG = Config(data=DataConfig(sets={}))


def part(folder: Path, number: int, moved: tuple[int, int] = (0, 0), defect: str = "") -> None:
    """A grey cast surface with a dark hole, and its mask, which may be moved to where nothing is."""
    rng = np.random.default_rng(number)
    pixels = 150 + cv2.GaussianBlur(rng.normal(0, 60, (200, 200)), (0, 0), 1.5)
    hole, mask = np.zeros((2, 200, 200), np.uint8)
    place, radius = rng.integers(30, 170, 2), int(rng.integers(9, 15))
    cv2.circle(hole, place.tolist(), radius, 255, -1)
    cv2.circle(mask, ((place - 30 + moved) % 140 + 30).tolist(), radius, 255, -1)
    pixels[hole > 0] -= 90
    images = {"images": pixels.clip(0, 255).astype(np.uint8), "masks": mask}
    for kind, image in images.items():
        (folder / kind / defect).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / defect / f"{number}.png"), image)


@dataclass(frozen=True)
class Place:
    """A folder of four marked images, a store and reports."""

    root: Path

    @property
    def store(self) -> PromptStore:
        return PromptStore(self.root / "prompts")

    def enroll(self, folder: str, label: str, config: Config = CONFIG, source: str = "masks") -> EnrollReport:
        store, reports = self.root / "prompts", self.root / "reports"
        return enroll(config, self.root / folder, source, label, "fast", store, "ann", reports)


def content(folder: Path) -> dict[str, bytes]:
    """Everything but encoded prompts, which come and go."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != "banks")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory) -> tuple[Place, EnrollReport]:
    """Four images of a hole, enrolled; only to be read."""
    place = Place(tmp_path_factory.mktemp("enrolled"))
    for number in range(4):
        part(place.root / "holes", number)
    return place, place.enroll("holes", "blow/hole")


@pytest.fixture
def place(enrolled, tmp_path) -> Place:
    """A copy to change."""
    shutil.copytree(enrolled[0].root, tmp_path / "copy")
    return Place(tmp_path / "copy")


def test_a_class_that_finds_itself_is_enrolled_with_its_lineage(enrolled):
    place, report = enrolled
    assert (report.outcome, report.version) == ("passed", 1)
    assert (report.marks, report.confused) == (4, 0)
    assert report.found >= 2  # the limit; how many more depends on the model in the package
    now = place.store.current()
    assert (now.version, now.by, list(now.classes)) == (1, "ann", ["blow/hole"])
    pictures = sorted(place.root.glob("holes/images/*.png"))
    kept = [hashlib.sha256(picture.read_bytes()).hexdigest() for picture in pictures]
    assert [prompt.picture for prompt in now.classes["blow/hole"]] == [f"{digest}.png" for digest in kept]
    # The hash of the folder, computed anew.
    names = sorted(path.relative_to(place.root / "holes").as_posix() for path in place.root.glob("holes/*/*"))
    lines = [f"{n}\0{hashlib.sha256((place.root / 'holes' / n).read_bytes()).hexdigest()}\n" for n in names]
    assert now.lineage["folder_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert now.lineage["model"] == UniSpector.load().fingerprint
    assert (now.lineage["source"], now.lineage["found"], now.lineage["confused"]) == (
        "masks",
        f"{report.found} of 4",
        "0 of 4",
    )
    assert {"git.commit", "git.dirty", "score"} <= now.lineage.keys()


def test_production_detects_with_what_was_checked(enrolled):
    place, report = enrolled
    detector = UniSpector.load()
    annotations = Annotations.read(place.root / "reports/blow+hole/marked.json")
    roi = report.diagnosis.figures.roi
    expected = detector.encode_annotations(annotations, place.root / "holes", roi)
    bank = place.store.bank(detector)
    assert (bank.class_names, bank.counts) == (("blow/hole",), (4,))
    torch.testing.assert_close(bank.embeddings, expected.embeddings, atol=1e-4, rtol=1e-4)


def test_the_report_can_be_read(enrolled):
    place, report = enrolled
    folder = place.root / "reports/blow+hole"
    assert report.output == folder
    text = (folder / "report.md").read_text()
    share = f"{report.found} of 4 ({report.found / 4:.0%})"
    assert f"**passed: {share} marks are found by prompts from the other images**" in text
    record = json.loads((folder / "report.json").read_text())
    assert (record["outcome"], record["found"]) == ("passed", report.found)
    diagnosis = record["diagnosis"]
    assert [each["file_name"] for each in diagnosis["images"]] == [f"images/{n}.png" for n in range(4)]
    told = [advice for each in diagnosis["images"] for advice in each["advice"]] + diagnosis["advice"]
    assert sorted(advice["text"] for advice in told) == sorted(advice.text for advice in report.advice)
    assert "| AP50 of the others with it, without |" in text
    drawings = sorted(file.name for file in (folder / "pictures").iterdir())
    assert drawings == [f"00{n + 1}-{n}.png" for n in range(4)]
    assert all(f"](<pictures/{name}>)" in text for name in drawings)
    assert "enrolled as version 1" in report.summary()


def test_the_same_folder_again_changes_nothing(enrolled, place):
    before = content(place.root / "prompts")
    report = place.enroll("holes", "blow/hole")
    assert (report.outcome, report.version, report.checks) == ("unchanged", 1, ())
    assert content(place.root / "prompts") == before
    assert "all images are enrolled already" in report.summary()


def test_a_folder_that_grew_adds_its_new_pictures(place):
    for number in (4, 5):
        part(place.root / "holes", number)
    report = place.enroll("holes", "blow/hole")
    assert (report.outcome, report.version) == ("passed", 2)
    assert [check.file_name for check in report.checks] == ["images/4.png", "images/5.png"]
    assert report.known == tuple(f"images/{n}.png" for n in range(4))
    assert len(place.store.current().classes["blow/hole"]) == 6


def test_marks_where_nothing_is_are_refused(place):
    before = content(place.root / "prompts")
    for number in range(4):
        part(place.root / "nothing", number, moved=((80, 60), (60, 90))[number % 2])
    report = place.enroll("nothing", "phantom")
    assert (report.outcome, report.version, report.found) == ("refused", 1, 0)
    assert content(place.root / "prompts") == before
    (reason,) = report.reasons
    assert reason.startswith("only 0 of 4 (0%) marks are found by prompts from the other images, 50%")
    named = {advice.file_name for advice in report.advice if advice.kind in ("look", "more")}
    assert named == {f"images/{number}.png" for number in range(4)}
    text = (report.output / "report.md").read_text()
    assert "**refused: only 0 of 4" in text
    assert "none of the others finds it" in text or "nor its own prompt find it" in text
    assert "the images hardly find one another (0 of 4 marks)" in text
    assert len(list((report.output / "pictures").iterdir())) == 4


def test_a_class_that_looks_like_another_is_refused(place):
    report = place.enroll("holes", "pore")
    assert (report.outcome, report.confused) == ("refused", 4)
    assert "on 4 of 4 (100%) marks a class already enrolled scores higher (blow/hole)" in report.summary()
    assert list(place.store.current().classes) == ["blow/hole"]


def test_prompts_are_masks_where_the_parameters_say_so(place):
    config = CONFIG.model_copy(update={"prompt": PromptConfig(test_roi="mask")})
    shutil.rmtree(place.root / "prompts")
    assert place.enroll("holes", "hole", config).outcome == "passed"
    stored = place.store.current().classes["hole"]
    for number, prompt in enumerate(stored):
        mask = cv2.imread(str(place.root / f"holes/masks/{number}.png"), cv2.IMREAD_GRAYSCALE)
        assert (decode_rle(prompt.masks_rle[0]) == (mask > 0)).all()
        assert prompt.boxes_xywh == ()


def test_of_several_classes_the_one_that_is_named(place):
    for number in range(6):
        part(place.root / "mixed", number + 10, defect=("hole", "spot")[number % 2])
    with pytest.raises(
        DataError, match=r"has 2 classes \(hole, spot\) and none is called 'pore'; enrol them"
    ):
        place.enroll("mixed", "pore")
    report = place.enroll("mixed", "spot", CONFIG.model_copy(update={"enroll": EnrollConfig(confused=1.0)}))
    assert [check.file_name for check in report.checks] == [f"images/spot/{n}.png" for n in (11, 13, 15)]
    assert report.marked.left == {"hole": 3}
    assert "- 3 marks of `hole` were left out." in (report.output / "report.md").read_text()


def test_what_cannot_be_checked_is_refused_in_a_line(place):
    before = content(place.root / "prompts")
    part(place.root / "few", 20)
    with pytest.raises(DataError, match=r"few: 1 marked image\(s\) of 'dent', at least 3 are needed"):
        place.enroll("few", "dent")
    with pytest.raises(DataError, match="not the name of a class"):
        place.enroll("few", "../dent")
    for kind in ("images", "masks"):
        shutil.copy(place.root / f"few/{kind}/20.png", place.root / f"few/{kind}/21.png")
    with pytest.raises(DataError, match=r"few: images/20\.png and images/21\.png are the same image"):
        place.enroll("few", "dent")
    part(place.root / "holes", 2, moved=(5, 5))
    with pytest.raises(DataError, match=r"images/2\.png is enrolled as 'blow/hole' with other marks"):
        place.enroll("holes", "blow/hole")
    assert content(place.root / "prompts") == before


def test_the_report_is_written_only_once_the_class_is_enrolled(place, monkeypatch):
    """Another class comes in while the images are checked: they were not checked beside it."""
    shutil.rmtree(place.root / "prompts")
    shutil.rmtree(place.root / "reports")
    data = (place.root / "holes/images/0.png").read_bytes()

    def changed(reference):
        place.store.add("other", [MarkedImage(data, "0.png", [(1, 1, 20, 20)])], "bob", "", {})
        return find_model(reference)

    monkeypatch.setattr("unispector.prompts.enroll.find_model", changed)
    lenient = CONFIG.model_copy(update={"enroll": EnrollConfig(found=0.0, confused=1.0)})
    with pytest.raises(PromptBankError, match="version 0 was checked, but version 1 is in use"):
        place.enroll("holes", "hole", lenient)
    assert list(place.store.current().classes) == ["other"]
    assert not (place.root / "reports/hole/report.md").exists()


def test_drawings_of_an_earlier_report_go(place):
    old = place.root / "reports/blow+hole/pictures"
    shutil.rmtree(place.root / "prompts")
    for kind in ("images", "masks"):
        (place.root / "holes" / kind / "3.png").unlink()
    report = place.enroll("holes", "blow/hole")
    assert sorted(file.name for file in old.iterdir()) == ["001-0.png", "002-1.png", "003-2.png"]
    assert f"; enrolled as version {report.version}." in (report.output / "report.md").read_text()
    assert json.loads((report.output / "report.json").read_text())["version"] == 1


def test_a_report_that_cannot_be_written_is_one_line_that_says_what_was_done(enrolled, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as refused:
        write_report(replace(enrolled[1], output=tmp_path / "file"))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'file'}: the report cannot be written (")
    assert "enrolled as version 1" in message
    assert "\n" not in message


def check_of(found: int, confused: int, marks: int) -> ImageCheck:
    """So many marks, the first of them found, the last of them mistaken for another class."""
    rows = tuple(
        MarkCheck(n, (0, 0, 9, 9), 0.2 * (n < found), "dent", 0.3 * (n >= marks - confused))
        for n in range(marks)
    )
    nothing = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), (), ("a",), (9, 9)
    )
    return ImageCheck("a.png", rows, nothing)


@pytest.mark.parametrize(
    ("found", "confused", "lines"), [(55, 30, 0), (54, 30, 1), (55, 31, 1), (0, 100, 2), (100, 0, 0)]
)
def test_the_limits_themselves_are_allowed(found, confused, lines):
    limits = EnrollConfig(found=0.55, confused=0.3)
    assert len(refusals([check_of(found, confused, 100)], limits)) == lines


def test_pictures_that_look_alike():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (3, 32), dtype=np.uint8)
    bits[2] = bits[0]
    bits[2, :2] ^= 255  # 16 bits of 256
    names = ("a", "b", "c")
    codes = {name: code.tobytes().hex() for name, code in zip(names, bits, strict=True)}
    assert look_alike({**codes, "plain": "0" * 64, "plain too": "0" * 64}) == (("a", "c"),)
    bits[2, 5] ^= 1
    assert look_alike({**codes, "c": bits[2].tobytes().hex()}) == ()
    assert look_alike({"one": codes["a"]}) == ()


def copied(pictures: list[Path], masks: list[Path], folder: Path) -> None:
    """Images with masks of others or their own."""
    for kind, files in (("images", pictures), ("masks", masks)):
        (folder / kind).mkdir(parents=True)
        for picture, file in zip(pictures, files, strict=True):
            shutil.copy(file, folder / kind / f"{picture.stem}{file.suffix}")


@pytest.mark.slow
def test_real_blowholes_and_real_places_without(shared_data, tmp_path):
    """Five blowholes find each other, two of them look alike; twelve too; places without a defect do not."""
    place, release = Place(tmp_path), shared_data / "magnetic_tile"
    holes = sorted((release / "MT_Blowhole/Imgs").glob("*.jpg"))
    for name, chosen in (("five", holes[:5]), ("twelve", holes[::9][:12])):
        copied(chosen, [file.with_suffix(".png") for file in chosen], tmp_path / name)
    five = place.enroll("five", "blowhole")
    assert (five.outcome, five.marks) == ("passed", 5)
    assert five.found >= 3
    assert five.marked.alike == (("images/exp1_num_108719.jpg", "images/exp1_num_108889.jpg"),)
    assert place.store.current().version == 1
    twelve = place.enroll("twelve", "blowhole")
    assert (twelve.outcome, twelve.version) == ("passed", 2)

    free = sorted((release / "MT_Free/Imgs").glob("*.jpg"))[:6]
    (tmp_path / "spots").mkdir()
    spots = [tmp_path / "spots" / f"{file.stem}.png" for file in free]
    rng = np.random.default_rng(0)
    for file, spot in zip(free, spots, strict=True):
        height, width = cv2.imread(str(file)).shape[:2]
        mask = np.zeros((height, width), np.uint8)
        left, top = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 30))
        mask[top : top + 25, left : left + 25] = 255
        cv2.imwrite(str(spot), mask)
    copied(free, spots, tmp_path / "free")
    phantom = place.enroll("free", "phantom")
    assert phantom.outcome == "refused"
    assert list(place.store.current().classes) == ["blowhole"]
