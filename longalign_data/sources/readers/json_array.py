"""JSON files that hold one array of objects, as WuDaoCorpora is distributed; files of JSON lines are read as such.

    [{"id": 1, "title": "...", "content": "..."}, {"id": 2, ...}]

The array is never held: its elements are parsed one by one out of a piece of the file. Where the parser stops (at damage,
or where the piece ends) an element is found by its brackets, so a damaged one is one reject and an endless one is passed
over.
"""

import json
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import listed
from longalign_data.sources.readers import jsonl
from longalign_data.sources.readers.fields import check_json_signs, document_of
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, one_by_one
from longalign_data.sources.unpacking import PACKED, UnpackError, opened, pieces

SUFFIXES = [f"{name}{packed}" for name in (".json", ".jsonl") for packed in ("", *PACKED)]
PIECE_BYTES = 2 << 20
_FIRST = re.compile(r"[^\s,]")
_FIRST_BYTE = re.compile(rb"[^\s,]")
_OUTSIDE = re.compile(rb'["{}\[\]]')
_parse = json.JSONDecoder().raw_decode


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Each file by itself."""
    return one_by_one(placed.card, *listed(placed, SUFFIXES))


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The objects of the array, or of several that follow each other, or the lines of a file that does not begin with a
    bracket."""
    name, number = partition.units[0].name, 0
    try:
        with opened(Path(partition.path)) as file:
            head = file.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
            if not head.startswith(b"["):
                yield from jsonl.read(partition)
                return
            for begin, value in _elements(pieces(file, PIECE_BYTES)):
                ref, where = f"{name}#{number}", f"{name} object {number + 1}"
                number += 1
                if value is None:
                    detail = f"{where}, byte {begin}: more than {MAX_RECORD_BYTES} bytes; expected a document"
                    yield RawReject(source_ref=ref, reason="too-large", detail=detail)
                elif isinstance(value, dict):
                    yield document_of(value, partition.card, source_ref=ref, where=where)
                elif isinstance(value, RawReject):
                    yield RawReject(source_ref=ref, reason=value.reason, detail=f"{where}: {value.detail}")
                else:
                    detail = f"{where}: a {type(value).__name__}; expected an object"
                    yield RawReject(source_ref=ref, reason="not-an-object", detail=detail)
    except UnpackError as error:
        detail = f"{name}: cannot be read on after object {number}: {error}; the objects before stand, fetch it again"
        yield RawReject(source_ref=f"{name}#{number}", reason=error.reason, detail=detail)


def _elements(file: Iterator[bytes]) -> Iterator[tuple[int, object]]:
    """(first byte, value) of each element of the outer array, or of several that follow each other; the value is a reject
    without a place where it is damaged, None where it is beyond MAX_RECORD_BYTES. Raises UnpackError."""
    scan: _Brackets | None = _Brackets()
    base = 0
    for piece in file:
        at, parsing = 0, True
        while at < len(piece):
            if scan is None:
                first = _FIRST_BYTE.search(piece, at)
                if first is None:
                    break
                if first[0] != b"[":
                    detail = f"{piece[first.start() :][:20]!r} behind an array; expected another array or nothing"
                    yield base + first.start(), RawReject(source_ref="", reason="bad-json", detail=detail)
                    return
                scan, at = _Brackets(), first.start()
            if parsing and scan.depth == 1:
                at = yield from _parsed(piece, at, base)
                # What the parser does not take is judged by its brackets, and so is all that follows it in this piece:
                # to try again after each of many small faults would take the square of their number.
                parsing = False
                continue
            at, element = scan.next(piece, at, base)
            if element is not None:
                begin, data = element
                yield begin, None if data is None else _judged(data)
            elif scan.depth == 0:
                scan = None
        base += len(piece)
    if scan is not None:
        raise UnpackError("damaged-file", "the file ends inside its array")


def _parsed(piece: bytes, at: int, base: int) -> Generator[tuple[int, object], None, int]:
    """The elements between `at` and the first one that the parser does not take, and the place of that."""
    end = piece.rfind(b"}") + 1
    try:
        text = str(memoryview(piece)[at:end], "utf-8")
    except UnicodeDecodeError:
        return at
    place = 0
    with suppress(ValueError, RecursionError):
        while (first := _FIRST.search(text, place)) is not None and first[0] in "{[":
            value, place = _parse(text, first.start())
            yield base + at, value
    return end - len(text[place:].encode("utf-8"))


def _judged(data: bytes) -> object:
    """The value of an element that was found by its brackets, or the reject that it deserves."""
    if not data:
        detail = "something that is no object; expected objects alone"
        return RawReject(source_ref="", reason="not-an-object", detail=detail)
    try:
        check_json_signs(data)
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"not UTF-8 at byte {error.start} of the object; expected UTF-8"
        return RawReject(source_ref="", reason="bad-utf8", detail=detail)
    except (ValueError, RecursionError) as error:
        return RawReject(source_ref="", reason="bad-json", detail=f"{error}; expected an object with text")


class _Brackets:
    """Finds the elements of an array by their brackets, through any number of pieces. `depth` is 0 outside the array and
    1 between its elements."""

    def __init__(self) -> None:
        self.depth = 0
        self._quoted = self._escaped = False
        self._begin = 0
        self._kept, self._size = bytearray(), 0
        self._stray: int | None = None

    def next(self, piece: bytes, at: int, base: int) -> tuple[int, tuple[int, bytes | None] | None]:
        """Goes on to the end of an element, of the array or of the piece: the place behind it, and for an element its
        first byte and its bytes: None beyond MAX_RECORD_BYTES, and none at all for what stands between brackets."""
        start = at
        while at < len(piece):
            if self._quoted:
                at = self._behind_string(piece, at)
                continue
            if self.depth == 1 and self._stray is None:
                first = _FIRST_BYTE.search(piece, at)
                if first is not None and first[0] not in b"{[]":
                    self._stray = base + first.start()
            match = _OUTSIDE.search(piece, at)
            if match is None:
                break
            sign = match[0]
            if self.depth == 1 and sign != b'"' and self._stray is not None:
                begin, self._stray = self._stray, None
                # A closing brace here is part of what is no element; left where it stands, it would be met for ever.
                return match.end() if sign == b"}" else match.start(), (begin, b"")
            at = match.end()
            if sign == b'"':
                self._quoted = True
            elif sign in b"{[":
                self.depth += 1
                if self.depth == 2:
                    start, self._begin = match.start(), base + match.start()
            else:
                self.depth -= 1
                if self.depth == 1:
                    self._keep(piece[start:at])
                    element = self._begin, bytes(self._kept) if self._size <= MAX_RECORD_BYTES else None
                    self._kept, self._size = bytearray(), 0
                    return at, element
                if self.depth == 0:
                    return at, None
        if self.depth > 1:
            self._keep(piece[start:])
        return len(piece), None

    def _behind_string(self, piece: bytes, at: int) -> int:
        if self._escaped:
            at, self._escaped = at + 1, False
        end = piece.find(b'"', at)
        stop = end if end >= 0 else len(piece)
        slashes = 0
        while stop - slashes > at and piece[stop - slashes - 1] == ord("\\"):
            slashes += 1
        if end < 0:
            self._escaped = slashes % 2 == 1
            return len(piece)
        self._quoted = slashes % 2 == 1
        return end + 1

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_RECORD_BYTES:
            self._kept += data
        else:
            self._kept = bytearray()
