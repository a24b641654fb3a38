"""Plain text: one file a document; the title is its path without the suffix."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from longalign_data.catalog import TextReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import leads_outside, listed
from longalign_data.sources.reading import (
    MAX_RECORD_BYTES,
    Partition,
    RawDocument,
    RawReject,
    Unit,
    decoded_in_order,
    grouped,
)
from longalign_data.sources.unpacking import beginning


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Groups of files."""
    assert isinstance(placed.card.reader, TextReader)
    return grouped(placed.card, *listed(placed, placed.card.reader.extensions))


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """Each file as a document."""
    for unit in partition.units:
        yield _file(partition, unit)


def _file(partition: Partition, unit: Unit) -> RawDocument | RawReject:
    (file,) = unit.files
    name = unit.name
    if leads_outside(partition.root, file):
        detail = f"{name}: a link that leads out of the folder; put the file itself there"
        return RawReject(source_ref=name, reason="link-outside", detail=detail)
    data = beginning(partition.path_of(file), MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        detail = f"{name}: more than {MAX_RECORD_BYTES} bytes; expected a file of the size of a document"
        return RawReject(source_ref=name, reason="too-large", detail=detail)
    try:
        text, num_bytes = decoded_in_order(data)
    except UnicodeDecodeError as error:
        detail = f"{name}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        return RawReject(source_ref=name, reason="bad-utf8", detail=detail)
    title = str(PurePosixPath(name).with_suffix(""))
    return RawDocument(
        text=text,
        title=title,
        lang=partition.card.lang,
        license=partition.card.license,
        source_ref=name,
        num_bytes=num_bytes,
    )
