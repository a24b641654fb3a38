"""Archives and packed files: damaged, hostile, or larger than they say."""

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from longalign_data.sources import reading, unpacking
from longalign_data.sources.readers import (
    archives,
    fields,
    partitions,
    read,
    stackexchange,
)
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


def repacked(data: bytes, method: int) -> bytes:
    """A zip file with its members packed by another method."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def member_spoiled(data: bytes, name: str) -> bytes:
    """A zip file with bytes in the middle of a member inverted."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(name)
    at = member.header_offset + 30 + len(name) + member.compress_size // 3
    return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 16]) + data[at + 16 :]


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_of_a_zip_is_a_reject_however_it_is_packed(method: int, tmp_path: Path) -> None:
    code = "".join(f"x{n} = {n}\n" for n in range(300))
    good = repacked(corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", code.encode())]), method)
    (tmp_path / "github").mkdir()
    (tmp_path / "github" / "bad.zip").write_bytes(member_spoiled(good, "repo/a.py"))
    (tmp_path / "github" / "good.zip").write_bytes(good)
    book = repacked(corpora.epub_bytes("T", [code]), method)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "bad.epub").write_bytes(member_spoiled(book, "OEBPS/c0.xhtml"))
    (tmp_path / "files" / "good.epub").write_bytes(book)
    for kind, reader in (("github", "github"), ("files", "files"), ("files", "books")):
        found = everything(placed(tmp_path / kind, reader))
        assert len(docs(found)) == 1
        assert reasons(found) == ["damaged-file"]
        assert found[0].source_ref.startswith("bad.")


@pytest.mark.parametrize("method", METHODS)
def test_a_zip_whose_members_are_said_to_begin_before_the_file_is_a_reject(method: int, tmp_path: Path) -> None:
    good = repacked(corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", b"x = 1\n")]), method)
    at = good.rindex(b"PK\5\6") + 16
    (tmp_path / "bad.zip").write_bytes(good[:at] + (1 << 20).to_bytes(4, "little") + good[at + 4 :])
    (tmp_path / "good.zip").write_bytes(good)
    found = everything(placed(tmp_path, "github"))
    assert [raw.source_ref for raw in docs(found)] == ["good.zip"]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [
        ("bad.zip", "damaged-file")
    ]


def test_a_zip_with_a_member_without_a_name_is_a_reject(tmp_path: Path) -> None:
    good = corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", b"x = 1\n")])
    at = good.rindex(b"repo/a.py")
    (tmp_path / "a.zip").write_bytes(good[:at] + b"\0" + good[at + 1 :])
    (tmp_path / "good.zip").write_bytes(good)
    found = everything(placed(tmp_path, "github"))
    assert [raw.source_ref for raw in docs(found)] == ["good.zip"]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [("a.zip", "damaged-file")]


def test_bombs_are_rejects(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(b"\0" * (1 << 20))
    lol = '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><package>&b;</package>'
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as archive:
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="p.opf"/></container>')
        archive.writestr("p.opf", lol)
    found = everything(placed(tmp_path, "files"))
    assert reasons(found) == ["unpacks-too-large", "bad-xml"]
    papers = corpora.tar_bytes([("2301/2301.00001.gz", gzip.compress(b"\0" * (80 << 20)))])
    (tmp_path / "x.tar").write_bytes(papers)
    assert reasons(everything(placed(tmp_path / "x.tar", "arxiv"))) == ["unpacks-too-large"]


def bomb(name: str, size: int) -> bytes:
    """A file of few bytes that unpacks to `size` and more, behind what its format begins with."""
    zeros = b"\0" * size
    if name.endswith(".zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("repo/a.py", zeros)
        return buffer.getvalue()
    if ".tar" in name:
        whole = corpora.tar_bytes([("repo/a.py", zeros), ("repo/b.txt", zeros)])
    else:
        heads = {
            "warc": b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 999999999\r\n\r\n",
            "xml": b"",
            "json": b'[{"content": "',
        }
        heads["xml"] = corpora.MEDIAWIKI_HEAD.encode() if name.startswith("w") else b"<posts>\n<row "
        whole = next((head for part, head in heads.items() if part in name.split(".")), b"") + zeros
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    return pack[Path(name).suffix](whole)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("jsonl", "a.jsonl.gz"), ("jsonl", "a.jsonl.zst"), ("json", "a.json.gz"), ("blocks", "a.txt.gz"), ("warc", "a.warc.gz"),
        ("wikipedia", "w-pages-articles.xml.bz2"), ("stackexchange", "Posts.xml.bz2"), ("stackexchange", "Posts.xml.xz"),
        ("books", "a.tar.gz"), ("books", "a.jsonl.gz"), ("github", "a.tar.bz2"), ("github", "a.zip"), ("arxiv", "a.tar.gz"),
    ],
)  # fmt: skip
def test_a_bomb_in_any_packed_format_is_a_reject_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 4 << 20)
    monkeypatch.setattr(archives, "FREE_BYTES", 4 << 20)
    (tmp_path / name).write_bytes(bomb(name, 68 << 20))
    assert (tmp_path / name).stat().st_size < 150_000
    found = partitions(placed(tmp_path / name, kind))
    tracemalloc.start()
    rejects = [raw for partition in found for raw in read(partition)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "unpacks-too-large" in reasons(rejects)
    assert docs(rejects) == []
    # What was meant to be a single document is given up at its bound, whatever the rest would be.
    assert peak < reading.MAX_RECORD_BYTES * 2


def long_name_tar(kind: bytes) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 80 << 20
    return header.tobuf(tarfile.GNU_FORMAT) + b"a" * (80 << 20) + corpora.tar_bytes([("repo/a.py", b"x = 1")])


def sparse_tar() -> bytes:
    header = tarfile.TarInfo("repo/holes")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block) + (b"\0" * 504 + b"\1" + b"\0" * 7) * 100_000


@pytest.mark.parametrize(
    ("kind", "name", "made", "reason"),
    [
        ("github", "a.tar.gz", lambda: gzip.compress(long_name_tar(b"L")), "bad-archive"),
        ("books", "a.tar.gz", lambda: gzip.compress(long_name_tar(b"K")), "bad-archive"),
        ("arxiv", "a.tar", lambda: long_name_tar(b"x"), "bad-archive"),
        ("github", "a.tar", lambda: sparse_tar(), "bad-archive"),
        ("jsonl", "a.jsonl", lambda: b'{"text": "x", "t": [' + b"[]," * (1 << 13) + b"[]]}\n", "bad-json"),
        ("json", "a.json", lambda: b'[{"content": "x", "t": [' + b"[]," * (1 << 13) + b"[]]}]\n", "bad-json"),
        ("wikipedia", "w.xml", lambda: corpora.MEDIAWIKI_HEAD.encode() + b"<page><ns>0</ns>" + b"<a/>" * (2 << 20) + b"</page></mediawiki>", "bad-xml"),
        ("wikipedia", "w.xml", lambda: corpora.MEDIAWIKI_HEAD.encode() + b"<page><ns>0</ns><a" + b' a=""' * (2 << 20) + b"/></page></mediawiki>", "bad-xml"),
    ],
)  # fmt: skip
def test_what_would_grow_in_memory_is_a_reject_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, made: Callable[[], bytes], reason: str
) -> None:
    monkeypatch.setattr(fields, "MAX_JSON_SIGNS", 1 << 13)
    (tmp_path / name).write_bytes(made())
    found = partitions(placed(tmp_path / name, kind))
    tracemalloc.start()
    rejects = [raw for partition in found for raw in read(partition)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons(rejects) == [reason]
    assert docs(rejects) == []
    assert peak < 64 << 20


@pytest.mark.parametrize("method", ["FILTER_DEFLATE", "FILTER_BZIP2", "FILTER_LZMA2"])
def test_a_7z_that_unpacks_without_end_is_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import py7zr

    preset = {"preset": 0} if method == "FILTER_LZMA2" else {}
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w", filters=[{"id": getattr(py7zr, method), **preset}]) as archive:
        archive.writestr(b"x" * (64 << 20), "Posts.xml")
    monkeypatch.setattr(stackexchange, "FREE_BYTES", 8 << 20)
    assert reasons(everything(placed(tmp_path, "stackexchange"))) == ["unpacks-too-large"]


@pytest.mark.parametrize(("window", "expected"), [(b"\x1c", []), (b"\x24", ["unpacks-too-large"])])
def test_a_7z_that_asks_for_a_window_of_a_gigabyte_is_a_reject(
    tmp_path: Path, window: bytes, expected: list[str]
) -> None:
    """Made with 64 MiB and changed in the header alone: to pack with a gigabyte would take eleven."""
    import py7zr

    packed = io.BytesIO()
    filters = [{"id": py7zr.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
    with py7zr.SevenZipFile(packed, "w", filters=filters) as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(corpora.posts_xml(corpora.thread_rows([("T", "x")])), "Posts.xml")
    data = packed.getvalue()
    at = 32 + int.from_bytes(data[12:20], "little")
    header = data[at:].replace(b"\x21\x21\x01\x1c", b"\x21\x21\x01" + window)
    start = data[12:28] + zlib.crc32(header).to_bytes(4, "little")
    (tmp_path / "a.7z").write_bytes(data[:8] + zlib.crc32(start).to_bytes(4, "little") + start + data[32:at] + header)
    assert reasons(everything(placed(tmp_path, "stackexchange"))) == expected


def test_a_giant_line_and_a_giant_book_stay_below_a_gigabyte(tmp_path: Path) -> None:
    """A one-line JSON array of 300 MB and a book of 200 MB, in a process of their own."""
    with (tmp_path / "a.json").open("wb") as file:
        file.write(b'[{"content": "')
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b'"}]')
    with (tmp_path / "b.txt").open("wb") as file:
        for _ in range(200):
            file.write(b"word " * (1 << 18))
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from longalign_data.catalog import Card\nfrom longalign_data.recipe import PlacedSource\n"
        "from longalign_data.sources.readers import partitions, read\n"
        "for kind, name in (('json', 'a.json'), ('books', 'b.txt')):\n"
        "    card = Card.model_validate({'id': 's', 'title': 'S', 'lang': 'en', 'license': 'x', 'reader': {'kind': kind}})\n"
        "    placed = PlacedSource(card=card, path=str(Path(sys.argv[1]) / name))\n"
        "    print([raw.reason for p in partitions(placed) for raw in read(p)])\n"
        # ru_maxrss would begin with what the process had resident that started this one.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=600, check=True
    )
    first, second, peak = done.stdout.splitlines()
    assert (first, second) == ("['too-large']", "['too-large']")
    assert int(peak) < 1 << 20
