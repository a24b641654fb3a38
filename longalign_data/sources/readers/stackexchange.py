"""Stack Exchange dumps: `Posts.xml`, by itself or inside `<site>.7z`; a question with its answers is one document.

    <posts>
      <row Id="4" PostTypeId="1" AcceptedAnswerId="7" Score="9" Body="&lt;p&gt;How ..." Title="..." Tags="&lt;c#&gt;" />
      <row Id="7" PostTypeId="2" ParentId="4" Score="12" Body="&lt;p&gt;..." />

Answers stand anywhere behind their question, so posts are first dealt to files on disk by thread. Every row is one line
and is parsed alone, where no entity can be declared. Format: https://meta.stackexchange.com/questions/2677
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree import ElementTree

from longalign_data.catalog import StackExchangeReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.extras import extra
from longalign_data.sources.markup import MarkupError, html_library, html_text
from longalign_data.sources.places import chosen, failed
from longalign_data.sources.readers.spill import Spill
from longalign_data.sources.reading import MAX_RECORD_BYTES, Partition, RawDocument, RawReject, one_by_one
from longalign_data.sources.unpacking import FREE_BYTES, MAX_RATIO, MAX_WINDOW, PACKED, UnpackError, opened

MAX_ROW_BYTES = 4 << 20
"""A post has at most 30,000 characters; with its entities it never comes near to this."""

HELD_REJECT_BYTES = 1 << 20
"""Rejects are given before documents, and go to disk from here on: a foreign file can have one for each of its lines."""

PIECE_BYTES = 1 << 20
"""Of an archive that packs well, py7zr hands over as much as 128 MB at once; it is taken in pieces."""

PURPOSE = "reading Stack Exchange dumps"


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Each `Posts.xml` and each archive by itself. Raises SourceError when there is none."""
    html_library("stackexchange")
    root, units = chosen(placed, _wanted)
    if not units:
        raise failed(placed, f"{root}: no Posts.xml and no .7z", "unpack the dump there, or name its files")
    if any(unit.name.lower().endswith(".7z") for unit in units):
        _seven_zip()
    return one_by_one(placed.card, root, units)


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The threads of one site. Posts that are neither questions nor answers are left out without a word."""
    name, path = partition.units[0].name, Path(partition.path)
    packed = path.suffix.lower() in (".7z", *PACKED)
    with (
        Spill(partition.units[0].size * (6 if packed else 1)) as spill,
        tempfile.SpooledTemporaryFile(HELD_REJECT_BYTES) as rejects,
    ):
        rows = _Rows(name, spill, rejects)
        try:
            if path.suffix.lower() == ".7z":
                _unpack(path, rows.feed)
            else:
                with opened(path) as file:
                    while chunk := file.read1(1 << 20):
                        rows.feed(chunk)
            rows.finish()
        except UnpackError as error:
            rows.reject(
                f"{name}#",
                error.reason,
                f"{name}: cannot be read on after row {rows.number}: {error}; the posts before stand, fetch it again",
            )
        rejects.seek(0)
        for line in rejects:
            yield RawReject(**json.loads(line))
        html = html_library("stackexchange")
        for thread, posts in spill.groups():
            found = _thread(partition, f"{name}#{thread}", posts, html)
            if found is not None:
                yield found


class _Rows:
    """Takes the bytes of a Posts.xml as they come, gives its posts to a spill and writes its rejects as lines of JSON."""

    def __init__(self, name: str, spill: Spill, rejects: IO[bytes]) -> None:
        self.number = 0
        self._name, self._spill, self._rejects = name, spill, rejects
        self._rest = b""
        self._skipping = False
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        if self._skipping and b"\n" not in data:
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._line(line)
        if len(self._rest) > MAX_ROW_BYTES:
            self._rest, self._skipping = b"", True

    def finish(self) -> None:
        """The bytes have ended. Raises UnpackError when they ended inside the file's element."""
        self._line(self._rest)
        self._rest = b""
        if not self._closed:
            raise UnpackError("truncated-archive", "the file ends before </posts>")

    def _line(self, line: bytes) -> None:
        row = line.strip()
        if self._skipping or len(row) > MAX_ROW_BYTES:
            self._skipping = False
            self._reject("too-large", f"more than {MAX_ROW_BYTES} bytes in one row; expected a post")
        elif row.startswith(b"<row"):
            self.number += 1
            self._row(row)
        elif row in (b"</posts>", b"<posts />", b"<posts/>"):
            self._closed = True

    def _row(self, row: bytes) -> None:
        try:
            row.decode("utf-8")
            # A row alone can declare no entities, so nothing can be expanded.
            fields = ElementTree.fromstring(row).attrib  # noqa: S314 - see above
        except UnicodeDecodeError as error:
            self._reject("bad-utf8", f"not UTF-8 at byte {error.start}; expected UTF-8")
            return
        except ElementTree.ParseError as error:
            self._reject("bad-xml", f"{error}; expected one <row .../> a line")
            return
        kind, number = fields.get("PostTypeId"), fields.get("Id", "")
        thread = number if kind == "1" else fields.get("ParentId", "") if kind == "2" else None
        if thread is None:
            return
        try:
            score = int(fields.get("Score", "0"))
            record = (
                int(number),
                int(kind == "1"),
                score,
                fields["Body"],
                fields.get("Title", ""),
                fields.get("Tags", ""),
            )
            self._spill.add(str(int(thread)), (*record, fields.get("AcceptedAnswerId", "")))
        except (KeyError, ValueError) as error:
            self._reject("bad-record", f"{type(error).__name__}: {error}; expected Id, ParentId, Score and Body")

    def _reject(self, reason: str, detail: str) -> None:
        where = f"{self._name} row {self.number}"
        self.reject(f"{self._name}#row{self.number}", reason, f"{where}: {detail}")

    def reject(self, ref: str, reason: str, detail: str) -> None:
        """Writes a reject."""
        line = json.dumps({"source_ref": ref, "reason": reason, "detail": detail})
        self._rejects.write(line.encode("ascii") + b"\n")


def _thread(partition: Partition, ref: str, posts: list[tuple[Any, ...]], html: Any) -> RawDocument | RawReject | None:
    options = partition.card.reader
    assert isinstance(options, StackExchangeReader)
    question = next((post for post in posts if post[1]), None)
    if question is None:
        # Answers whose question was deleted: nobody can read them.
        return None
    _, _, _, body, title, tags, accepted = question
    answers = [post for post in posts if not post[1] and post[2] >= options.min_score]
    answers.sort(key=lambda post: (-post[2], post[0]))
    size = len(body) + sum(len(post[3]) for post in answers)
    if size > MAX_RECORD_BYTES:
        return RawReject(source_ref=ref, reason="too-large", detail=f"{ref}: {size} characters in one thread")
    try:
        parts = [f"# {title}", html_text(body, html)]
        for post in answers:
            words = ", accepted" if str(post[0]) == accepted else ""
            parts += [f"## Answer (score {post[2]}{words})", html_text(post[3], html)]
    except MarkupError as error:
        return RawReject(source_ref=ref, reason="bad-html", detail=f"{ref}: {error}")
    labels = " ".join(tags.replace("><", ", ").strip("<>").replace("|", ", ").strip(", ").split())
    if labels:
        parts.insert(1, f"Tags: {labels}")
    return RawDocument(
        text="\n\n".join(parts), title=title, lang=partition.card.lang, license=partition.card.license, source_ref=ref
    )


def _wanted(file: str) -> bool:
    name = PurePosixPath(file).name.lower()
    return name.endswith(".7z") or name in {f"posts.xml{packed}" for packed in ("", *PACKED)}


def _seven_zip() -> Any:
    return extra("py7zr", package="py7zr", extra="stackexchange", purpose=PURPOSE)


def _check_window(archive: Any) -> None:
    """Raises UnpackError when unpacking would hold more than MAX_WINDOW bytes of what came before: each coder says in its
    properties how many (7zFormat.txt and the manual of the LZMA SDK)."""
    streams = archive.header.main_streams
    for coder in (coder for folder in (streams.unpackinfo.folders if streams else ()) for coder in folder.coders):
        method, properties = bytes(coder["method"]), bytes(coder.get("properties") or b"")
        window = 0
        if method in (b"\x03\x01\x01", b"\x03\x04\x01"):  # LZMA, PPMd
            window = int.from_bytes(properties[1:5], "little")
        elif method == b"\x21" and properties:  # LZMA2
            window = (2 | properties[0] & 1) << properties[0] // 2 + 11
        if window > MAX_WINDOW:
            detail = f"it was packed with a window of {window >> 20} MiB, more than {MAX_WINDOW >> 20}; pack it anew: 7z a -md=256m"
            raise UnpackError("unpacks-too-large", detail)


def _unpack(path: Path, feed: Callable[[bytes], None]) -> None:
    """Gives the bytes of the archive's Posts.xml to `feed`; nothing is written to disk. Raises UnpackError."""
    py7zr = _seven_zip()
    from py7zr.io import Py7zIO, WriterFactory

    limit = FREE_BYTES + MAX_RATIO * path.stat().st_size

    class Sink(Py7zIO):
        def __init__(self) -> None:
            self.taken = 0

        def write(self, s: bytes | bytearray) -> int:
            self.taken += len(s)
            if self.taken > limit:
                raise UnpackError("unpacks-too-large", f"more than {limit} bytes; expected text")
            for at in range(0, len(s), PIECE_BYTES):
                feed(bytes(s[at : at + PIECE_BYTES]))
            return len(s)

        def read(self, size: int | None = None) -> bytes:
            del size
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            del whence
            return offset

        def flush(self) -> None:
            return

        def size(self) -> int:
            return self.taken

    class Sinks(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            del filename
            return Sink()

    try:
        with py7zr.SevenZipFile(path, "r") as archive:
            _check_window(archive)
            names = [name for name in archive.getnames() if PurePosixPath(name).name == "Posts.xml"]
            if not names:
                raise UnpackError("damaged-file", "the archive holds no Posts.xml")
            archive.extract(targets=names[:1], factory=Sinks())
    except UnpackError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnpackError("damaged-file", str(error)) from None
    except EOFError as error:
        raise UnpackError("truncated-archive", str(error)) from None
    except Exception as error:  # noqa: BLE001 - it raises struct.error, IndexError and more on damaged archives
        raise UnpackError("damaged-file", f"{type(error).__name__}: {error}") from None
