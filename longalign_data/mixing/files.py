"""Files and Hub datasets of conversations, record by record, in bounded memory.

In: a placed set. Out: (where, record) pairs in a fixed order; a record that cannot be read is a `Bad` instead:

    .jsonl .ndjson      one JSON object a line; also as .gz and .zst
    .json               one JSON array, read piece by piece; also as .gz and .zst (a file of lines under this name works too)
    .parquet            one row a conversation
    dataset (a Hub id)  streamed at a pinned commit through `datasets`
"""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.errors import SourceError
from longalign_data.recipe import MixSet, PlacedMix
from longalign_data.sources.places import leads_nowhere
from longalign_data.sources.unpacking import UnpackError, opened

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".zst")
FIELDS = ("messages", "conversations")
"""Columns that are read of a Parquet file, those of them that it has; it must have one."""

PIECE_CHARS = 1 << 20
MAX_RECORD_CHARS = 64 << 20
"""A line or a member of an array longer than this is rejected; it bounds memory."""


class Bad(NamedTuple):
    """Why a record cannot be used: a reason out of a small set, and a detail for a person."""

    reason: str
    detail: str


Found: TypeAlias = tuple[str, Mapping[str, Any] | Bad]


def files_of(placed: PlacedMix) -> list[tuple[str, Path]]:
    """The files of a set, by relative name, in order; none for a Hub dataset. Raises SourceError when there is none, and
    for a link that leads nowhere."""
    if placed.path is None:
        return []
    path = Path(placed.path)
    if path.is_file():
        return [(path.name, path)]
    if path.is_dir():
        found = [(file.relative_to(path).as_posix(), file) for file in path.rglob("*") if _kind(file.name) in SUFFIXES]
    else:
        found = [(file.name, file) for file in path.parent.glob(path.name)]
    for _, file in found:
        if leads_nowhere(str(file)):
            raise _failed(
                placed.set, f"{file}: a symbolic link that leads nowhere", "put the file there, or take it away"
            )
    found = [(name, file) for name, file in found if file.is_file()]
    if not found:
        raise _failed(placed.set, f"{path}: no file of conversations ({', '.join(SUFFIXES)})", "check `path`")
    return sorted(found)


def records(placed: PlacedMix) -> Iterator[Found]:
    """Every record of a set. Raises SourceError for a file that cannot be read at all."""
    if placed.path is None:
        yield from _hub(placed.set)
        return
    for name, path in files_of(placed):
        kind = _kind(name)
        if kind not in SUFFIXES:
            raise _failed(placed.set, f"{path}: unknown kind of file", f"expected one of: {', '.join(SUFFIXES)}")
        try:
            if kind == ".parquet":
                yield from _rows(placed.set, name, path)
            else:
                yield from _text(name, path, kind)
        except UnpackError as error:
            too_large = error.reason == "unpacks-too-large"
            advice = "leave the file out otherwise" if too_large else "fetch the file again"
            raise _failed(placed.set, f"{path}: cannot be read to its end: {error}", advice) from error
        except (OSError, pa.ArrowException) as error:
            raise _failed(placed.set, f"{path}: cannot be read to its end: {error}", "fetch the file again") from error


def _kind(name: str) -> str:
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def _text(name: str, path: Path, kind: str) -> Iterator[Found]:
    file = opened(path)
    # Bytes that are not UTF-8 become lone surrogates, and their record a reject.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as text:
        is_array = kind == ".json" and file.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        yield from _array(name, text) if is_array else _lines(name, text)


def _lines(name: str, file: io.TextIOBase) -> Iterator[Found]:
    number = 0
    while line := file.readline(MAX_RECORD_CHARS):
        number += 1
        where = f"{name}:{number}"
        if len(line) == MAX_RECORD_CHARS and not line.endswith("\n"):
            while (more := file.readline(PIECE_CHARS)) and not more.endswith("\n"):
                pass
            yield where, Bad("too-large", f"{where}: a line of more than {MAX_RECORD_CHARS:,} characters")
        elif line.strip() == "{" and number == 1:
            yield (
                where,
                Bad("bad-json", f"{where}: an object over several lines; expected an array, or one object a line"),
            )
            return
        elif line.strip():
            yield where, _parsed(where, line)


def _parsed(where: str, text: str) -> Mapping[str, Any] | Bad:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad("bad-json", f"{where}: {error}; expected a JSON object")
    return _object(where, value)


def _object(where: str, value: Any) -> Mapping[str, Any] | Bad:
    if not isinstance(value, dict):
        return Bad("not-an-object", f"{where}: a {type(value).__name__}; expected an object with a conversation")
    return value


def _array(name: str, file: io.TextIOBase) -> Iterator[Found]:
    """The members of one JSON array. Damage inside it ends the file: what comes after it cannot be told."""
    text = file.read(PIECE_CHARS).lstrip()[1:]
    decoder = json.JSONDecoder()
    number, at_end = 0, False
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        where = f"{name}[{number}]"
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            if at_end or len(text) > MAX_RECORD_CHARS:
                yield where, Bad("bad-json", f"{where}: {error}; the rest of the file is left out")
                return
            # Twice as much each time: a long member is then tried a few times, not once for each piece.
            piece = file.read(max(PIECE_CHARS, len(text)))
            at_end = not piece
            text += piece
            continue
        yield where, _object(where, value)
        text, number = text[end:], number + 1


def _rows(choice: MixSet, name: str, path: Path) -> Iterator[Found]:
    number = 0
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = [column for column in FIELDS if column in names]
        if not columns:
            here = ", ".join(names[:12]) or "none"
            raise _failed(
                choice, f"{path}: no column of conversations. Columns here: {here}", f"expected {' or '.join(FIELDS)}"
            )
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                yield f"{name}#{number}", row
                number += 1


def _hub(choice: MixSet) -> Iterator[Found]:
    import datasets
    from datasets.exceptions import DatasetsError

    name = f"{choice.dataset}@{choice.revision}"
    try:
        stream = datasets.load_dataset(
            choice.dataset, choice.config, split=choice.split, revision=choice.revision, streaming=True
        )
        for number, row in enumerate(stream):
            yield f"{name}#{number}", row
    except (DatasetsError, OSError, ValueError, pa.ArrowException) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise _failed(choice, f"{name}: cannot be read: {cause}", "check id, config, split and revision") from error


def _failed(choice: MixSet, what: str, advice: str) -> SourceError:
    return SourceError(f"mix set {choice.id!r}: {what}; {advice}")
