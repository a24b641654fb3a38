"""Books: one file a book (.txt, .epub), one record a line (.jsonl and its packed forms), or texts in a tar.

    Bibliotik/A/A Study in Scarlet.epub.txt inside books.tar.gz  ->  RawDocument(title="A Study in Scarlet", ...)

A card of books that are not free asks for an acknowledgement, without which no recipe loads (see `catalog.Card`).
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import listed, storable
from longalign_data.sources.readers import jsonl
from longalign_data.sources.readers.epub import epub_text
from longalign_data.sources.readers.files import document_of_file, library_for
from longalign_data.sources.readers.github import Problem, tar_members
from longalign_data.sources.reading import (
    MAX_RECORD_BYTES,
    Partition,
    RawDocument,
    RawReject,
    Unit,
    decoded_in_order,
    grouped,
    one_by_one,
)
from longalign_data.sources.unpacking import UnpackError, opened

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
SUFFIXES = [".txt", ".epub", *LINES, *TARS]

_BEGIN = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK\b[^*]{0,500}\*\*\*", re.MULTILINE)
_END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK\b", re.MULTILINE)
MAX_HEADER, MAX_LICENCE = 20_000, 60_000
"""Characters at a book's ends in which Project Gutenberg's lines are looked for; its licence has 19,000."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Groups of single books; each .jsonl and each tar by itself."""
    root, units = listed(placed, SUFFIXES)
    found: list[Partition] = []
    single: list[Unit] = []
    for unit in units:
        if unit.name.lower().endswith((*LINES, *TARS)):
            found += grouped(placed.card, root, single) + one_by_one(placed.card, root, [unit])
            single = []
        else:
            library_for(PurePosixPath(unit.name).suffix.lower(), "books")
            single.append(unit)
    return found + grouped(placed.card, root, single)


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The books of a partition, in order."""
    first = partition.units[0].name.lower()
    if first.endswith(LINES):
        yield from jsonl.read(partition)
    elif first.endswith(TARS):
        yield from _tar(partition)
    else:
        for unit in partition.units:
            found = document_of_file(partition, unit, "books")
            yield bare(found) if isinstance(found, RawDocument) else found


def bare(book: RawDocument) -> RawDocument:
    """The book without the header and the licence that Project Gutenberg puts around its own, which speak of neither."""
    begin = _BEGIN.search(book.text, 0, MAX_HEADER)
    end = _END.search(book.text, max(0, len(book.text) - MAX_LICENCE))
    if begin is None and end is None:
        return book
    text = book.text[begin.end() if begin else 0 : end.start() if end else None].strip()
    return replace(book, text=text, num_bytes=-1)


def _tar(partition: Partition) -> Iterator[RawDocument | RawReject]:
    name, card = partition.units[0].name, partition.card
    problems: list[Problem] = []
    num_books, others = 0, Counter[str]()
    try:
        with opened(Path(partition.path)) as file:
            for member, data in tar_members(file, 1 << 20, MAX_RECORD_BYTES, problems):
                ref = f"{name}#{storable(member)}"
                suffix = PurePosixPath(member).suffix.lower()
                if suffix not in (".txt", ".epub"):
                    others[suffix or "no suffix"] += 1
                    continue
                num_books += 1
                if len(data) > MAX_RECORD_BYTES:
                    detail = f"{ref}: more than {MAX_RECORD_BYTES} bytes; expected a book"
                    yield RawReject(source_ref=ref, reason="too-large", detail=detail)
                    continue
                title, num_bytes = "", -1
                try:
                    if suffix == ".epub":
                        title, text = epub_text(io.BytesIO(data), library_for(suffix, "books"))
                    else:
                        text, num_bytes = decoded_in_order(data)
                except UnpackError as error:
                    yield RawReject(source_ref=ref, reason=error.reason, detail=f"{ref}: {error}")
                    continue
                except UnicodeDecodeError as error:
                    detail = f"{ref}: not UTF-8 at byte {error.start}; expected UTF-8"
                    yield RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
                    continue
                name_of_file = storable(PurePosixPath(member).name)
                title = title.strip() or name_of_file.removesuffix(".txt").removesuffix(".epub")
                yield bare(
                    RawDocument(
                        text=text,
                        title=title,
                        lang=card.lang,
                        license=card.license,
                        source_ref=ref,
                        num_bytes=num_bytes,
                    )
                )
    except UnpackError as error:
        detail = f"{name}: cannot be read on: {error}; the books before stand, fetch it again"
        yield RawReject(source_ref=name, reason=error.reason, detail=detail)
    if others and not num_books:
        kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in others.most_common(8))
        yield RawReject(source_ref=name, reason="empty", detail=f"{name}: no .txt or .epub in it; it holds {kinds}")
    for path, reason, detail in problems:
        ref = f"{name}#{storable(path)}"
        yield RawReject(source_ref=ref, reason=reason, detail=f"{ref}: {detail}")
