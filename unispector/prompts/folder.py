"""A folder of marked images, in any layout that is read, as the prompts of one class."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from unispector.data.checks.duplicates import PLAIN_BITS, THRESHOLD, near_pairs
from unispector.data.coco import Annotations, CategoryRecord
from unispector.data.convert import DropCount
from unispector.data.convert_release import convert_release
from unispector.data.survey import read_survey
from unispector.errors import DataError
from unispector.ops import packed
from unispector.ops.files import sha256_of_tree
from unispector.prompts.marks import MarkedImage, StoredPrompt


@dataclass(frozen=True)
class MarkedFolder:
    """The images of a folder that show one class.

    Attributes:
        annotations: images and marks of the class, the only category.
        images: file name -> what is kept of it.
        digest: SHA-256 of all files of the folder and their names.
        dropped: what the conversion left out, by reason.
        left: class -> marks of other classes in the folder, which are not enrolled.
        alike: pairs of images that look alike, so that each finds the other.
    """

    root: Path
    annotations: Annotations
    pictures: dict[str, MarkedImage]
    digest: str
    dropped: tuple[DropCount, ...]
    left: dict[str, int]
    alike: tuple[tuple[str, str], ...]

    @cached_property
    def has_masks(self) -> bool:
        """Return whether all marks have outlines of their own, so that either kind of marks can prompt."""
        return all(mark.outlined for mark in self.annotations.instances)

    def marked_by(self, roi: Literal["box", "mask"]) -> dict[str, MarkedImage]:
        """What is kept of each image where its marks prompt as boxes or as masks."""
        contents = {name: picture.data for name, picture in self.pictures.items()}
        return _pictures(self.annotations, contents, roi)

    def without(self, names: frozenset[str]) -> "MarkedFolder":
        """The folder without some of its images."""
        ids = [image.id for image in self.annotations.images if image.file_name not in names]
        pictures = {name: picture for name, picture in self.pictures.items() if name not in names}
        alike = tuple(pair for pair in self.alike if not names & set(pair))
        annotations = self.annotations.keep_images(ids)
        return replace(self, annotations=annotations, pictures=pictures, alike=alike)


def read_marked(
    folder: Path, source: str, label: str, roi: Literal["box", "mask"], min_side: float, out: Path
) -> MarkedFolder:
    """Read a folder by the rules of a conversion, its checks included.

    Args:
        label: what its one class will be called, or which of its classes is meant.
        min_side: share of the image's sides under which a component of a mask is dropped.
        out: annotation file to write; beside it come the account of what was dropped and the checks.

    Raises:
        DataError: the folder cannot be read or breaks a rule, has several classes of which none is called
            `label`, or holds an image twice.
    """
    outcome = convert_release(source, folder, out, min_side=min_side)
    annotations, left = _of_class(Annotations.read(out), folder, label)
    names = {image.file_name for image in annotations.images}
    survey = read_survey(out.with_suffix(".survey.parquet"))
    codes: dict[str, str] = dict(survey[["file_name", "dhash"]].itertuples(index=False))
    contents = {image.file_name: packed.read_bytes(folder / image.file_name) for image in annotations.images}
    pictures = _pictures(annotations, contents, roi)
    _refuse_copies(folder, pictures)
    return MarkedFolder(
        root=folder,
        annotations=annotations,
        pictures=pictures,
        digest=sha256_of_tree([folder]),
        dropped=outcome.conversion.dropped,
        left=left,
        alike=look_alike({name: code for name, code in codes.items() if name in names}),
    )


def look_alike(hashes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Pairs of images whose difference hashes are close, by the rules of `data.checks.duplicates`.

    Args:
        hashes: file name -> 64 hex digits.
    """
    values = np.frombuffer(bytes.fromhex("".join(hashes.values())), dtype=np.uint64).reshape(-1, 4)
    bits = np.bitwise_count(values).sum(axis=1)
    telling = np.flatnonzero(np.minimum(bits, 256 - bits) >= PLAIN_BITS)
    names = np.array(list(hashes), dtype=object)[telling]
    return tuple(
        (names[first], names[second])
        for firsts, seconds, _ in near_pairs(values[telling], THRESHOLD)
        for first, second in zip(firsts, seconds, strict=True)
    )


def _of_class(everything: Annotations, folder: Path, label: str) -> tuple[Annotations, dict[str, int]]:
    """The marks of one class, called `label`, and how many there are of each other class."""
    names = {category.id: category.name for category in everything.categories}
    counts = Counter(names[instance.category_id] for instance in everything.instances)
    wanted = next(iter(counts)) if len(counts) == 1 else label
    if wanted not in counts:
        raise DataError(
            f"{folder}: has {len(counts)} classes ({', '.join(sorted(counts))}) and none is called "
            f"{label!r}; enrol them one by one under these names, or put each into a folder of its own"
        )
    chosen = next(id_ for id_, name in names.items() if name == wanted)
    kept = everything.keep_categories([chosen])
    kept = kept.keep_images({instance.image_id for instance in kept.instances})
    kept = replace(kept, categories=(CategoryRecord(chosen, label, ""),))
    return kept, {name: count for name, count in counts.items() if name != wanted}


def _pictures(
    annotations: Annotations, contents: Mapping[str, bytes], roi: Literal["box", "mask"]
) -> dict[str, MarkedImage]:
    pictures = {}
    for image in annotations.images:
        marks, name = annotations.instances_of(image.id), image.file_name
        # A conversion gives every mask its code.
        codes = [mark.segmentation for mark in marks if isinstance(mark.segmentation, dict)]
        own = ((), codes) if roi == "mask" else ([mark.bbox for mark in marks], ())
        pictures[name] = MarkedImage(contents[name], name, *own)
    return pictures


def _refuse_copies(folder: Path, pictures: dict[str, MarkedImage]) -> None:
    """A copy of an image would find itself."""
    seen: dict[str, str] = {}
    for name, picture in pictures.items():
        first = seen.setdefault(StoredPrompt.of(picture).picture, name)
        if first != name:
            raise DataError(f"{folder}: {first} and {name} are the same image; remove one of them")
