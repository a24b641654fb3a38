"""arXiv's bulk sources: tars such as `arXiv_src_2301_001.tar`, each submission in them gzipped by itself.

    2301/2301.00001.gz    a gzipped .tex file, or a gzipped tar of several files
    2301/2301.00002.pdf   a submission without sources: passed over

A loose `.gz`, `.tar.gz` or `.tex` beside them is read as one submission. Everything happens in memory; a name in an
archive is only ever a label. Format: https://info.arxiv.org/help/bulk_data_s3.html
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from longalign_data.recipe import PlacedSource
from longalign_data.sources.extras import extra
from longalign_data.sources.places import listed, storable
from longalign_data.sources.readers.github import Problem, tar_members
from longalign_data.sources.readers.tex import PACKAGES, TexError, left_out, main_parts, source_text, without_comments
from longalign_data.sources.readers.tex_words import converter
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, one_by_one
from longalign_data.sources.unpacking import UnpackError, gunzip, opened

MAX_FILES = 5_000
MAX_FILE_BYTES = 16 << 20
SUFFIXES = [".tar", ".gz", ".tgz", ".tex"]
TEX = (".tex", ".ltx", ".latex")
NAMED = 8
"""Files of a submission that are named, of those that are missing and of those left out."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Each file by itself."""
    _inline()
    return one_by_one(placed.card, *listed(placed, SUFFIXES))


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The submissions of a tar in its order. Those without TeX sources (PDF, PostScript) are left out without a word."""
    name, path, inline = partition.units[0].name, Path(partition.path), _inline()
    if not name.lower().endswith(".tar"):
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        yield from _submission(partition, name, name, data, inline)
        return
    problems: list[Problem] = []
    try:
        with opened(path) as file:
            for member, data in tar_members(file, 1 << 20, MAX_RECORD_BYTES, problems):
                yield from _told(name, problems)
                if member.lower().endswith(".gz"):
                    yield from _submission(partition, member, f"{name}#{member}", data, inline)
    except UnpackError as error:
        detail = f"{name}: cannot be read on: {error}; the submissions before stand, fetch it again"
        yield RawReject(source_ref=name, reason=error.reason, detail=detail)
    yield from _told(name, problems)


def _told(name: str, problems: list[Problem]) -> Iterator[RawReject]:
    for path, reason, detail in problems:
        ref = f"{name}#{storable(path)}"
        yield RawReject(source_ref=ref, reason=reason, detail=f"{ref}: {detail}")
    problems.clear()


def _submission(
    partition: Partition, member: str, ref: str, data: bytes, inline: Callable[[str], str]
) -> Iterator[RawDocument | RawReject]:
    identifier = re.sub(r"(\.tar)?\.(gz|tgz|tex)$", "", PurePosixPath(member).name)
    try:
        if len(data) > MAX_RECORD_BYTES:
            raise UnpackError("too-large", f"more than {MAX_RECORD_BYTES} bytes")
        if data[:2] == b"\x1f\x8b":
            data = gunzip(data, MAX_RECORD_BYTES)
        files = _files(data, PurePosixPath(member).name.removesuffix(".gz"))
        if not files:
            return
        title, text, missing = source_text(files, inline)
    except UnpackError as error:
        yield RawReject(source_ref=ref, reason=error.reason, detail=f"{ref}: {error}")
        return
    except (TexError, RecursionError) as error:
        yield RawReject(source_ref=ref, reason="bad-tex", detail=f"{ref}: {error}")
        return
    card = partition.card
    yield RawDocument(text=text, title=title or identifier, lang=card.lang, license=card.license, source_ref=ref)
    if missing:
        detail = (
            f"{ref}: \\input of {_named(missing)} was not resolved (no such file in the submission, or a name made by a macro); "
            "the text stands without it"
        )
        yield RawReject(source_ref=ref, reason="missing-part", detail=detail)
    if others := left_out(files):
        detail = (
            f"{ref}: {_named(others)}: a document of its own beside the main one (a supplement, a letter, an earlier version), "
            "which is not in the text; to have it read, put it into the source's folder as a .tex file by itself"
        )
        yield RawReject(source_ref=ref, reason="second-document", detail=detail)


def _named(files: Sequence[str]) -> str:
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(map(repr, files[:NAMED])) + more


def _files(data: bytes, name: str) -> dict[str, str]:
    """The TeX files of an unpacked submission, and its packages and classes, by name; none for PDF, PostScript and the like."""
    if data[257:262] != b"ustar" and not _old_tar(data):
        head = data[:4096].lstrip()
        if head.startswith((b"%PDF", b"%!PS", b"\x89PNG")) or b"\\" not in data:
            return {}
        return _decoded({name if name.endswith(TEX) else f"{name}.tex": data})
    # Names that lead out are only keys that nothing asks for; what matters of a submission is its text.
    members = tar_members(io.BytesIO(data), MAX_FILES, MAX_FILE_BYTES, [])
    files, packages = {}, {}
    for member, content in members:
        if member.lower().endswith(TEX):
            if len(content) > MAX_FILE_BYTES:
                raise UnpackError("too-large", f"{member!r} has more than {MAX_FILE_BYTES} bytes")
            files[member] = content
        elif member.endswith(PACKAGES) and len(content) <= MAX_FILE_BYTES:
            packages[member] = content
    return _decoded(files | packages) if files else {}


def _old_tar(data: bytes) -> bool:
    """Whether this is a tar from before POSIX: its first header's checksum fits."""
    if len(data) < 512:
        return False
    try:
        tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _decoded(files: Mapping[str, bytes]) -> dict[str, str]:
    """The files' characters: UTF-8, also where a byte here and there is not; else the encoding that the file declares, or
    the main file, or all that it includes and that declare one; else that of its CJK environment, where nothing outside of
    it has other letters; else Latin-1, as in the sources of earlier years. What bytes mean that are damage in UTF-8 is
    Latin-1 too."""
    texts: dict[str, str] = {}
    for name, data in files.items():
        with suppress(UnicodeDecodeError):
            texts[name] = data.decode("utf-8")
    damaged = files.keys() - texts.keys()
    main, parts = main_parts({name: data.decode("latin-1") for name, data in files.items()} if damaged else {})
    declared = {name: _declared(files[name]) for name in damaged | parts if not name.endswith(PACKAGES)}
    common = {declared[name] for name in parts if declared.get(name)}
    default = declared.get(main) or (next(iter(common)) if len(common) == 1 else None)
    for name in damaged:
        data = files[name]
        encoding = declared.get(name) or default or _of_cjk(data) or "latin-1"
        whole = data.decode("utf-8", "ignore")
        num_bad = len(data) - len(whole.encode("utf-8"))
        if encoding == "utf-8" or len(whole) - len(whole.encode("ascii", "ignore")) > num_bad:
            texts[name] = data.decode("utf-8", "surrogateescape").translate(_AS_LATIN1)
        else:
            texts[name] = data.decode(encoding, "replace")
    return {name: texts[name].replace("\r\n", "\n").replace("\r", "\n").replace("\0", "") for name in files}


_AS_LATIN1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
"""What `surrogateescape` makes of bytes that are not UTF-8, and what they are in Latin-1."""

_DECLARATION = re.compile(
    r"\\(?:usepackage|RequirePackage|documentclass)\s*\[([^\]]{0,500})\]\s*\{(?:inputen[cx]|ctex\w*)\}"
)
_CJK = re.compile(rb"\\begin\{CJK\*?\}\s*(?:\[[^\]]{0,60}\]\s*)?\{(\w{1,20})\}")
ENCODINGS = {
    "utf8": "utf-8", "utf8x": "utf-8", "latin1": "latin-1", "latin2": "latin2", "latin3": "latin3", "latin4": "latin4",
    "latin5": "latin5", "latin9": "latin9", "latin10": "latin10", "ansinew": "cp1252", "cp437": "cp437", "cp850": "cp850",
    "cp852": "cp852", "cp866": "cp866", "cp1250": "cp1250", "cp1251": "cp1251", "cp1252": "cp1252", "cp1253": "cp1253",
    "cp1254": "cp1254", "cp1255": "cp1255", "cp1257": "cp1257", "koi8-r": "koi8-r", "koi8-u": "koi8-u",
    "iso88595": "iso8859-5", "iso-8859-7": "iso8859-7", "applemac": "mac_roman", "macce": "mac_latin2", "maccyr": "mac_cyrillic",
    "gbk": "gb18030", "gb": "gb18030", "bg5": "big5hkscs", "sjis": "cp932", "ks": "cp949",
}  # fmt: skip
"""Python's codec for each encoding that the packages inputenc, inputenx, ctex and CJK know by name, in small letters."""


def _declared(data: bytes) -> str | None:
    """The encoding that a source names, the last of several; None where it names none that is known."""
    declared = None
    source = without_comments(data.decode("latin-1")).partition(r"\end{document}")[0]
    for match in _DECLARATION.finditer(source):
        for name in match[1].lower().split(","):
            declared = ENCODINGS.get(name.strip(), declared)
    return declared


def _of_cjk(data: bytes) -> str | None:
    """The encoding of a source that stands in an environment of the package CJK, but for its plain letters."""
    begin, end = _CJK.search(data), data.rfind(rb"\end{CJK")
    if begin is None or not (data[: begin.start()] + (data[end:] if end >= 0 else b"")).isascii():
        return None
    return ENCODINGS.get(begin[1].decode("ascii", "ignore").lower())


def _inline() -> Callable[[str], str]:
    module = extra("pylatexenc.latex2text", package="pylatexenc", extra="arxiv", purpose="reading TeX sources")
    return partial(_converted, converter(module))


def _converted(convert: Callable[[str], str], paragraph: str) -> str:
    try:
        text = convert(paragraph[:MAX_PARAGRAPH])
    except (RecursionError, ValueError, IndexError, AttributeError, TypeError, KeyError):
        # Deeply nested or hopelessly unbalanced: the words stay, the commands go.
        return re.sub(r"\\[A-Za-z]+\*?|[{}]", " ", paragraph)
    return text + paragraph[MAX_PARAGRAPH:]


MAX_PARAGRAPH = 50_000
"""Characters of a paragraph that are parsed; the parser's time grows faster than the text, and no paragraph is longer."""
