"""Parquet: one row a document. A large file is cut into ranges of row groups."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.catalog import Card, RecordFields
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import failed, listed
from longalign_data.sources.readers.fields import document_of
from longalign_data.sources.readers.row_batches import row_batches
from longalign_data.sources.reading import Partition, RawDocument, RawReject, decoded_in_order, one_by_one

RANGE_BYTES = 64 << 20
"""Compressed bytes of row groups in one partition; a row group is never cut."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Ranges of row groups. Raises SourceError for a file that is not Parquet or lacks a column that the card names."""
    root, units = listed(placed, [".parquet"])
    found: list[Partition] = []
    for unit in units:
        if not unit.files:
            found += one_by_one(placed.card, root, [unit])
            continue
        path = Path(root, *unit.files)
        try:
            with pq.ParquetFile(path) as opened:
                metadata, schema = opened.metadata, opened.schema_arrow
                sizes = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise failed(
                placed, f"{path}: not a whole Parquet file: {error}", "fetch it again or leave it out"
            ) from None
        for column in _columns(placed.card.reader):
            if column not in schema.names:
                raise failed(placed, f"{path}: no column {column!r}", f"it has: {', '.join(schema.names)}")
            if not _is_text(schema.field(column).type):
                raise failed(placed, f"{path}: column {column!r} is {schema.field(column).type}", "expected text")
        start, weight = 0, 0
        for index, size in enumerate(sizes):
            weight += size
            if weight >= RANGE_BYTES or index + 1 == len(sizes):
                key, end = f"{unit.name}:{start}", index + 1
                found.append(Partition(card=placed.card, root=root, key=key, units=(unit,), start=start, end=end))
                start, weight = end, 0
    return found


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The rows of a range of row groups."""
    name, columns = partition.units[0].name, _columns(partition.card.reader)
    assert partition.end is not None
    with pq.ParquetFile(Path(partition.path)) as file:
        row = sum(file.metadata.row_group(index).num_rows for index in range(partition.start))
        groups = list(range(partition.start, partition.end))
        batches = row_batches(Path(partition.path), file, groups, columns)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                last = f"row groups {partition.start} to {partition.end - 1}"
                detail = f"{name}: {last} cannot be read from row {row} on: {error}; fetch the file again"
                yield RawReject(source_ref=f"{name}#{row}", reason="damaged-file", detail=detail)
                return
            cells = [text_cells(batch.column(column)) for column in columns]
            for values in zip(*cells, strict=True):
                record = dict(zip(columns, values, strict=True))
                yield _row(record, partition.card, source_ref=f"{name}#{row}", where=f"{name} row {row}")
                row += 1


def _row(record: dict[str, bytes | None], card: Card, *, source_ref: str, where: str) -> RawDocument | RawReject:
    assert isinstance(card.reader, RecordFields)
    texts: dict[str, str | None] = {}
    num_bytes = -1
    for column, value in record.items():
        try:
            if value is not None and column == card.reader.text:
                texts[column], num_bytes = decoded_in_order(value)
            else:
                texts[column] = value.decode("utf-8") if value is not None else None
        except UnicodeDecodeError as error:
            detail = f"{where}: column {column!r} is not UTF-8 at byte {error.start}; expected UTF-8"
            return RawReject(source_ref=source_ref, reason="bad-utf8", detail=detail)
    return document_of(texts, card, source_ref=source_ref, where=where, num_bytes=num_bytes)


def _columns(reader: Any) -> list[str]:
    assert isinstance(reader, RecordFields)
    named = [reader.text, reader.title, reader.lang, reader.license]
    return list(dict.fromkeys(name for name in named if name is not None))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def text_cells(column: pa.Array) -> list[bytes | None]:
    """The UTF-8 of each text of a column; None for null, and for all of a column that is none of texts."""
    if not _is_text(column.type):
        return [None] * len(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # As bytes: Arrow does not check that its strings are UTF-8, and their length in it is wanted.
    values: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return values
