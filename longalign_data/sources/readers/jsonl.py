"""JSON lines: one object a line, UTF-8; plain, .gz or .zst.

    {"text": "It was a bright cold day ...", "title": "Chapter 1"}

A large plain file is cut into byte ranges; a line belongs to the range in which it begins. Compressed files are read as
a whole, because they can only be read from the start.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import failed, listed
from longalign_data.sources.readers.fields import check_json_signs, document_of
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, ranges
from longalign_data.sources.unpacking import UnpackError, opened

RANGE_BYTES = 64 << 20
"""Bytes of a plain file in one partition."""

SUFFIXES = [f"{name}{packed}" for name in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst")]
FOREIGN = (".bz2", ".xz", ".lz4", ".zip", ".7z", ".tar")


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Byte ranges of plain files, whole compressed files."""
    root, units = listed(placed, SUFFIXES)
    found: list[Partition] = []
    for unit in units:
        if unit.name.lower().endswith(FOREIGN):
            raise failed(placed, f"{root}/{unit.name}: not a format that is read here", "unpack it, or use .gz or .zst")
        found += ranges(placed.card, root, unit, 0 if _packed(unit.name) else RANGE_BYTES)
    return found


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The records of a range or a compressed file."""
    path, name = Path(partition.path), partition.units[0].name
    packed = _packed(name)
    number = 0
    with opened(path) as file:
        lines = _lines(file, partition.start, partition.end)
        while True:
            try:
                begin, end, line = next(lines)
            except StopIteration:
                return
            except UnpackError as error:
                detail = (
                    f"{name}: cannot be unpacked beyond line {number}: {error}; the lines before stand, fetch it again"
                )
                yield RawReject(source_ref=f"{name}#{number}", reason=error.reason, detail=detail)
                return
            ref = f"{name}#{number}" if packed else f"{name}:{begin}-{end}"
            # Only the first range knows its line numbers without reading all that comes before.
            where = f"{name} line {number + 1}" if partition.start == 0 else f"{name} byte {begin}"
            number += 1
            if line is None:
                detail = f"{where}: a line of more than {MAX_RECORD_BYTES} bytes; expected one JSON object a line"
                yield RawReject(source_ref=ref, reason="line-too-long", detail=detail)
            elif not line.isspace():
                yield _record(line.removeprefix(b"\xef\xbb\xbf") if begin == 0 else line, partition, ref, where)


def _record(line: bytes, partition: Partition, ref: str, where: str) -> RawDocument | RawReject:
    try:
        check_json_signs(line)
        try:
            value = json.loads(line.decode("utf-8"))
        except json.JSONDecodeError:
            # With its line end a string that is cut off would be reported as one that holds a control character.
            value = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"{where}: not UTF-8 at byte {error.start} of the line; expected UTF-8"
        return RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
    except json.JSONDecodeError as error:
        detail = f"{where}, column {error.colno}: not JSON: {error.msg}; expected one object a line"
        return RawReject(source_ref=ref, reason="bad-json", detail=detail)
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or thousands of nested brackets: JSON on paper, nothing to read in practice.
        return RawReject(source_ref=ref, reason="bad-json", detail=f"{where}: {error}; expected an object with text")
    if not isinstance(value, dict):
        detail = f"{where}: a {type(value).__name__}; expected an object"
        return RawReject(source_ref=ref, reason="not-an-object", detail=detail)
    return document_of(value, partition.card, source_ref=ref, where=where)


def _packed(file: str) -> bool:
    return file.lower().endswith((".gz", ".zst"))


def _lines(file: io.BufferedIOBase, start: int, end: int | None) -> Iterator[tuple[int, int, bytes | None]]:
    """(first byte, end, line) of each line that begins in [start, end); None for a line beyond MAX_RECORD_BYTES."""
    position = start
    if start > 0:
        file.seek(start - 1)
        position += _rest_of_line(file) - 1
    while end is None or position < end:
        line = file.readline(MAX_RECORD_BYTES + 1)
        if not line:
            return
        begin = position
        position += len(line)
        if len(line) > MAX_RECORD_BYTES:
            position += 0 if line.endswith(b"\n") else _rest_of_line(file)
            yield begin, position, None
        else:
            yield begin, position, line


def _rest_of_line(file: io.BufferedIOBase) -> int:
    """Reads to the end of the line and says how many bytes that were."""
    passed = 0
    while part := file.readline(1 << 20):
        passed += len(part)
        if part.endswith(b"\n"):
            break
    return passed
