"""Rows to Parquet and back.

In: records (frozen dataclasses of `records`). Out: `<folder>/<prefix>00000.parquet`, ... Row groups are closed by bytes,
not by rows, because one row may be a 64k-token document: a reader that wants one row reads a few megabytes.
"""

import contextlib
import dataclasses
import functools
import os
import typing
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longalign_data.errors import BuildError
from longalign_data.identity import file_sha256
from longalign_data.records import Record
from longalign_data.shards.files import sync_folder, writing

RecordT = TypeVar("RecordT")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One file of a table. `path` is relative to the build folder; `tokens` is the sum of `num_tokens`, 0 for tables
    without that column; `bytes` is the size on disk."""

    path: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


class ShardFile:
    """One Parquet file being written; it gets its name only in `close`."""

    def __init__(self, path: Path, schema: pa.Schema, *, row_group_bytes: int) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._schema = schema
        self._row_group_bytes = row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []
        self._pending_bytes = 0
        self.num_rows = 0
        self.num_tokens = 0
        self.num_bytes = 0
        # Dictionaries only hurt columns of long unique values; zstd alone halves both text and token ids.
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._temporary, schema, compression="zstd", use_dictionary=False, write_page_index=True
            )

    def write(self, record: Record) -> None:
        """Adds one row. `num_bytes` grows by its size in Arrow, roughly."""
        row = to_row(record)
        self._rows.append(row)
        self._grow(_weight(row), 1, int(row.get("num_tokens", 0)))

    def write_table(self, table: pa.Table) -> None:
        """Adds rows that are in Arrow already, in the file's schema. They stay together in one row group."""
        self._gather()
        self._tables.append(table)
        num_tokens = pc.sum(table.column("num_tokens")).as_py() if "num_tokens" in table.column_names else 0
        self._grow(table.nbytes, table.num_rows, num_tokens or 0)

    def _grow(self, size: int, num_rows: int, num_tokens: int) -> None:
        self._pending_bytes += size
        self.num_bytes += size
        self.num_rows += num_rows
        self.num_tokens += num_tokens
        if self._pending_bytes >= self._row_group_bytes:
            self._flush()

    def _gather(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def _flush(self) -> None:
        self._gather()
        if self._tables:
            table = pa.concat_tables(self._tables)
            with writing(self.path):
                self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self._tables, self._pending_bytes = [], 0

    def close(self, root: Path) -> ShardInfo:
        """Finishes the file, gives it its name, and says what it holds; `root` is the build folder."""
        self._flush()
        with writing(self.path):
            self._writer.close()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self.path)
            sync_folder(self.path.parent)
        return ShardInfo(
            path=self.path.relative_to(root).as_posix(),
            rows=self.num_rows,
            tokens=self.num_tokens,
            bytes=self.path.stat().st_size,
            sha256=file_sha256(self.path),
        )

    def abandon(self) -> None:
        """Forgets the file; nothing of it stays on disk."""
        with contextlib.suppress(OSError):  # a full disk refuses the footer too
            self._writer.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def to_row(record: Any) -> dict[str, Any]:
    """A record as plain values; nested records become dictionaries, long number lists are not copied."""
    return {field: _plain(getattr(record, field)) for field in _field_names(record.__class__)}


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_row(value)
    if isinstance(value, list | tuple) and value and dataclasses.is_dataclass(value[0]):
        return [to_row(item) for item in value]
    if isinstance(value, tuple):
        return list(value)
    return value


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) + 4
    if isinstance(value, np.ndarray):
        return int(value.nbytes) + 4
    if isinstance(value, dict):
        return sum(_weight(item) for item in value.values())
    if isinstance(value, list):
        if value and isinstance(value[0], int | float):
            return 4 * len(value) + 4
        return sum(_weight(item) for item in value) + 4
    return 8


def from_row(cls: type[RecordT], row: Mapping[str, Any]) -> RecordT:
    """The record of a row as `to_pylist` gives it; nested dictionaries become their records, lists become tuples.
    Raises BuildError when a column is missing, as in a build of an earlier version."""
    kinds = _field_types(typing.cast(Any, cls))
    try:
        return cls(**{name: _typed(kind, row[name]) for name, kind in kinds})
    except KeyError as error:
        raise BuildError(
            f"a {cls.__name__} without {error.args[0]!r}: another version of this package wrote it; run `longalign build` again"
        ) from None


@functools.cache
def _field_types(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((name, _record_in(hints[name])) for name in _field_names(cls))


def _record_in(hint: Any) -> Any:
    """The record class in `X` or `Sequence[X]`, else None."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return candidate
    return None


def _typed(kind: Any, value: Any) -> Any:
    if kind is not None and isinstance(value, dict):
        return from_row(kind, value)
    if isinstance(value, list):
        return tuple(from_row(kind, item) if kind is not None else item for item in value)
    return value


def iter_batches(paths: Iterable[Path], *, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The row groups of several files, one after the other, each in memory alone. Raises BuildError on a torn file."""
    for path in paths:
        with _reading(path), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns).to_batches()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BuildError(
            f"{path}: cannot be read as Parquet: {error}; remove the build folder's state to make it again"
        ) from error


def iter_records(paths: Iterable[Path], cls: type[RecordT]) -> Iterator[RecordT]:
    """The rows of several files as records, in order."""
    for batch in iter_batches(paths):
        for row in batch.to_pylist():
            yield from_row(cls, row)


class KeyedRows:
    """Random access to the rows of a table by the value of one column.

    Reads the key column once (32 bytes a row in memory); after that a row costs the reading of its row group. The last
    `cached_groups` row groups stay in memory, so rows asked for in stored order cost one reading in all.
    """

    def __init__(
        self, paths: Sequence[Path], key: str, *, columns: Sequence[str] | None = None, cached_groups: int = 4
    ) -> None:
        self._key = key
        self._columns = columns
        self._cached_groups = cached_groups
        self._groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()
        self._places: dict[str, tuple[Path, int, int]] = {}
        for path in paths:
            with _reading(path), pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    keys = file.read_row_group(group, columns=[key]).column(0).to_pylist()
                    self._places.update((value, (path, group, row)) for row, value in enumerate(keys))

    def __contains__(self, value: str) -> bool:
        return value in self._places

    def __len__(self) -> int:
        return len(self._places)

    def row(self, value: str) -> dict[str, Any]:
        """The row whose key is `value`. Raises KeyError when there is none."""
        path, group, row = self._places[value]
        table = self._groups.get((path, group))
        if table is None:
            with _reading(path), pq.ParquetFile(path) as file:
                table = file.read_row_group(group, columns=self._columns)
            self._groups[(path, group)] = table
            if len(self._groups) > self._cached_groups:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end((path, group))
        rows: list[dict[str, Any]] = table.slice(row, 1).to_pylist()
        return rows[0]
