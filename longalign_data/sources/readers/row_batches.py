"""Batches of rows of a Parquet file, few enough that their texts fit in memory.

    64 rows of pages of the web: 300 KB          one row of a book of 60 MB: a batch by itself

A file of a few kilobytes can hold a text of 100 MB once, in its dictionary, and have a million rows that name it: read into a
batch, each row gets a copy.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longalign_data.sources.unpacking import FREE_BYTES, MAX_RATIO

BATCH_ROWS = 64
BATCH_BYTES = 128 << 20
"""What the texts of a batch may take, unless one row alone takes more."""

GROUP_BYTES = 256 << 20
"""Rows of a row group up to this size hold no more than that together, however uneven they are; of a larger one the mean
decides."""


def row_batches(path: Path, file: Any, groups: Sequence[int], columns: Sequence[str]) -> Iterator[Any]:
    """The record batches of row groups of the `pyarrow.parquet.ParquetFile` at `path`, in order. Raises what pyarrow raises,
    ArrowInvalid too for a row group that unpacks to far more than text does."""
    at = 0
    while at < len(groups):
        rows, end = rows_at_once(path, file, groups[at], columns), at + 1
        while end < len(groups) and rows_at_once(path, file, groups[end], columns) == rows:
            end += 1
        yield from file.iter_batches(batch_size=rows, row_groups=list(groups[at:end]), columns=list(columns))
        at = end


def rows_at_once(path: Path, file: Any, group: int, columns: Sequence[str]) -> int:
    """How many rows of a row group are read together, 1 to BATCH_ROWS."""
    import pyarrow as pa

    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(index) for index in range(metadata.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    size, packed = (
        sum(getattr(chunk, f"total_{kind}_size") for chunk in chunks) for kind in ("uncompressed", "compressed")
    )
    if size > FREE_BYTES + MAX_RATIO * packed:
        raise pa.ArrowInvalid(f"row group {group} unpacks from {packed} to {size} bytes; expected text")
    largest = size // max(1, metadata.num_rows) if size > GROUP_BYTES else 0
    if size > BATCH_BYTES // BATCH_ROWS and any(chunk.has_dictionary_page for chunk in chunks):
        largest = max(largest, _dictionary_bytes(path, file, group, columns))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, largest)))


def _dictionary_bytes(path: Path, file: Any, group: int, columns: Sequence[str]) -> int:
    """The size of a row group's dictionaries: no row names a larger text. Writers end them at about a megabyte."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, metadata=file.metadata, read_dictionary=list(columns)) as again:
        first = next(again.iter_batches(batch_size=1, row_groups=[group], columns=list(columns)), None)
        found = first.columns if first is not None else []
        return sum(column.dictionary.nbytes for column in found if pa.types.is_dictionary(column.type))
