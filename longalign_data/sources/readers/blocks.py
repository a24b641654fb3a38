"""Text files with a blank line between documents: the form of CLUECorpus2020, one sentence a line.

A large plain file is cut into byte ranges; a document belongs to the range in which its first line begins.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import listed, storable
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, Unit
from longalign_data.sources.unpacking import PACKED, UnpackError, opened

RANGE_BYTES = 64 << 20
"""Bytes of a plain file in one partition."""

SUFFIXES = [f".txt{packed}" for packed in ("", *PACKED)]


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Byte ranges of plain files, whole packed files."""
    root, files = listed(placed, SUFFIXES)
    found: list[Partition] = []
    for file in files:
        unit = Unit(name=storable(file), files=(file,), size=(root / file).stat().st_size)
        ranges = 1 if file.lower().endswith(PACKED) else max(1, -(-unit.size // RANGE_BYTES))
        for index in range(ranges):
            start, end = index * RANGE_BYTES, (index + 1) * RANGE_BYTES if index + 1 < ranges else None
            key = f"{unit.name}:{start}"
            found.append(Partition(card=placed.card, root=str(root), key=key, units=(unit,), start=start, end=end))
    return found


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The documents that begin in a range; one whose bytes are not UTF-8 or too many is a reject."""
    name, card = partition.units[0].name, partition.card
    position = partition.start
    try:
        for position, block in _blocks(partition):
            ref = f"{name}@{position}"
            if block is None:
                detail = (
                    f"{ref}: more than {MAX_RECORD_BYTES} bytes without a blank line; expected one between documents"
                )
                yield RawReject(source_ref=ref, reason="too-large", detail=detail)
                continue
            try:
                text = block.decode("utf-8")
            except UnicodeDecodeError as error:
                detail = f"{ref}: not UTF-8 at byte {error.start} of the document; expected UTF-8"
                yield RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
                continue
            yield RawDocument(text=text.strip("\n"), title="", lang=card.lang, license=card.license, source_ref=ref)
    except UnpackError as error:
        detail = f"{name}: cannot be read on after byte {position}: {error}; what came before stands, fetch it again"
        yield RawReject(source_ref=f"{name}@{position}", reason=error.reason, detail=detail)


def _blocks(partition: Partition) -> Iterator[tuple[int, bytes | None]]:
    """(first byte, bytes) of each run of lines that are not blank; None for one beyond MAX_RECORD_BYTES."""
    path, end = Path(partition.path), partition.end
    position = partition.start
    # Whether the line before is blank: only then does a document begin with this line.
    apart = position == 0
    with opened(path) as file:
        if position > 0:
            # The first line that begins in the range is the one after the last line end before it; whether a document
            # begins there is said by the line before, so that one is found and read first.
            back = max(0, position - 1)
            file.seek(back)
            if file.read(1) != b"\n":
                position += _skip_line(file)
            apart = _blank_before(file, position)
            file.seek(position)
        block, size, begin = bytearray(), 0, position
        while True:
            line = file.readline(1 << 20)
            if not line or not line.strip():
                if size:
                    yield begin, None if size > MAX_RECORD_BYTES else bytes(block)
                block, size = bytearray(), 0
                if not line:
                    return
                apart = apart or line.endswith(b"\n")
            else:
                if not size and end is not None and position >= end:
                    return
                if size or apart:
                    begin = begin if size else position
                    size += len(line)
                    if size <= MAX_RECORD_BYTES:
                        block += line
            position += len(line)


def _skip_line(file: io.BufferedReader) -> int:
    passed = 0
    while part := file.readline(1 << 20):
        passed += len(part)
        if part.endswith(b"\n"):
            break
    return passed


def _blank_before(file: io.BufferedReader, position: int) -> bool:
    """Whether the line that ends before `position` holds nothing but white space; looks back as far as such a line could
    reasonably be."""
    start = max(0, position - 4096)
    file.seek(start)
    before = file.read(position - start)
    lines = before.split(b"\n")
    return len(lines) >= 2 and not lines[-2].strip()
