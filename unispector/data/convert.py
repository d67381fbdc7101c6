"""Any raw source to one COCO-style InsA annotation file, with an account of what was kept and dropped.

Images are read in worker processes; what they give is spooled to disk, so that memory does not grow with
the set. All files appear complete or not at all.
"""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from unispector.data.instances import ImageInstances, read_instances
from unispector.data.sources import Source
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError
from unispector.names import name_problem
from unispector.ops.files import atomic_path, atomic_write_json
from unispector.ops.json_text import parse_json
from unispector.ops.parallel import map_in_order, worker_count

EXAMPLES = 5
HIDDEN = "hidden file"
NOT_OF_THE_LAYOUT = "file outside the layout"


@dataclass(frozen=True)
class DropCount:
    """Files dropped for one reason: their number, the instances on them, and the first few names."""

    reason: str
    files: int
    instances: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """The result of converting a raw set."""

    name: str  # name of the set
    # Smallest share of the image's sides an instance may have; 0 where the source's instances are kept at any
    # size.
    min_side: float
    images_read: int  # images that the release marks defects on
    images_kept: int  # images in the annotation file
    instances_read: dict[str, int]  # instances before the size rule, per category
    instances_kept: dict[str, int]  # instances in the annotation file, per category
    dropped: tuple[DropCount, ...]  # the rest, by reason; file by file it is in the table of dropped files

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        atomic_write_json(path, asdict(self))


@dataclass(frozen=True)
class ConversionFiles:
    """The files of a conversion."""

    annotations: Path  # the COCO file
    report: Path  # the `ConversionReport` as JSON
    dropped: Path  # CSV table, a row per dropped file and reason: `reason`, `file_name`, `instances`

    @classmethod
    def beside(cls, annotations: Path) -> "ConversionFiles":
        """`X.json`, `X.report.json` and `X.dropped.csv`."""
        stem = annotations.with_suffix("")
        return cls(
            annotations,
            stem.with_name(f"{stem.name}.report.json"),
            stem.with_name(f"{stem.name}.dropped.csv"),
        )


def convert_set(
    name: str,
    source: Source,
    raw: Path,
    files: ConversionFiles,
    *,
    min_side: float,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Turn a raw set into annotations (paper appendix 1.1).

    Categories are named `<product>_<defect>`, sorted by name; all ids start at 1; an image that keeps no
    instance is left out.

    Args:
        min_side: share in [0, 1); an instance narrower or lower than this is dropped, unless the
            source's instances were drawn by people (`Source.drops_small`).
        workers: processes that read images; 0 = one per core.
        progress: called with (images done, images in all) after every image.

    Raises:
        DataError: the release is not in the source's layout, a file of it cannot be used, or nothing
            is left of the set; then nothing is written.
    """
    tree = ReleaseTree(raw)
    total = _go_through(source, tree).images
    min_side = min_side if source.drops_small else 0.0
    read = partial(read_instances, root=raw, min_side=min_side)
    with (
        _temporary_folder_named(),
        tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as spool,
        atomic_path(files.dropped) as table,
        table.open("w", encoding="utf-8", newline="") as stream,
    ):
        collected, losses = _Collected(spool), _Losses(stream)
        losses.extend(Dropped(HIDDEN, file) for file in tree.hidden)
        losses.extend(Dropped(NOT_OF_THE_LAYOUT, file) for file in tree.unaccounted())
        entries = losses.taken_out(source.rows(tree))
        for done, image in enumerate(map_in_order(read, entries, worker_count(workers, total)), start=1):
            collected.add(image)
            losses.extend(image.dropped)
            if progress is not None:
                progress(done, total)
        if not collected.images:
            raise DataError(
                f"{name}: no instance left of {total} images; {_reproach(losses.counts(), min_side)}"
            )
        with atomic_path(files.annotations) as temporary:
            collected.write(temporary)
    report = collected.report(name, min_side, total, losses.counts())
    report.write(files.report)
    return report


@dataclass(frozen=True)
class ReleaseCount:
    """Rows of a release: images with a marked defect, files known to be left out."""

    images: int
    dropped: int


def list_release(source: Source, raw: Path) -> ReleaseCount:
    """Go through a release without opening an image.

    Raises:
        DataError: it is not in the source's layout, or an annotation file of it cannot be used.
    """
    return _go_through(source, ReleaseTree(raw))


def _go_through(source: Source, tree: ReleaseTree) -> ReleaseCount:
    """Meet every fault of the layout before the long work, and account for the files it knows."""
    images = dropped = 0
    tally = _Tally()
    for row in source.rows(tree):
        if isinstance(row, Entry):
            images += 1
        else:
            dropped += 1
            tally.add(row)
        for file in row.files:
            tree.account_for(file)
    if not images:
        lost = any(drop.instances for drop in tally.counts())
        told = _reproach(tally.counts()) if lost else f"{source.title} has {source.layout}"
        raise DataError(f"{tree.root}: no image with a marked defect; {told}")
    return ReleaseCount(images, dropped)


def _reproach(dropped: tuple[DropCount, ...], min_side: float = 0.0) -> str:
    """What was dropped of a set of which nothing is left, and how to mend it."""
    lost = [drop for drop in dropped if drop.instances] or [drop for drop in dropped if drop.reason != HIDDEN]
    told = ", ".join(
        f"{drop.reason} ({drop.instances or drop.files}, as {drop.examples[0]})" for drop in lost
    )
    remedy = "correct the marks" + (" or lower min_side" if min_side else "")
    return f"dropped: {told}; {remedy}"


@dataclass(frozen=True)
class _Tally:
    """What was dropped, summed up by reason."""

    _files: Counter[str] = field(default_factory=Counter)
    _instances: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, item: Dropped) -> None:
        self._files[item.reason] += 1
        self._instances[item.reason] += item.instances
        examples = self._examples.setdefault(item.reason, [])
        if len(examples) < EXAMPLES:
            examples.append(item.file_name)

    def counts(self) -> tuple[DropCount, ...]:
        return tuple(
            DropCount(reason, files, self._instances[reason], tuple(self._examples[reason]))
            for reason, files in sorted(self._files.items())
        )


class _Losses:
    """The table of dropped files, written as they come, and its sums."""

    def __init__(self, stream: IO[str]) -> None:
        self._table = csv.writer(stream, lineterminator="\n")
        self._table.writerow(["reason", "file_name", "instances"])
        self._tally = _Tally()
        self.counts = self._tally.counts

    def extend(self, dropped: Iterable[Dropped]) -> None:
        for item in dropped:
            self._table.writerow([item.reason, item.file_name, item.instances])
            self._tally.add(item)

    def taken_out(self, rows: Iterable[Entry | Dropped]) -> Iterator[Entry]:
        """The rows that are images; the others are entered here."""
        for row in rows:
            if isinstance(row, Entry):
                yield row
            else:
                self.extend([row])


class _Collected:
    """Images and instances that stay, spooled in the order they came: one JSON line per image."""

    def __init__(self, spool: IO[str]) -> None:
        self._spool = spool
        self.images = 0
        self.found: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self._products: dict[str, str] = {}

    def add(self, image: ImageInstances) -> None:
        for category in image.found.keys() - self.found.keys():
            if problem := name_problem(category):
                told = f"{image.file_name}: the name {category[:80]!r} of its class {problem}"
                raise DataError(f"{told}; rename the class, or its folder")
        self.found.update(image.found)
        if not image.instances:
            return
        self.images += 1
        for instance in image.instances:
            self.kept[instance.category] += 1
            product = self._products.setdefault(instance.category, image.product)
            if product != image.product:
                raise DataError(
                    f"{image.file_name}: category {instance.category!r} is made of two products, "
                    f"{product!r} and {image.product!r}; rename one of them"
                )
        instances = [vars(instance) for instance in image.instances]
        line = [image.file_name, image.width, image.height, instances]
        with _temporary_folder_named():
            self._spool.write(_compact(line) + "\n")

    def write(self, path: Path) -> None:
        """The COCO file, in the bytes of `Annotations.write`."""
        category_ids = {category: id_ for id_, category in enumerate(sorted(self._products), start=1)}
        categories = [
            {"id": id_, "name": category, "supercategory": self._products[category]}
            for category, id_ in category_ids.items()
        ]
        with path.open("w", encoding="utf-8", newline="") as out:
            out.write('{"info":{},"images":[')
            _write_items(out, self._image_records())
            out.write('],"annotations":[')
            _write_items(out, self._instance_records(category_ids))
            out.write(f'],"categories":{_compact(categories)}}}\n')

    def report(
        self, name: str, min_side: float, images_read: int, dropped: tuple[DropCount, ...]
    ) -> ConversionReport:
        return ConversionReport(
            name=name,
            min_side=min_side,
            images_read=images_read,
            images_kept=self.images,
            instances_read=dict(sorted(self.found.items())),
            instances_kept={category: self.kept[category] for category in sorted(self.found)},
            dropped=dropped,
        )

    def _lines(self) -> Iterator[tuple[int, list[Any]]]:
        with _temporary_folder_named():
            self._spool.seek(0)
        return enumerate(map(parse_json, self._spool), start=1)

    def _image_records(self) -> Iterator[dict[str, Any]]:
        for image_id, (file_name, width, height, _) in self._lines():
            yield {"id": image_id, "file_name": file_name, "width": width, "height": height}

    def _instance_records(self, category_ids: dict[str, int]) -> Iterator[dict[str, Any]]:
        instance_id = 0
        for image_id, (_, _, _, instances) in self._lines():
            for instance in instances:
                instance_id += 1
                category_id = category_ids[instance.pop("category")]
                ids = {"id": instance_id, "image_id": image_id, "category_id": category_id}
                yield ids | instance | {"iscrowd": 0}


@contextmanager
def _temporary_folder_named() -> Iterator[None]:
    """Errors of a temporary file, which has no name, with that of its folder."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or tempfile.gettempdir()
        raise


def _write_items(out: IO[str], records: Iterable[dict[str, Any]]) -> None:
    for position, record in enumerate(records):
        out.write(("," if position else "") + _compact(record))


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
