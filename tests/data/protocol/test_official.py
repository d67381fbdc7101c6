"""InsA's official annotation release: read in its documented layout, quirks included."""

import importlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from unispector.config import DataConfig, SetConfig, SplitConfig
from unispector.data.checks.expectations import check_splits
from unispector.data.coco import Annotations
from unispector.data.protocol.official import write_official
from unispector.data.protocol.official_images import FOLDERS
from unispector.data.protocol.split_tree import BenchmarkSet, SplitReport, SplitTree
from unispector.errors import DataError

SEEDS, PROMPT_SEEDS = (42, 777), (1, 82)
SPLIT = SplitConfig(seeds=SEEDS, prompt_seeds=PROMPT_SEEDS, official=Path("insa"))
SETS = {
    "MVTec": SetConfig(source="mvtec_ad", path="mvtec"),
    "MagneticTile": SetConfig(source="magnetic_tile", path="tile"),
    "RealIAD": SetConfig(source="real_iad", path="iad/realiad_1024"),
    "VisA": SetConfig(source="visa", path="VisA", domain="cross"),
}
SIZE = (24, 16)  # width, height
RLE = {"size": [16, 24], "counts": [16, 32, 336]}  # columns 1 and 2


@dataclass(frozen=True)
class Picture:
    """An image: its official name, the file on disk relative to the set's folder, its set and classes."""

    official: str
    disk: str
    set_name: str
    shows: tuple[str, ...]


def pictures() -> list[Picture]:
    """Three classes per in-domain set, six images each; VisA's have two."""
    made = []

    def add(folder: str, path: str, suffix: str, *shows: str) -> None:
        set_name = FOLDERS[folder.partition("/")[0]]
        made.append(Picture(f"{folder}/{path}.jpg", f"{path}{suffix}", set_name, shows))

    for name, n in product(("cut", "hole", "glue"), range(6)):  # two instances each
        add("MVTec-AD", f"leather/test/{name}/{n:03}", ".png", f"leather_{name}", f"leather_{name}")
    for name, n in product(("Break", "Crack", "Fray"), range(6)):
        add("MagneticTile", f"MT_{name}/Imgs/exp1_num_{n}", ".jpg", name.lower())
    for name, n in product(("AK", "HS", "ZW"), range(6)):
        add("Real-IAD/realiad-1024", f"pcb/NG/{name}/S000{n}/pcb_NG_{name}_C1", ".jpg", f"pcb_{name}")
    for name, n in product(("melt", "scratch"), range(6)):
        add("VisA", f"pcb1/Data/Images/Anomaly/{name == 'melt':d}{n:02}", ".JPG", f"pcb1_{name}")
    return made


UNSEEN = {  # by split seed
    42: {"leather_cut", "break", "pcb_AK"},
    777: {"leather_glue", "fray", "pcb_ZW"},
}


def listed(shown: list[Picture], classes: set[str], start: int = 1) -> dict[str, Any]:
    """A COCO file of some images and classes; odd instances are polygons, even ones run-length codes."""
    ids = {name: number for number, name in enumerate(sorted(classes), start=start)}
    images = [
        {"id": n, "file_name": item.official, "width": SIZE[0], "height": SIZE[1]}
        for n, item in enumerate(shown)
    ]
    rows = [(n, name, place) for n, item in enumerate(shown) for place, name in enumerate(item.shows)]
    annotations = [
        {
            "id": id_,
            "image_id": n,
            "category_id": ids[name],
            "bbox": [1.0 + 5 * place, 0.0, 2.0, 16.0],
            "area": 32.0,
            "iscrowd": 0,
            "segmentation": RLE if id_ % 2 == 0 and place == 0 else [[1, 0, 3, 0, 3, 16, 1, 16]],
        }
        for id_, (n, name, place) in enumerate([row for row in rows if row[1] in classes], start=1)
    ]
    categories = [{"id": id_, "name": name} for name, id_ in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def draws_of(everything: list[Picture]) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Stem of a test's file, without seed of the draw -> prompts and targets of prompt seed 1."""
    found = {}
    for name in SETS:
        for seed in SEEDS if name != "VisA" else (None,):
            unseen = UNSEEN[seed] if seed else {"pcb1_melt", "pcb1_scratch"}
            showing = [item for item in everything if item.set_name == name and set(item.shows) & unseen]
            prompts = [item for item in showing if item.official.removesuffix(".jpg").endswith(("0", "C1"))]
            first = {item.shows: item for item in reversed(prompts)}
            chosen = list(first.values())
            stem = f"{name}_unseen_seed{seed}" if seed else name
            found[stem] = chosen, [item for item in showing if item not in chosen]
    return found


def folder_of(stem: str) -> str:
    name = stem.partition("_unseen")[0]
    return f"out-domain/{name}" if name == "VisA" else f"in-domain/unseen/{name}"


def write_release(root: Path, everything: list[Picture], role: str | None) -> None:
    for seed, unseen in UNSEEN.items():
        trained = [item for item in everything if item.set_name != "VisA" and not set(item.shows) & unseen]
        classes = {name for item in trained for name in item.shows}
        save(root / f"in-domain/seen/InsA_train_seen_seed{seed}.json", listed(trained, classes))
    for stem, (prompts, targets) in draws_of(everything).items():
        classes = {name for item in targets for name in item.shows}
        for draw in PROMPT_SEEDS:
            folder = root / folder_of(stem)
            save(folder / f"prompt/{stem}_prompt_seed{draw}.json", listed(prompts, classes))
            if role:  # with other ids than in the prompt file; in `target` the name is the prompt file's
                seed_of = "prompt" if role == "target" else role
                save(folder / f"{role}/{stem}_{seed_of}_seed{draw}.json", listed(targets, classes, start=5))


def save(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """A file's content, written back when the block ends."""
    content = json.loads(path.read_text())
    yield content
    save(path, content)


TRAINING = "in-domain/seen/InsA_train_seen_seed42.json"
PROMPT = "in-domain/unseen/MVTec/prompt/MVTec_unseen_seed42_prompt_seed1.json"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The releases as they are on disk: Real-IAD packed, masks beside Magnetic Tile's images."""
    root = tmp_path_factory.mktemp("raw")
    blank = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for item in pictures():
        path = root / SETS[item.set_name].path / item.disk
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), blank)
        (path.parent / f"._{path.name}").write_bytes(b"junk")
        mask = path.with_suffix(".png")
        if item.set_name == "VisA":
            mask = root / "VisA" / item.disk.replace("Images", "Masks").replace(".JPG", ".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), blank)
    product = root / SETS["RealIAD"].path / "pcb"
    shutil.make_archive(str(product), "zip", product)
    shutil.rmtree(product)
    return root


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "insa", pictures(), "query")
    return tmp_path / "insa"


def written(release: Path, raw: Path, **sets: SetConfig) -> tuple[SplitReport, list[BenchmarkSet], SplitTree]:
    root = release.parent / "splits"
    report, benchmark = write_official(release, DataConfig(sets=sets or SETS), raw, SPLIT, root)
    return report, benchmark, SplitTree(root)


def content(path: Path, prefix: str = "") -> set[tuple[str, str, tuple[float, ...]]]:
    """File, class and box of all instances, read without the project's reader."""
    raw = json.loads(path.read_text())
    files = {image["id"]: image["file_name"] for image in raw["images"]}
    names = {category["id"]: category["name"] for category in raw["categories"]}
    assert {item["id"] for item in raw["annotations"]} == set(range(1, len(raw["annotations"]) + 1))
    assert {item["image_id"] for item in raw["annotations"]} == set(files)
    return {
        (files[item["image_id"]], names[item["category_id"]].removeprefix(prefix), tuple(item["bbox"]))
        for item in raw["annotations"]
    }


def expected(shown: list[Picture], *, whole_path: bool = False) -> set[tuple[str, str, tuple[float, ...]]]:
    return {
        (
            f"{SETS[item.set_name].path}/{item.disk}" if whole_path else item.disk,
            f"{item.set_name}/{name}" if whole_path else name,
            (1.0 + 5 * place, 0.0, 2.0, 16.0),
        )
        for item in shown
        for place, name in enumerate(item.shows)
    }


def check_tree(tree: SplitTree, *, scored_on_prompts: bool) -> None:
    """Every file against what the test itself knows."""
    everything = pictures()
    for seed, unseen in UNSEEN.items():
        trained = [item for item in everything if item.set_name != "VisA" and not set(item.shows) & unseen]
        assert content(tree.training(seed)) == expected(trained, whole_path=True)
    for stem, (prompts, targets) in draws_of(everything).items():
        name = stem.partition("_")[0]
        for draw in PROMPT_SEEDS:
            pair = tree.cross_domain(name, draw)
            if name != "VisA":
                pair = tree.in_domain(name, "unseen", int(stem.partition("seed")[2]), draw)
                assert not tree.in_domain(name, "seen", int(stem.partition("seed")[2]), draw).target.exists()
            assert content(pair.prompt) == expected(prompts)
            assert content(pair.target) == expected(prompts if scored_on_prompts else targets)


@pytest.mark.parametrize("role", ["query", "target", None])
def test_the_tree_is_what_the_release_says(role, tmp_path, raw):
    write_release(tmp_path / "insa", pictures(), role)
    report, benchmark, tree = written(tmp_path / "insa", raw)

    check_tree(tree, scored_on_prompts=role is None)
    assert report.scored_on_prompts == (role is None)
    assert report.notes[0] == "the splits are those of the official files in insa"
    assert [note.startswith("SCORED ON PROMPTS") for note in report.notes[1:]] == ([] if role else [True])
    for member in benchmark:
        shown = [item for item in pictures() if item.set_name == member.name]
        found = {
            (image.file_name, sum(1 for _ in member.annotations.instances_of(image.id)))
            for image in member.annotations.images
        }
        if role:
            assert found == {(item.disk, len(item.shows)) for item in shown}
        else:
            assert found <= {(item.disk, len(item.shows)) for item in shown}
    assert Annotations.read(tree.training(42)).class_names[:2] == ("MVTec/leather_glue", "MVTec/leather_hole")


def test_the_report_tells_what_can_be_known(release, raw):
    report, _, tree = written(release, raw)
    assert [(item.name, item.split_seed) for item in report.sets] == [
        *((name, seed) for seed in SEEDS for name in SETS if name != "VisA"),
        ("VisA", None),
    ]
    first, last = report.sets[0], report.sets[-1]
    assert (first.seen, first.unseen) == (("leather_glue", "leather_hole"), ("leather_cut",))
    assert (first.training_images, first.training_instances, first.lost) == (12, 24, None)
    assert list(first.untested_seen) == ["leather_glue", "leather_hole"]
    assert [draw.prompt_seed for draw in first.draws] == list(PROMPT_SEEDS)
    assert first.draws[0].target_images_of == {"leather_cut": 5}
    assert (last.seen, last.unseen, last.training_images) == ((), ("pcb1_melt", "pcb1_scratch"), 0)
    assert json.loads(tree.report.read_text())["scored_on_prompts"] is False


@pytest.mark.parametrize("role", ["query", None])
def test_the_checks_pass_on_a_sound_release(role, tmp_path, raw):
    importlib.import_module("great_expectations")
    write_release(tmp_path / "insa", pictures(), role)
    report, benchmark, tree = written(tmp_path / "insa", raw)
    checks = check_splits(
        benchmark, tree, SEEDS, PROMPT_SEEDS, official=True, scored_on_prompts=report.scored_on_prompts
    )
    assert checks.passed, checks.summary()


def test_the_checks_find_an_unseen_class_in_training(release, raw):
    path = release / TRAINING
    trained = [item for item in pictures() if item.set_name != "VisA"]
    classes = {name for item in trained for name in item.shows} - UNSEEN[42]
    save(path, listed([item for item in trained if item.shows != ("break",)], classes | {"leather_cut"}))
    _, benchmark, tree = written(release, raw)
    checks = check_splits(benchmark, tree, SEEDS, PROMPT_SEEDS, official=True)
    broken = [result.rule for result in checks.results if result.failed]
    assert "training image shows no unseen class" in broken
    assert "no class is both seen and unseen" in broken


def test_sets_that_are_not_at_hand_are_left_out_and_counted(release, raw):
    report, _, tree = written(release, raw, MVTec=SETS["MVTec"])
    assert {name.partition("/")[0] for name in Annotations.read(tree.training(42)).class_names} == {"MVTec"}
    assert report.notes[1:] == tuple(
        f"InsA_train_seen_seed{seed}.json: 12 images of {name}, which data.sets lacks, are left out"
        for seed in SEEDS
        for name in ("MagneticTile", "RealIAD")
    )


def test_images_and_classes_without_instances(release, raw):
    for path in [*release.glob("in-domain/unseen/MVTec/*/*seed42_*"), release / TRAINING]:
        with edited(path) as file:
            file["categories"].append({"id": 99, "name": "leather_fold"})
            if "query" not in path.name:
                empty = file["images"][-1]["id"]
                file["annotations"] = [item for item in file["annotations"] if item["image_id"] != empty]
    categories = json.loads((release / PROMPT).read_text())["categories"]
    spare = Picture("MVTec-AD/leather/test/cut/005.jpg", "", "MVTec", ("leather_cut",))
    save(release / PROMPT, listed([spare], {"leather_cut"}) | {"categories": categories[:1]})
    other = PROMPT.replace("prompt_seed1.", "prompt_seed82.")
    save(release / other, listed([spare], {"leather_cut", "leather_fold"}))

    report, _, tree = written(release, raw)

    trained = Annotations.read(tree.training(42))
    assert len(trained.images) == 3 * 12 - 1
    assert all(trained.instances_of(image.id) for image in trained.images)
    assert report.sets[0].untested_unseen == {
        "leather_fold": "listed in the official files without an instance"
    }
    assert report.sets[0].unseen == ("leather_cut", "leather_fold")
    assert "InsA_train_seen_seed42.json, RealIAD: 1 images without an annotation are left out" in report.notes


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"file_name": "MVTec-AD/leather/test/cut/777.jpg"}, "1 of 1 images are not in .*, the first is"),
        ({"width": 25}, r"cut/000.jpg is stated as 25x16, but .*cut/000.png has 24x16"),
        ({"file_name": "Steel/1.jpg"}, "Steel/1.jpg: its first folder is none of GC10, "),
        ({"file_name": "VisA/pcb1/Data/Images/Anomaly/000.jpg"}, "000.jpg is not of the set MVTec"),
        ({"file_name": "MVTec-AD"}, "the first is MVTec-AD;"),
    ],
)
def test_an_image_that_does_not_fit_is_named(image, words, release, raw):
    with edited(release / PROMPT) as file:
        file["images"][0] |= image
    with pytest.raises(DataError, match=words) as caught:
        written(release, raw)
    assert str(release / PROMPT) in str(caught.value)
    assert not (release.parent / "splits").exists()


def test_missing_images_are_counted(release, raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    for name in ("001", "003"):
        (tmp_path / f"raw/mvtec/leather/test/hole/{name}.png").unlink()
    with pytest.raises(DataError, match=r"seed42.json: 2 of 12 images .* first is MVTec-AD/leather/.*/001"):
        written(release, tmp_path / "raw")


def test_an_image_that_may_be_two_files(release, raw, tmp_path):
    """Two files of one kind: neither is preferred, unless it has the very name."""
    shutil.copytree(raw, tmp_path / "raw")
    folder = tmp_path / "raw/tile/MT_Crack/Imgs"
    shutil.copy(folder / "exp1_num_0.jpg", folder / "Exp1-num-0.jpg")
    written(release, tmp_path / "raw")
    (folder / "exp1_num_0.jpg").rename(folder / "EXP1_num_0.jpg")
    with pytest.raises(DataError, match=r"exp1_num_0.jpg may be .*/E.* or .*/E.*; rename or remove"):
        written(release, tmp_path / "raw")


def test_a_release_may_lie_deeper_and_hold_copies(release, raw, tmp_path):
    shutil.copytree(raw / "mvtec", tmp_path / "raw/mvtec/unpacked")
    deeper = SetConfig(source="mvtec_ad", path="mvtec")
    _, _, tree = written(release, tmp_path / "raw", MVTec=deeper)
    pair = tree.in_domain("MVTec", "unseen", 42, 1)
    assert Annotations.read(pair.prompt).images[0].file_name == "unpacked/leather/test/cut/000.png"
    shutil.copytree(raw / "mvtec", tmp_path / "raw/mvtec", dirs_exist_ok=True)
    _, _, tree = written(release, tmp_path / "raw", MVTec=deeper)
    assert Annotations.read(pair.prompt).images[0].file_name == "leather/test/cut/000.png"
    shutil.move(tmp_path / "raw/mvtec/leather", tmp_path / "raw/mvtec/again/leather")
    with pytest.raises(DataError, match=r"000.jpg may be again/.*000.png or unpacked/.*000.png"):
        written(release, tmp_path / "raw", MVTec=deeper)


def test_what_one_file_lacks_of_an_image_is_seen(release, raw):
    """leather_hole trains under both split seeds; each file lacks another instance, one has one twice."""
    for seed, lacking in ((42, 0), (777, 1)):
        with edited(release / TRAINING.replace("42", str(seed))) as file:
            names = {image["file_name"]: image["id"] for image in file["images"]}
            of_image = names["MVTec-AD/leather/test/hole/002.jpg"]
            rows = [item for item in file["annotations"] if item["image_id"] == of_image]
            twice = next(item for item in file["annotations"] if item["image_id"] != of_image)
            file["annotations"].remove(rows[lacking])
            if seed == 42:
                file["annotations"].append(twice | {"id": 999})
    _, benchmark, tree = written(release, raw)
    counts = {
        image.file_name: len(benchmark[0].annotations.instances_of(image.id))
        for image in benchmark[0].annotations.images
    }
    assert counts["leather/test/hole/002.png"] == 2
    assert sorted(counts.values()) == [2] * 17 + [3]
    checks = check_splits(benchmark, tree, SEEDS, PROMPT_SEEDS, official=True)
    broken = {result.rule: result.failed for result in checks.results if result.failed}
    assert broken == {"training image keeps its instances, class and box": 3}


def test_two_names_of_one_file(release, raw):
    with edited(release / TRAINING) as file:
        file["images"][1]["file_name"] = file["images"][0]["file_name"].replace(".jpg", ".PNG")
    with pytest.raises(DataError, match=r"seed42.json: images .*\.jpg and .*\.PNG are both leather/"):
        written(release, raw)


def test_annotation_id_0_is_refused(release, raw):
    with edited(release / "out-domain/VisA/prompt/VisA_prompt_seed1.json") as file:
        file["annotations"][0]["id"] = 0
    with pytest.raises(DataError, match=r"VisA_prompt_seed1.json: annotations\[0\] \(id 0\): id 0 must be"):
        written(release, raw)


def test_a_class_of_one_file_only_is_named(release, raw):
    pair = [release / f"out-domain/VisA/{role}/VisA_{role}_seed1.json" for role in ("prompt", "query")]
    for path, other in (pair, pair[::-1]):
        before = path.read_text()
        with edited(path) as file:
            file["annotations"] = [item for item in file["annotations"] if item["category_id"] in (1, 5)]
        with pytest.raises(DataError, match=f"has no instance in {path};") as caught:
            written(release, raw)
        start = f"{other}: class pcb1_scratch, which image pcb1/Data/Images/Anomaly/0"
        assert str(caught.value).startswith(start)
        path.write_text(before)


def test_half_a_release_is_refused(release, raw):
    missing = release / "out-domain/VisA/query/VisA_query_seed82.json"
    missing.unlink()
    with pytest.raises(DataError, match=r"VisA_query_seed82.json: no such official file"):
        written(release, raw)
    shutil.rmtree(release / "out-domain/VisA/query")
    with pytest.raises(DataError, match=r"VisA_query_seed1.json: no such official file"):
        written(release, raw)
    with pytest.raises(DataError, match=r"InsA_train_seen_seed42.json: no such .* split.official is"):
        written(release.parent / "elsewhere", raw)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"Mine": SETS["MVTec"]}, r"data.sets.Mine: no set of InsA, .* GC10, MagneticTile, RealIAD"),
        ({"VisA": SETS["MVTec"]}, r"data.sets.VisA: split.official needs it with domain: cross"),
        ({"MVTec": SETS["VisA"]}, r"data.sets.MVTec: split.official needs it with domain: in"),
        ({"VisA": SETS["VisA"]}, "no in-domain set of InsA; add one of GC10, MVTec"),
    ],
)
def test_sets_must_be_those_of_the_benchmark(sets, words, release, raw):
    with pytest.raises(DataError, match=words):
        written(release, raw, **sets)


def test_a_training_file_of_other_sets_is_refused(release, raw):
    tiles = [item for item in pictures() if item.shows == ("crack",)]
    save(release / TRAINING, listed(tiles, {"crack"}))
    with pytest.raises(DataError, match="no image of the set MVTec"):
        written(release, raw)
    save(release / TRAINING, listed(pictures(), {name for item in pictures() for name in item.shows}))
    with pytest.raises(DataError, match="images of the cross-domain set VisA"):
        written(release, raw)


def test_a_class_of_several_sets_is_one_for_each(release, raw):
    path = release / TRAINING
    path.write_text(path.read_text().replace('"crack"', '"hole"').replace('"leather_hole"', '"crack"'))
    with edited(path) as file:
        ids = {category["name"]: category["id"] for category in file["categories"]}
        for item in file["annotations"]:
            if item["category_id"] == ids["hole"]:
                item["category_id"] = ids["crack"]
    report, _, tree = written(release, raw)
    names = Annotations.read(tree.training(42)).class_names
    assert {"MVTec/crack", "MagneticTile/crack"} <= set(names)
    assert report.notes[1] == (
        "InsA_train_seen_seed42.json: class crack of several sets is one class for each here"
    )
