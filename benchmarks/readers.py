"""Readers against a bare loop over the same libraries, in one run: what our layer (bounds, rejects, references) costs.

    python benchmarks/readers.py

Texts are this Python's documentation in each source's own format; for Wikipedia the real dump, when it can be had.
"""

import bz2
import gzip
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mwparserfromhell
import pypdf
from pylatexenc.latex2text import LatexNodes2Text
from record import store
from resiliparse.extract.html2text import extract_plain_text

from longalign_data.catalog import Card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import partitions, read
from tests.fixtures import corpora

ROUNDS = 2


def ours(kind: str, path: Path, **options: Any) -> Iterable[str]:
    card = Card.model_validate(
        {"id": "s", "title": "S", "lang": "en", "license": "x", "reader": {"kind": kind, **options}}
    )
    for partition in partitions(PlacedSource(card=card, path=str(path))):
        for raw in read(partition):
            yield getattr(raw, "text", "")


def wikipedia(path: Path) -> Iterable[str]:
    with bz2.open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.endswith("}page"):
                names = {child.tag.rpartition("}")[2]: child for child in element}
                if "redirect" not in names and names["ns"].text == "0":
                    wikitext = next(e.text or "" for e in element.iter() if e.tag.endswith("}text"))
                    yield mwparserfromhell.parse(wikitext).strip_code()
                element.clear()


def stackexchange(path: Path) -> Iterable[str]:
    for _, element in ElementTree.iterparse(path):
        if element.tag == "row":
            yield extract_plain_text(element.get("Body", ""))
            element.clear()


def arxiv(path: Path) -> Iterable[str]:
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.name.endswith(".gz"):
                continue
            file = archive.extractfile(member)
            assert file is not None
            data = gzip.decompress(file.read())
            if data[257:262] == b"ustar":
                inner = tarfile.open(fileobj=io.BytesIO(data))  # noqa: SIM115 - in memory
                parts = [inner.extractfile(m) for m in inner if m.name.endswith(".tex")]
                data = b"".join(part.read() for part in parts if part is not None)
            yield LatexNodes2Text(math_mode="verbatim").latex_to_text(data.decode(), tolerant_parsing=True)


def pages(path: Path) -> Iterable[str]:
    with gzip.open(path) as file:
        for part in file.read().split(b"WARC/1.0\r\n")[2:]:
            yield extract_plain_text(part.split(b"\r\n\r\n", 2)[2].decode(), main_content=True)


def pdf(path: Path) -> Iterable[str]:
    for file in sorted(path.iterdir()):
        yield "\n\n".join(page.extract_text() for page in pypdf.PdfReader(file).pages)


def array(path: Path) -> Iterable[str]:
    for record in json.loads(path.read_text(encoding="utf-8")):
        yield record["content"]


def lines(path: Path) -> Iterable[str]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        yield block.strip()


def measured(read_all: Callable[[], Iterable[str]]) -> tuple[float, int, int]:
    """(seconds of the best of ROUNDS, documents, UTF-8 bytes)."""
    best, count, size = float("inf"), 0, 0
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        texts = [text for text in read_all() if text]
        best = min(best, time.perf_counter() - begin)
        count, size = len(texts), sum(len(text.encode()) for text in texts)
    return best, count, size


def main() -> None:
    """Measures every pair and stores the rows."""
    texts = corpora.topics()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "pdf").mkdir()
        (root / "pdf" / "a.pdf").write_bytes(corpora.pdf_bytes(texts[0][0], texts[0][1].splitlines()))
        many = [(f"{title} {n}", text) for n in range(8) for title, text in texts]
        (root / "Posts.xml").write_bytes(corpora.posts_xml(corpora.thread_rows(many)))
        corpora.write_arxiv(root / "a.tar", [(title, text[:12_000]) for title, text in texts[:4]])
        response = [corpora.warc_record("response", "https://e.org", corpora.html_response(*text)) for text in many]
        corpora.write_warc(root / "a.warc.gz", [corpora.warc_record("warcinfo", "", b"x\r\n"), *response])
        records = [{"title": title, "content": text} for title, text in many]
        (root / "a.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
        blocks = ("\n".join(line for line in text.splitlines() if line.strip()) for _, text in many)
        (root / "a.txt").write_text("\n\n".join(blocks), encoding="utf-8")
        dump = root / "w.xml.bz2"
        with bz2.open(corpora.english_dump()) as whole:
            head = whole.read(600_000)
        dump.write_bytes(bz2.compress(head[: head.rindex(b"</page>") + 7] + b"</mediawiki>"))
        pairs: list[tuple[str, Callable[[], Iterable[str]], Callable[[], Iterable[str]]]] = [
            ("wikipedia", lambda: ours("wikipedia", dump), lambda: wikipedia(dump)),
            (
                "stackexchange",
                lambda: ours("stackexchange", root / "Posts.xml"),
                lambda: stackexchange(root / "Posts.xml"),
            ),
            ("arxiv", lambda: ours("arxiv", root / "a.tar"), lambda: arxiv(root / "a.tar")),
            ("warc", lambda: ours("warc", root / "a.warc.gz"), lambda: pages(root / "a.warc.gz")),
            ("files, PDF", lambda: ours("files", root / "pdf"), lambda: pdf(root / "pdf")),
            ("json", lambda: ours("json", root / "a.json", text="content"), lambda: array(root / "a.json")),
            ("blocks", lambda: ours("blocks", root / "a.txt"), lambda: lines(root / "a.txt")),
        ]
        for reader, mine, bare in pairs:
            seconds, count, size = measured(mine)
            other, _, other_size = measured(bare)
            rows.append(
                {
                    "reader": reader,
                    "documents": count,
                    "mb": round(size / 1e6, 2),
                    "mb_per_s": round(size / 1e6 / seconds, 2),
                    "documents_per_s": round(count / seconds, 1),
                    "bare_mb_per_s": round(other_size / 1e6 / other, 2),
                    "time_against_bare": round(seconds / other, 2),
                }
            )
    store("readers", rows, packages=("mwparserfromhell", "pylatexenc", "pypdf", "resiliparse"))


if __name__ == "__main__":
    main()
