"""One pass over the images of a set: what every later check and statistic needs to know of their pixels.

Each image is opened once. The table it gives is all that checks, statistics and the search for
near-duplicates look at.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unispector.data.coco import Annotations, InstanceRecord, Segmentation
from unispector.data.marked import difference, instance_region, marked_regions
from unispector.data.sources import Source
from unispector.data.sources.rows import Entry
from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError
from unispector.ops.files import atomic_path, read_image
from unispector.ops.parallel import map_in_order, worker_count

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CHUNK = 2048  # rows held in memory at a time


@dataclass(frozen=True)
class SurveyRow:
    """One image of a converted set."""

    file_name: str  # posix path relative to the set's folder
    # Of the decoded image in pixels; 0 where it cannot be decoded.
    width: int = 0
    height: int = 0
    problem: str = ""  # why the image or one of its masks cannot be used; "" = it can
    # Pixels by which the set's instances differ from what the release marks (see
    # `unispector.data.marked.difference`); 0 = equal, or not known because of a problem.
    mask_difference: int = 0
    dhash: str = ""  # 256-bit difference hash of the grey image, 64 hex digits; "" where it cannot be decoded
    pixels: int = 0  # width x height
    # Sums over all pixels of hue (0 to 179), saturation and value (0 to 255).
    h_sum: float = 0.0
    s_sum: float = 0.0
    v_sum: float = 0.0
    # Sums of their squares.
    h_squares: float = 0.0
    s_squares: float = 0.0
    v_squares: float = 0.0


@dataclass(frozen=True)
class _Case:
    """An image to survey: what the release says of it and what the annotation file says."""

    file_name: str  # posix path relative to the set's folder
    entry: Entry | None  # the release's row; None where the release does not list the image
    # Category and segmentation of each instance; none where the annotation file lacks it.
    instances: tuple[tuple[str, Segmentation], ...]


def survey_set(
    annotations: Annotations,
    source: Source,
    raw: Path,
    out: Path,
    *,
    min_side: float,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Open every image of a converted set and write its table, a `SurveyRow` per image, as Parquet.

    Rows come in the order of the release. An image that is damaged or that the release lacks has its row too;
    `problem` and `mask_difference` say what is wrong with it. `min_side` is the size rule that the set was
    converted with (see `convert_set`); `workers` processes open images, 0 = one per core; `progress` is
    called with (images done, images in all) after every image.

    Raises:
        DataError: the release cannot be listed, or it marks an image that the annotation file lacks; then
            nothing is written.
    """
    known = {image.file_name for image in annotations.images}
    examine = partial(_examine, root=raw, min_side=min_side if source.drops_small else 0.0)
    cases = _cases(annotations, source, ReleaseTree(raw))
    rows = map_in_order(examine, cases, worker_count(workers, len(known)))
    _write(_counted(_known_only(rows, known), len(known), progress), out)


def read_survey(path: str | Path) -> "pd.DataFrame":
    """Read the table of a set.

    Returns the fields of `SurveyRow` as columns, a row per image.

    Raises:
        DataError: the file is absent, cut off, or not a survey.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the survey stage")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file; run the survey stage again") from error
    if not table.schema.equals(_schema()) or any(column.null_count for column in table.columns):
        raise DataError(f"{path}: not the table of a survey; run the survey stage again")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def difference_hash(image: npt.NDArray[np.uint8]) -> str:
    """256-bit difference hash: where a grid of 16 x 17 mean grey values rises from left to right, row by row.

    The image is uint8 [h, w, 3] RGB. Returns 64 hex digits; nearly equal images differ in few bits.
    """
    import cv2

    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()


def _cases(annotations: Annotations, source: Source, tree: ReleaseTree) -> Iterator[_Case]:
    """Images in the release's order; at the end those the release does not list."""
    category_of = {category.id: category.name for category in annotations.categories}
    images = {image.file_name: image for image in annotations.images}

    def instances_of(file_name: str) -> tuple[tuple[str, Segmentation], ...]:
        records = annotations.instances_of(images[file_name].id) if file_name in images else ()
        return tuple((category_of[record.category_id], _segmentation(record)) for record in records)

    listed = set()
    for row in source.rows(tree):
        if isinstance(row, Entry):
            listed.add(row.file_name)
            yield _Case(row.file_name, row, instances_of(row.file_name))
    for file_name in images:
        if file_name not in listed:
            yield _Case(file_name, None, instances_of(file_name))


def _segmentation(record: InstanceRecord) -> Segmentation:
    if record.segmentation is not None:
        return record.segmentation
    x, y, width, height = record.bbox
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _examine(case: _Case, root: Path, min_side: float) -> SurveyRow:
    """Open an image and its masks; the row records what cannot be opened."""
    try:
        image = read_image(root / case.file_name)
        height, width = image.shape[:2]
        marked = list(marked_regions(case.entry, root, min_side, height, width)) if case.entry else []
    except DataError as error:
        return SurveyRow(case.file_name, problem=str(error))
    given = (instance_region(*instance, height, width) for instance in case.instances)
    unequal, dhash = difference(marked, given), difference_hash(image)
    return SurveyRow(case.file_name, width, height, "", unequal, dhash, width * height, *_colour_sums(image))


def _colour_sums(image: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    """Sums over the pixels: H, S, V and their squares."""
    import cv2

    levels = np.arange(256)
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    counts = [np.bincount(channel.ravel(), minlength=256) for channel in channels]
    return tuple(float(count @ levels**power) for power in (1, 2) for count in counts)


def _known_only(rows: Iterable[SurveyRow], known: set[str]) -> Iterator[SurveyRow]:
    """Rows of the annotation file's images; any other image must keep no instance."""
    for row in rows:
        if row.file_name in known:
            yield row
        elif row.problem:
            raise DataError(row.problem)
        elif row.mask_difference:
            raise DataError(
                f"{row.file_name}: the release marks {row.mask_difference} pixels on it but the annotation "
                "file lacks it; convert the set again"
            )


def _counted(
    rows: Iterable[SurveyRow], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[SurveyRow]:
    for done, row in enumerate(rows, start=1):
        yield row
        if progress is not None:
            progress(done, total)


def _write(rows: Iterator[SurveyRow], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while chunk := list(islice(rows, CHUNK)):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in chunk], schema))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    texts, wholes = ("file_name", "problem", "dhash"), ("width", "height", "mask_difference", "pixels")
    types = dict.fromkeys(texts, pa.string()) | dict.fromkeys(wholes, pa.int64())
    names = SurveyRow.__dataclass_fields__
    return pa.schema([pa.field(name, types.get(name, pa.float64()), nullable=False) for name in names])
