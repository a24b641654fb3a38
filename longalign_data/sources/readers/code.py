"""Source trees: several files one after the other as one document, each under a line with its path.

    ==> json/__init__.py <==
    r\"\"\"JSON (JavaScript Object Notation) ...

Left out without a word: files with other suffixes, binaries (a NUL in them), minified and empty files, hidden and vendored
folders, build outputs, and links that leave the source or lead nowhere. A file that is larger than the card allows is a
reject, and its document does without it.
"""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from longalign_data.catalog import CodeReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import (
    Place,
    failed,
    leads_away,
    leads_outside,
    leads_to_file,
    locate,
    size_of,
    sorted_paths,
    storable,
)
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, Unit, grouped
from longalign_data.sources.unpacking import beginning

VENDORED = frozenset(
    [
        "node_modules",
        "bower_components",
        "site-packages",
        "dist-packages",
        "vendor",
        "_vendor",
        "third_party",
        "__pycache__",
    ]
)
BUILT = frozenset(("build", "dist", "target"))
SCRIPT = (".js", ".mjs", ".cjs", ".css")
MINIFIED_MEAN_LINE = 400
"""Scripts and style sheets whose lines are longer than this on average were not written by hand."""


def header(path: str) -> str:
    """The line above a file: the form in which `head` and `tail` name files."""
    return f"==> {path} <=="


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Groups of units; a unit is a document."""
    reader = placed.card.reader
    assert isinstance(reader, CodeReader)
    place = locate(placed)
    files = sorted_paths(_files(place, reader))
    if not files:
        wanted = ", ".join(reader.extensions)
        raise failed(
            placed, f"{place.root}: no file ends in {wanted}", "set reader.extensions, or check reader.exclude"
        )
    units = []
    for name, group in groupby(
        sorted(files, key=lambda file: _order(file, reader.unit)), lambda f: _unit(f, reader.unit)
    ):
        members = tuple(group)
        sizes = (size_of(str(place.root), file) for file in members)
        size = sum(size for size in sizes if size <= reader.max_file_bytes)
        units.append(Unit(name=storable(name), files=members, size=size))
    return grouped(placed.card, str(place.root), units)


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """Each unit as a document; a file in it that is not UTF-8, or too large, is a reject, and the rest of the unit stands."""
    reader = partition.card.reader
    assert isinstance(reader, CodeReader)
    for unit in partition.units:
        if unit.size > MAX_RECORD_BYTES:
            detail = f"{unit.name}: {len(unit.files)} files of {unit.size} bytes; choose a smaller reader.unit"
            yield RawReject(source_ref=unit.name, reason="too-large", detail=detail)
            continue
        parts: list[str] = []
        refused = False
        for file in unit.files:
            text = _source_text(partition.path_of(file), storable(file), reader.max_file_bytes)
            if isinstance(text, RawReject):
                refused = True
                yield text
            elif text:
                parts += [header(storable(file)), text]
        if refused and not parts:
            continue
        card = partition.card
        title = card.title if unit.name == "." else unit.name
        yield RawDocument(
            text="\n".join(parts), title=title, lang=card.lang, license=card.license, source_ref=unit.name
        )


def _source_text(path: str, name: str, max_bytes: int) -> str | RawReject:
    data = beginning(path, max_bytes + 1)
    if len(data) > max_bytes:
        detail = f"{name}: more than {max_bytes} bytes (reader.max_file_bytes); the file is left out of its document"
        return RawReject(source_ref=name, reason="too-large", detail=detail)
    if b"\0" in data or minified(name, data):
        return ""
    try:
        return ended(data.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        detail = f"{name}: not UTF-8 at byte {error.start}; the file is left out of its document"
        return RawReject(source_ref=name, reason="bad-utf8", detail=detail)


def ended(text: str) -> str:
    """The text with one line end behind it and no other white space; nothing for white space alone."""
    if text.endswith("\n") and text[-2:-1].strip():
        # As most files are: left as they are, they need not be copied.
        return text
    return f"{text}\n" if (text := text.rstrip()) else ""


def minified(name: str, data: bytes) -> bool:
    """Whether a script or style sheet was made small by a tool."""
    lowered = name.lower()
    if not lowered.endswith(SCRIPT):
        return False
    stem = lowered.rsplit(".", 1)[0]
    return stem.endswith((".min", "-min")) or len(data) > MINIFIED_MEAN_LINE * (data.count(b"\n") + 1)


def _unit(file: str, unit: str) -> str:
    """The name of the document that a file belongs to; the source itself is called `.`."""
    folder, _, _ = file.rpartition("/")
    if unit == "tree":
        return "."
    if unit == "entry":
        return file.split("/", 1)[0]
    if unit == "module" and not folder:
        return file
    return folder or "."


def _order(file: str, unit: str) -> tuple[list[str], list[str]]:
    return _unit(file, unit).split("/"), file.split("/")


def _files(place: Place, reader: CodeReader) -> Iterator[str]:
    if place.files is None:
        yield from _walk(place.root, reader)
        return
    for file in place.files:
        if not leads_outside(str(place.root), file):
            yield file


def _walk(root: Path, reader: CodeReader) -> Iterator[str]:
    wanted, pending = tuple(reader.extensions), [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                relative = f"{folder}{entry.name}"
                if entry.name.startswith(".") or any(fnmatchcase(relative, pattern) for pattern in reader.exclude):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if not foreign_folder(Path(entry.path)):
                        pending.append(f"{relative}/")
                elif relative.endswith(wanted) and leads_to_file(entry) and not leads_away(entry, str(root), relative):
                    yield relative


def foreign_folder(path: Path) -> bool:
    """Whether a folder holds what others wrote or a tool made: known names, virtual environments, and what is marked by
    the Cache Directory Tagging convention. A Python package may well be called `build` or `dist`."""
    if path.name in VENDORED or path.name.endswith((".egg-info", ".dist-info")):
        return True
    if (path / "pyvenv.cfg").exists() or (path / "CACHEDIR.TAG").exists():
        return True
    return path.name in BUILT and not (path / "__init__.py").exists()
