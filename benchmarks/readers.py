"""Every reader against a bare loop over the same libraries, in one run: what our layer (bounds, rejects, references) costs.

    python benchmarks/readers.py [--datatrove PYTHON] [--nemo PYTHON] [ROW ...]

A bare loop reads the same file with the library that the reader uses, parses every record once and takes its text, as a
script of ten lines would; it trusts the file, holds what it likes and refers to nothing. Texts are this Python's
documentation in each source's own format, 25 KB a document and 100 KB where a file is one; for Wikipedia the real dump, when
it can be had. Seconds are of processor time, the best of several rounds in which the sides take turns.

What each side does:

- ours: lists the files, decodes, parses, checks (UTF-8, NUL, line ends, byte order mark, empty), names the place of each
  document, and knows its length in UTF-8, by which documents are told to be long or short. That length is the file's own
  where the bytes of a text are at hand, the number of characters where all are ASCII, and is had by encoding elsewhere.
- bare: decodes, parses, and takes the length of each text: the number of characters where all are ASCII, else by encoding.
- texts alone: the bare loop without lengths. It does less than ours and is there to show what the lengths weigh.

All sides keep all that they make until the round ends. Of Wikipedia and arXiv the bare loops turn markup into text by one
call of the library, ours by rules of its own.

Two peers read the same files in the same run, each with the interpreter of an environment of its own; they have no readers
for the other formats. Their texts are taken with their lengths, as those of the bare loop.

- datatrove (`datatrove[io] datasets resiliparse`): JSON lines, Parquet, a file through `datasets`, WARC and WET. Its WARC
  reader gives HTML; resiliparse makes text of it, as in ours.
- NeMo Curator: JSON lines (plain and gzip; `pyarrow` reads the whole file into a table) and Parquet. The package requires
  torch with CUDA, some gigabytes that the readers never import; without it: `pip install --no-deps nemo-curator
  cosmos-xenna==0.2.0` and `pip install pandas pyarrow loguru fsspec ray`. Its stages are called without Ray's scheduler.
"""

import argparse
import ast
import bz2
import functools
import gzip
import io
import json
import os
import subprocess
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mwparserfromhell
import pyarrow as pa
import pyarrow.parquet as pq
import pypdf
import zstandard
from pylatexenc.latex2text import LatexNodes2Text
from record import RESULTS, machine, store
from resiliparse.extract.html2text import extract_plain_text

from longalign_data.catalog import Card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import READERS, partitions, read
from longalign_data.sources.reading import RawDocument
from tests.fixtures import corpora

ROUNDS = 25
SECONDS = 3.5
"""No further round begins after so many seconds of processor time."""

Texts = Iterable[str]
Sized = Iterable[tuple[str, int]]

PEER_LOOP = """
import importlib.metadata, json, time
best, started = float("inf"), time.process_time()
for number in range(int(rounds)):
    if number and time.process_time() - started > float(limit):
        break
    begin = time.process_time()
    texts = [(text, len(text) if text.isascii() else len(text.encode())) for text in read()]
    best = min(best, time.process_time() - begin)
print(json.dumps([best, len(texts), sum(size for _, size in texts), importlib.metadata.version(package)]))
"""

DATATROVE = """
import sys
from loguru import logger
logger.remove()
from datatrove.pipeline.readers import HuggingFaceDatasetReader, JsonlReader, ParquetReader, WarcReader
kind, folder, name, rounds, limit = sys.argv[1:]
package = "datatrove"
if name.endswith(".warc.gz"):
    from resiliparse.extract.html2text import extract_plain_text
def read():
    if kind == "hub":
        options = {"data_files": [folder + "/" + name], "split": "train"}
        reader = HuggingFaceDatasetReader("json", options, streaming=True)
    else:
        reader = {"jsonl": JsonlReader, "parquet": ParquetReader, "warc": WarcReader}[kind](folder, glob_pattern=name)
    for document in reader.run():
        yield extract_plain_text(document.text, main_content=True) if name.endswith(".warc.gz") else document.text
"""

NEMO = """
import sys
from loguru import logger
logger.remove()
from nemo_curator.stages.text.io.reader.jsonl import JsonlReaderStage
from nemo_curator.stages.text.io.reader.parquet import ParquetReaderStage
from nemo_curator.tasks import FileGroupTask
kind, folder, name, rounds, limit = sys.argv[1:]
package = "nemo-curator"
def read():
    stage = {"jsonl": JsonlReaderStage, "parquet": ParquetReaderStage}[kind](fields=["text"])
    found = stage.process(FileGroupTask(dataset_name="s", data=[folder + "/" + name]))
    return found.to_pyarrow().column("text").to_pylist()
"""

DATATROVE_FILES = {
    "jsonl": "a.jsonl",
    "jsonl, .gz": "a.jsonl.gz",
    "jsonl, .zst": "a.jsonl.zst",
    "parquet": "a.parquet",
    "hub, local JSON lines": "a.jsonl",
    "warc, HTML": "a.warc.gz",
    "warc, WET": "a.wet.gz",
}
"""The rows that datatrove has a reader for, and their files."""

NEMO_FILES = {"jsonl": "a.jsonl", "jsonl, .gz": "a.jsonl.gz", "parquet": "a.parquet"}
"""The rows that NeMo Curator has a reader for, and their files."""


def ours(kind: str, path: Path, **options: Any) -> Sized:
    card = Card.model_validate(
        {"id": "s", "title": "S", "lang": "en", "license": "x", "reader": {"kind": kind, **options}}
    )
    for partition in partitions(PlacedSource(card=card, path=str(path))):
        for raw in read(partition):
            if isinstance(raw, RawDocument):
                yield raw.text, raw.num_bytes


def sized(bare: Callable[[Path], Texts], path: Path) -> Sized:
    return ((text, len(text) if text.isascii() else len(text.encode())) for text in bare(path))


def alone(bare: Callable[[Path], Texts], path: Path) -> Sized:
    return ((text, 0) for text in bare(path))


def wikipedia(path: Path) -> Texts:
    with bz2.open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.endswith("}page"):
                names = {child.tag.rpartition("}")[2]: child for child in element}
                if "redirect" not in names and names["ns"].text == "0":
                    wikitext = next(e.text or "" for e in element.iter() if e.tag.endswith("}text"))
                    yield mwparserfromhell.parse(wikitext).strip_code()
                element.clear()


def stackexchange(path: Path) -> Texts:
    threads: dict[str, list[str]] = {}
    for _, element in ElementTree.iterparse(path):
        if element.tag == "row":
            thread = element.get("ParentId") or element.get("Id", "")
            threads.setdefault(thread, []).append(extract_plain_text(element.get("Body", "")))
            element.clear()
    for posts in threads.values():
        yield "\n\n".join(posts)


def arxiv(path: Path) -> Texts:
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


def warc(path: Path) -> Texts:
    with gzip.open(path) as file:
        for part in file.read().split(b"WARC/1.0\r\n")[2:]:
            yield extract_plain_text(part.split(b"\r\n\r\n", 2)[2].decode(), main_content=True)


def wet(path: Path) -> Texts:
    with gzip.open(path) as file:
        for part in file.read().split(b"WARC/1.0\r\n")[2:]:
            yield part.split(b"\r\n\r\n", 1)[1].decode().rstrip()


def pdf(path: Path) -> Texts:
    for file in sorted(path.iterdir()):
        yield "\n\n".join(page.extract_text() for page in pypdf.PdfReader(file).pages)


def epub(path: Path) -> Texts:
    with zipfile.ZipFile(path / "a.epub") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".xhtml"))
        yield "\n\n".join(extract_plain_text(archive.read(name).decode()) for name in names)


def array(path: Path) -> Texts:
    for record in json.loads(path.read_text(encoding="utf-8")):
        yield record["content"]


def json_lines(path: Path) -> Texts:
    opener: Callable[..., Any] = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opener(path, "rb") as file:
        for line in io.BufferedReader(file, 1 << 20) if path.suffix == ".zst" else file:
            yield json.loads(line)["text"]


def parquet(path: Path) -> Texts:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64, columns=["text"]):
            yield from batch.column("text").to_pylist()


def hub(path: Path) -> Texts:
    import datasets

    for row in datasets.load_dataset("json", data_files=[str(path)], split="train", streaming=True):
        yield row["text"]


def blocks(path: Path) -> Texts:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        yield block.strip()


def whole_files(path: Path) -> Texts:
    for file in sorted(path.iterdir()):
        yield file.read_text(encoding="utf-8")


def tar(path: Path) -> Texts:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            yield file.read().decode()


def tree(path: Path) -> Texts:
    files = sorted(path.rglob("*.py"))
    yield "\n".join(f"==> {file.relative_to(path)} <==\n{file.read_text(encoding='utf-8')}\n" for file in files)


def repositories(path: Path) -> Texts:
    for folder in sorted(path.iterdir()):
        yield from tree(folder)


def stack(path: Path) -> Texts:
    found: dict[str, list[tuple[str, str]]] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64, columns=["repo_name", "path", "content"]):
            for row in batch.to_pylist():
                found.setdefault(row["repo_name"], []).append((row["path"], row["content"]))
    for files in found.values():
        yield "\n".join(f"==> {name} <==\n{text}\n" for name, text in sorted(files))


def topics(path: Path) -> Texts:
    value = ast.parse((path / "pydoc_data" / "topics.py").read_bytes()).body[-1].value  # type: ignore[attr-defined] - an assignment
    yield from ast.literal_eval(value).values()


def measured(*sides: Callable[[], Sized]) -> list[tuple[float, int, int]]:
    """(seconds of the best of ROUNDS, documents, UTF-8 bytes) of each side; the sides take turns."""
    best, counts = [float("inf")] * len(sides), [(0, 0)] * len(sides)
    started = time.process_time()
    for number in range(ROUNDS):
        if number and time.process_time() - started > SECONDS:
            break
        for index, read_all in enumerate(sides):
            begin = time.process_time()
            texts = list(read_all())
            best[index] = min(best[index], time.process_time() - begin)
            counts[index] = len(texts), sum(size for _, size in texts)
            # Each begins in memory that holds no other's texts, or where new ones come to lie decides part of the time.
            del texts
    return [(seconds, *count) for seconds, count in zip(best, counts, strict=True)]


def write(root: Path) -> None:
    """One file or folder for each reader."""
    texts = corpora.topics()
    some = [(f"{title} {n}", text) for n in range(8) for title, text in texts]
    many = [(f"{title} {n}", text) for n in range(80) for title, text in texts]
    for folder in ("pdf", "epub", "txt", "repos", "tree"):
        (root / folder).mkdir()
    (root / "pdf" / "a.pdf").write_bytes(corpora.pdf_bytes(texts[0][0], texts[0][1].splitlines()))
    (root / "epub" / "a.epub").write_bytes(corpora.epub_bytes("Topics", [text for _, text in some]))
    (root / "Posts.xml").write_bytes(corpora.posts_xml(corpora.thread_rows(some)))
    corpora.write_arxiv(root / "a.tar", [(title, text[:12_000]) for title, text in texts[:4]])
    info = corpora.warc_record("warcinfo", "", b"x\r\n")
    html = {"WARC_Identified_Payload_Type": "text/html"}
    pages = [corpora.warc_record("response", "https://e.org", corpora.html_response(*text), **html) for text in some]
    corpora.write_warc(root / "a.warc.gz", [info, *pages])
    extracted = [corpora.warc_record("conversion", "https://e.org", text.encode()) for _, text in many]
    corpora.write_warc(root / "a.wet.gz", [info, *extracted])
    records: list[dict[str, object]] = [{"title": title, "text": text, "content": text} for title, text in many]
    chinese: list[dict[str, object]] = [{"title": t, "content": text} for t, text in corpora.chinese(400, 200)]
    for name, values in (("a.json", records), ("zh.json", chinese)):
        (root / name).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    lines: list[dict[str, object]] = [{"title": title, "text": text} for title, text in many]
    corpora.write_json_lines(root / "a.jsonl", lines)
    corpora.write_json_lines(root / "a.jsonl.gz", lines)
    (root / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress((root / "a.jsonl").read_bytes()))
    table = {"text": [text for _, text in many], "title": [title for title, _ in many]}
    pq.write_table(pa.table(table), root / "a.parquet", compression="zstd", use_dictionary=False)
    flat = ("\n".join(line for line in text.splitlines() if line.strip()) for _, text in many)
    (root / "a.txt").write_text("\n\n".join(flat), encoding="utf-8")
    modules = corpora.modules()
    rows = []
    for number in range(len(some)):
        long = "\n\n".join(some[(number + step) % len(some)][1] for step in range(4))
        (root / "txt" / f"{number}.txt").write_text(long, encoding="utf-8")
        folder = root / "repos" / f"r{number}"
        folder.mkdir()
        for name, source in modules[number % 5 :: 5]:
            (folder / name).write_text(source, encoding="utf-8")
            rows.append((f"r{number}", name, source))
            (root / "tree" / f"{number}_{name}").write_text(source, encoding="utf-8")
    columns = dict(zip(("repo_name", "path", "content"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), root / "stack.parquet", compression="zstd", use_dictionary=False)
    packed = [(path.name, path.read_bytes()) for path in sorted((root / "txt").iterdir())[:24]]
    (root / "books.tar.gz").write_bytes(corpora.tar_bytes(packed, "w:gz"))
    with bz2.open(corpora.english_dump()) as whole:
        head = whole.read(600_000)
    cut = head[: head.rindex(b"</page>") + 7] + b"</mediawiki>"
    (root / "w.xml.bz2").write_bytes(bz2.compress(cut))


def pairs(root: Path) -> list[tuple[str, str, Path, dict[str, Any], Callable[[Path], Texts]]]:
    """(row, reader, path, its options, bare loop)."""
    library = Path(sysconfig.get_path("stdlib"))
    everything: dict[str, Any] = {"license": None}
    return [
        ("jsonl", "jsonl", root / "a.jsonl", {}, json_lines),
        ("jsonl, .gz", "jsonl", root / "a.jsonl.gz", {}, json_lines),
        ("jsonl, .zst", "jsonl", root / "a.jsonl.zst", {}, json_lines),
        ("json", "json", root / "a.json", {"text": "content"}, array),
        ("json, Chinese", "json", root / "zh.json", {"text": "content"}, array),
        ("blocks", "blocks", root / "a.txt", {}, blocks),
        ("parquet", "parquet", root / "a.parquet", {}, parquet),
        ("hub, local JSON lines", "hub", root / "a.jsonl", {"format": "json"}, hub),
        ("text", "text", root / "txt", {}, whole_files),
        ("books, .txt", "books", root / "txt", {}, whole_files),
        ("books, .tar.gz", "books", root / "books.tar.gz", {}, tar),
        ("books, .epub", "books", root / "epub", {}, epub),
        ("files, PDF", "files", root / "pdf", {}, pdf),
        ("code, a tree", "code", root / "tree", {"extensions": [".py"]}, tree),
        ("github, folders", "github", root / "repos", {}, repositories),
        ("github, Parquet", "github", root / "stack.parquet", everything, stack),
        ("stackexchange", "stackexchange", root / "Posts.xml", {}, stackexchange),
        ("warc, HTML", "warc", root / "a.warc.gz", {}, warc),
        ("warc, WET", "warc", root / "a.wet.gz", {}, wet),
        ("pydoc-topics", "pydoc-topics", library, {}, topics),
        ("wikipedia", "wikipedia", root / "w.xml.bz2", {}, wikipedia),
        ("arxiv", "arxiv", root / "a.tar", {}, arxiv),
    ]


def peer(script: str, python: str, root: Path, kind: str, name: str) -> tuple[float, int, int, str]:
    command = [python, "-c", script + PEER_LOOP, kind, str(root), name, str(ROUNDS), str(SECONDS / 2)]
    seconds, count, size, version = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds, count, size, version


def main() -> None:
    """Measures every pair, or those that are named, and stores the rows; each names its commit, as the others stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--nemo", metavar="PYTHON")
    parser.add_argument("rows", metavar="ROW", nargs="*")
    chosen = parser.parse_args()
    peers = [
        ("datatrove", DATATROVE, DATATROVE_FILES, chosen.datatrove),
        ("nemo_curator", NEMO, NEMO_FILES, chosen.nemo),
    ]
    wanted = chosen.rows
    stored = RESULTS / "readers.json"
    before = json.loads(stored.read_text(encoding="utf-8"))["rows"] if wanted and stored.is_file() else []
    rows: dict[str, dict[str, Any]] = {row["reader"]: row for row in before}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root)
        found = pairs(root)
        assert {kind for _, kind, *_ in found} == set(READERS), "every reader is measured"
        for row, kind, path, options, bare in found:
            if wanted and row not in wanted:
                continue
            sides = [
                functools.partial(ours, kind, path, **options),
                *(functools.partial(side, bare, path) for side in (sized, alone)),
            ]
            mine, other, texts = measured(*sides)
            seconds, count, size = mine
            rows[row] = {
                "reader": row,
                "documents": count,
                "mb": round(size / 1e6, 2),
                "mb_per_s": round(size / 1e6 / seconds, 2),
                "documents_per_s": round(count / seconds, 1),
                "bare_mb_per_s": round(other[2] / 1e6 / other[0], 2),
                "time_against_bare": round(seconds / other[0], 2),
                "time_against_texts_alone": round(seconds / texts[0], 2),
                "load": round(os.getloadavg()[0], 1),
                "commit": machine()["commit"],
            }
            for package, script, files, python in peers:
                if python is not None and row in files:
                    seconds, count, size, version = peer(script, python, root, kind, files[row])
                    rows[row][package] = version
                    rows[row][f"{package}_documents"] = count
                    rows[row][f"{package}_mb_per_s"] = round(size / 1e6 / seconds, 2)
            print(rows[row], flush=True)
    packages = ("mwparserfromhell", "pyarrow", "pylatexenc", "pypdf", "resiliparse", "zstandard")
    store("readers", list(rows.values()), packages=packages)


if __name__ == "__main__":
    main()
