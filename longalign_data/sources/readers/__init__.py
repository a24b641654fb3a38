"""Every reader, by the `kind` that a card gives.

A new format is one file here, one line in READERS, and its model in `catalog.Reader`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from longalign_data.catalog import Card
from longalign_data.errors import SourceError
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import below, locate, storable
from longalign_data.sources.readers import (
    arxiv,
    blocks,
    books,
    code,
    files,
    github,
    hub,
    json_array,
    jsonl,
    parquet,
    pydoc_topics,
    stackexchange,
    text,
    warc,
    wikipedia,
)
from longalign_data.sources.reading import Partition, RawDocument, RawReject, Reader, settled

READERS: dict[str, Reader] = {
    "jsonl": jsonl,
    "parquet": parquet,
    "text": text,
    "code": code,
    "pydoc-topics": pydoc_topics,
    "hub": hub,
    "wikipedia": wikipedia,
    "files": files,
    "stackexchange": stackexchange,
    "github": github,
    "arxiv": arxiv,
    "warc": warc,
    "books": books,
    "blocks": blocks,
    "json": json_array,
}

BY_RULES = frozenset({"code", "pydoc-topics"})
"""Readers with rules of their own for what in a folder is theirs; what they pass over is no oversight."""

MOST_SUFFIXES = 20


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """The partitions of a source, in the order in which their documents stand in the table. Raises SourceError."""
    try:
        return READERS[placed.card.reader.kind].partitions(placed)
    except OSError as error:
        raise _unreadable(placed.card, error) from error


def skipped(placed: PlacedSource, found: Sequence[Partition]) -> Mapping[str, int]:
    """How many files of a source's folder stand in none of its partitions, by suffix, the most frequent first; hidden ones
    are not counted. Of repositories, how many folders and archives. Nothing of a source that names its files, or whose
    reader is one of BY_RULES. Raises SourceError."""
    kind = placed.card.reader.kind
    if placed.path is None or kind in BY_RULES:
        return {}
    taken = {name for partition in found for unit in partition.units for name in (unit.name, *unit.files)}
    try:
        place = locate(placed)
        names = () if place.files is not None else github.entries(place.root) if kind == "github" else below(place.root)
        counts = Counter(
            "folder without sources"
            if kind == "github" and (place.root / name).is_dir()
            else PurePosixPath(storable(name)).suffix.lower() or "no suffix"
            for name in names
            if storable(name) not in taken
        )
    except OSError as error:
        raise _unreadable(placed.card, error) from error
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, others = dict(ordered[:MOST_SUFFIXES]), sum(count for _, count in ordered[MOST_SUFFIXES:])
    return shown | ({"others": others} if others else {})


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """What a partition holds, in order; every document's text is in order (see `RawDocument`). Raises SourceError."""
    if partition.units and not partition.units[0].files:
        for unit in partition.units:
            detail = f"{unit.name}: a symbolic link that leads nowhere; put the file there, or take the link away"
            yield RawReject(source_ref=unit.name, reason="link-broken", detail=detail)
        return
    try:
        for raw in READERS[partition.card.reader.kind].read(partition):
            yield settled(raw)
    except OSError as error:
        raise _unreadable(partition.card, error) from error


def _unreadable(card: Card, error: OSError) -> SourceError:
    what = f"{error.filename}: " if error.filename else ""
    return SourceError(
        f"source {card.id!r}: {what}cannot be read: {error.strerror or error}; make it readable, and let nothing change "
        "the corpus while it is read"
    )
