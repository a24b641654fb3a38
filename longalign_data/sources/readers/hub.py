"""Datasets of the Hugging Face Hub, streamed at a pinned commit; or local data files through the same library.

A hub dataset is cut into the shards that the library knows; local files are one partition each.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from longalign_data.catalog import HubReader
from longalign_data.errors import SourceError
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import failed, listed
from longalign_data.sources.readers.fields import document_of
from longalign_data.sources.reading import Partition, RawDocument, RawReject, one_by_one

SUFFIXES = {
    "json": [".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".json.zst", ".jsonl.zst"],
    "parquet": [".parquet"],
    "csv": [".csv", ".csv.gz"],
    "text": [".txt", ".txt.gz"],
}


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Shards of a hub dataset, or local files. Raises SourceError when the dataset or a column is not there."""
    reader = placed.card.reader
    assert isinstance(reader, HubReader)
    if reader.dataset is not None:
        shards = _stream(placed.card.id, reader, None).num_shards
        return [
            Partition(card=placed.card, root="", key=f"{index:06d}", units=(), start=index, end=shards)
            for index in range(shards)
        ]
    found = one_by_one(placed.card, *listed(placed, SUFFIXES[reader.format]))
    if reader.split != "train":
        raise failed(placed, f"split {reader.split!r}: local files have one split", "leave `split` out")
    return found


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The rows of a shard or file. Raises SourceError where the library stops: it cannot pass over a bad record."""
    reader, card = partition.card.reader, partition.card
    assert isinstance(reader, HubReader)
    if reader.dataset is None:
        name = partition.units[0].name
        stream = _stream(card.id, reader, partition.path)
    else:
        name = f"{reader.dataset}@{reader.revision}#{partition.start}"
        stream = _stream(card.id, reader, None).shard(num_shards=partition.end, index=partition.start)
    row = 0
    rows = iter(stream)
    while True:
        try:
            record = next(rows)
        except StopIteration:
            return
        except _reading_errors() as error:
            raise SourceError(
                f"source {card.id!r}: {name}: cannot be read beyond row {row}: {_cause(error)}; local files are read "
                "record by record with `kind: jsonl` or `kind: parquet`, which set bad records aside"
            ) from error
        ref = f"{name}#{row}" if reader.dataset is None else f"{name}/{row}"
        yield document_of(record, card, source_ref=ref, where=f"{name} row {row}")
        row += 1


def _stream(source: str, reader: HubReader, path: str | None) -> Any:
    import datasets

    try:
        if path is not None:
            stream = datasets.load_dataset(reader.format, data_files=[path], split="train", streaming=True)
        else:
            stream = datasets.load_dataset(
                reader.dataset, reader.config, split=reader.split, revision=reader.revision, streaming=True
            )
    except _opening_errors() as error:
        # An empty file ends the library's own look at the columns in this way.
        what = path or f"{reader.dataset}@{reader.revision}"
        raise SourceError(
            f"source {source!r}: {what}: cannot be opened: {_cause(error)}; check the id, config, split and revision"
        ) from error
    names = stream.column_names
    if names is not None and reader.text not in names:
        raise SourceError(f"source {source!r}: no column {reader.text!r}; it has: {', '.join(names)}")
    return stream


def _opening_errors() -> tuple[type[Exception], ...]:
    return (StopIteration, *_reading_errors())


def _reading_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return (DatasetsError, OSError, ValueError, pa.ArrowException)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]
