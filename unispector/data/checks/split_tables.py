"""The split files as the tables that `expectations` judges; `where` names the row.

Every image is looked up in its set's own file, so that what a split file leaves out does not go unnoticed.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import BenchmarkSet, Part, SplitTree, TestPair
from unispector.errors import DataError
from unispector.ops.json_text import parse_json

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
Shown = tuple[str, tuple[float, ...]]
"""An instance as far as it is compared: its class and its box."""


def split_tables(
    sets: Sequence[BenchmarkSet],
    tree: SplitTree,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
    naive: bool,
) -> "dict[str, pd.DataFrame]":
    """Read all split files back.

    The seeds are those the files were written for; `naive`: a training image keeps the instances of its seen
    classes, not all of them.

    Returns:
        `training`, a row per training image: `where`, `file`, `known` (1 = its set has it), `unseen_classes`
        it shows, `wrong_instances` (those it lists but should not, and those it should but does not, by
        class and box).
        `test`, a row per image of a prompt or target file: `where`, `known`, `prompt_classes` (classes it
        shows in all if it is a prompt image, else 1), `in_other` (1 = also in the pair's other file),
        `unseen_trains` (1 = it trains though it tests unseen classes), `trains` (1 = it trains though it
        tests seen classes or is of a cross-domain set), `prompted_classes` it shows, `wrong_instances` of
        those.
        `class`, a row per class that a prompt and target pair has or should have: `where`, `prompt_images`
        and `target_images` that show it, `unused_images` (the set's others; not counted for seen classes).
        `unseen`, a row per split seed and class that the report calls unseen or that is tested as such:
        `where`, `trained` (1 = the training file lists it).

    Raises:
        DataError: a file is missing or malformed.
    """
    import pandas as pd

    lookups, declared = {member.name: _Lookup(member) for member in sets}, _declared(tree)
    inside = [lookups[member.name] for member in sets if member.domain == "in"]
    pairs = list(all_pairs(sets, tree, split_seeds, prompt_seeds))
    rows: dict[str, list[Row]] = {"training": [], "test": [], "class": [], "unseen": []}

    def add_pairs(split_seed: int | None, trained: set[str]) -> None:
        for files in pairs:
            if files.split_seed == split_seed:
                classes = declared[files.set_name, split_seed]
                pair = _Pair.read(files, lookups[files.set_name])
                rows["test"] += _test_rows(pair, trained)
                rows["class"] += _class_rows(pair, classes.tested.get(files.part, set()))
                if files.part == "unseen":
                    classes.unseen.update(pair.prompt.class_names)

    trained_ever: set[str] = set()
    for seed in split_seeds:
        file, training = tree.training(seed).name, Annotations.read(tree.training(seed))
        trained = {image.file_name for image in training.images}
        trained_ever |= trained
        add_pairs(seed, trained)
        hidden = {lookup.name: declared[lookup.name, seed].unseen for lookup in inside}
        rows["training"] += _training_rows(file, training, inside, hidden, naive)
        rows["unseen"] += _unseen_rows(file, set(training.class_names), hidden)
    add_pairs(None, trained_ever)
    return {name: pd.DataFrame(table) for name, table in rows.items()}


def all_pairs(
    sets: Sequence[BenchmarkSet], tree: SplitTree, split_seeds: Sequence[int], prompt_seeds: Sequence[int]
) -> Iterator[TestPair]:
    """All prompt and target files that must be there, and those that may be and are."""
    for split_seed in split_seeds:
        for member in sets:
            if member.domain == "in":
                for prompt_seed in prompt_seeds:
                    unseen = tree.in_domain(member.name, "unseen", split_seed, prompt_seed)
                    if member.unseen != () or unseen.prompt.exists():  # all classes of the set may train
                        yield unseen
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
        self.instances = _by_file(member.annotations)
        self.defect_free = frozenset(image.file_name for image in member.defect_free)
        self.files_of: defaultdict[str, set[str]] = defaultdict(set)
        for file, instances in self.instances.items():
            for class_name, _ in instances:
                self.files_of[class_name].add(file)


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


@dataclass(frozen=True)
class _Declared:
    """A set's classes by the split report: which are unseen, which each part must test."""

    unseen: set[str] = field(default_factory=set)
    tested: dict[Part, set[str]] = field(default_factory=dict)


def _declared(tree: SplitTree) -> defaultdict[tuple[str, int | None], _Declared]:
    """By set and split seed."""
    try:
        report = parse_json(tree.report.read_text(encoding="utf-8"))
        declared = {(part["name"], part["split_seed"]): _declared_of(part) for part in report["sets"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{tree.report}: not the report of a split; run the split stage again") from error
    return defaultdict(_Declared, declared)


def _declared_of(part: Mapping[str, Any]) -> _Declared:
    unseen = set(part["unseen"])
    tested = unseen - set(part["untested_unseen"])
    seen = set(part["seen"]) - set(part["untested_seen"])
    return _Declared(unseen, {"unseen": tested, "cross": tested, "seen": seen})


def _by_file(annotations: Annotations) -> dict[str, list[Shown]]:
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: [(names[item.category_id], item.bbox) for item in annotations.instances_of(image.id)]
        for image in annotations.images
    }


def _differing(listed: Iterable[Shown], wanted: Iterable[Shown]) -> int:
    """Instances that only one of the two has."""
    first, second = Counter(listed), Counter(wanted)
    return (first - second).total() + (second - first).total()


def _training_rows(
    file: str,
    training: Annotations,
    inside: Sequence[_Lookup],
    unseen: Mapping[str, Collection[str]],
    naive: bool,
) -> Iterator[Row]:
    owner = {
        f"{lookup.folder}/{name}": (lookup, name)
        for lookup in inside
        for name in (*lookup.instances, *lookup.defect_free)
    }
    for name, listed in _by_file(training).items():
        lookup, own_name = owner.get(name, (None, ""))
        shown = lookup.instances.get(own_name, []) if lookup else []
        hidden = {item[0] for item in shown} & set(unseen[lookup.name]) if lookup else set()
        wanted = [
            (f"{lookup.name}/{class_name}", box)
            for class_name, box in shown
            if lookup and not (naive and class_name in hidden)
        ]
        yield {
            "where": f"{file}: {name}",
            "file": f"{file}: {name}",
            "known": int(lookup is not None),
            "unseen_classes": len(hidden),
            "wrong_instances": _differing(listed, wanted),
        }


def _unseen_rows(file: str, trained: set[str], unseen: Mapping[str, Collection[str]]) -> Iterator[Row]:
    for set_name, class_names in unseen.items():
        for class_name in sorted(class_names):
            name = f"{set_name}/{class_name}"
            yield {"where": f"{file}: class {name}", "trained": int(name in trained)}


def _test_rows(pair: _Pair, trained: set[str]) -> Iterator[Row]:
    lookup, unseen = pair.lookup, pair.files.part == "unseen"
    files = {"prompt": _by_file(pair.prompt), "target": _by_file(pair.target)}
    for role, part, other in (("prompt", pair.prompt, "target"), ("target", pair.target, "prompt")):
        class_names = set(part.class_names)
        for name, listed in files[role].items():
            shown = lookup.instances.get(name, [])
            prompted = [item for item in shown if item[0] in class_names]
            trains = f"{lookup.folder}/{name}" in trained
            yield {
                "where": f"{role}/{pair.files.prompt.name}: {name}",
                "known": int(name in lookup.instances),
                "prompt_classes": len({item[0] for item in shown}) if role == "prompt" else 1,
                "in_other": int(name in files[other]),
                "unseen_trains": int(trains and unseen),
                "trains": int(trains and not unseen),
                "prompted_classes": len({item[0] for item in prompted}),
                "wrong_instances": _differing(listed, prompted),
            }


def _class_rows(pair: _Pair, declared: Collection[str]) -> Iterator[Row]:
    prompts, targets = _images_per_class(pair.prompt), _images_per_class(pair.target)
    used = {image.file_name for part in (pair.prompt, pair.target) for image in part.images}
    for class_name in sorted({*pair.prompt.class_names, *pair.target.class_names, *declared}):
        unused = pair.lookup.files_of[class_name] - used if pair.files.part != "seen" else ()
        yield {
            "where": f"{pair.files.prompt.name}: class {class_name}",
            "prompt_images": prompts[class_name],
            "target_images": targets[class_name],
            "unused_images": len(unused),
        }


def _images_per_class(annotations: Annotations) -> Counter[str]:
    names = {category.id: category.name for category in annotations.categories}
    return Counter(names[label] for image in annotations.images for label in annotations.labels_of(image.id))
