"""Common Crawl: WARC files of responses, whose HTML becomes text, and WET files, whose records are text already.

    WARC/1.0
    WARC-Type: conversion
    WARC-Target-URI: https://example.org/
    WARC-Identified-Content-Language: eng

A page's title is its address. Records are read by their own lengths, in a loop of our own: the libraries for it stop the
process on a damaged file, or hold whatever it claims to contain. Format: https://iipc.github.io/warc-specifications/
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from longalign_data.catalog import WarcReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.markup import MAX_HTML_CHARS, MarkupError, html_library, html_of_xhtml, html_text
from longalign_data.sources.places import listed
from longalign_data.sources.readers.epub import decoded
from longalign_data.sources.readers.fields import language_of
from longalign_data.sources.reading import (
    MAX_RECORD_BYTES,
    Partition,
    RawDocument,
    RawReject,
    decoded_in_order,
    one_by_one,
)
from longalign_data.sources.unpacking import PACKED, UnpackError, gunzip, opened

SUFFIXES = [f"{name}{packed}" for name in (".warc", ".wet") for packed in ("", *PACKED)]
MAX_HEADER_LINES = 500
MAX_LINE = 1 << 16
_LENGTH = re.compile(r"[0-9]{1,15}")
UNREAD = ("br", "zstd", "compress", "x-compress")
"""Content encodings that no library here reads."""

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{2,40})", re.IGNORECASE)


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Each file by itself: Common Crawl cuts its own into about a gigabyte."""
    html_library("web")
    return one_by_one(placed.card, *listed(placed, SUFFIXES))


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The pages of a file. Records that are no pages (requests, images, errors of a server) are left out without a word."""
    html, name = html_library("web"), partition.units[0].name
    number = 0
    try:
        with opened(Path(partition.path)) as file:
            while (fields := _fields(file)) is not None:
                ref, number = f"{name}#{number}", number + 1
                length = fields.get("content-length", "")
                if not _LENGTH.fullmatch(length):
                    raise UnpackError("bad-record", f"Content-Length is {length[:40]!r}; expected a number")
                size, limit = int(length), MAX_RECORD_BYTES
                wanted = fields.get("warc-type", "").lower() in ("response", "conversion")
                data = _exactly(file, size, limit if wanted else 0)
                if not wanted:
                    continue
                if data is None:
                    detail = f"{ref}: {fields.get('warc-target-uri')}: {size} bytes; expected at most {limit} in a page"
                    yield RawReject(source_ref=ref, reason="too-large", detail=detail)
                    continue
                found = _page(fields, data, partition, ref, html)
                if found is not None:
                    yield found
    except UnpackError as error:
        detail = f"{name}: cannot be read on at record {number}: {error}; the pages before stand, fetch it again"
        yield RawReject(source_ref=f"{name}#{number}", reason=error.reason, detail=detail)


def _fields(file: BufferedReader) -> Mapping[str, str] | None:
    """The next record's header, names in small letters; None at the end. Raises UnpackError."""
    version = file.readline(MAX_LINE)
    while version in (b"\r\n", b"\n"):
        version = file.readline(MAX_LINE)
    if not version:
        return None
    if not version.startswith(b"WARC/"):
        raise UnpackError("bad-record", f"found {version[:40]!r}; expected a record that begins with WARC/1.0")
    return _header(file)


def _header(file: BufferedReader) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for _ in range(MAX_HEADER_LINES):
        line = file.readline(MAX_LINE)
        if line in (b"\r\n", b"\n"):
            return fields
        if not line:
            raise UnpackError("damaged-file", "the file ends inside a record's header")
        name, _, value = line.decode("utf-8", "replace").partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    raise UnpackError("bad-record", f"a header of more than {MAX_HEADER_LINES} lines")


def _exactly(file: BufferedReader, size: int, limit: int) -> bytes | None:
    """The next `size` bytes, or None (and they are passed over) when that is more than `limit`. Raises UnpackError."""
    data = file.read(size) if size <= limit else None
    passed = len(data) if data is not None else 0
    while data is None and passed < size:
        part = len(file.read(min(1 << 20, size - passed)))
        if not part:
            break
        passed += part
    if passed < size:
        raise UnpackError("damaged-file", f"the file ends after {passed} of a record's {size} bytes")
    return data


def _page(
    fields: Mapping[str, str], data: bytes, partition: Partition, ref: str, html: Any
) -> RawDocument | RawReject | None:
    options, card, address = partition.card.reader, partition.card, fields.get("warc-target-uri", "")
    assert isinstance(options, WarcReader)
    lang, num_bytes = card.lang, -1
    if fields["warc-type"].lower() == "conversion":
        try:
            text, num_bytes = decoded_in_order(data)
        except UnicodeDecodeError as error:
            detail = f"{ref}: {address}: not UTF-8 at byte {error.start}; expected a WET record"
            return RawReject(source_ref=ref, reason="bad-utf8", detail=detail)
        lang = language_of(fields.get("warc-identified-content-language", "").partition(",")[0]) or lang
    else:
        try:
            page = _html_of(data)
            if page is None:
                return None
            text = html_text(page, html, main_content=options.main_content)
        except (MarkupError, UnpackError) as error:
            reason = error.reason if isinstance(error, UnpackError) else "bad-html"
            return RawReject(source_ref=ref, reason=reason, detail=f"{ref}: {address}: {error}")
    return RawDocument(text=text, title=address, lang=lang, license=card.license, source_ref=ref, num_bytes=num_bytes)


def _html_of(data: bytes) -> str | None:
    """The HTML of an HTTP response; None for another kind or another status than 2xx. Raises UnpackError."""
    # Some servers end a header's lines with LF alone, or mix both (RFC 9112, 2.2).
    end = _HEADER_END.search(data)
    head, body = (data[: end.start()], data[end.end() :]) if end is not None else (data, b"")
    status, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kind = fields.get("content-type", "")
    if not re.match(r"HTTP/[\d.]+ 2\d\d", status) or "html" not in kind.lower():
        return None
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _joined(body)
    body = _plain(body, fields.get("content-encoding", "").strip().lower())
    charset = _CHARSET.search(kind)
    page = decoded(body, charset[1] if charset is not None else "")
    return html_of_xhtml(page) if "xhtml" in kind.lower() or page.lstrip().startswith("<?xml") else page


def _plain(body: bytes, encoding: str) -> bytes:
    """A body without its content encoding; as it is where the crawl undid that and kept the field, as some do. Raises
    UnpackError."""
    if "gzip" in encoding:
        return gunzip(body, MAX_HTML_CHARS) if body[:2] == b"\x1f\x8b" else body
    if encoding not in ("deflate", *UNREAD) or body.lstrip()[:1] == b"<":
        return body
    if encoding != "deflate":
        raise UnpackError("bad-record", f"a body in the encoding {encoding!r}; expected gzip, deflate or none")
    try:
        return _inflated(body, zlib.MAX_WBITS)
    except zlib.error:
        pass
    try:
        return _inflated(body, -zlib.MAX_WBITS)  # without the header, as many servers send it
    except zlib.error as error:
        raise UnpackError("damaged-file", str(error)) from None


def _inflated(body: bytes, window: int) -> bytes:
    packed = zlib.decompressobj(window)
    data = packed.decompress(body, MAX_HTML_CHARS)
    if packed.unconsumed_tail:
        raise UnpackError("unpacks-too-large", f"a body of more than {MAX_HTML_CHARS} bytes")
    if not packed.eof:
        raise UnpackError("truncated-archive", "the body ends in the middle of its encoding")
    return data


def _joined(body: bytes) -> bytes:
    """A body without its transfer chunks; unchanged when it has none, as in crawls that undid them and kept the field."""
    parts: list[bytes] = []
    at = 0
    while (match := re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,200}\r\n").match(body, at)) is not None:
        size = int(match[1], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[match.end() : match.end() + size])
        at = match.end() + size + 2
    return b"".join(parts) if parts else body
