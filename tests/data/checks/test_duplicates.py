"""Near-duplicates across a split, against a comparison of every pair one by one."""

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labelled import FOUR_CLASSES, two_sets
from unispector.data.checks import duplicates
from unispector.data.checks.duplicates import BLOCK, THRESHOLD, near_pairs, report_near_duplicates
from unispector.data.coco import ImageRecord
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.data.survey import difference_hash
from unispector.ops.files import read_image

SEEDS, DRAWS, ROLES = (42, 82), (1, 2), ("prompt", "target")
RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=2, tail_images=3, seen_test_fraction=0.2)


def random_hashes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def bits_between(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.unpackbits(first ^ second).sum())


def flipped(code: np.ndarray, bits: int) -> np.ndarray:
    """The hash with that many bits, spread over all of it, turned."""
    flat = np.unpackbits(code)
    flat[np.linspace(0, 255, bits, dtype=int)] ^= 1
    return np.packbits(flat)


def test_near_pairs_are_all_and_only_those_that_are_near():
    codes = random_hashes(3 * BLOCK + 5, seed=0)
    for place, bits in ((BLOCK, 1), (2 * BLOCK - 1, THRESHOLD), (3 * BLOCK, THRESHOLD + 1), (7, 3)):
        codes[place] = flipped(codes[5], bits)
    found = {
        (int(i), int(j)): int(distance)
        for block in near_pairs(codes.view(np.uint64), THRESHOLD)
        for i, j, distance in zip(*block, strict=True)
    }
    expected = {
        (i, j): bits_between(codes[i], codes[j])
        for i, j in combinations(range(len(codes)), 2)
        if bits_between(codes[i], codes[j]) <= THRESHOLD
    }
    assert found == expected
    assert found[5, 2 * BLOCK - 1] == THRESHOLD
    assert (5, 3 * BLOCK) not in found


def test_no_hash_is_near_no_other():
    assert list(near_pairs(np.zeros((0, 4), dtype=np.uint64), THRESHOLD)) == []
    assert list(near_pairs(np.zeros((1, 4), dtype=np.uint64), THRESHOLD)) == []


@pytest.fixture
def sets() -> list[BenchmarkSet]:
    """Four classes of 12 single-label images each, once in domain and once across."""
    return two_sets(FOUR_CLASSES)


@pytest.fixture
def tree(sets: list[BenchmarkSet], tmp_path: Path) -> SplitTree:
    write_splits(sets, RULES, SEEDS, DRAWS, tmp_path / "splits")
    return SplitTree(tmp_path / "splits")


def surveys_of(sets: list[BenchmarkSet], codes: np.ndarray) -> dict[str, pd.DataFrame]:
    surveys, start = {}, 0
    for member in sets:
        files = [image.file_name for image in member.annotations.images]
        hashes = [code.tobytes().hex() for code in codes[start : start + len(files)]]
        surveys[member.name] = pd.DataFrame({"file_name": files, "dhash": hashes})
        start += len(files)
    return surveys


def files_of(path: Path, folder: str) -> set[str]:
    return {folder + image["file_name"] for image in json.loads(path.read_text())["images"]}


def expected_rows(tree: SplitTree, near: dict[frozenset[str], int]):
    """From the files alone, pair by pair."""
    rows = set()
    cross = [tree.root / f"out-domain/Out/{{}}/Out_prompt_seed{draw}.json" for draw in DRAWS]
    for seed in SEEDS:
        trained = files_of(tree.root / f"in-domain/seen/InsA_train_seen_seed{seed}.json", "")
        patterns = [
            tree.root / f"in-domain/{part}/In/{{}}/In_{part}_seed{seed}_prompt_seed{draw}.json"
            for part in ("seen", "unseen")
            for draw in DRAWS
        ]
        groups = [(pattern, "raw/in/") for pattern in patterns] + [(pattern, "raw/out/") for pattern in cross]
        for pattern, folder in groups:
            prompts, targets = (files_of(Path(str(pattern).format(role)), folder) for role in ROLES)
            draw_seed = str(seed) if folder == "raw/in/" else ""
            for pair, distance in near.items():
                if (
                    pair & trained
                    and pair - trained
                    and pair & (prompts | targets)
                    and len(pair & trained) == 1
                ):
                    rows.add((str(seed), "training and test", pair, distance))
                if pair & prompts and pair & targets and pair <= prompts | targets:
                    rows.add((draw_seed, "prompt and target", pair, distance))
    return rows


def test_images_without_a_defect_are_neither_compared_nor_missed(sets, tmp_path):
    reports = []
    for free in ((), (ImageRecord(0, "good/1.png", 9, 9),)):
        write_splits([replace(sets[0], defect_free=free), sets[1]], RULES, SEEDS, DRAWS, tmp_path)
        surveys = surveys_of(sets, random_hashes(96, seed=4))
        reports.append(report_near_duplicates(sets, surveys, SplitTree(tmp_path), SEEDS, DRAWS))
    assert reports[0] == reports[1]
    assert reports[0].unsurveyed == 0


def test_pairs_across_the_split_are_listed(sets, tree):
    """Images 1-12 look alike in twos across classes and sets; what lies on one side only is not listed."""
    codes = random_hashes(96, seed=1)
    for place in range(0, 48, 3):
        codes[place + 1] = flipped(codes[place], 4)
        codes[place + 48] = flipped(codes[place], 9)
    names = [f"raw/{folder}/{n}.png" for folder in ("in", "out") for n in range(1, 49)]
    near = {
        frozenset((names[i], names[j])): bits_between(codes[i], codes[j])
        for i, j in combinations(range(96), 2)
        if bits_between(codes[i], codes[j]) <= THRESHOLD
    }

    report = report_near_duplicates(sets, surveys_of(sets, codes), tree, SEEDS, DRAWS)

    with (tree.root / "near-duplicates.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    folder = {"In": "raw/in/", "Out": "raw/out/"}
    listed = [
        (
            row["split_seed"],
            row["kind"],
            frozenset(folder[row[f"{side}_set"]] + row[f"{side}_file"] for side in ("first", "second")),
            int(row["distance"]),
        )
        for row in rows
    ]
    assert len(set(listed)) == len(listed)
    assert set(listed) == expected_rows(tree, near)
    assert {row["kind"] for row in rows} == {"training and test", "prompt and target"}
    assert {(row["first_set"], row["second_set"]) for row in rows} >= {("In", "In"), ("In", "Out")}
    for row in rows:
        if row["kind"] == "training and test":
            training = files_of(tree.training(int(row["split_seed"])), "")
            assert folder[row["first_set"]] + row["first_file"] in training

    assert sum(count.pairs for count in report.counts) == len(rows)
    assert (report.compared, report.plain, report.unsurveyed) == (96, 0, 0)
    written = json.loads((tree.root / "near-duplicates.json").read_text())
    assert written["threshold"] == THRESHOLD
    assert written["counts"][0] == vars(report.counts[0])
    assert f"{report.counts[0].pairs + report.counts[1].pairs} of training and test" in report.summary()


def test_plain_and_unsurveyed_images_are_counted_but_not_compared(sets, tree):
    codes = random_hashes(96, seed=2)
    codes[:10] = 0
    codes[10:20] = 255
    codes[20:30] = flipped(codes[0], 31)
    codes[30:40] = flipped(codes[0], 32)
    surveys = surveys_of(sets, codes)
    surveys["In"].loc[40, "dhash"] = ""
    surveys["Out"] = surveys["Out"].iloc[:-2]

    report = report_near_duplicates(sets, surveys, tree, SEEDS, DRAWS)

    assert (report.compared, report.plain, report.unsurveyed) == (96 - 31 - 2, 31, 2)
    with (tree.root / "near-duplicates.csv").open() as stream:
        found = {row[f"{side}_file"] for row in csv.DictReader(stream) for side in ("first", "second")}
    assert found <= {f"{n}.png" for n in range(31, 41)}
    assert found


def test_long_lists_are_cut_but_counted(sets, tree, monkeypatch):
    monkeypatch.setattr(duplicates, "LISTED", 5)
    alike = np.repeat(random_hashes(1, seed=3), 96, axis=0)
    report = report_near_duplicates(sets, surveys_of(sets, alike), tree, SEEDS, DRAWS)
    assert all(count.listed == 5 < count.pairs for count in report.counts)
    rows = (tree.root / "near-duplicates.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(count.listed for count in report.counts)


def test_exposures_of_one_real_tile_are_near_and_other_tiles_are_not(shared_data):
    folder = shared_data / "magnetic_tile" / "MT_Crack" / "Imgs"
    names = ("exp2_num_85846.jpg", "exp5_num_88170.jpg", "exp1_num_265613.jpg", "exp2_num_265639.jpg")
    codes = [
        np.frombuffer(bytes.fromhex(difference_hash(read_image(folder / name))), np.uint8) for name in names
    ]
    assert bits_between(codes[0], codes[1]) <= THRESHOLD
    assert bits_between(codes[2], codes[3]) <= THRESHOLD
    assert bits_between(codes[0], codes[2]) > 2 * THRESHOLD
