"""Text files with a blank line between documents: the form of CLUECorpus2020, one sentence a line.

A large plain file is cut into byte ranges; a document belongs to the range in which its first line begins.
"""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import listed
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, decoded_in_order, ranges
from longalign_data.sources.unpacking import PACKED, UnpackError, opened, pieces

RANGE_BYTES = 64 << 20
"""Bytes of a plain file in one partition."""

PIECE_BYTES = 4 << 20

SUFFIXES = [f".txt{packed}" for packed in ("", *PACKED)]
_BLANK_LINES = re.compile(rb"\n\s*\n(?=[^\S\n]*\S)")
_END = b"\n\n."
"""What stands for a document behind the last one."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Byte ranges of plain files, whole packed files."""
    root, units = listed(placed, SUFFIXES)
    found: list[Partition] = []
    for unit in units:
        found += ranges(placed.card, root, unit, 0 if unit.name.lower().endswith(PACKED) else RANGE_BYTES)
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
                text, num_bytes = decoded_in_order(block.strip(b"\r\n"))
            except UnicodeDecodeError as error:
                detail = f"{ref}: not UTF-8 at byte {error.start} of the document; expected UTF-8"
                yield RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
                continue
            yield RawDocument(
                text=text, title="", lang=card.lang, license=card.license, source_ref=ref, num_bytes=num_bytes
            )
    except UnpackError as error:
        detail = f"{name}: cannot be read on after byte {position}: {error}; what came before stands, fetch it again"
        yield RawReject(source_ref=f"{name}@{position}", reason=error.reason, detail=detail)


def _blocks(partition: Partition) -> Iterator[tuple[int, bytes | None]]:
    """(first byte, bytes) of each run of lines that are not blank; None for one beyond MAX_RECORD_BYTES."""
    start, end = partition.start, partition.end
    begin = 0 if start == 0 else None
    large = False
    with opened(Path(partition.path)) as file:
        # A packed file is one partition and cannot seek.
        base, buffer = _before(file, start) if start else 0, b""
        if base == 0:
            # As if a line ended before the first: so blank lines at the top are between documents too.
            base, buffer = -1, b"\n"
        searched = 0
        for piece in itertools.chain(pieces(file, PIECE_BYTES), [_END]):
            buffer += piece
            # Not into the white space at the end: what follows it says whether documents part there, and the pattern would
            # look for that again at each of its lines.
            rest = len(buffer.rstrip())
            for match in _BLANK_LINES.finditer(buffer, searched, rest):
                stop, following = base + match.start() + 1, base + match.end()
                if begin is not None and stop > begin:
                    large = large or stop - begin > MAX_RECORD_BYTES
                    yield begin, None if large else buffer[begin - base : stop - base]
                if end is not None and following >= end:
                    return
                begin, large = following if following >= start else None, False
            large = large or (begin is not None and base + len(buffer) - begin > MAX_RECORD_BYTES)
            blank, gone = buffer[rest:], buffer[rest:-1024]
            if len(blank) > PIECE_BYTES and gone and (blank.count(b"\n") > 1 or begin is None or large):
                # White space without end is not kept, but for what it says about the lines around it.
                if begin is not None and blank.count(b"\n") > 1:
                    if base + rest > begin:
                        yield begin, None if large else buffer[begin - base : rest + 1]
                    begin, large = None, False
                position = base + len(buffer)
                buffer, searched = b"\n" * min(2, gone.count(b"\n")) + b" " + blank[-1024:], 0
                base = position - len(buffer)
                continue
            cut = rest if begin is None or large else min(rest, begin - base)
            buffer, base, searched = buffer[cut:], base + cut, rest - cut


def _before(file: io.BufferedReader, start: int) -> int:
    """A place at or before the line end that a blank line before `start` would follow; the file stands there."""
    back = 4096
    while True:
        place = max(0, start - 1 - back)
        file.seek(place)
        before = file.read(max(0, start - 1 - place))
        if place == 0 or not before.isspace() or b"\n" in before or back > MAX_RECORD_BYTES:
            file.seek(place)
            return place
        back *= 16
