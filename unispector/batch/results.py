"""The file of an inspection, and the parts it grows from: a killed run loses seconds, not hours.

Beside `results.parquet` lies, while a run works on it, the folder `.results.parquet.parts`, with a folder
for each model, bank, source and options. The next run takes from there, and from the finished file, the
rows of all images that have not changed. Rows that a disk has damaged do not count: their images are looked
at again.
"""

import fcntl
import logging
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache, cached

from unispector.batch.inspection import FORMAT, SCHEMA, Inspection
from unispector.batch.source import ImageFile
from unispector.batch.tables import new_table, read_group, read_metadata, sound_groups
from unispector.errors import DataError
from unispector.ops.files import atomic_path, remove_leftovers

_PART_IMAGES, _PART_SECONDS = 256, 5.0
_GROUP_IMAGES = 2048  # of a row group of the finished file
_HELD_BYTES = 500_000_000  # of row groups that wait for the images that come next

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InspectionSummary:
    """The content of a finished file."""

    pictures: int = 0
    with_detections: int = 0
    detections: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Rows:
    """The rows of an image: rows `start` to `stop` of a row group of a file."""

    file: Path
    group: int
    start: int
    stop: int


class InspectionResults:
    """The rows of one inspection, on their way into its file."""

    def __init__(self, out: Path, inspection: Inspection) -> None:
        """Point at a file; nothing is read or made yet.

        Args:
            inspection: rows of any other one never mix with its own.
        """
        self._out = out
        self._metadata = inspection.metadata
        self._all_parts = out.with_name(f".{out.name}.parts")
        self._parts = self._all_parts / inspection.key
        self._schema = SCHEMA.with_metadata(self._metadata)
        self._damaged: set[Path] = set()  # files of which it was said

    @contextmanager
    def held(self) -> Iterator[None]:
        """The file for this process alone, as long as the block runs; a process that dies lets it go.

        Raises:
            DataError: another process works on it, or there is a file that no inspection made.
        """
        self._check_old()
        self._parts.mkdir(parents=True, exist_ok=True)
        with (self._all_parts / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"{self._out}: another inspection is writing it; wait for it or choose another file"
                ) from error
            remove_leftovers(self._parts, age=0)
            yield

    def missing(self, pictures: Sequence[ImageFile]) -> list[ImageFile]:
        """The images that no earlier run has looked at as they are now."""
        known = self._known(pictures)
        return [picture for picture in pictures if picture.path not in known]

    def keep(self, tables: Iterable[pa.Table]) -> Iterator[int]:
        """Write rows away as they come; a part holds the images of a few seconds.

        Yields:
            Of each table, its number of images.
        """
        waiting: list[pa.Table] = []
        count, since = 0, time.monotonic()
        try:
            for table in tables:
                pictures = pc.count_distinct(table["path"]).as_py()
                waiting.append(table)
                count += pictures
                if count >= _PART_IMAGES or time.monotonic() - since >= _PART_SECONDS:
                    self._write_part(waiting)
                    waiting, count, since = [], 0, time.monotonic()
                yield pictures
        finally:
            if waiting:
                self._write_part(waiting)

    def finish(self, pictures: Sequence[ImageFile]) -> InspectionSummary:
        """Write the file, sorted by path, and remove all parts.

        The file depends on the images, the model and the options alone: not on who looked at what, or when.

        Args:
            pictures: all of them, sorted by path, each kept by this run or an earlier one.
        """
        known = self._known(pictures, failed_too=True)
        read = cached(LRUCache(_HELD_BYTES, getsizeof=lambda table: table.nbytes))(read_group)
        summary = InspectionSummary()
        # Among the parts, so that a run killed here leaves nothing beside the output.
        finished = self._all_parts / "finished.parquet"
        with new_table(finished, self._schema) as write:
            for first in range(0, len(pictures), _GROUP_IMAGES):
                places = [known[picture.path] for picture in pictures[first : first + _GROUP_IMAGES]]
                slices = [
                    read(rows.file, rows.group).slice(rows.start, rows.stop - rows.start) for rows in places
                ]
                table = pa.concat_tables(slices).combine_chunks()
                write(table)
                summary = _added(summary, table, len(places))
        finished.replace(self._out)
        shutil.rmtree(self._all_parts)
        return summary

    def _check_old(self) -> None:
        """Refuse to replace a file of another kind."""
        if self._out.exists():
            form = read_metadata(self._out).get("unispector.format", "")
            if form.rpartition(" ")[0] != FORMAT.rpartition(" ")[0]:
                raise DataError(
                    f"{self._out}: not the file of an inspection, or damaged; remove it or choose another"
                )

    def _write_part(self, tables: Sequence[pa.Table]) -> None:
        table = pa.concat_tables(tables)
        # The time keeps parts in order, so that what was seen last counts.
        name = f"{time.time_ns():020d}-{secrets.token_hex(2)}.parquet"
        with atomic_path(self._parts / name) as temporary, new_table(temporary, self._schema) as write:
            write(table)

    def _known(self, pictures: Sequence[ImageFile], *, failed_too: bool = False) -> dict[str, _Rows]:
        """Return the latest rows of unchanged images."""
        current = {picture.path: picture for picture in pictures}
        known: dict[str, _Rows] = {}
        for file in self._files():
            for group, table in enumerate(self._sound(file)):
                for picture, failed, rows in _images_in(table, file, group):
                    if current.get(picture.path) == picture and (failed_too or not failed):
                        known[picture.path] = rows
        return known

    def _sound(self, file: Path) -> Iterator[pa.Table]:
        """The row groups of a file, a damaged one without rows; a part that is damaged is put aside."""
        damaged = not self._own(file)
        try:
            for table in () if damaged else sound_groups(file):
                sound = table if table is not None and table.schema.equals(SCHEMA) else None
                damaged |= sound is None
                yield SCHEMA.empty_table() if sound is None else sound
        except DataError:
            damaged = True
        if not damaged:
            return
        if file not in self._damaged:
            self._damaged.add(file)
            logger.warning("%s: damaged; the images whose rows it held are looked at again", file)
        if file != self._out:  # which is replaced at the end
            file.replace(file.with_name(f"{file.name}.damaged"))

    def _own(self, file: Path) -> bool:
        """Return whether a file says that it is of this inspection."""
        return self._metadata.items() <= read_metadata(file).items()

    def _files(self) -> list[Path]:
        """The finished file, where it is of this inspection, and the parts, oldest first."""
        own = [self._out] if self._out.exists() and self._own(self._out) else []
        parts = sorted(path for path in self._parts.glob("*.parquet") if not path.name.startswith("."))
        return own + parts


def _images_in(table: pa.Table, file: Path, group: int) -> Iterator[tuple[ImageFile, bool, _Rows]]:
    """The images of a row group, whether they failed, and where their rows are."""
    cells = [
        table["path"].to_pylist(),
        table["size"].to_pylist(),
        table["modified"].cast(pa.int64()).to_pylist(),
        pc.is_valid(table["error"]).to_pylist(),
    ]
    start = 0
    for (path, size, modified, failed), same in groupby(zip(*cells, strict=True), itemgetter(0, 1, 2, 3)):
        stop = start + sum(1 for _ in same)
        yield ImageFile(path, size, modified), failed, _Rows(file, group, start, stop)
        start = stop


def _added(summary: InspectionSummary, table: pa.Table, pictures: int) -> InspectionSummary:
    return replace(
        summary,
        pictures=summary.pictures + pictures,
        with_detections=summary.with_detections + (pc.sum(pc.equal(table["detection"], 1)).as_py() or 0),
        detections=summary.detections + pc.count(table["detection"]).as_py(),
        failed=summary.failed + pc.count(table["error"]).as_py(),
    )
