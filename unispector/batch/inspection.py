"""Images looked at by the thousand: what is asked of each of them, and the rows that come of it.

Images go through the network one at a time and in one thread. Sums of floats depend on how many are
added together, so this is what makes a row depend on nothing but its image, the model and the prompts.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from unispector.batch.source import ImageFile, ImageSource
from unispector.config.evaluation import KEPT_PAIRS
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.inference.calibration import Calibration
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.images import as_pixels

FORMAT = "unispector inspection 2"

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("detection", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("box_x", pa.float32()),
        pa.field("box_y", pa.float32()),
        pa.field("box_w", pa.float32()),
        pa.field("box_h", pa.float32()),
        pa.field("mask", pa.string()),
        pa.field("error", pa.string()),
    ]
)
"""A row a detection, best first; an image without any, and one that cannot be read, has a row with nulls."""


@dataclass(frozen=True)
class Inspection:
    """The settings of an inspection: classes, images, model."""

    source: ImageSource
    model: Path
    bank: PromptBank
    min_score: float | None = None  # lowest score that is kept; None = the threshold of each class
    limit: int = KEPT_PAIRS  # (query, class) pairs that are considered per image

    @property
    def metadata(self) -> dict[str, str]:
        """Return everything a row depends on besides its image: equal where rows may stand in one table."""
        return {
            "unispector.format": FORMAT,
            "unispector.version": version("unispector"),
            "unispector.source": self.source.place,
            "unispector.model": self.bank.fingerprint,
            "unispector.bank": bank_hash(self.bank),
            "unispector.classes": json.dumps(self.bank.class_names),
            "unispector.options": json.dumps({"min_score": self.min_score, "limit": self.limit}),
        }

    @property
    def key(self) -> str:
        """32 hex digits of `metadata`."""
        return hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()[:32]


def bank_hash(bank: PromptBank) -> str:
    """64 hex digits of all that a bank holds; a file of it has them in no fixed order."""
    described: list[object] = [bank.class_names, bank.counts, bank.fingerprint, bank.image_sizes, bank.owners]
    # What came later counts only where it is used, so that tables made before go on.
    if bank.bit_depth != 16:
        described.append(bank.bit_depth)
    if any(bank.tiles):
        described.append(["tiles", bank.tiles])
    if bank.negatives or bank.calibrations != (Calibration(),) * len(bank):
        described += [bank.negative_owners, [each.as_dict() for each in bank.calibrations]]
    digest = hashlib.sha256(json.dumps(described).encode())
    tensors = (
        *(bank.memory.tensors if bank.memory is not None else ()),
        *bank.negatives,
    )
    for tensor in (bank.embeddings, *tensors):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch in one thread for as long as the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def look(detector: UniSpector, inspection: Inspection, files: Sequence[ImageFile]) -> pa.Table:
    """Look at some images; call it in `one_thread`.

    Returns:
        Rows of `SCHEMA` in the order of `files`; of an image that cannot be read, one with its `error`.

    Raises:
        PromptBankError: the bank was made by another model.
    """
    failed: dict[str, str] = {}
    found: dict[str, Detections] = {}

    def readable() -> Iterator[npt.NDArray[np.uint8]]:
        for file in files:
            try:
                pixels = _pixels(inspection, file.path)
            except (DataError, OSError) as error:
                failed[file.path] = " ".join(str(error).split())
                continue
            reading.append(file.path)
            yield pixels

    reading: list[str] = []
    least = inspection.bank.thresholds if inspection.min_score is None else inspection.min_score
    # One result comes for each image before the next is read, so a large one is never held twice.
    for detections in detector.stream(readable(), inspection.bank, 1, inspection.limit):
        found[reading[-1]] = detections.above(least)
    rows = [
        row
        for file in files
        for row in (
            [failed_row(file, failed[file.path])]
            if file.path in failed
            else _detection_rows(file, found[file.path])
        )
    ]
    return as_table(rows)


def as_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table of `SCHEMA`; what a row lacks is null."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def failed_row(file: ImageFile, error: str) -> dict[str, Any]:
    """The row of an image that could not be looked at."""
    return {**_identity(file), "error": error}


def _pixels(inspection: Inspection, path: str) -> npt.NDArray[np.uint8]:
    with inspection.source.local(path) as file:
        try:
            return as_pixels(file, inspection.bank.bit_depth)
        except DataError as error:
            # The row's path names the image, and a copy's own name would differ from run to run.
            raise DataError(str(error).removeprefix(f"{file}: ").replace(str(file), path)) from error


def _identity(file: ImageFile) -> dict[str, Any]:
    return {"path": file.path, "size": file.size, "modified": file.modified}


def _detection_rows(file: ImageFile, detections: Detections) -> list[dict[str, Any]]:
    height, width = detections.image_hw
    picture = {**_identity(file), "width": width, "height": height}
    boxes = detections.boxes_xyxy.cpu()
    sizes = boxes[:, 2:] - boxes[:, :2]
    rows = []
    for number, mask in enumerate(detections.masks_rle):
        (x, y), (w, h) = boxes[number, :2].tolist(), sizes[number].tolist()
        rows.append(
            {
                **picture,
                "detection": number + 1,
                "label": detections.class_names[int(detections.labels[number])],
                "score": float(detections.scores[number]),
                "box_x": x,
                "box_y": y,
                "box_w": w,
                "box_h": h,
                "mask": json.dumps(mask),
            }
        )
    return rows or [picture]
