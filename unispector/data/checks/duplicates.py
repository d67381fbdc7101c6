"""Near-duplicate images on both sides of a split: reported, not refused.

Two images count as near-duplicates where their 256-bit difference hashes differ in at most `THRESHOLD` bits.
Measured on Magnetic Tile, whose file names number the images and which shows a tile under up to six
exposures: 428 of the 1,742 pairs of a class whose numbers lie within 5,000 are that near, none of the 16,953
that are further apart, and 5 of the 78,766 pairs of different classes. At 24 bits those are 600, 5 and 50.

A hash with nearly all bits equal says that nothing rises from left to right; such plain images, 76 of
NEU-DET's 1,800, are alike without being the same and make up all but one of its 100 pairs. They are not
compared, but counted.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unispector.data.checks.split_tables import all_pairs
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree
from unispector.ops.files import atomic_path, atomic_write_json

if TYPE_CHECKING:
    import pandas as pd

THRESHOLD = 16  # of 256 bits
PLAIN_BITS = 32  # a hash with fewer bits set, or fewer not set, is a plain image's
BLOCK = 16  # images compared with all others at a time; more take longer, for they outgrow the cache
LISTED = 50_000  # pairs of a kind and split seed in the table; aligned images of one product may all be alike
TRAINING_TEST = "training and test"
PROMPT_TARGET = "prompt and target"
COUNTS_FILE = "near-duplicates.json"  # in the folder of the split files
COLUMNS = ("split_seed", "kind", "first_set", "first_file", "second_set", "second_file", "distance")

Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Sides = tuple[Bools, Bools]


@dataclass(frozen=True)
class PairCount:
    """Pairs of one kind under one split seed (None: between prompts and targets of cross-domain sets)."""

    split_seed: int | None  # seed of the split
    kind: str  # `training and test` or `prompt and target`
    pairs: int  # how many there are
    listed: int  # how many of them are in the table, `LISTED` at most


@dataclass(frozen=True)
class NearDuplicates:
    """The pairs of near duplicates."""

    threshold: int  # largest number of bits, of 256, in which the hashes of a pair differ
    compared: int  # images of the split files that were compared
    plain: int  # images left out, for they are too plain to tell apart by their hash
    unsurveyed: int  # images left out, for the surveys lack them
    counts: tuple[PairCount, ...]  # pairs by split seed and kind

    def summary(self) -> str:
        """One line."""
        kinds: Counter[str] = Counter()
        for count in self.counts:
            kinds[count.kind] += count.pairs
        told = ", ".join(f"{pairs} of {kind}" for kind, pairs in kinds.items())
        return f"near-duplicates: {told} among {self.compared} images ({self.plain} too plain to compare)"


def report_near_duplicates(
    sets: Sequence[BenchmarkSet],
    surveys: "Mapping[str, pd.DataFrame]",
    tree: SplitTree,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
) -> NearDuplicates:
    """Write `near-duplicates.csv` and `near-duplicates.json` into the folder of the split files.

    Looked for are images, within a set and across sets, of which one trains and the other is a prompt or a
    target of the same split seed or of a cross-domain set, and prompts and targets of the same draw. Of the
    `surveys`, by set name, the columns `file_name` and `dhash` are read; the seeds are those the split files
    were written for. Returns what the JSON file holds. The table has a row per pair (see `LISTED`):
    `split_seed` (empty between prompts and targets of cross-domain sets), `kind`, set and file of the
    training or prompt image and of the other one, `distance` in bits.

    Raises:
        DataError: a split file is missing or malformed.
    """
    images = _Images(sets, surveys)
    sides = _sides(images, sets, tree, split_seeds, prompt_seeds)
    taking_part = np.logical_or.reduce([side for pairs in sides.values() for pair in pairs for side in pair])
    compared = np.flatnonzero(taking_part & ~images.plain)
    counts = dict.fromkeys(sides, 0)
    with (
        atomic_path(tree.root / "near-duplicates.csv") as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for first, second, distances in near_pairs(images.hashes[compared], THRESHOLD):
            found = (compared[first], compared[second], distances)
            for (seed, kind), pairs in sides.items():
                for one, other, distance in _across(pairs, *found):
                    counts[seed, kind] += 1
                    if counts[seed, kind] <= LISTED:
                        table.writerow([seed, kind, *images.names[one], *images.names[other], distance])
    report = NearDuplicates(
        threshold=THRESHOLD,
        compared=len(compared),
        plain=int((taking_part & images.plain).sum()),
        unsurveyed=len(images.unsurveyed),
        counts=tuple(PairCount(*key, pairs, min(pairs, LISTED)) for key, pairs in counts.items()),
    )
    atomic_write_json(tree.root / COUNTS_FILE, asdict(report))
    return report


def near_pairs(hashes: Hashes, threshold: int) -> Iterator[tuple[Positions, Positions, Positions]]:
    """All pairs of hashes that differ in few bits, some at a time.

    `hashes` are uint64 [n, words], `threshold` is the largest number of bits. Yields positions of the first,
    of the second (which is larger), and numbers of bits, int64 [pairs] each; at least one pair.
    """
    words = np.ascontiguousarray(hashes.T)
    for start in range(0, len(hashes), BLOCK):
        distances = np.zeros((min(BLOCK, len(hashes) - start), len(hashes) - start), dtype=np.uint16)
        for word in words:
            distances += np.bitwise_count(word[start : start + BLOCK, None] ^ word[None, start:])
        first, second = np.nonzero(distances <= threshold)
        first, second = first[second > first], second[second > first]
        if len(first):
            yield first + start, second + start, distances[first, second].astype(np.int64)


class _Images:
    """All surveyed images of the sets in one row.

    Attributes:
        names: set and file of each.
        hashes: uint64 [n, 4].
        plain: bool [n], too plain to be told apart.
        unsurveyed: images of the split files that are not among them.
    """

    def __init__(self, sets: Sequence[BenchmarkSet], surveys: "Mapping[str, pd.DataFrame]") -> None:
        self.names: list[tuple[str, str]] = []
        self.unsurveyed: set[str] = set()
        codes: list[str] = []
        self._positions: dict[str, int] = {}
        for member in sets:
            for file, code in surveys[member.name][["file_name", "dhash"]].itertuples(index=False):
                self._positions[f"{member.folder}/{file}"] = len(self.names)
                self.names.append((member.name, file))
                codes.append(code or "0" * 64)  # what cannot be decoded is as good as plain
        self.hashes = np.frombuffer(bytes.fromhex("".join(codes)), dtype=np.uint64).reshape(-1, 4)
        bits = np.bitwise_count(self.hashes).sum(axis=1)
        self.plain: Bools = np.minimum(bits, 256 - bits) < PLAIN_BITS

    def where(self, files: Iterable[str]) -> Bools:
        """Name the images; files are relative to the data's root."""
        chosen = np.zeros(len(self.names), dtype=np.bool_)
        for file in files:
            if file in self._positions:
                chosen[self._positions[file]] = True
            else:
                self.unsurveyed.add(file)
        return chosen


def _sides(
    images: _Images,
    sets: Sequence[BenchmarkSet],
    tree: SplitTree,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
) -> dict[tuple[int | None, str], list[Sides]]:
    """By split seed and kind, the images that should not look alike, first and second of a pair."""
    folders = {member.name: member.folder for member in sets}
    sides: dict[tuple[int | None, str], list[Sides]] = {}
    tests: dict[int | None, Bools] = defaultdict(lambda: images.where(()))
    draws: dict[int | None, list[Sides]] = defaultdict(list)
    for pair in all_pairs(sets, tree, split_seeds, prompt_seeds):
        prompt, target = (
            images.where(
                f"{folders[pair.set_name]}/{image.file_name}" for image in Annotations.read(path).images
            )
            for path in (pair.prompt, pair.target)
        )
        draws[pair.split_seed].append((prompt, target))
        tests[pair.split_seed] = tests[pair.split_seed] | prompt | target
    for seed in split_seeds:
        listed = Annotations.read(tree.training(seed))
        # Images without a defect are not surveyed, and none of them is a prompt or a target.
        training = images.where(image.file_name for image in listed.images if listed.labels_of(image.id))
        sides[seed, TRAINING_TEST] = [(training, tests[seed] | tests[None])]
    for split_seed, drawn in draws.items():
        sides[split_seed, PROMPT_TARGET] = drawn
    return sides


def _across(
    sides: Sequence[Sides], first: Positions, second: Positions, distances: Positions
) -> Iterator[tuple[int, int, int]]:
    """Those pairs that lie on two sides, each once, turned so that the first one is on the first side."""
    forward, backward = (
        np.logical_or.reduce([left[one] & right[other] for left, right in sides])
        for one, other in ((first, second), (second, first))
    )
    one, other = np.where(forward, first, second), np.where(forward, second, first)
    apart = forward | backward
    return zip(one[apart].tolist(), other[apart].tolist(), distances[apart].tolist(), strict=True)
