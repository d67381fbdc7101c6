"""What was found on each image: a summary in memory, masks and outlines in a file."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.ops.json_text import parse_json
from unispector.ops.rle import Rle
from unispector.workbench.folder import ImageFile
from unispector.workbench.marks import ANY_CLASS, SAME, Box, Mark, Polygon, outlines, overlaps

LOWEST = 0.01
"""Score under which nothing is kept: no slider goes lower."""
MOST = 100
"""Findings that are kept of an image, the best ones."""
KEPT_RUNS = 4
"""Files of earlier results that are kept, so that what is undone need not be searched again."""


@dataclass(frozen=True)
class Finding:
    """One detection."""

    id: str  # of its label and mask: the same in every run that finds the same
    label: str
    score: float  # 0 to 1
    box: Box  # left, top, width, height in pixels
    mask: Rle
    outlines: list[Polygon]


@dataclass(frozen=True)
class Result:
    """Of one image, what was found, or why nothing could be."""

    image: str
    stamp: str  # of the image's file
    hw: tuple[int, int]  # height and width of the upright image; 0, 0 of one that cannot be read
    trouble: str  # one line; empty when all is well
    findings: list[Finding]  # best first


@dataclass(frozen=True)
class Summary:
    """A result without masks."""

    image: str
    stamp: str
    key: str  # of the prompts
    hw: tuple[int, int]
    trouble: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    boxes: tuple[Box, ...]


def result_of(file: ImageFile, detections: Detections) -> Result:
    """What the detector found on an image, at most `MOST` of at least `LOWEST`, best first."""
    kept = detections.above(LOWEST)
    order = kept.scores.argsort(descending=True, stable=True)[:MOST].tolist()
    findings: list[Finding] = []
    for row in order:
        left, top, right, bottom = (round(float(value), 1) for value in kept.boxes_xyxy[row])
        label, mask = kept.class_names[int(kept.labels[row])], kept.masks_rle[row]
        box = (left, top, round(right - left, 1), round(bottom - top, 1))
        identity = hashlib.sha256(f"{label}\0{box}\0{mask['counts']!r}".encode()).hexdigest()[:12]
        score = round(float(kept.scores[row]), 4)
        same = sum(own.label == label and own.mask == mask for own in findings)
        identity += f"-{same}" * bool(same)
        findings.append(Finding(identity, label, score, box, dict(mask), outlines(dict(mask))))
    return Result(file.name, file.stamp, kept.image_hw, "", findings)


def verdicts(summary: Summary, marks: Iterable[Mark]) -> list[int]:
    """Of each finding: 1 = there is such a mark, 2 = it was rejected, 0 = neither.

    Args:
        marks: of this image.
    """
    own = list(marks)
    if not own or not summary.ids:
        return [0] * len(summary.ids)
    shares = overlaps(np.asarray(summary.boxes, float), np.asarray([mark.box for mark in own], float))
    said = []
    for label, row in zip(summary.labels, shares, strict=True):
        same = [mark for mark, share in zip(own, row, strict=True) if share >= SAME]
        marked = any(mark.label == label and not mark.negative for mark in same)
        refused = any(mark.label in (label, ANY_CLASS) and mark.negative for mark in same)
        said.append(1 if marked else 2 if refused else 0)
    return said


class Results:
    """Results of the newest prompts, in a file each; those of the prompts before until they are replaced.

    Attributes:
        key: of the prompts that are looked for; empty before the first.
    """

    def __init__(self, folder: Path) -> None:
        self.key = ""
        self._folder = folder
        self._known: dict[str, Summary] = {}
        self._places: dict[str, tuple[int, int]] = {}  # first byte and length of each in its file

    def begin(self, key: str, files: dict[str, ImageFile]) -> None:
        """Go on with prompts: what was found with them before is known at once.

        Raises:
            DataError: the folder cannot be written to.
        """
        file = self._file(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise self._full(error) from error
        self.key = key
        place = 0
        with file.open("rb") as stream:
            for line in stream:
                with suppress(ValueError, KeyError, TypeError):  # a line that a crash cut off
                    summary = _summary(parse_json(line), key)
                    own = files.get(summary.image)
                    if own is not None and own.stamp == summary.stamp:
                        self._known[summary.image] = summary
                        self._places[summary.image] = (place, len(line))
                place += len(line)
        self._forget_old(file)

    def add(self, result: Result) -> None:
        """Keep a result of the newest prompts.

        Raises:
            DataError: it cannot be written.
        """
        content = asdict(result)
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        try:
            with self._file(self.key).open("ab") as stream:
                place = stream.tell()
                stream.write(b"\n" + data)  # ends a line that a crash cut off
        except OSError as error:
            raise self._full(error) from error
        self._known[result.image] = _summary(content, self.key)
        self._places[result.image] = (place + 1, len(data))

    def clear(self) -> None:
        """Forget all results: nothing is looked for."""
        self.key = ""
        self._known.clear()

    def summary(self, image: str) -> Summary | None:
        """What is known of an image, perhaps of earlier prompts."""
        return self._known.get(image)

    def whole(self, image: str) -> Result | None:
        """A result with masks; None where there is none."""
        summary = self._known.get(image)
        if summary is None:
            return None
        first, length = self._places[image]
        try:
            with self._file(summary.key).open("rb") as stream:
                stream.seek(first)
                content = parse_json(stream.read(length))
            return _result(content)
        except (OSError, ValueError, KeyError, TypeError):  # the file of earlier prompts is gone
            return None

    def done(self, files: dict[str, ImageFile]) -> set[str]:
        """Names of the images that need no look."""
        known = self._known
        return {
            name
            for name, file in files.items()
            if name in known and known[name].key == self.key and known[name].stamp == file.stamp
        }

    def _full(self, error: OSError) -> DataError:
        return DataError(f"{self._folder}: findings cannot be kept ({error.strerror}); make room")

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.jsonl"

    def _forget_old(self, newest: Path) -> None:
        newest.touch()
        used = {self._file(summary.key) for summary in self._known.values()} | {newest}
        files = sorted(self._folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files[KEPT_RUNS:]:
            if file not in used:
                file.unlink(missing_ok=True)


def _result(content: dict[str, Any]) -> Result:
    findings = [Finding(**{**own, "box": _box(own["box"])}) for own in content["findings"]]
    height, width = content["hw"]
    return Result(content["image"], content["stamp"], (height, width), content["trouble"], findings)


def _summary(content: dict[str, Any], key: str) -> Summary:
    found = content["findings"]
    height, width = content["hw"]
    return Summary(
        content["image"],
        content["stamp"],
        key,
        (height, width),
        content["trouble"],
        tuple(own["id"] for own in found),
        tuple(own["label"] for own in found),
        tuple(own["score"] for own in found),
        tuple(_box(own["box"]) for own in found),
    )


def _box(values: Sequence[float]) -> Box:
    left, top, width, height = values
    return left, top, width, height
