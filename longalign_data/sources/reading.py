"""What readers and ingest say to each other.

A source is cut into partitions, which may be read in any order by any process; a partition gives documents and rejects
in an order of its own. Both orders are fixed by names relative to the source, so that a copy of the corpus elsewhere
gives the same rows. One document, shortened:

    RawDocument(text="Annual report ...", title="Report 1999", lang="en", license="CC0-1.0", source_ref="a.jsonl:0-1840")
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from longalign_data.catalog import Card
from longalign_data.recipe import PlacedSource

READING_VERSION = 7
"""Raised when a reader gives other documents for the same files; part of the identity of every input."""

MAX_RECORD_BYTES = 64 << 20
"""A line, a file that is one document, or a code unit larger than this is rejected unread; it bounds memory. English
text of this size has about 15 million tokens."""

GROUP_BYTES = 1 << 20
GROUP_UNITS = 512
"""Small files are grouped into partitions of about so many bytes, and at most so many documents."""

BOM = "\ufeff"

REASONS: dict[str, str] = {
    "bad-json": "a line is not JSON",
    "not-an-object": "a line is JSON, but not an object",
    "missing-field": "a field that the card names is missing or null",
    "wrong-type": "a field that the card names is not text",
    "bad-utf8": "bytes that are not UTF-8, or a lone surrogate",
    "nul-character": "a NUL in the text: a binary file, or UTF-16 read as UTF-8; removing it would hide that",
    "empty": "nothing but white space",
    "white-space-run": "more white space in a row than a tokenizer can be trusted with",
    "line-too-long": f"a line of more than {MAX_RECORD_BYTES >> 20} MiB",
    "too-large": f"more than {MAX_RECORD_BYTES >> 20} MiB in one document, or a source file larger than its card allows",
    "too-long": "more tokens than the recipe's ingest.max_tokens",
    "duplicate": "the same text as an earlier document",
    "withdrawn": "named in the recipe's exclude.documents",
    "near-duplicate": "nearly the same text as an earlier document (curate.near_duplicates)",
    "secret": "a key, token or password (curate.secrets)",
    "language": "not in the language that it is said to be in (curate.language)",
    "garbled": "characters that were decoded wrongly (curate.quality)",
    "repetition": "lines or n-grams that repeat each other (curate.quality)",
    "boilerplate": "mostly menus, labels and stock phrases (curate.quality)",
    "contaminated": "shares too much with a benchmark (curate.decontaminate)",
    "truncated-archive": "a compressed file or an XML dump ends in the middle; what came before stands",
    "damaged-file": "a file cannot be read to its end; what came before stands",
    "unpacks-too-large": "an archive or compressed file that unpacks to far more than text does, or asks for too much memory",
    "bad-archive": "an archive with names or members that cannot be trusted",
    "bad-xml": "a record that is not well-formed XML",
    "bad-html": "a page from which no text can be taken",
    "bad-wikitext": "a wiki page with more markup that nothing closes than its parser can take",
    "missing-part": "a TeX source includes a file that is not there; the document stands without it",
    "second-document": "a submission in TeX holds another whole document, such as a supplement; the main one stands without it",
    "bad-tex": "a TeX source without a document, or one that cannot be resolved",
    "bad-record": "a record whose fields are not what its format states",
    "unreadable-file": "a document of a known kind (PDF, DOCX, ...) that its library cannot read, or that is locked",
    "licence-not-allowed": "a repository, or a file in it, whose licence is not among the card's",
    "link-outside": "a symbolic link that leads out of the source folder",
    "link-broken": "a symbolic link that leads to nothing, or in a circle",
}
"""Every reason for which ingest rejects something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """A document as its reader found it. `read` makes sure that `text` has Unix line ends, no byte order mark, no NUL, no
    lone surrogate, and is not empty, and fills in `num_bytes`, its length in UTF-8. A reader gives `num_bytes` only with
    a text that `in_order` or `decoded_in_order` made, which is then not looked through again."""

    text: str
    title: str
    lang: str
    license: str
    source_ref: str
    num_bytes: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReject:
    """Something that is no document: where it stands (as in `source_ref`), a reason out of REASONS, and for a person what
    was found and what was expected."""

    source_ref: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Files that belong together: `name` is relative to the source's root and fit to be stored (no lone surrogates);
    `files` are the paths relative to the root, with `/`; none for a link that leads nowhere. `size` is their bytes together."""

    name: str
    files: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A part of a source that one process reads by itself.

    `key` is unique in the source and, like every name here but `root`, relative to the source's root. `start` and `end`
    bound the part of a single large file in the reader's own measure (bytes, row groups, shards); `end` None is its end.
    """

    card: Card
    root: str
    key: str
    units: tuple[Unit, ...]
    start: int = 0
    end: int | None = None

    @property
    def path(self) -> str:
        """The one file of a partition that is (part of) one file."""
        ((file,),) = (unit.files for unit in self.units)
        return self.path_of(file)

    def path_of(self, file: str) -> str:
        """The path of a file of a unit."""
        return f"{self.root}/{file}"


class Reader(Protocol):
    """One corpus format. Both functions depend on the files alone, never on the order in which a folder lists them."""

    def partitions(self, placed: PlacedSource) -> Sequence[Partition]:
        """The partitions in order. Raises SourceError when the corpus is not there or in another format."""
        ...

    def read(self, partition: Partition) -> Iterator[RawDocument | RawReject]:
        """What one partition holds, in order, streaming."""
        ...


def one_by_one(card: Card, root: str, units: Iterable[Unit]) -> list[Partition]:
    """A partition for each unit, in the order given; the key is its name."""
    return [Partition(card=card, root=root, key=unit.name, units=(unit,)) for unit in units]


def ranges(card: Card, root: str, unit: Unit, size: int) -> list[Partition]:
    """Ranges of so many bytes of a unit's one file, or all of it for a `size` of 0."""
    count = max(1, -(-unit.size // size)) if size else 1
    starts = [index * size for index in range(count)]
    return [
        Partition(card=card, root=root, key=f"{unit.name}:{start}", units=(unit,), start=start, end=end)
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]


def grouped(card: Card, root: str, units: Iterable[Unit]) -> list[Partition]:
    """Partitions of several units each, in the order given; the key is the name of the first unit. Units without files
    are among themselves."""
    partitions: list[Partition] = []
    group: list[Unit] = []
    size = 0
    for unit in units:
        full = size + unit.size > GROUP_BYTES or len(group) >= GROUP_UNITS
        if group and (full or bool(unit.files) != bool(group[-1].files)):
            partitions.append(Partition(card=card, root=root, key=group[0].name, units=tuple(group)))
            group, size = [], 0
        group.append(unit)
        size += unit.size
    if group:
        partitions.append(Partition(card=card, root=root, key=group[0].name, units=tuple(group)))
    return partitions


def in_order(text: str) -> tuple[str, int]:
    """The text with Unix line ends and no byte order mark, and its length in UTF-8. A text with a NUL or a lone surrogate, of
    which `settled` makes a reject, is left as it is, with -1."""
    given, text, encoded = text, text.removeprefix(BOM), b""
    plain = text.isascii()
    try:
        if not plain:
            # Looked into as bytes: in a string of wide characters every second byte is a NUL, over which a search stumbles.
            encoded = text.encode("utf-8")
        if "\r" in text if plain else b"\r" in encoded:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            encoded = b"" if plain else text.encode("utf-8")
    except UnicodeEncodeError:
        return given, -1
    if "\0" in text if plain else b"\0" in encoded:
        return given, -1
    return text, len(text) if plain else len(encoded)


def decoded_in_order(data: bytes) -> tuple[str, int]:
    """As `in_order`, of a text in UTF-8: most need not be encoded again for their length. Raises UnicodeDecodeError."""
    text = data.decode("utf-8")
    if b"\0" in data or b"\r" in data or text.startswith(BOM):
        return in_order(text)
    return text, len(data)


def settled(raw: RawDocument | RawReject) -> RawDocument | RawReject:
    """The document with its text in order (see RawDocument), or the reject that it deserves."""
    if isinstance(raw, RawReject):
        return raw
    if len(raw.text) > MAX_RECORD_BYTES:
        return _reject(raw, "too-large", f"{len(raw.text)} characters; expected at most {MAX_RECORD_BYTES}")
    text, num_bytes = (raw.text, raw.num_bytes) if raw.num_bytes >= 0 else in_order(raw.text)
    title = " ".join(raw.title.split())
    labels = f"{title}{raw.lang}{raw.license}"
    if num_bytes < 0 or "\0" in labels or not (labels.isascii() or _encodes(labels)):
        return _unstorable(raw, title)
    if not text or text.isspace():
        return _reject(raw, "empty", "expected text, found nothing but white space")
    if num_bytes == raw.num_bytes and title == raw.title:
        return raw
    return RawDocument(
        text=text, title=title, lang=raw.lang, license=raw.license, source_ref=raw.source_ref, num_bytes=num_bytes
    )


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unstorable(raw: RawDocument, title: str) -> RawReject:
    """The reject of a document of which the text or a label holds a lone surrogate or a NUL."""
    text = raw.text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")
    for name, value in (("title", title), ("lang", raw.lang), ("license", raw.license), ("text", text)):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            return _reject(raw, "bad-utf8", f"{name} has a lone surrogate at character {error.start}; expected Unicode")
        if "\0" in value:
            where = value.index("\0")
            return _reject(raw, "nul-character", f"{name} has a NUL at character {where}; expected text")
    raise AssertionError("neither a lone surrogate nor a NUL")


def _reject(raw: RawDocument, reason: str, detail: str) -> RawReject:
    return RawReject(source_ref=raw.source_ref, reason=reason, detail=f"{raw.source_ref}: {detail}")
