"""The split files as the tables that `expectations` judges; `where` names the row.

Every image is looked up in its set's own file, so that what a split file leaves out does not go unnoticed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree, TestPair
from unispector.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def split_tables(
    sets: Sequence[BenchmarkSet],
    tree: SplitTree,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
    naive: bool,
) -> "dict[str, pd.DataFrame]":
    """Read all split files back.

    Args:
        sets: the benchmark.
        tree: where the split files lie.
        split_seeds, prompt_seeds: those the files were written for.
        naive: a training image keeps the instances of its seen classes, not all of them.

    Returns:
        `training`, a row per training image: `where`, `file`, `known` (1 = its set has it), `unseen_classes`
        it shows, `instances` listed, `set_instances` it should keep.
        `test`, a row per image of a prompt or target file: `where`, `known`, `prompt_classes` (classes it
        shows in all if it is a prompt image, else 1), `in_other` (1 = also in the pair's other file),
        `unseen_trains` and `seen_trains` (1 = it trains though it tests unseen, or seen, classes),
        `prompted_classes` it shows, `instances` and `set_instances` of those.
        `class`, a row per class of a prompt and target pair: `where`, `prompt_images` and `target_images`
        that show it.
        `unseen`, a row per split seed and class that the report calls unseen or that is tested as such:
        `where`, `trained` (1 = the training file lists it).

    Raises:
        DataError: a file is missing or malformed.
    """
    import pandas as pd

    lookups = {member.name: _Lookup(member) for member in sets}
    inside = [lookups[member.name] for member in sets if member.domain == "in"]
    pairs = list(all_pairs(sets, tree, split_seeds, prompt_seeds))
    unseen = _declared_unseen(tree)
    rows: dict[str, list[Row]] = {"training": [], "test": [], "class": [], "unseen": []}

    def add_pairs(split_seed: int | None, trained: set[str]) -> None:
        for files in pairs:
            if files.split_seed == split_seed:
                pair = _Pair.read(files, lookups[files.set_name])
                rows["test"] += _test_rows(pair, trained)
                rows["class"] += _class_rows(pair)
                if files.part == "unseen":
                    unseen[files.set_name, split_seed].update(pair.prompt.class_names)

    for seed in split_seeds:
        file, training = tree.training(seed).name, Annotations.read(tree.training(seed))
        add_pairs(seed, {image.file_name for image in training.images})
        hidden = {lookup.name: unseen[lookup.name, seed] for lookup in inside}
        rows["training"] += _training_rows(file, training, inside, hidden, naive)
        rows["unseen"] += _unseen_rows(file, set(training.class_names), hidden)
    add_pairs(None, set())
    return {name: pd.DataFrame(table) for name, table in rows.items()}


def all_pairs(
    sets: Sequence[BenchmarkSet], tree: SplitTree, split_seeds: Sequence[int], prompt_seeds: Sequence[int]
) -> Iterator[TestPair]:
    """All prompt and target files that must be there, and those of seen classes that are there."""
    for split_seed in split_seeds:
        for member in sets:
            if member.domain == "in":
                for prompt_seed in prompt_seeds:
                    yield tree.in_domain(member.name, "unseen", split_seed, prompt_seed)
                    seen = tree.in_domain(member.name, "seen", split_seed, prompt_seed)
                    if seen.prompt.exists():  # there is none where too few images are kept for it
                        yield seen
    for member in sets:
        if member.domain == "cross":
            for prompt_seed in prompt_seeds:
                yield tree.cross_domain(member.name, prompt_seed)


class _Lookup:
    """A set's own annotations by file name: the truth the split files are compared with."""

    def __init__(self, member: BenchmarkSet) -> None:
        self.name, self.folder = member.name, member.folder
        names = {category.id: category.name for category in member.annotations.categories}
        self.classes: dict[str, list[str]] = {
            image.file_name: [names[item.category_id] for item in member.annotations.instances_of(image.id)]
            for image in member.annotations.images
        }


@dataclass(frozen=True)
class _Pair:
    """A prompt and a target file, read, and the set they are of."""

    files: TestPair
    lookup: _Lookup
    prompt: Annotations
    target: Annotations

    @classmethod
    def read(cls, files: TestPair, lookup: _Lookup) -> "_Pair":
        return cls(files, lookup, Annotations.read(files.prompt), Annotations.read(files.target))


def _declared_unseen(tree: SplitTree) -> defaultdict[tuple[str, int | None], set[str]]:
    """What the split report calls unseen, by set and split seed: some of it may not be testable."""
    try:
        report = json.loads(tree.report.read_text(encoding="utf-8"))
        declared = {(part["name"], part["split_seed"]): set(part["unseen"]) for part in report["sets"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{tree.report}: not the report of a split; run the split stage again") from error
    return defaultdict(set, declared)


def _training_rows(
    file: str,
    training: Annotations,
    inside: Sequence[_Lookup],
    unseen: Mapping[str, Collection[str]],
    naive: bool,
) -> Iterator[Row]:
    owner = {f"{lookup.folder}/{name}": (lookup, name) for lookup in inside for name in lookup.classes}
    for image in training.images:
        lookup, name = owner.get(image.file_name, (None, ""))
        shown = lookup.classes[name] if lookup else []
        hidden = [class_name for class_name in shown if lookup and class_name in unseen[lookup.name]]
        yield {
            "where": f"{file}: {image.file_name}",
            "file": f"{file}: {image.file_name}",
            "known": int(lookup is not None),
            "unseen_classes": len(set(hidden)),
            "instances": len(training.instances_of(image.id)),
            "set_instances": len(shown) - len(hidden) * naive,
        }


def _unseen_rows(file: str, trained: set[str], unseen: Mapping[str, Collection[str]]) -> Iterator[Row]:
    for set_name, class_names in unseen.items():
        for class_name in sorted(class_names):
            name = f"{set_name}/{class_name}"
            yield {"where": f"{file}: class {name}", "trained": int(name in trained)}


def _test_rows(pair: _Pair, trained: set[str]) -> Iterator[Row]:
    lookup, part_name = pair.lookup, pair.files.part
    files = {
        role: {image.file_name for image in part.images}
        for role, part in (("prompt", pair.prompt), ("target", pair.target))
    }
    for role, part, other in (("prompt", pair.prompt, "target"), ("target", pair.target, "prompt")):
        class_names = set(part.class_names)
        for image in part.images:
            shown = lookup.classes.get(image.file_name, [])
            prompted = [name for name in shown if name in class_names]
            trains = f"{lookup.folder}/{image.file_name}" in trained
            yield {
                "where": f"{role}/{pair.files.prompt.name}: {image.file_name}",
                "known": int(image.file_name in lookup.classes),
                "prompt_classes": len(set(shown)) if role == "prompt" else 1,
                "in_other": int(image.file_name in files[other]),
                "unseen_trains": int(trains and part_name == "unseen"),
                "seen_trains": int(trains and part_name == "seen"),
                "prompted_classes": len(set(prompted)),
                "instances": len(part.instances_of(image.id)),
                "set_instances": len(prompted),
            }


def _class_rows(pair: _Pair) -> Iterator[Row]:
    prompts, targets = _images_per_class(pair.prompt), _images_per_class(pair.target)
    for class_name in sorted({*pair.prompt.class_names, *pair.target.class_names}):
        yield {
            "where": f"{pair.files.prompt.name}: class {class_name}",
            "prompt_images": prompts[class_name],
            "target_images": targets[class_name],
        }


def _images_per_class(annotations: Annotations) -> Counter[str]:
    names = {category.id: category.name for category in annotations.categories}
    return Counter(names[label] for image in annotations.images for label in annotations.labels_of(image.id))
