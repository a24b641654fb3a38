"""Text from documents as pieces of a page, with its evidence told apart.

In: a text and the places in it that support an answer. Out: blocks of whole lines, each a list of pieces; a piece is
plain or evidence. A page escapes them; what turns the direction of writing around is made visible here already. Blocks
are small, so that a browser lays out only those on the screen.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longalign_data.explore.plain import visible

BLOCK_CHARS = 3_000
"""A block ends with the line that makes it longer than this."""
LINE_CHARS = 12_000
"""A longer line goes on in the next block; as it fills many lines of the page, that cannot be seen."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is all plain or all evidence. `number` counts the places of evidence from 1, and is 0 for plain text and
    where a place goes on after the end of a block."""

    text: str
    evidence: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Characters that are left out."""

    chars: int


Block = Sequence[Piece]
Span = tuple[int, int]


def blocks(text: str, spans: Sequence[Span]) -> list[Block]:
    """The whole text. Spans that overlap are one; those outside of the text are passed over."""
    return [_pieces(text, start, end, _merged(text, spans)) for start, end in _line_blocks(text)]


def around(text: str, spans: Sequence[Span], *, chars: int, context: int = 500) -> list[Block | Gap]:
    """The head of a text and what stands around its evidence, within about `chars` characters, whole where it fits."""
    if len(text) <= chars:
        return [*blocks(text, spans)]
    merged = _merged(text, spans)
    wanted = [(0, chars // 4)]
    room = chars - chars // 4
    for start, end in merged:
        end = min(end, start + room)
        wanted.append((max(0, start - context), min(len(text), end + context)))
        room -= wanted[-1][1] - wanted[-1][0]
        if room <= 0:
            break
    shown: list[Block | Gap] = []
    last = 0
    for start, end in _joined(wanted):
        if start > last:
            shown.append(Gap(start - last))
        shown.append(_pieces(text, start, end, merged))
        last = end
    if last < len(text):
        shown.append(Gap(len(text) - last))
    return shown


def _line_blocks(text: str) -> Iterator[Span]:
    start = 0
    while start < len(text):
        end = text.find("\n", min(start + BLOCK_CHARS, len(text)))
        end = min(len(text) if end < 0 else end + 1, start + BLOCK_CHARS + LINE_CHARS)
        yield start, end
        start = end


def _pieces(text: str, start: int, end: int, merged: Sequence[Span]) -> list[Piece]:
    found = []
    at = start
    for number, (first, last) in enumerate(merged, 1):
        if last <= start or first >= end:
            continue
        if first > at:
            found.append(Piece(visible(text[at:first])))
        at = min(last, end)
        found.append(
            Piece(visible(text[max(first, start) : at]), evidence=True, number=number if first >= start else 0)
        )
    if at < end:
        found.append(Piece(visible(text[at:end])))
    return found


def _merged(text: str, spans: Sequence[Span]) -> list[Span]:
    return _joined([(start, end) for start, end in spans if 0 <= start < end <= len(text)])


def _joined(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def breakable(text: str) -> str:
    """A short text for a table or a heading: visible, on one line."""
    return re.sub(r"\s+", " ", visible(text)).strip()
