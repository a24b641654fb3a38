"""Batches of rows of a Parquet file, few enough that their texts fit in memory.

    64 rows of pages of the web: 300 KB          one row of a book of 60 MB: a batch by itself

A file of a few kilobytes can hold a text of 100 MB once, in its dictionary, and have a million rows that name it: read into a
batch, each row gets a copy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longalign_data.sources.unpacking import FREE_BYTES, MAX_RATIO

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 64
BATCH_BYTES = 128 << 20
"""What the texts of a batch may take, unless one row alone takes more."""

GROUP_BYTES = 256 << 20
"""Rows of a row group up to this size hold no more than that together, however uneven they are; of a larger one the mean
decides."""


@dataclass(frozen=True, slots=True)
class Group:
    """What a file's footer says of the wanted columns in a row group: sizes in bytes, unpacked and as stored."""

    index: int
    num_rows: int
    size: int
    packed: int
    has_dictionary: bool


def row_batches(path: Path, file: Any, groups: Sequence[int], columns: Sequence[str]) -> Iterator[Any]:
    """The record batches of row groups of the `pyarrow.parquet.ParquetFile` at `path`, in order. Raises what pyarrow raises,
    ArrowInvalid too for a damaged footer and for a row group that unpacks to far more than text does."""
    wanted = footer(path, file, groups, columns)
    at = 0
    while at < len(wanted):
        rows, end = rows_at_once(path, file, wanted[at], columns), at + 1
        while end < len(wanted) and rows_at_once(path, file, wanted[end], columns) == rows:
            end += 1
        yield from file.iter_batches(batch_size=rows, row_groups=list(groups[at:end]), columns=list(columns))
        at = end


def footer(path: Path, file: Any, groups: Sequence[int], columns: Sequence[str]) -> list[Group]:
    """The row groups asked for."""
    names = [file.schema.column(index).path.partition(".")[0] for index in range(file.metadata.num_columns)]
    leaves = tuple(index for index, name in enumerate(names) if name in columns)
    status = path.stat()
    sizes = _sizes(path, (status.st_size, status.st_mtime_ns), leaves)
    counts = {index: file.metadata.row_group(index).num_rows for index in groups}
    return [Group(index, counts[index], *sizes.get(index, (0, 0, False))) for index in groups]


@lru_cache(maxsize=4)
def _sizes(path: Path, _stamp: tuple[int, int], leaves: tuple[int, ...]) -> dict[int, tuple[int, int, bool]]:
    """For each row group the unpacked and the stored bytes of some columns together, and whether one has a dictionary. DuckDB
    reads them: a damaged footer is an error to it, where pyarrow's `metadata.column` ends the process
    (`parquet::ParquetException`, up to 26.0). Kept, as a file is cut into partitions and a footer may have many groups."""
    import duckdb
    import pyarrow as pa

    asked = """
        select row_group_id, sum(total_uncompressed_size), sum(total_compressed_size),
               bool_or(dictionary_page_offset is not null)
        from parquet_metadata(?) where list_contains(?, column_id) group by row_group_id
    """
    # A name is no pattern.
    name = escape(str(path))
    try:
        with _duckdb().cursor() as cursor:
            rows = cursor.execute(asked, [name, leaves]).fetchall()
    except duckdb.Error as error:
        said = str(error).splitlines()[0].replace(name, path.name).replace(str(path), path.name)
        raise pa.ArrowInvalid(f"its footer is damaged: {said}") from error
    return {int(index): (int(size), int(packed), bool(dictionary)) for index, size, packed, dictionary in rows}


@cache
def _duckdb() -> "duckdb.DuckDBPyConnection":
    import duckdb

    return duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})


def rows_at_once(path: Path, file: Any, group: Group, columns: Sequence[str]) -> int:
    """How many rows of a row group are read together, 1 to BATCH_ROWS."""
    import pyarrow as pa

    if group.size > FREE_BYTES + MAX_RATIO * group.packed:
        unpacked = f"row group {group.index} unpacks from {group.packed} to {group.size} bytes"
        raise pa.ArrowInvalid(f"{unpacked}; expected text")
    largest = group.size // max(1, group.num_rows) if group.size > GROUP_BYTES else 0
    if group.size > BATCH_BYTES // BATCH_ROWS and group.has_dictionary:
        largest = max(largest, _dictionary_bytes(path, file, group.index, columns))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, largest)))


def _dictionary_bytes(path: Path, file: Any, group: int, columns: Sequence[str]) -> int:
    """The size of a row group's dictionaries: no row names a larger text. Writers end them at about a megabyte."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, metadata=file.metadata, read_dictionary=list(columns)) as again:
        first = next(again.iter_batches(batch_size=1, row_groups=[group], columns=list(columns)), None)
        found = first.columns if first is not None else []
        return sum(column.dictionary.nbytes for column in found if pa.types.is_dictionary(column.type))
