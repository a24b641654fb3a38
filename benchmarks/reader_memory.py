"""Peak resident memory of the readers on files far larger than it: 10 GB of each format, unpacked, made for the purpose.

    python benchmarks/reader_memory.py [GIGABYTES, default 10] [FORMAT ...]

Compressed files repeat one compressed member, as the formats allow, so 10 GB of text are a few hundred megabytes of disk and
every byte of them is unpacked and read; a plain file is written out. Texts are kept from no one: each document is taken and let
go. Every row runs in a process of its own and names its commit, as rows of other runs stay. Nothing here is a speed: a loaded
machine measures the same.

Office files and EPUB are read whole. Their rows are not of 10 GB: one is of the largest that passes the reader's bound, one of
what lies beyond it.
"""

import bz2
import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import py7zr
import zstandard
from record import RESULTS, machine, peak_rss_mib, store

from longalign_data.catalog import Card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import partitions, read
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora

MIB = 1 << 20


def texts() -> list[tuple[str, str]]:
    """A dozen documents of some 250 KB, in ASCII, which is read quickest."""
    whole = "\n\n".join(text for _, text in corpora.topics()).encode("ascii", "ignore").decode()
    return [(f"Part {n}", whole[n * 7000 : n * 7000 + 250_000]) for n in range(12)]


def repeated(path: Path, head: bytes, member: bytes, tail: bytes, copies: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        for _ in range(copies):
            file.write(member)
        file.write(tail)


def write_lines(path: Path, size: int) -> None:
    """JSON lines: plain, in gzip members of a few megabytes, or in Zstandard frames that fill a window of 8 MiB."""
    lines = "".join(json.dumps({"text": text}) + "\n" for _, text in texts()).encode()
    member = lines
    if path.suffix == ".gz":
        member = gzip.compress(lines, 6)
    elif path.suffix == ".zst":
        lines = lines[: lines.rindex(b"\n", 0, 2_700_000) + 1] * 4
        settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=23)
        member = zstandard.ZstdCompressor(compression_params=settings).compress(lines)
    repeated(path, b"", member, b"", size // len(lines))


def write_warc(path: Path, size: int) -> None:
    """WARC records with extracted text, each a gzip member, as Common Crawl's WET files are."""
    records = [corpora.warc_record("conversion", "https://e.org", text.encode()) for _, text in texts()]
    repeated(path, b"", b"".join(map(gzip.compress, records)), b"", size // sum(map(len, records)))


def write_wikipedia(path: Path, size: int) -> None:
    """A multistream dump: one bzip2 stream for a hundred pages. Only the first of a hundred is an article; the others are
    redirects of 60 KB, nearly all one letter, which unpack quickly and to a hundred times their size, so that reading is
    what takes the time and not the parsing of wikitext."""
    pages = [corpora.mediawiki_page(1, "A", corpora.topics()[0][1][:2000])]
    for number in range(2, 101):
        text = "#REDIRECT [[A]] " + random.Random(number).randbytes(600).hex() + "a" * 60_000
        pages.append(corpora.mediawiki_page(number, f"R{number}", text, redirect="A"))
    data = "".join(pages).encode()
    head, tail = (bz2.compress(part.encode()) for part in (corpora.MEDIAWIKI_HEAD, corpora.MEDIAWIKI_TAIL))
    repeated(path, head, bz2.compress(data), tail, size // len(data))


def write_posts(path: Path, size: int) -> None:
    """A Posts.xml whose answers all stand behind all the questions; four of five rows are tag wikis, which are read and left
    out, because turning HTML into text would take the time. Each holds forty random bytes, so that it packs like text."""
    words = corpora.topics()[0][1][:3000]
    draw = random.Random(1)

    def row(number: int, kind: int, **fields: object) -> str:
        return corpora.post_row(number, kind, draw.randbytes(40).hex() + words, **fields)

    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<posts>\n')
        count = max(1, size // 10 // len(row(1, 1, Score=1, Title="T", Tags="<a>")))
        for number in range(8 * count):
            file.write(row(2 * count + number + 1, 5, Score=0))
        for number in range(count):
            file.write(row(number + 1, 1, Score=1, Title=f"T {number}", Tags="<a>"))
        for number in range(count):
            file.write(row(count + number + 1, 2, ParentId=number + 1, Score=3))
        file.write("</posts>\n")


def write_seven_zip(path: Path, size: int) -> None:
    """The same posts inside a .7z as archive.org has them: LZMA2, here with a dictionary of 64 MiB."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        posts = Path(folder, "Posts.xml")
        write_posts(posts, size)
        filters = [{"id": py7zr.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
        with py7zr.SevenZipFile(path, "w", filters=filters) as archive:
            archive.write(posts, "Posts.xml")


def write_array(path: Path, size: int) -> None:
    records = ",\n".join(json.dumps({"title": t, "text": x}, ensure_ascii=False) for t, x in texts())
    member = records.encode() + b",\n"
    repeated(path, b"[", member, records.encode() + b"]", size // len(member))


def write_blocks(path: Path, size: int) -> None:
    member = "\n\n".join(text.replace("\n\n", "\n") for _, text in texts()).encode() + b"\n\n"
    repeated(path, b"", member, b"", size // len(member))


def write_one_line(path: Path, size: int) -> None:
    """One object on one line, in an array where the file is to hold one."""
    head, tail = (b"[", b"]") if path.suffix == ".json" else (b"", b"")
    repeated(path, head + b'{"text": "', b"word " * (MIB // 5), b'"}' + tail, size // MIB)


def write_book(path: Path, size: int) -> None:
    repeated(path, b"", b"word " * (MIB // 5), b"", size // MIB)


def rewritten(path: Path, whole: bytes, member: str, head: bytes, piece: bytes, copies: int, tail: bytes) -> None:
    """A zip file with one member made anew."""
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != member:
                new.writestr(name, old.read(name))
        with new.open(member, "w") as file:
            file.write(head)
            for at in range(0, copies, 1000):
                file.write(piece * min(1000, copies - at))
            file.write(tail)


def write_docx(path: Path, size: int) -> None:
    """A document whose body has `size` bytes of paragraphs of twenty words."""
    whole = corpora.docx_bytes("T", "x")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        head = archive.read("word/document.xml").partition(b"<w:body>")[0] + b"<w:body>"
    piece = b"<w:p><w:r><w:t>" + b"word " * 20 + b"</w:t></w:r></w:p>"
    rewritten(path, whole, "word/document.xml", head, piece, size // len(piece), b"</w:body></w:document>")


def write_pptx(path: Path, size: int) -> None:
    """A deck of one slide with `size` bytes of paragraphs."""
    whole = corpora.pptx_bytes("T", "x")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        head, _, rest = archive.read("ppt/slides/slide1.xml").partition(b"<a:p><a:r><a:t>x</a:t></a:r></a:p>")
    assert rest, "the slide is not as python-pptx writes it"
    piece = b"<a:p><a:r><a:t>" + b"word " * 20 + b"</a:t></a:r></a:p>"
    rewritten(path, whole, "ppt/slides/slide1.xml", head, piece, size // len(piece), rest)


def write_epub(path: Path, size: int) -> None:
    """A book in chapters of a megabyte."""
    chapter = "\n\n".join(["word " * 200] * 1000)
    path.write_bytes(corpora.epub_bytes("T", [chapter] * (size // len(chapter))))


def write_parquet(path: Path, size: int) -> None:
    """Books of 50 MB, two in three of them the same, which its dictionary holds once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"text": pa.string()})
    with pq.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=1 << 30) as writer:
        for number in range(size // 300_000_000):
            draw = random.Random(number)
            other = [draw.randbytes(20_000).hex() + "word " * 10_000_000 for _ in range(2)]
            writer.write_table(pa.table({"text": [*other, *["same " * 10_000_000] * 4]}, schema=schema))


FORMATS: dict[str, tuple[str, str, Callable[[Path, int], None], float]] = {
    "jsonl": ("jsonl", "a.jsonl", write_lines, 1.0),
    "jsonl.zst, window of 8 MiB": ("jsonl", "a.jsonl.zst", write_lines, 1.0),
    "jsonl.gz": ("jsonl", "a.jsonl.gz", write_lines, 1.0),
    "WARC (WET), gzip by record": ("warc", "a.warc.wet.gz", write_warc, 1.0),
    "Wikipedia, multistream bz2": ("wikipedia", "w-pages-articles.xml.bz2", write_wikipedia, 1.0),
    "Stack Exchange XML": ("stackexchange", "Posts.xml", write_posts, 1.0),
    "Stack Exchange .7z": ("stackexchange", "a.stackexchange.com.7z", write_seven_zip, 1.0),
    "JSON array": ("json", "a.json", write_array, 1.0),
    "text blocks": ("blocks", "a.txt", write_blocks, 1.0),
    "one line of 1 GB, JSON": ("json", "a.json", write_one_line, 0.1),
    "one line of 1 GB, JSON lines": ("jsonl", "a.jsonl", write_one_line, 0.1),
    "Parquet of books of 50 MB": ("parquet", "a.parquet", write_parquet, 0.3),
    "one book of 200 MB": ("books", "a.txt", write_book, 0.02),
    "one EPUB of 60 MB": ("books", "a.epub", write_epub, 0.006),
    "one EPUB of 200 MB": ("books", "a.epub", write_epub, 0.02),
    "one DOCX of 44 MB of XML": ("files", "a.docx", write_docx, 0.0044),
    "one DOCX of 250 MB of XML": ("files", "a.docx", write_docx, 0.025),
    "one PPTX of 44 MB of XML": ("files", "a.pptx", write_pptx, 0.0044),
    "one PPTX of 250 MB of XML": ("files", "a.pptx", write_pptx, 0.025),
}
"""What is read: reader, file, how it is written, share of the gigabytes asked for."""


def measure(kind: str, path: Path) -> dict[str, Any]:
    """Reads a file to its end."""
    card = Card.model_validate({"id": "s", "title": "S", "lang": "en", "license": "x", "reader": {"kind": kind}})
    documents, size, rejects = 0, 0, dict[str, int]()
    for partition in partitions(PlacedSource(card=card, path=str(path))):
        for raw in read(partition):
            if isinstance(raw, RawReject):
                rejects[raw.reason] = rejects.get(raw.reason, 0) + 1
            else:
                documents, size = documents + 1, size + raw.num_bytes
    return {
        "documents": documents,
        "gb_of_text": round(size / 1e9, 2),
        "rejects": rejects,
        "peak_rss_mib": peak_rss_mib(),
    }


def main() -> None:
    """Writes, reads and removes one file after the other; a row takes the place of an older one of its format."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    stored = RESULTS / "reader_memory.json"
    rows = json.loads(stored.read_text(encoding="utf-8"))["rows"] if stored.is_file() else []
    for name in sys.argv[2:] or FORMATS:
        kind, file, write, share = FORMATS[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, file)
            write(path, int(gigabytes * share * 1e9))
            command = [sys.executable, __file__, "--measure", kind, str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {
                "format": name,
                "gigabytes": round(gigabytes * share, 4),
                "file_mb": round(path.stat().st_size / 1e6),
                "commit": machine()["commit"],
            }
        rows = [*(old for old in rows if old["format"] != name), row | json.loads(done.stdout)]
        store(
            "reader_memory",
            rows,
            packages=("mwparserfromhell", "py7zr", "python-docx", "python-pptx", "resiliparse", "zstandard"),
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
