"""Text between blank lines and JSON arrays, however their files are cut."""

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Generator
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longalign_data.sources.readers import (
    blocks,
    json_array,
    partitions,
    read,
)
from tests.sources.reads import docs, everything, placed, reasons


def test_documents_between_blank_lines_are_the_same_whatever_ends_their_lines(tmp_path: Path) -> None:
    text = "\n第一行。\n第二行。\n\n\n另一篇。\n末行。\n"
    for name, ends in (("unix", "\n"), ("dos", "\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(text.replace("\n", ends).encode())
    unix, dos = (docs(everything(placed(tmp_path / name, "blocks", lang="zh"))) for name in ("unix", "dos"))
    assert [raw.text for raw in unix] == [raw.text for raw in dos] == ["第一行。\n第二行。", "另一篇。\n末行。"]


@settings(max_examples=60)
@given(lines=st.lists(st.sampled_from(["", " ", "ab", "€uro", "x\r", "字"]), max_size=24), size=st.integers(1, 30))
def test_every_block_is_read_once_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], size: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    monkeypatch.setattr(blocks, "RANGE_BYTES", 1 << 30)
    whole = everything(placed(path, "blocks"))
    monkeypatch.setattr(blocks, "RANGE_BYTES", size)
    monkeypatch.setattr(blocks, "PIECE_BYTES", 1 + size // 2)
    assert everything(placed(path, "blocks")) == whole
    monkeypatch.undo()
    kept = "".join(line.strip() for line in lines)
    assert "".join("".join(raw.text.split()) for raw in docs(whole)) == kept


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_packed_blocks_are_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    data = "一\n行\n\n二\n\n\n三".encode()
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(data))
    (tmp_path / "b.txt").write_bytes(data)
    packed, plain = (docs(everything(placed(tmp_path / name, "blocks"))) for name in (f"a.txt{suffix}", "b.txt"))
    assert [raw.text for raw in packed] == [raw.text for raw in plain] == ["一\n行", "二", "三"]


@pytest.mark.parametrize("blank", [b"\n", b" ", b" \n", b"\r\n"])
def test_white_space_without_end_between_blocks_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: bytes
) -> None:
    monkeypatch.setattr(blocks, "PIECE_BYTES", 5000)
    path = tmp_path / "a.txt"
    path.write_bytes(blank * 100_000 + b"\n\none\n\n" + blank * 900_000 + b"\n\ntwo\n")
    (partition,) = partitions(placed(path, "blocks"))
    tracemalloc.start()
    found = list(read(partition))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [raw.text for raw in docs(found)] == ["one", "two"]
    for raw in docs(found):
        begin = int(raw.source_ref.split("@")[1])
        assert path.read_bytes()[begin:].lstrip().startswith(raw.text.encode())
    assert peak < (1 << 20) * 3.5


@settings(max_examples=80)
@given(
    values=st.lists(
        st.dictionaries(st.sampled_from(["content", "title", 'k"\\']), st.text(alphabet='ab"\\{}[],é字\n', max_size=9)),
        max_size=9,
    ),
    size=st.integers(1, 60),
    indent=st.sampled_from([None, 1]),
)
def test_every_object_of_an_array_is_read_once_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[dict[str, str]], size: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", size)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values, ensure_ascii=False, indent=indent), encoding="utf-8")
    found = everything(placed(path, "json"))
    assert len(found) == len(values)
    assert [raw.text for raw in docs(found)] == [text for value in values if (text := value.get("content", "")).strip()]


def test_what_stands_between_the_objects_of_an_array_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"content": "one"}, "two", 3, {"content": "four"}, [5], null]')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "four"]
    assert reasons(found) == ["not-an-object"] * 3
    assert len({raw.source_ref for raw in found}) == 5


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_arrays_that_follow_each_other_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", size)
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n[{"content": "two"}, {"content": "three"}]\n\n[]\n')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "two", "three"]
    assert reasons(found) == []
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n{"content": "two"}\n[{"content": "three"}]')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one"]
    assert reasons(found) == ["bad-json"]
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n[{"content": "two"}')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "two"]
    assert reasons(found) == ["damaged-file"]


def test_many_broken_objects_are_not_parsed_again_behind_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To parse what is left anew behind each would take the square of their number."""
    count = 40_000
    (tmp_path / "a.json").write_text("[" + ",".join(["{x}"] * count) + ', {"content": "last"}]')
    parsed, begun = json_array._parsed, []

    def counted(piece: bytes, at: int, base: int) -> Generator[tuple[int, object], None, int]:
        begun.append(base + at)
        return parsed(piece, at, base)

    monkeypatch.setattr(json_array, "_parsed", counted)
    found = everything(placed(tmp_path / "a.json", "json"))
    assert len(begun) == 1
    assert len(found) == count + 1
    assert [raw.text for raw in docs(found)] == ["last"]


@settings(max_examples=80)
@given(
    data=st.binary(max_size=400) | st.text(alphabet='[]{}",:a\\ ', max_size=40).map(str.encode),
    where=st.integers(0, 300),
)
@example(data=b"} ", where=38)
def test_no_bytes_inside_a_json_array_stop_the_reader(tmp_path: Path, data: bytes, where: int) -> None:
    whole = b'[{"content": "one [x] \\" {", "title": "a"}, {"content": "two"}]'
    path = tmp_path / "a.json"
    path.write_bytes(whole[:where] + data + whole[where:])
    everything(placed(path, "json"))
