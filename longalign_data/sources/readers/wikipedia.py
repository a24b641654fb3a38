"""MediaWiki dumps: `<wiki>-<date>-pages-articles[-multistream].xml[.bz2]`, one article a document.

    <page><title>Anarchism</title><ns>0</ns><id>12</id>
      <revision><id>1023</id>...<text xml:space="preserve">'''Anarchism''' is ...</text></revision></page>

A dump is cut where a page begins: in XML no text can hold `<page>`, so large files are split by bytes, a damaged page is
one reject, and every page is parsed alone, where no document type and so no entity can be declared. Multistream files
are split between their streams. Format: https://www.mediawiki.org/wiki/Help:Export
"""

import bz2
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from longalign_data.catalog import WikipediaReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.extras import extra
from longalign_data.sources.places import failed, listed
from longalign_data.sources.readers.wikitext import (
    WikitextError,
    choose_variant,
    is_disambiguation,
    plain_text,
)
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, ranges
from longalign_data.sources.unpacking import PACKED, UnpackError, opened

RANGE_BYTES = 64 << 20
"""Bytes of a plain or multistream file in one partition."""

MAX_WIKITEXT = 4_000_000
"""Characters of wikitext in one page. MediaWiki stores at most 2 MiB."""

MAX_TAGS = 10_000
MAX_TAG_BYTES = 1 << 16
"""Of one page, which has about forty short tags: more would only fill memory."""

_LONG_TAG = re.compile(rb"<[^>]{%d}" % MAX_TAG_BYTES)
CHUNK = 1 << 20
HEAD_BYTES = 1 << 16
STREAM = re.compile(rb"BZh[1-9]1AY&SY")
BEGIN, END = b"<page>", b"</page>"
CLOSING = b"</mediawiki>"
"""The last tag of every dump; without it, pages are missing."""

TAIL = 4096
"""Bytes at the end of a dump in which CLOSING stands; white space and comments may follow it."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Ranges of plain and multistream files, whole files otherwise. Raises SourceError for what is no dump."""
    _parser()
    options = placed.card.reader
    assert isinstance(options, WikipediaReader)
    if options.convert:
        _converter(options)
    root, units = listed(placed, [f".xml{packed}" for packed in ("", *PACKED)])
    found: list[Partition] = []
    for unit in units:
        split = False
        for file in unit.files:
            path = Path(root, file)
            _check_head(placed, path)
            split = path.suffix.lower() not in PACKED or _multistream(path)
        found += ranges(placed.card, root, unit, RANGE_BYTES if split else 0)
    return found


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The articles of a range. Redirects, disambiguation pages and other namespaces are left out without a word."""
    options, name, parse = partition.card.reader, partition.units[0].name, _parser()
    assert isinstance(options, WikipediaReader)
    chinese = partition.card.lang == "zh"
    convert = _converter(options) if chinese and options.convert else str
    for offset, page in pages(partition):
        if isinstance(page, UnpackError):
            detail = f"{name}: cannot be read on after byte {offset} of the XML: {page}; the pages before stand, fetch it again"
            yield RawReject(source_ref=f"{name}@{offset}", reason=page.reason, detail=detail)
            return
        where = f"{name}@{offset}"
        if page is None:
            detail = f"{where}: a page of more than {MAX_RECORD_BYTES} bytes; expected an article"
            yield RawReject(source_ref=where, reason="too-large", detail=detail)
            continue
        fields = _fields(page, where)
        if isinstance(fields, RawReject):
            yield fields
            continue
        if fields is None:
            continue
        title, ref, wikitext = fields
        ref = f"{name}#{ref}"
        if is_disambiguation(title, wikitext):
            continue
        if len(wikitext) > MAX_WIKITEXT:
            detail = f"{ref}: {len(wikitext)} characters of wikitext; expected at most {MAX_WIKITEXT}"
            yield RawReject(source_ref=ref, reason="too-large", detail=detail)
            continue
        if chinese:
            title, wikitext = convert(title), convert(choose_variant(wikitext, options.variant))
        try:
            text = plain_text(wikitext, parse)
        except WikitextError as error:
            yield RawReject(source_ref=ref, reason="bad-wikitext", detail=f"{ref}: {error}")
            continue
        yield RawDocument(
            text=f"# {title}\n\n{text}" if text else "",
            title=title,
            lang=partition.card.lang,
            license=partition.card.license,
            source_ref=ref,
        )


def pages(partition: Partition) -> Iterator[tuple[int, bytes | UnpackError | None]]:
    """(offset, bytes) of each `<page>` that begins in the partition; None for one beyond MAX_RECORD_BYTES, and last an
    UnpackError where the file cannot be read on. Offsets count unpacked bytes from the partition's start, or bytes of a
    plain file."""
    path, start, end = Path(partition.path), partition.start, partition.end
    if path.suffix.lower() not in PACKED:
        with path.open("rb", buffering=0) as file:
            before = max(0, start - TAIL)
            file.seek(before)
            tail = file.read(start - before)
            chunks = iter(lambda: file.read(CHUNK), b"")
            yield from _pages(_whole(chunks, tail) if end is None else chunks, start, end)
    elif start or end is not None:
        yield from _pages(_streams(path, start, end), 0, None)
    else:
        with opened(path) as packed:
            yield from _pages(_whole(_chunks(packed)), 0, None)


def _pages(chunks: Iterator[bytes], base: int, end: int | None) -> Iterator[tuple[int, bytes | UnpackError | None]]:
    buffer, searched = bytearray(), 0
    opening: int | None = None
    skipping = False
    while True:
        try:
            chunk = next(chunks, b"")
        except UnpackError as error:
            yield base, error
            return
        if not chunk:
            break
        buffer += chunk
        while True:
            if opening is None:
                found = buffer.find(BEGIN, searched)
                if found < 0:
                    passed = max(0, len(buffer) - len(BEGIN) + 1)
                    del buffer[:passed]
                    base, searched = base + passed, 0
                    if end is not None and base >= end:
                        return
                    break
                if end is not None and base + found >= end:
                    return
                del buffer[:found]
                base, searched, opening = base + found, 0, base + found
            found = buffer.find(END, searched)
            if found < 0:
                searched = max(0, len(buffer) - len(END) + 1)
                if len(buffer) > MAX_RECORD_BYTES:
                    skipping = True
                    del buffer[:searched]
                    base, searched = base + searched, 0
                break
            stop = found + len(END)
            yield opening, None if skipping else bytes(buffer[:stop])
            del buffer[:stop]
            base, searched, opening, skipping = base + stop, 0, None, False
    if opening is not None:
        yield opening, UnpackError("damaged-file", "the file ends inside a page")


def _chunks(file: io.BufferedReader) -> Iterator[bytes]:
    while chunk := file.read1(CHUNK):
        yield chunk


def _whole(chunks: Iterator[bytes], tail: bytes = b"") -> Iterator[bytes]:
    """The chunks up to the end of a file, of which `tail` came before. Raises UnpackError when the dump does not end there."""
    for chunk in chunks:
        tail = (tail + chunk[-TAIL:])[-TAIL:]
        yield chunk
    if CLOSING not in tail:
        raise UnpackError("truncated-archive", f"the file ends before {CLOSING.decode()}")


def _streams(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    """The unpacked bytes of the bzip2 streams that begin in [start, end). Raises UnpackError for a damaged stream, and
    when the file's last stream does not end the dump."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        position = _next_stream(file, start)
        if position is None:
            return
        file.seek(position)
        pending, tail = b"", b""
        while position < size and (end is None or position < end):
            packed, stream = 0, bz2.BZ2Decompressor()
            while not stream.eof:
                data = b""
                if stream.needs_input:
                    data, pending = pending or file.read(CHUNK), b""
                    if not data:
                        raise UnpackError("truncated-archive", "the file ends inside a bzip2 stream")
                packed += len(data)
                try:
                    unpacked = stream.decompress(data, CHUNK)
                except OSError as error:
                    raise UnpackError("damaged-file", str(error)) from None
                if unpacked:
                    tail = (tail + unpacked[-TAIL:])[-TAIL:]
                    yield unpacked
            pending = stream.unused_data
            position += packed - len(pending)
        if position >= size and CLOSING not in tail:
            raise UnpackError("truncated-archive", f"the file ends before {CLOSING.decode()}")


def _next_stream(file: io.FileIO, start: int) -> int | None:
    file.seek(start)
    tail = b""
    while chunk := file.read(CHUNK):
        match = STREAM.search(tail + chunk)
        if match:
            return start - len(tail) + match.start()
        start += len(chunk)
        tail = (tail + chunk)[-9:]
    return None


def _multistream(path: Path) -> bool:
    """Whether the first bzip2 stream ends with the site's description: then each stream after it holds whole pages."""
    stream = bz2.BZ2Decompressor()
    with path.open("rb") as file:
        try:
            head = stream.decompress(file.read(HEAD_BYTES), HEAD_BYTES)
        except OSError:
            return False
    return stream.eof and head.rstrip().endswith(b"</siteinfo>")


def _check_head(placed: PlacedSource, path: Path) -> None:
    try:
        with opened(path) as file:
            head = file.read1(HEAD_BYTES)
    except UnpackError:
        # What cannot be unpacked is reported when it is read.
        return
    if head and b"<mediawiki" not in head:
        raise failed(
            placed, f"{path}: no MediaWiki dump: <mediawiki> is missing at its start", "name a pages-articles file"
        )


def _fields(page: bytes, where: str) -> tuple[str, str, str] | RawReject | None:
    """(title, page id and revision, wikitext); None for what is no article."""
    if b"<redirect" in page or b"<ns>0</ns>" not in page:
        return None
    if page.count(b"<") > MAX_TAGS or _LONG_TAG.search(page):
        detail = f"{where}: more than {MAX_TAGS} tags, or one of more than {MAX_TAG_BYTES} bytes; expected a <page> of a dump"
        return RawReject(source_ref=where, reason="bad-xml", detail=detail)
    try:
        page.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"{where}: not UTF-8 at byte {error.start} of the page; expected UTF-8"
        return RawReject(source_ref=where, reason="bad-utf8", detail=detail)
    try:
        # A fragment that begins with <page> can declare no entities, so nothing can be expanded.
        element = ElementTree.fromstring(page)  # noqa: S314 - see above
    except ElementTree.ParseError as error:
        return RawReject(source_ref=where, reason="bad-xml", detail=f"{where}: {error}; expected a <page> of a dump")
    text = element.findtext("revision/text")
    title, number = element.findtext("title"), element.findtext("id")
    if title is None or number is None or text is None:
        detail = f"{where}: title, id or revision/text is missing; expected a page of a pages-articles dump"
        return RawReject(source_ref=where, reason="missing-field", detail=detail)
    revision = element.findtext("revision/id")
    return title, f"{number}@{revision}" if revision else number, text


OPENCC = {"zh-cn": "t2s", "zh-sg": "t2s", "zh-tw": "s2tw", "zh-hk": "s2hk"}
"""OpenCC's conversions, of characters and not of words: an author's choice of words is not ours to change."""


def _converter(options: WikipediaReader) -> Callable[[str], str]:
    opencc = extra("opencc", package="opencc", extra="wikipedia", purpose="converting Chinese characters")
    convert: Callable[[str], str] = opencc.OpenCC(OPENCC[options.variant]).convert
    return convert


def _parser() -> Any:
    module = extra("mwparserfromhell", package="mwparserfromhell", extra="wikipedia", purpose="reading Wikipedia dumps")
    return module.parse
