"""The splits of InsA's official annotation release, written as the tree all later stages read.

The release holds `in-domain/seen/InsA_train_seen_seed<S>.json`,
`in-domain/unseen/<set>/prompt/<set>_unseen_seed<S>_prompt_seed<P>.json` and
`out-domain/<set>/prompt/<set>_prompt_seed<P>.json`; targets lie in `query` (or `target`) beside `prompt`.
Where there are none, the official script scores on the prompt files themselves, and so do we, saying so.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from unispector.config import DataConfig, SetConfig, SplitConfig
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.official_images import FOLDERS, OfficialImages, set_of
from unispector.data.protocol.split_tree import (
    NAIVE_NOTE,
    BenchmarkSet,
    DrawReport,
    SetReport,
    SplitReport,
    SplitTree,
    TestPair,
    write_pair,
)
from unispector.data.protocol.splits import PromptTargetSplit, merge_training
from unispector.errors import DataError
from unispector.ops.files import replaced_folder

IN_DOMAIN = frozenset({"GC10", "MagneticTile", "RealIAD", "MVTec"})
ROLES = ("query", "target")
NO_SEEN_TEST = "the official release has no test of seen classes"
NO_INSTANCE = "listed in the official files without an instance"


def write_official(
    release: Path, data: DataConfig, raw: Path, split: SplitConfig, root: Path
) -> tuple[SplitReport, list[BenchmarkSet]]:
    """Write all split files and the report; what lay below `root` before is replaced as a whole.

    Args:
        release: has the folders `in-domain` and `out-domain`.
        data: its sets, named as in InsA; training images of sets that are not among them are left out.
        raw: folder of all raw sets.
        split: its seeds name the files to read, its training rule goes into the report.

    Returns:
        The report, and the sets with all images and instances (without masks) that any of the files
        lists, to check the tree against.

    Raises:
        DataError: a set is none of InsA's, a file is missing or malformed, an image of it is not on disk
            or not as stated, prompts and targets have different classes, or there are targets for some
            tests only; then `root` is untouched.
    """
    _check_names(data.sets)
    images = OfficialImages({name: raw / member.path for name, member in data.sets.items()}, data.workers)
    given = SplitTree(release)
    reader = _Reader(images, _target_role(given, data.sets))
    folders = {name: PurePosixPath(member.path).as_posix() for name, member in data.sets.items()}
    draws = split.prompt_seeds
    reports: list[SetReport] = []
    with replaced_folder(root) as temporary:
        tree = SplitTree(temporary)
        for seed in split.seeds:
            training = reader.training(given.training(seed), data.sets)
            merged = merge_training({name: (folders[name], part) for name, part in training.items()})
            merged.write(tree.training(seed))
            for name, part in training.items():
                pairs = [(_test(given, name, seed, draw), _test(tree, name, seed, draw)) for draw in draws]
                reports.append(_report(seed, part, reader.tests(name, pairs)))
        for name in (name for name in data.sets if name not in IN_DOMAIN):
            pairs = [(_test(given, name, None, draw), _test(tree, name, None, draw)) for draw in draws]
            reports.append(_report(None, None, reader.tests(name, pairs)))
        notes = (f"the splits are those of the official files in {split.official}", *reader.notes)
        if split.training_rule == "naive":
            notes += (NAIVE_NOTE,)
        result = SplitReport(tuple(reports), split.training_rule, reader.role is None, notes)
        result.write(tree.report)
    sets = [
        BenchmarkSet(name, folders[name], member.domain, _union(reader.parts[name]))
        for name, member in data.sets.items()
    ]
    return result, sets


def _check_names(sets: Mapping[str, SetConfig]) -> None:
    for name, member in sets.items():
        if name not in FOLDERS.values():
            raise DataError(
                f"data.sets.{name}: no set of InsA, which split.official needs; "
                f"its sets are {', '.join(FOLDERS.values())}"
            )
        domain = "in" if name in IN_DOMAIN else "cross"
        if member.domain != domain:
            raise DataError(f"data.sets.{name}: split.official needs it with domain: {domain}, as in InsA")
    if not IN_DOMAIN & sets.keys():
        raise DataError(f"data.sets: no in-domain set of InsA; add one of {', '.join(sorted(IN_DOMAIN))}")


def _test(tree: SplitTree, name: str, split_seed: int | None, prompt_seed: int) -> TestPair:
    if split_seed is None:
        return tree.cross_domain(name, prompt_seed)
    return tree.in_domain(name, "unseen", split_seed, prompt_seed)


def _target_role(given: SplitTree, names: Iterable[str]) -> str | None:
    """Folder of the targets; None where no set has any."""
    prompts = [_test(given, name, 0 if name in IN_DOMAIN else None, 0).prompt for name in names]
    for role in ROLES:
        if any((file.parents[1] / role).is_dir() for file in prompts):
            return role
    return None


@dataclass(frozen=True)
class _Tests:
    """The contents of a set's tests: draws, classes with instances, and classes merely listed."""

    name: str
    draws: tuple[DrawReport, ...]
    classes: tuple[str, ...]
    listed: tuple[str, ...]


@dataclass(frozen=True)
class _Reader:
    """Reads the release's files and keeps in mind what was in them."""

    images: OfficialImages  # finds their images
    role: str | None  # folder of the targets; None = the prompts are the targets
    # Set name -> all that was read of it, without the masks, which take most memory.
    parts: dict[str, list[Annotations]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)  # what was left out or is out of the ordinary

    def __post_init__(self) -> None:
        if self.role is None:
            self.notes.append(
                "SCORED ON PROMPTS: the official files have no targets (query), so that models are scored on "
                "the images they are prompted with, as the official script does; nor do they then tell "
                "whether training images show unseen classes"
            )

    def training(self, path: Path, sets: Mapping[str, SetConfig]) -> dict[str, Annotations]:
        """The in-domain sets' parts of a training file, in the order of `sets`."""
        annotations = _read(path)
        parts = {
            name: self._labelled(f"{path.name}, {name}", _used_classes(part))
            for name, part in self.images.by_set(path, annotations).items()
        }
        for name, count in Counter(set_of(path, image) for image in annotations.images).items():
            if name not in sets:
                self.notes.append(
                    f"{path.name}: {count} images of {name}, which data.sets lacks, are left out"
                )
        for name, member in sets.items():
            if (name in parts) != (member.domain == "in"):
                raise DataError(
                    f"{path}: {'images of the cross-domain' if name in parts else 'no image of the'} set "
                    f"{name}; use the official files as they were published"
                )
        shared = Counter(class_name for part in parts.values() for class_name in part.class_names)
        for class_name in sorted(class_name for class_name, count in shared.items() if count > 1):
            self.notes.append(f"{path.name}: class {class_name} of several sets is one class for each here")
        for name, part in parts.items():
            self._remember(name, part)
        return parts

    def tests(self, name: str, pairs: Sequence[tuple[TestPair, TestPair]]) -> _Tests:
        """Take over prompts and targets of a set: read the first of each pair, write the second."""
        draws: list[DrawReport] = []
        classes: set[str] = set()
        listed: set[str] = set()
        for given, written in pairs:
            prompt_file, target_file = given.prompt, self._target_file(given.prompt)
            prompt = self._part_of(name, prompt_file)
            target = prompt if target_file == prompt_file else self._part_of(name, target_file)
            listed |= {*prompt.class_names, *target.class_names}
            prompt, target = _used_classes(prompt), _used_classes(target)
            _check_classes(prompt_file, prompt, target_file, target)
            prompt = self._labelled(prompt_file.name, prompt)
            if target_file == prompt_file:
                target = prompt
            self._remember(name, prompt)
            self._remember(name, target)
            draws.append(write_pair(PromptTargetSplit(prompt, target), written))
            classes.update(prompt.class_names)
        return _Tests(name, tuple(draws), tuple(sorted(classes)), tuple(sorted(listed - classes)))

    def _target_file(self, prompt: Path) -> Path:
        if self.role is None:
            return prompt
        folder = prompt.parents[1] / self.role
        same = folder / prompt.name
        return same if same.is_file() else folder / prompt.name.replace("_prompt_seed", f"_{self.role}_seed")

    def _part_of(self, name: str, path: Path) -> Annotations:
        """A file all of whose images are of one set."""
        annotations = _read(path)
        for image in annotations.images:
            if set_of(path, image) != name:
                raise DataError(f"{path}: image {image.file_name} is not of the set {name}; take it out")
        return self.images.by_set(path, annotations)[name]

    def _labelled(self, where: str, part: Annotations) -> Annotations:
        """Without images that show nothing: they neither train nor prompt."""
        labelled = [image.id for image in part.images if part.instances_of(image.id)]
        empty = len(part.images) - len(labelled)
        if empty:
            self.notes.append(f"{where}: {empty} images without an annotation are left out")
        return part.keep_images(labelled)

    def _remember(self, name: str, part: Annotations) -> None:
        boxes = tuple(replace(instance, segmentation=None) for instance in part.instances)
        self.parts[name].append(replace(part, instances=boxes))


def _read(path: Path) -> Annotations:
    if not path.is_file():
        raise DataError(
            f"{path}: no such official file; split.official is the folder with in-domain and out-domain, "
            "split.seeds and split.prompt_seeds are seeds of the release"
        )
    return Annotations.read(path)


def _used_classes(annotations: Annotations) -> Annotations:
    return annotations.keep_categories({instance.category_id for instance in annotations.instances})


def _check_classes(prompt_file: Path, prompt: Annotations, target_file: Path, target: Annotations) -> None:
    """Every class must be in both files."""
    for path, part, other_file, other in (
        (prompt_file, prompt, target_file, target),
        (target_file, target, prompt_file, prompt),
    ):
        for class_name in sorted(set(part.class_names) - set(other.class_names)):
            id_ = next(category.id for category in part.categories if category.name == class_name)
            image = next(image for image in part.images if id_ in part.labels_of(image.id))
            raise DataError(
                f"{path}: class {class_name}, which image {image.file_name} shows, has no instance in "
                f"{other_file}; add one or take the class out"
            )


def _report(seed: int | None, training: Annotations | None, tests: _Tests) -> SetReport:
    seen = tuple(sorted(training.class_names)) if training else ()
    listed = [class_name for class_name in tests.listed if class_name not in seen]
    return SetReport(
        name=tests.name,
        split_seed=seed,
        seen=seen,
        unseen=tuple(sorted({*tests.classes, *listed})),
        untrained_seen=(),
        untested_seen=dict.fromkeys(seen, NO_SEEN_TEST),
        untested_unseen=dict.fromkeys(listed, NO_INSTANCE),
        training_images=len(training.images) if training else 0,
        training_defect_free=0,
        training_instances=len(training.instances) if training else 0,
        seen_test_images=0,
        lost=None,
        draws=tests.draws,
    )


def _union(parts: Iterable[Annotations]) -> Annotations:
    """All images and instances that occur in any of several files about the same images."""
    images: dict[str, ImageRecord] = {}
    categories: dict[str, CategoryRecord] = {}
    instances: dict[tuple[object, ...], list[InstanceRecord]] = {}
    for part in parts:
        files = {image.id: image.file_name for image in part.images}
        names = {category.id: category.name for category in part.categories}
        images.update((image.file_name, image) for image in part.images)
        categories.update((category.name, category) for category in part.categories)
        alike = defaultdict(list)
        for item in part.instances:
            alike[files[item.image_id], names[item.category_id], item.bbox, item.area].append(item)
        for key, found in alike.items():
            # A file may list the same instance twice; the one that lists it most often counts.
            if len(found) > len(instances.get(key, ())):
                instances[key] = found
    image_ids = {name: id_ for id_, name in enumerate(images, start=1)}
    category_ids = {name: id_ for id_, name in enumerate(sorted(categories), start=1)}
    flat = [(key, item) for key, found in instances.items() for item in found]
    return Annotations(
        tuple(replace(image, id=image_ids[name]) for name, image in images.items()),
        tuple(
            replace(item, id=id_, image_id=image_ids[str(key[0])], category_id=category_ids[str(key[1])])
            for id_, (key, item) in enumerate(flat, start=1)
        ),
        tuple(replace(categories[name], id=id_) for name, id_ in category_ids.items()),
    )
