"""Every reader on real bytes, and every fault that a record can have."""

import gzip
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data import catalog
from longalign_data.catalog import Card
from longalign_data.errors import SourceError
from longalign_data.recipe import PlacedSource
from longalign_data.sources import reading
from longalign_data.sources.readers import READERS, jsonl, parquet, partitions, read, row_batches
from longalign_data.sources.reading import REASONS, RawDocument, RawReject


def placed(path: Path | str | None, kind: str, **reader: Any) -> PlacedSource:
    card = Card.model_validate(
        {"id": "s", "title": "S", "lang": "en", "license": "CC0-1.0", "reader": {"kind": kind, **reader}}
    )
    return PlacedSource(card=card, path=None if path is None else str(path))


def everything(source: PlacedSource) -> list[RawDocument | RawReject]:
    found = [raw for partition in partitions(source) for raw in read(partition)]
    assert {raw.reason for raw in found if isinstance(raw, RawReject)} <= set(REASONS)
    assert all(raw.num_bytes == len(raw.text.encode()) for raw in found if isinstance(raw, RawDocument))
    return found


def texts(found: Iterable[RawDocument | RawReject]) -> list[str]:
    return [raw.text for raw in found if isinstance(raw, RawDocument)]


def rejects(found: Iterable[RawDocument | RawReject]) -> list[RawReject]:
    return [raw for raw in found if isinstance(raw, RawReject)]


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_every_kind_of_a_card_has_a_reader() -> None:
    union = get_args(catalog.Reader)[0]
    kinds = {get_args(model.model_fields["kind"].annotation)[0] for model in get_args(union)}
    assert kinds == set(READERS)


# jsonl


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_are_read_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    data = b'{"body": "one", "heading": " A\\n title "}\n\n{"body": "\xe4\xba\x8c\\r\\nend", "language": "zh"}'
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(data))
    found = everything(placed(path, "jsonl", text="body", title="heading", lang="language"))
    assert [(raw.text, raw.title, raw.lang, raw.license) for raw in found if isinstance(raw, RawDocument)] == [
        ("one", "A title", "en", "CC0-1.0"),
        ("二\nend", "", "zh", "CC0-1.0"),
    ]
    refs = ["a.jsonl:0-42", "a.jsonl:43-83"] if not suffix else [f"a.jsonl{suffix}#0", f"a.jsonl{suffix}#2"]
    assert [raw.source_ref for raw in found] == refs


def test_a_reference_to_a_plain_file_finds_the_bytes_again(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "eins"}, {"text": "zwei €"}, {"text": "drei"})
    for raw in everything(placed(path, "jsonl")):
        name, _, span = raw.source_ref.rpartition(":")
        start, end = map(int, span.split("-"))
        assert isinstance(raw, RawDocument)
        assert json.loads((tmp_path / name).read_bytes()[start:end])["text"] == raw.text


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        (b'{"text": "cut off', "bad-json", "line 2, column 10"),
        (b'["text"]', "not-an-object", "a list; expected an object"),
        (b'{"txet": "x", "id": 1}', "missing-field", "Fields here: id, txet"),
        (b'{"text": null}', "missing-field", "is null"),
        (b'{"text": ["x"]}', "wrong-type", "is list; expected text"),
        (b'{"text": "x", "title": ["x"]}', "wrong-type", "'title' is list"),
        (b'{"text": "x", "title": true}', "wrong-type", "'title' is bool"),
        (b'{"text": "\xff"}', "bad-utf8", "byte 10"),
        (b'{"text": "a\\ud800b"}', "bad-utf8", "lone surrogate at character 1"),
        (b'{"text": "a\\u0000b"}', "nul-character", "NUL at character 1"),
        (b'{"text": " \\n\\t"}', "empty", "white space"),
        (b'{"text": ""}', "empty", "white space"),
        (b"[" * 100_000, "bad-json", "line 2"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "bad-json", "line 2"),
    ],
)
def test_a_bad_line_is_one_reject_and_its_neighbours_stand(
    tmp_path: Path, line: bytes, reason: str, words: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    found = everything(placed(path, "jsonl", title="title"))
    assert texts(found) == ["before", "after"]
    (reject,) = rejects(found)
    assert reject.reason == reason
    assert "a.jsonl" in reject.detail
    assert words in reject.detail


@pytest.mark.parametrize(
    ("tag", "lang"), [("zh-CN", "zh"), ("EN", "en"), ("eng", "en"), ("ita", "ita"), ("pt_BR", "pt"), ("", "en")]
)
def test_a_records_language_tag_becomes_the_code_that_cards_use(tmp_path: Path, tag: str, lang: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "x", "lang": tag})
    (document,) = everything(placed(path, "jsonl", lang="lang"))
    assert isinstance(document, RawDocument)
    assert document.lang == lang


def test_a_language_that_is_no_code_is_a_reject(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "x", "lang": "English"})
    (reject,) = rejects(everything(placed(path, "jsonl", lang="lang")))
    assert reject.reason == "bad-record"
    assert "'English'; expected a language code" in reject.detail


def test_pairs_of_surrogates_in_json_are_one_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\\ud83d\\ude00"}\n')
    assert texts(everything(placed(path, "jsonl"))) == ["\U0001f600"]


def test_a_byte_order_mark_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "\\ufeffone"}\n')
    assert texts(everything(placed(path, "jsonl"))) == ["one"]


def test_an_endless_line_is_rejected_and_the_next_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_RECORD_BYTES", 1000)
    data = b'{"text": "' + b"x" * 5000 + b'"}\n{"text": "after"}\n'
    for name, pack in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(data))
        found = everything(placed(tmp_path / name, "jsonl"))
        assert texts(found) == ["after"]
        assert [reject.reason for reject in rejects(found)] == ["line-too-long"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_archive_gives_what_came_before_and_a_reject(tmp_path: Path, suffix: str) -> None:
    lines = b"".join(b'{"text": "%s"}\n' % os.urandom(400).hex().encode() for _ in range(2000))
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    packed = pack(lines)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    found = everything(placed(path, "jsonl"))
    assert 500 < len(texts(found)) < 1500
    assert [reject.reason for reject in rejects(found)] == ["truncated-archive"]
    assert f"beyond line {len(texts(found))}" in rejects(found)[0].detail


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_no_archive_is_a_reject(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b'{"text": "not packed at all"}\n' * 9)
    assert [raw.reason for raw in rejects(everything(placed(path, "jsonl")))] == ["damaged-file"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_archives_of_several_members_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b"".join(pack(b'{"text": "%d"}\n' % number) for number in range(50)))
    assert texts(everything(placed(path, "jsonl"))) == [str(number) for number in range(50)]


@pytest.mark.parametrize("window_log", [29, 30, 31])
def test_zstandard_with_a_long_window_is_read_while_the_window_fits_in_memory(tmp_path: Path, window_log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    path = tmp_path / "a.jsonl.zst"
    with path.open("wb") as file, zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file) as writer:
        writer.write(b'{"text": "far apart"}\n')
    found = everything(placed(path, "jsonl"))
    if window_log == 29:
        assert texts(found) == ["far apart"]
    else:
        (reject,) = found
        assert isinstance(reject, RawReject)
        assert reject.reason == "unpacks-too-large"
        assert "512 MiB" in reject.detail


@settings(max_examples=60)
@given(
    lines=st.lists(st.text(alphabet="ab€\r", max_size=12), max_size=12),
    size=st.integers(1, 40),
    final_newline=st.booleans(),
)
def test_every_line_is_read_once_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], size: int, final_newline: bool
) -> None:
    path = tmp_path / "a.jsonl"
    body = "\n".join(json.dumps({"text": f"x{line}"}) for line in lines)
    path.write_bytes(body.encode() + (b"\n" if final_newline else b""))
    monkeypatch.setattr(jsonl, "RANGE_BYTES", 1 << 30)
    whole = everything(placed(path, "jsonl"))
    monkeypatch.setattr(jsonl, "RANGE_BYTES", size)
    assert everything(placed(path, "jsonl")) == whole
    assert len(whole) == len(lines)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "word " * 2000}).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(4000):
            file.write(line)
    (partition,) = partitions(placed(path, "jsonl"))
    tracemalloc.start()
    count = sum(1 for _ in read(partition))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < 4 << 20 < path.stat().st_size


def test_other_archives_are_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.bz2").write_bytes(b"BZh9")
    with pytest.raises(SourceError, match=r"unpack it, or use \.gz or \.zst"):
        partitions(placed(tmp_path / "a.jsonl.bz2", "jsonl"))


# parquet


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_rows_are_documents_whatever_holds_the_text(tmp_path: Path, kind: pa.DataType) -> None:
    body = pa.array(["one", "two\r\n", None]).cast(kind)
    path = write_parquet(tmp_path / "a.parquet", {"body": body, "name": ["A", None, "C"], "n": [1, 2, 3]})
    found = everything(placed(path, "parquet", text="body", title="name"))
    assert [(raw.text, raw.title) for raw in found if isinstance(raw, RawDocument)] == [("one", "A"), ("two\n", "")]
    assert [raw.source_ref for raw in found] == ["a.parquet#0", "a.parquet#1", "a.parquet#2"]
    assert [reject.reason for reject in rejects(found)] == ["missing-field"]


def test_parquet_text_that_is_not_utf8_is_one_reject(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe", b"fine"])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    found = everything(placed(write_parquet(tmp_path / "a.parquet", {"text": text}), "parquet"))
    assert texts(found) == ["good", "fine"]
    assert [(reject.reason, reject.source_ref) for reject in rejects(found)] == [("bad-utf8", "a.parquet#1")]


def test_parquet_row_groups_are_cut_into_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [f"text {n}" for n in range(100)]}, row_group_size=7)
    source = placed(path, "parquet")
    whole = everything(source)
    assert len(partitions(source)) == 1
    monkeypatch.setattr(parquet, "RANGE_BYTES", 200)
    assert len(partitions(source)) > 3
    assert everything(source) == whole
    assert texts(whole) == [f"text {n}" for n in range(100)]


def test_a_damaged_parquet_page_is_a_reject_and_the_rows_before_it_stand(tmp_path: Path) -> None:
    rows = [os.urandom(200).hex() for _ in range(400)]
    path = write_parquet(
        tmp_path / "a.parquet", {"text": rows}, row_group_size=100, use_dictionary=False, compression="zstd"
    )
    with pq.ParquetFile(path) as file:
        offset = file.metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 4000] = b"\0" * 4000
    path.write_bytes(data)
    found = everything(placed(path, "parquet"))
    assert texts(found) == rows[: len(texts(found))]
    assert 100 <= len(texts(found)) <= 200
    assert [reject.reason for reject in rejects(found)] == ["damaged-file"]


def test_whatever_byte_of_a_parquet_footer_is_damaged_the_process_lives_and_says_so(tmp_path: Path) -> None:
    """Of some bytes (the lengths of the histograms of levels) pyarrow's `metadata.column` ends the process."""
    data = write_parquet(tmp_path / "whole.parquet", {"text": ["a few words"] * 3}).read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    told = []
    for at in range(len(data) - 8 - footer, len(data) - 8):
        (tmp_path / "a.parquet").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            found = everything(placed(tmp_path / "a.parquet", "parquet"))
        except SourceError as error:
            told.append(str(error))
        else:
            told += [reject.detail for reject in rejects(found) if reject.reason == "damaged-file"]
    assert len(told) > footer // 4
    assert all("a.parquet" in words for words in told)


def test_the_name_of_a_parquet_file_is_no_pattern(tmp_path: Path) -> None:
    for name in ("a[0].parquet", "a?b.parquet", "a*b.parquet"):
        write_parquet(tmp_path / name, {"text": [f"text of {name}"]})
    (tmp_path / "a0.parquet").write_bytes((tmp_path / "a[0].parquet").read_bytes()[:-60] + b"x" * 60)
    for name in ("a[0].parquet", "a?b.parquet", "a*b.parquet"):
        assert texts(everything(placed(tmp_path / name, "parquet"))) == [f"text of {name}"]
        with pq.ParquetFile(tmp_path / name) as file:
            (group,) = row_batches.footer(tmp_path / name, file, [0], ["text"])
            chunk = file.metadata.row_group(0).column(0)
        assert (group.size, group.packed) == (chunk.total_uncompressed_size, chunk.total_compressed_size)


def test_a_name_in_a_parquet_footer_that_is_not_utf8_is_an_error_or_reject_that_names_the_file(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "whole.parquet", {"text": ["words"], "name": ["A"]}).read_bytes()
    told = []
    for match in re.finditer(rb"\x04(?:text|name)", data):
        at = match.start() + 2
        (tmp_path / "a.parquet").write_bytes(data[:at] + b"\xe7" + data[at + 1 :])
        try:
            found = everything(placed(tmp_path / "a.parquet", "parquet", title="name"))
        except SourceError as error:
            told.append(str(error))
        else:
            told += [reject.detail for reject in rejects(found) if reject.reason == "damaged-file"]
    assert len(told) == 4, "each name stands in the schema and in its column's chunk"
    assert all("a.parquet" in words for words in told)
    assert any("not a whole Parquet file" in words for words in told)
    assert any("cannot be read from row 0 on" in words for words in told)


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 50])
def test_a_file_that_is_not_parquet_is_a_source_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.parquet: not a whole Parquet file"):
        partitions(placed(tmp_path, "parquet"))


def test_a_missing_or_numeric_column_is_a_source_error_that_names_the_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"body": ["x"], "n": [1]})
    with pytest.raises(SourceError, match="no column 'text'; it has: body, n"):
        partitions(placed(path, "parquet"))
    with pytest.raises(SourceError, match="column 'n' is int64; expected text"):
        partitions(placed(path, "parquet", text="n"))


# text


def test_text_files_below_a_folder_are_documents_in_path_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b.txt", "a-b/c.txt", "skip.csv", ".hidden/x.txt", "Ü.TXT"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}\r\n", encoding="utf-8", newline="")
    found = everything(placed(tmp_path, "text"))
    assert [(raw.source_ref, raw.title) for raw in found if isinstance(raw, RawDocument)] == [
        ("a/b.txt", "a/b"),
        ("a/z.md", "a/z"),
        ("a-b/c.txt", "a-b/c"),
        ("b.txt", "b"),
        ("Ü.TXT", "Ü"),
    ]
    assert texts(found)[0] == "text of a/b.txt\n"


def test_text_files_may_be_one_file_or_a_glob(tmp_path: Path) -> None:
    for name in ("x/1.log", "x/2.log", "y/3.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(everything(placed(tmp_path / "x/1.log", "text"))) == ["x/1.log"]
    assert texts(everything(placed(tmp_path / "*/*.log", "text"))) == ["x/1.log", "x/2.log", "y/3.log"]
    assert texts(everything(placed(tmp_path / "**/2.log", "text"))) == ["x/2.log"]


def test_a_file_whose_name_has_magic_characters_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("bracket")
    assert texts(everything(placed(tmp_path / "a[1].txt", "text"))) == ["bracket"]


@settings(max_examples=300)
@given(
    text=st.text(alphabet="ab €\r\n\0\ufeff\ud800\U0001f600", max_size=12),
    title=st.text(alphabet="a €\n\0\ud800", max_size=4),
)
def test_every_text_is_put_in_order_or_refused_whether_it_came_as_bytes_or_not(text: str, title: str) -> None:
    def document(text: str, num_bytes: int = -1) -> RawDocument:
        return RawDocument(text=text, title=title, lang="en", license="X", source_ref="a", num_bytes=num_bytes)

    found = reading.settled(document(text))
    wanted = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for name, value in (("title", " ".join(title.split())), ("text", wanted)):
        bad = min((value.index(sign) for sign in "\0\ud800" if sign in value), default=None)
        if bad is not None:
            assert isinstance(found, RawReject)
            assert found.reason == ("bad-utf8" if "\ud800" in value else "nul-character")
            first = value.index("\ud800") if "\ud800" in value else bad
            assert f"{name} has a " in found.detail
            assert f"at character {first};" in found.detail
            break
    else:
        if wanted.strip():
            kept = RawDocument(
                text=wanted,
                title=" ".join(title.split()),
                lang="en",
                license="X",
                source_ref="a",
                num_bytes=len(wanted.encode()),
            )
            assert found == kept
        else:
            assert isinstance(found, RawReject)
            assert found.reason == "empty"
    if "\ud800" not in text:
        assert reading.settled(document(*reading.decoded_in_order(text.encode()))) == found
    assert reading.settled(document(*reading.in_order(text))) == found


def test_text_faults_are_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longalign_data.sources.readers import text as text_reader

    monkeypatch.setattr(text_reader, "MAX_RECORD_BYTES", 100)
    folder = tmp_path / "corpus"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "a-link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "b-latin.txt").write_bytes(b"caf\xe9")
    (folder / "c-large.txt").write_text("x" * 101)
    (folder / "d-empty.txt").write_text("\n \n")
    (folder / "e-binary.txt").write_bytes(b"a\0b")
    (folder / "f-good.txt").write_bytes(b"\xef\xbb\xbfgood")
    (folder / "g-inside.txt").symlink_to("f-good.txt")
    found = everything(placed(folder, "text"))
    assert texts(found) == ["good", "good"]
    assert [(reject.source_ref, reject.reason) for reject in rejects(found)] == [
        ("a-link.txt", "link-outside"),
        ("b-latin.txt", "bad-utf8"),
        ("c-large.txt", "too-large"),
        ("d-empty.txt", "empty"),
        ("e-binary.txt", "nul-character"),
    ]


def test_a_file_name_that_is_not_utf8_becomes_a_storable_reference(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (raw,) = everything(placed(tmp_path, "text"))
    assert raw.source_ref == "caf\\udce9.txt"


def test_many_small_files_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "GROUP_UNITS", 4)
    monkeypatch.setattr(reading, "GROUP_BYTES", 25)
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("0123456789" if number < 4 else "x")
    found = partitions(placed(tmp_path, "text"))
    assert [[unit.name for unit in partition.units] for partition in found] == [
        ["0.txt", "1.txt"],
        ["2.txt", "3.txt", "4.txt", "5.txt"],
        ["6.txt", "7.txt", "8.txt", "9.txt"],
    ]


# code


def make_tree(root: Path) -> Path:
    files: dict[str, bytes] = {
        "main.py": b"print('main')\n",
        "util.py": b"UTIL = 1\n",
        "pkg/__init__.py": b"",
        "pkg/core.py": b"\xef\xbb\xbfCORE = 1\r\n",
        "pkg/sub/deep.py": b"DEEP = 1\n",
        "pkg/data.bin": b"\0\1",
        "pkg/blob.py": b"x = '\0'\n",
        "pkg/huge.py": b"#" * 5000,
        "build/lib/main.py": b"copy\n",
        "dist/__init__.py": b"DIST = 1\n",
        "node_modules/left/index.js": b"vendored\n",
        "env/pyvenv.cfg": b"",
        "env/lib/x.py": b"vendored\n",
        "target/CACHEDIR.TAG": b"",
        "target/x.py": b"built\n",
        ".git/hooks.py": b"hidden\n",
        "web/app.js": b"let a = 1;\n" * 5,
        "web/app.min.js": b"let a=1;\n",
        "web/bundle.js": b"x" * 900,
        "docs/tests/test_x.py": b"excluded\n",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def code(path: Path, unit: str, **reader: Any) -> PlacedSource:
    return placed(path, "code", unit=unit, max_file_bytes=4000, exclude=["*/tests"], **reader)


def test_a_tree_is_one_document_with_a_header_before_each_file(tmp_path: Path) -> None:
    refused, document = everything(code(make_tree(tmp_path), "tree"))
    assert isinstance(refused, RawReject)
    assert (refused.source_ref, refused.reason) == ("pkg/huge.py", "too-large")
    assert "max_file_bytes" in refused.detail
    assert isinstance(document, RawDocument)
    assert document.title == "S"
    assert document.text == (
        "==> dist/__init__.py <==\nDIST = 1\n\n"
        "==> main.py <==\nprint('main')\n\n"
        "==> pkg/core.py <==\nCORE = 1\n\n"
        "==> pkg/sub/deep.py <==\nDEEP = 1\n\n"
        "==> util.py <==\nUTIL = 1\n\n"
        f"==> web/app.js <==\n{'let a = 1;' + chr(10)}{('let a = 1;' + chr(10)) * 4}"
    )


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        ("entry", ["dist", "main.py", "pkg", "util.py", "web"]),
        ("folder", [".", "dist", "pkg", "pkg/sub", "web"]),
        ("module", ["dist", "main.py", "pkg", "pkg/sub", "util.py", "web"]),
    ],
)
def test_units_cut_a_tree_into_documents(tmp_path: Path, unit: str, names: list[str]) -> None:
    found = everything(code(make_tree(tmp_path), unit))
    assert [raw.source_ref for raw in found if isinstance(raw, RawDocument)] == names
    assert [raw.source_ref for raw in rejects(found)] == ["pkg/huge.py"]
    heads = [line[4:-4] for text in texts(found) for line in text.splitlines() if line.startswith("==> ")]
    assert sorted(heads) == [
        "dist/__init__.py",
        "main.py",
        "pkg/core.py",
        "pkg/sub/deep.py",
        "util.py",
        "web/app.js",
    ]


def test_links_that_leave_a_tree_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key.py").write_text("KEY = 1")
    root = tmp_path / "repo"
    root.mkdir()
    (root / "a.py").write_text("A = 1")
    (root / "b.py").symlink_to(tmp_path / "secret/key.py")
    (root / "c").symlink_to(tmp_path / "secret", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (document,) = everything(placed(root, "code"))
    assert isinstance(document, RawDocument)
    assert document.text == "==> a.py <==\nA = 1\n"


def test_a_file_that_is_not_utf8_is_rejected_and_the_unit_stands(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.py").write_text("A = 1")
    (tmp_path / "p/b.py").write_bytes(b"# caf\xe9")
    (tmp_path / "q.py").write_bytes(b"# caf\xe9")
    (tmp_path / "r.py").write_bytes(b"")
    found = everything(placed(tmp_path, "code", unit="entry"))
    assert texts(found) == ["==> p/a.py <==\nA = 1\n"]
    assert [(reject.source_ref, reject.reason) for reject in rejects(found)] == [
        ("p/b.py", "bad-utf8"),
        ("q.py", "bad-utf8"),
        ("r.py", "empty"),
    ]


def test_a_unit_beyond_all_sizes_is_rejected_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longalign_data.sources.readers import code as code_reader

    monkeypatch.setattr(code_reader, "MAX_RECORD_BYTES", 10)
    (tmp_path / "a.py").write_text("A = 1\nB = 2\n")
    assert [reject.reason for reject in rejects(everything(placed(tmp_path, "code")))] == ["too-large"]


def test_a_tree_without_source_files_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(SourceError, match=r"no file ends in \.py"):
        partitions(placed(tmp_path, "code", extensions=[".py"]))


# pydoc topics


def test_topics_are_documents_by_name_and_the_module_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "topics.py"
    path.write_text("raise SystemExit('imported')\ntopics = {'b': 'second', 'a': 'first\\n' 'line'}\n")
    found = everything(placed(path, "pydoc-topics"))
    assert [(raw.title, raw.text, raw.source_ref) for raw in found if isinstance(raw, RawDocument)] == [
        ("a", "first\nline", "topics.py#a"),
        ("b", "second", "topics.py#b"),
    ]


@pytest.mark.parametrize("content", ["topics = [1]", "topics = {'a': open('x')}", "other = {}", "topics = {"])
def test_a_module_without_topics_is_a_source_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "topics.py").write_text(content)
    with pytest.raises(SourceError, match="no dictionary of texts called 'topics'"):
        everything(placed(tmp_path, "pydoc-topics"))


def test_the_running_python_has_topics() -> None:
    found = everything(placed("python:stdlib", "pydoc-topics"))
    assert len(found) > 50
    assert {"assert", "lambda"} <= {raw.title for raw in found if isinstance(raw, RawDocument)}


# hub


@pytest.mark.parametrize("data_format", ["json", "parquet", "csv"])
def test_local_files_are_read_through_datasets(tmp_path: Path, data_format: str) -> None:
    if data_format == "json":
        write_lines(tmp_path / "a.jsonl", {"text": "one", "name": "A"}, {"text": "two", "name": None})
    elif data_format == "parquet":
        write_parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "name": ["A", None]})
    else:
        (tmp_path / "a.csv").write_text("text,name\none,A\ntwo,\n")
    found = everything(placed(tmp_path, "hub", format=data_format, title="name"))
    assert [(raw.text, raw.title) for raw in found if isinstance(raw, RawDocument)] == [("one", "A"), ("two", "")]
    suffix = "jsonl" if data_format == "json" else data_format
    assert [raw.source_ref for raw in found] == [f"a.{suffix}#0", f"a.{suffix}#1"]


def test_a_hub_dataset_is_cut_into_its_shards(tmp_path: Path) -> None:
    # The library opens a folder by the same call as an id of the Hub; the commit is then not looked at.
    for number in range(3):
        write_parquet(tmp_path / f"train-{number}.parquet", {"text": [f"{number}a", f"{number}b"]})
    revision = "0123456789" * 4
    source = placed(None, "hub", dataset=str(tmp_path), revision=revision)
    assert [partition.key for partition in partitions(source)] == ["000000", "000001", "000002"]
    found = everything(source)
    assert texts(found) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert found[-1].source_ref == f"{tmp_path}@{revision}#2/1"


def test_a_hub_dataset_that_is_not_there_is_a_source_error(tmp_path: Path) -> None:
    source = placed(None, "hub", dataset=str(tmp_path / "none"), revision="0123456789" * 4)
    with pytest.raises(SourceError, match="cannot be opened"):
        partitions(source)


def test_a_file_that_datasets_cannot_read_is_a_source_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": broken\n')
    with pytest.raises(SourceError, match="kind: jsonl"):
        everything(placed(tmp_path, "hub", format="json"))


# common


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text", "code", "pydoc-topics", "hub"])
@pytest.mark.parametrize("where", ["missing", "missing/*.jsonl", "empty"])
def test_a_corpus_that_is_not_there_is_a_source_error_that_says_what_was_sought(
    tmp_path: Path, kind: str, where: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"source 's': ") as caught:
        partitions(placed(tmp_path / where, kind))
    assert str(tmp_path / where.partition("/")[0]) in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "text", "code"])
def test_a_file_that_vanishes_is_a_source_error(tmp_path: Path, kind: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "one"})
    (partition,) = partitions(placed(path, kind))
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.jsonl: cannot be read"):
        list(read(partition))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("python:json", ["json/decoder.py"]),
        ("python:os", ["os.py"]),
        ("python:xml.dom", ["xml/dom/minidom.py"]),
        ("python:pathlib", ["pathlib"]),
    ],
)
def test_packages_of_the_running_python_are_found_by_name(path: str, expected: list[str]) -> None:
    files = [
        f"{partition.root}/{file}"
        for partition in partitions(placed(path, "code", unit="tree"))
        for unit in partition.units
        for file in unit.files
    ]
    assert all(any(part in file for file in files) for part in expected)


@pytest.mark.parametrize("name", ["no_such_package_here", "sys", "json.nothing", ""])
def test_a_package_without_files_is_a_source_error(name: str) -> None:
    with pytest.raises(SourceError, match=f"python:{name}"):
        partitions(placed(f"python:{name}", "code"))


def test_looking_a_package_up_does_not_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner.py").write_text("INNER = 1")
    monkeypatch.syspath_prepend(tmp_path)
    (document,) = everything(placed("python:explosive_package.inner", "code"))
    assert isinstance(document, RawDocument)
    assert document.text == "==> inner.py <==\nINNER = 1\n"
