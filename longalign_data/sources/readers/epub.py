"""EPUB books: a zip of XHTML pages, read in the order of the package's spine.

META-INF/container.xml -> the package (.opf) -> manifest and spine -> pages. Format: https://www.w3.org/TR/epub-33/
"""

import codecs
import posixpath
import re
from contextlib import suppress
from typing import IO, Any
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from longalign_data.sources.markup import MarkupError, html_of_xhtml, html_text
from longalign_data.sources.readers.archives import checked_zip, member_bytes
from longalign_data.sources.reading import MAX_RECORD_BYTES
from longalign_data.sources.unpacking import UnpackError

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
MAX_XML = 8 << 20


def epub_text(file: IO[bytes], html: Any) -> tuple[str, str]:
    """(title, text) of a book; the title may be empty. Raises UnpackError with a reason."""
    archive = checked_zip(file)
    container = _xml(member_bytes(archive, CONTAINER, MAX_XML), CONTAINER)
    package_name = next((e.get("full-path", "") for e in container.iter() if _local(e) == "rootfile"), "")
    package = _xml(member_bytes(archive, package_name, MAX_XML), package_name)
    base = posixpath.dirname(package_name)
    title = next((e.text or "" for e in package.iter() if _local(e) == "title"), "")
    items = {e.get("id"): e for e in package.iter() if _local(e) == "item"}
    encrypted = _encrypted(archive)
    parts: list[str] = []
    size = 0
    for reference in (e.get("idref") for e in package.iter() if _local(e) == "itemref"):
        item = items.get(reference)
        if item is None or "html" not in item.get("media-type", "html"):
            continue
        name = posixpath.normpath(posixpath.join(base, unquote(item.get("href", ""))))
        if name in encrypted:
            raise UnpackError("unreadable-file", f"the book is locked (DRM): {ENCRYPTION} lists {name!r}")
        data = member_bytes(archive, name, MAX_RECORD_BYTES)
        size += len(data)
        if size > MAX_RECORD_BYTES:
            raise UnpackError("too-large", f"more than {MAX_RECORD_BYTES} bytes of pages")
        try:
            text = html_text(html_of_xhtml(decoded(data)), html)
        except MarkupError as error:
            raise UnpackError("bad-html", f"{name!r}: {error}") from None
        if text:
            parts.append(text)
    if not parts:
        raise UnpackError("unreadable-file", "no page of the book's spine holds text")
    return title, "\n\n".join(parts)


def _encrypted(archive: ZipFile) -> set[str]:
    """The members that are encrypted each by itself, as sold books are; fonts may be alone (EPUB 3.3, 4.2.6.3.2)."""
    if ENCRYPTION not in archive.NameToInfo:
        return set()
    listed = _xml(member_bytes(archive, ENCRYPTION, MAX_XML), ENCRYPTION)
    return {posixpath.normpath(unquote(e.get("URI", ""))) for e in listed.iter() if _local(e) == "CipherReference"}


def decoded(data: bytes, label: str = "") -> str:
    """A page's characters: in the encoding of its byte order mark, or that `label` (of the HTTP header) names, else UTF-8,
    else what its declaration says, else what its bytes look like; where that cannot be told, bytes outside UTF-8 become
    U+FFFD. A label means what the web means by it: `iso-8859-1` is Windows-1252. The mark goes, and NULs do: HTML gives them
    no meaning."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace").replace("\0", "")
    if data.startswith(codecs.BOM_UTF8):
        return data.replace(b"\0", b"").decode("utf-8-sig", "replace")
    encoding = _encoding(label)
    if encoding.startswith("utf-16"):
        return data.decode(encoding, "replace").replace("\0", "")
    # Out of the bytes, not the characters: in a string of wide ones the search stumbles over every second byte.
    data = data.replace(b"\0", b"")
    if encoding == "utf-8":
        with suppress(UnicodeDecodeError):
            return data.decode("utf-8")
        head = _BODY.split(data[:MAX_HEAD], maxsplit=1)[0]
        # In XML its declaration holds, and `meta` says nothing (XML 1.0, 4.3.3).
        match = _XML.match(head) or _META.search(head) or _DECLARATION.search(data[:2048])
        encoding = _encoding(match[1].decode("ascii") if match else "")
        # A declaration that could be read as ASCII is not in UTF-16.
        encoding = looked_like(data) if encoding.startswith("utf-") else encoding
    return data.decode(encoding, "replace")


MAX_HEAD = 1 << 16
"""Bytes of a page in which its head is looked for: scripts and styles may stand before what it says of itself."""

_BODY = re.compile(rb"<body[\s>]|</head[\s>]", re.IGNORECASE)
_NAMED = rb"""\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})"""
_DECLARATION = re.compile(rb"(?:charset|encoding)" + _NAMED)
_XML = re.compile(rb"\s*<\?xml\s[^>]{0,300}?encoding" + _NAMED)
_META = re.compile(rb"<meta\s[^>]{0,300}?charset" + _NAMED, re.IGNORECASE)

_WEB_CODECS = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-11": "cp874"}
"""Where the web's encoding (https://encoding.spec.whatwg.org/) holds more characters than Python's codec of its name."""

_PAGE_CODECS = re.compile("cp|iso|mac|hz$|euc|johab|koi")
"""Python's codecs that pages may be in. Others are no encodings of pages, and `punycode` takes time that grows with the
square of the length."""


def _encoding(label: str) -> str:
    """Python's name of the encoding that the web means by a label, or that Python means by one the web's table lacks; of
    none, or of no encoding, `utf-8`."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    codec = map_encoding_to_html5(label, False)
    if codec is None:
        try:
            name = codecs.lookup(label).name
        except (LookupError, ValueError):
            name = ""
        name = name if _PAGE_CODECS.match(name) else "utf-8"
        codec = map_encoding_to_html5(name, False) or name
    return _WEB_CODECS.get(codec, codec)


def looked_like(data: bytes) -> str:
    """Python's name of the encoding that bytes outside UTF-8 look like; `utf-8` where that cannot be told, or where they are
    UTF-8 with some damage in it."""
    from resiliparse.parse.encoding import detect_encoding

    text = data.decode("utf-8", "replace")
    if len(text) - len(text.encode("ascii", "ignore")) > 2 * text.count("\ufffd"):
        return "utf-8"  # with damage in it, which would send the detector elsewhere
    # Of Korean in Windows' encoding the detector knows, but not what the web calls it.
    korean = detect_encoding(data, html5_compatible=False) == "cp949"
    codec = "cp949" if korean else detect_encoding(data) or "utf-8"
    return _WEB_CODECS.get(codec, codec)


def _xml(data: bytes, name: str) -> ElementTree.Element:
    # Entities declared in a document type could grow without end; in UTF-16 their mark has a NUL between any two letters.
    if b"!ENTITY" in data.replace(b"\0", b""):
        raise UnpackError("bad-xml", f"{name!r} declares entities; expected plain XML")
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - no entity is declared
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnpackError("bad-xml", f"{name!r}: {error}") from None


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
