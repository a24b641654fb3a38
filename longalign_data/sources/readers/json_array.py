"""JSON files that hold one array of objects, as WuDaoCorpora is distributed; files of JSON lines are read as such.

    [{"id": 1, "title": "...", "content": "..."}, {"id": 2, ...}]

The array is never held: its objects are found by their brackets and parsed one by one, so a damaged object is one reject
and an endless one is passed over.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import listed, storable
from longalign_data.sources.readers import jsonl
from longalign_data.sources.readers.fields import document_of
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, Unit
from longalign_data.sources.unpacking import PACKED, UnpackError, opened

SUFFIXES = [f"{name}{packed}" for name in (".json", ".jsonl") for packed in ("", *PACKED)]
CHUNK = 1 << 20
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Each file by itself."""
    root, files = listed(placed, SUFFIXES)
    units = [Unit(name=storable(file), files=(file,), size=(root / file).stat().st_size) for file in files]
    return [Partition(card=placed.card, root=str(root), key=unit.name, units=(unit,)) for unit in units]


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The objects of the array, or the lines of a file that does not begin with a bracket."""
    name, number = partition.units[0].name, 0
    try:
        with opened(Path(partition.path)) as file:
            head = file.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
            if not head.startswith(b"["):
                yield from jsonl.read(partition)
                return
            for begin, data in _objects(iter(lambda: file.read1(CHUNK), b"")):
                ref, where = f"{name}#{number}", f"{name} object {number + 1}"
                number += 1
                if data is None:
                    detail = f"{where}, byte {begin}: more than {MAX_RECORD_BYTES} bytes; expected a document"
                    yield RawReject(source_ref=ref, reason="too-large", detail=detail)
                else:
                    yield _document(data, partition, ref, where)
    except UnpackError as error:
        detail = f"{name}: cannot be read on after object {number}: {error}; the objects before stand, fetch it again"
        yield RawReject(source_ref=f"{name}#{number}", reason=error.reason, detail=detail)


def _document(data: bytes, partition: Partition, ref: str, where: str) -> RawDocument | RawReject:
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"{where}: not UTF-8 at byte {error.start} of the object; expected UTF-8"
        return RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
    except (ValueError, RecursionError) as error:
        return RawReject(source_ref=ref, reason="bad-json", detail=f"{where}: {error}; expected an object with text")
    if not isinstance(value, dict):
        detail = f"{where}: a {type(value).__name__}; expected an object"
        return RawReject(source_ref=ref, reason="not-an-object", detail=detail)
    return document_of(value, partition.card, source_ref=ref, where=where)


def _objects(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(first byte, bytes) of each object or array inside the outer array; None for one beyond MAX_RECORD_BYTES."""
    base, depth, quoted, begin = 0, 0, False, 0
    kept, size = bytearray(), 0
    escaped = False
    for chunk in chunks:
        at, taken = 0, 0
        while at < len(chunk):
            if escaped:
                at, escaped = at + 1, False
                continue
            match = (_INSIDE if quoted else _OUTSIDE).search(chunk, at)
            if match is None:
                break
            sign, at = match[0], match.end()
            if sign == b"\\":
                escaped = True
            elif sign == b'"':
                quoted = not quoted
            elif sign in b"{[":
                depth += 1
                if depth == 2:
                    begin, taken = base + match.start(), match.start()
            else:
                depth -= 1
                if depth == 1:
                    size += at - taken
                    yield begin, None if size > MAX_RECORD_BYTES else bytes(kept + chunk[taken:at])
                    kept, size = bytearray(), 0
                elif depth <= 0:
                    return
        if depth >= 2:
            size += len(chunk) - taken
            if size <= MAX_RECORD_BYTES:
                kept += chunk[taken:]
            else:
                kept = bytearray()
        base += len(chunk)
    raise UnpackError("damaged-file", "the file ends inside its array")
