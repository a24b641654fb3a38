"""Exports, read back as their readers do."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import BuildError
from longalign_data.export import mds
from longalign_data.export.mds import export_mds
from longalign_data.export.messages import export_messages
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.teachers.base import Teacher

RECIPE = """
name: small
version: 1.0.0
mix: [{id: chat, lang: zh, license: CC0-1.0, path: chat.jsonl}]
encode: {max_tokens: 600}
pack: {capacity: 600, packs_per_step: 2}
"""


def nobody() -> Teacher:
    raise AssertionError


def chat(number: int) -> dict[str, Any]:
    answer = "一二三" * number + " done."
    return {"messages": [{"role": "user", "content": f"数到 {number}"}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    folder = tmp_path_factory.mktemp("export")
    (folder / "chat.jsonl").write_text("".join(json.dumps(chat(n)) + "\n" for n in range(1, 60)), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    loaded = load_recipe(folder / "recipe.yaml")
    return build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=nobody).folder


def packs(built: BuildFolder) -> list[dict[str, Any]]:
    return [row for path in built.shards("packs") for row in pq.read_table(path).to_pylist()]


def test_messages_are_one_conversation_a_line(built: BuildFolder, tmp_path: Path) -> None:
    place, count = export_messages(built, tmp_path)
    lines = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    assert count == len(lines) == 59
    assert [line["messages"] for line in lines] == [chat(n)["messages"] for n in range(1, 60)]
    assert {line["source"] for line in lines} == {"chat"}
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("json", data_files=str(place), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 59


def read_mds(folder: Path) -> Iterator[dict[str, Any]]:
    """The format as its description has it, read without the writer's code."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for shard in index["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        count = int.from_bytes(data[:4], "little")
        assert count == shard["samples"]
        offsets = np.frombuffer(data, "<u4", count + 1, 4).tolist()
        config = json.loads(data[4 + 4 * (count + 1) : offsets[0]])
        assert config == {key: shard[key] for key in config}
        for begin, end in itertools.pairwise(offsets):
            sample = data[begin:end]
            varying = [
                name for name, size in zip(shard["column_names"], shard["column_sizes"], strict=True) if not size
            ]
            sizes = dict(zip(varying, np.frombuffer(sample, "<u4", len(varying)).tolist(), strict=True))
            at = 4 * len(varying)
            row: dict[str, Any] = {}
            columns = zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True)
            for name, encoding, size in columns:
                cell = sample[at : at + (size or sizes[name])]
                at += len(cell)
                row[name] = (
                    int.from_bytes(cell, "little") if encoding == "int" else decode(cell, encoding.split(":")[1])
                )
            assert at == len(sample)
            yield row


def decode(cell: bytes, kind: str) -> np.ndarray[Any, Any]:
    axes, width = cell[0] >> 2, 1 << (cell[0] & 3)
    shape = np.frombuffer(cell, f"<u{width}", axes, 1)
    return np.frombuffer(cell, kind, offset=1 + axes * width).reshape(shape.tolist())


def check(rows: list[dict[str, Any]], built: BuildFolder) -> None:
    stored = packs(built)
    assert len(rows) == len(stored)
    for row, pack in zip(rows, stored, strict=True):
        assert row["input_ids"].tolist() == pack["input_ids"]
        assert row["indices"].tolist() == [
            list(pair) for pair in zip(pack["cu_seqlens"], pack["cu_seqlens"][1:], strict=False)
        ]
        assert row["length"] == pack["num_tokens"]
        assert row["mask"].tolist() == [int(weight > 0) for weight in pack["loss_weights"]]
        assert row["weights"].tolist() == np.float32(pack["loss_weights"]).tolist()


@pytest.mark.parametrize("shard_bytes", [1 << 26, 20_000])
def test_mds_shards_hold_the_packs_in_order(
    built: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(mds, "SHARD_BYTES", shard_bytes)
    _, count = export_mds(built, tmp_path)
    assert count == len(packs(built))
    assert (len(list(tmp_path.glob("*.mds"))) > 1) == (shard_bytes < 1 << 26)
    check(list(read_mds(tmp_path)), built)


def test_mosaicml_streaming_reads_them(built: BuildFolder, tmp_path: Path) -> None:
    """Where the package is installed: it brings its own torch and older transformers, so the tests do not install it."""
    mosaic = pytest.importorskip("streaming.base.format.mds.reader")
    export_mds(built, tmp_path)
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    readers = [mosaic.MDSReader.from_json(str(tmp_path), None, shard) for shard in index["shards"]]
    check([reader.get_item(number) for reader in readers for number in range(reader.samples)], built)


@pytest.mark.parametrize("export", [export_messages, export_mds])
def test_a_file_where_the_folder_should_be_is_named(
    built: BuildFolder, tmp_path: Path, export: Callable[[BuildFolder, Path], tuple[Path, int]]
) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(BuildError, match=r"out\S*: cannot be written: "):
        export(built, tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_a_build_without_the_tables_says_so(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no conversations"):
        export_messages(BuildFolder(tmp_path), tmp_path)
    with pytest.raises(BuildError, match="holds no packs"):
        export_mds(BuildFolder(tmp_path), tmp_path)
