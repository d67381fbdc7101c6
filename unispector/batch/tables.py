"""Parquet files that can tell whether what is read is what was written.

Pages have checksums, for any reader. They do not cover a file's headers and its footer; therefore the footer
holds a digest of the rows of each row group, and rows count only where they have theirs.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unispector.errors import DataError
from unispector.ops.json_text import parse_json

_DIGESTS = "unispector.rows"
_DAMAGE = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, OverflowError, MemoryError)


@contextmanager
def new_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A file that grows by row groups, each as it is handed to what is yielded."""
    digests: list[str] = []
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:

        def write(rows: pa.Table) -> None:
            writer.write_table(rows.cast(schema), row_group_size=len(rows))
            digests.append(_digest(rows))

        yield write
        writer.add_key_value_metadata({_DIGESTS: json.dumps(digests)})


def read_metadata(path: Path) -> Mapping[str, str]:
    """What the footer of a Parquet file says of it; empty of a file that has no readable one."""
    try:
        stored = pq.read_metadata(path).metadata or {}
    except _DAMAGE:
        return {}
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in stored.items()}


def read_group(path: Path, group: int) -> pa.Table:
    """The rows of a row group that `sound_groups` has found sound, without the file's metadata."""
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        return parquet.read_row_group(group).replace_schema_metadata()


def sound_groups(path: Path) -> Iterator[pa.Table | None]:
    """The rows of each row group of a file of `new_table`, one group in memory at a time; None = damaged.

    Raises:
        DataError: all of the file is damaged.
    """
    try:
        digests = parse_json(read_metadata(path)[_DIGESTS])
        with pq.ParquetFile(path) as parquet:
            whole = len(digests) == parquet.num_row_groups
    except (*_DAMAGE, RecursionError) as error:
        raise DataError(f"{path}: damaged; remove it") from error
    if not whole:
        raise DataError(f"{path}: damaged; remove it")
    for group, digest in enumerate(digests):
        try:
            rows = read_group(path, group)
            yield rows if _digest(rows) == digest else None
        except _DAMAGE:
            yield None


def _digest(rows: pa.Table) -> str:
    """64 hex digits of what the rows say, however they lie in memory."""
    digest = hashlib.sha256()
    for name in rows.column_names:
        cells = rows[name]
        digest.update(f"{name} {cells.type} {len(cells)} ".encode())
        digest.update(cells.is_null().to_numpy().tobytes())
        if pa.types.is_string(cells.type):
            filled = pc.fill_null(cells, "")
            digest.update(pc.binary_length(filled).to_numpy().tobytes())
            digest.update("".join(filled.to_pylist()).encode())
        else:
            whole = cells.cast(pa.int64()) if pa.types.is_timestamp(cells.type) else cells
            digest.update(pc.fill_null(whole, 0).to_numpy().tobytes())
    return digest.hexdigest()
