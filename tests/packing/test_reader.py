import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longalign_data.errors import BuildError
from longalign_data.packing.reader import open_packs
from longalign_data.records import Pack
from longalign_data.shards.parquet import iter_records

K = 6


@pytest.fixture(scope="module")
def build(packing: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = packing.store(tmp_path_factory.mktemp("reader"), packing.some_sequences(150, 64))
    packing.run_pack(folder, packing.recipe(capacity=64, packs_per_step=K), row_group_bytes=1500, shard_bytes=9000)
    return folder


def step_ids(reader: Any, step: int, ranks: int) -> list[list[str | None]]:
    """The pack ids of a step, a list for each micro-batch."""
    split = K // ranks
    batches = [[reader.batch(step, rank, ranks, micro, split) for rank in range(ranks)] for micro in range(split)]
    return [[batch.pack_id if batch else None for batch in row] for row in batches]


def test_every_split_of_a_step_serves_the_packs_in_plan_order(build: Any) -> None:
    stored = [row.pack_id for row in iter_records(build.shards("packs"), Pack)]
    reader = open_packs(build.root)
    assert len(build.shards("packs")) > 2
    for ranks in (1, 2, 3, 6):
        served = [
            pack_id
            for step in range(reader.num_steps)
            for micro in step_ids(reader, step, ranks)
            for pack_id in micro
            if pack_id is not None
        ]
        assert served == stored


def test_a_batch_is_the_stored_pack_with_restarting_positions(build: Any) -> None:
    rows = list(iter_records(build.shards("packs"), Pack))
    reader = open_packs(build.root)
    # Backwards, so that nothing can depend on reading in order.
    for number in reversed(range(len(rows))):
        row, batch = rows[number], reader.batch(number // K, number % K, K, 0, 1)
        assert batch is not None
        assert batch.input_ids.tolist() == list(row.input_ids)
        assert batch.loss_weights.tolist() == list(row.loss_weights)
        assert batch.cu_seqlens.tolist() == list(row.cu_seqlens)
        lengths = np.diff(batch.cu_seqlens)
        assert batch.position_ids.tolist() == [place for length in lengths for place in range(length)]
        assert batch.max_seqlen == max(lengths)
        assert (batch.num_tokens, batch.num_sequences) == (row.num_tokens, row.num_sequences)
        kinds = (batch.input_ids.dtype, batch.position_ids.dtype, batch.loss_weights.dtype, batch.cu_seqlens.dtype)
        assert kinds == (np.int64, np.int64, np.float32, np.int32)


def test_step_numbers_are_those_of_its_packs(build: Any) -> None:
    reader = open_packs(build.root)
    rows = list(iter_records(build.shards("packs"), Pack))
    for step in range(reader.num_steps):
        mine = rows[step * K : (step + 1) * K]
        info = reader.step(step)
        assert info.num_sequences == sum(row.num_sequences for row in mine) == info.normalizer
        assert info.num_packs == len(mine)


def test_a_split_that_does_not_fit_names_those_that_do(build: Any) -> None:
    with pytest.raises(BuildError, match=r"has 6 packs, but 4 ranks x 2 .* 1 x 6, 2 x 3, 3 x 2, 6 x 1"):
        open_packs(build.root).batch(0, 0, 4, 0, 2)


def test_a_short_step_gives_none_where_it_has_no_pack(packing: Any, tmp_path: Path) -> None:
    folder = packing.store(tmp_path, [packing.sequence(f"s{n}", range(64), [(60, 64)]) for n in range(7)])
    packing.run_pack(folder, packing.recipe(capacity=64, packs_per_step=K, strategy="random"))
    reader = open_packs(tmp_path)
    assert [
        sum(pack_id is not None for micro in step_ids(reader, step, 2) for pack_id in micro) for step in (0, 1)
    ] == [6, 1]
    assert reader.step(1).num_packs == 1
    assert reader.batch(1, 1, 2, 0, 3) is None


def test_a_bare_copy_of_the_two_tables_serves_the_same(build: Any, tmp_path: Path) -> None:
    for table in ("packs", "plan"):
        shutil.copytree(build.root / table, tmp_path / table)
    bare, whole = open_packs(tmp_path), open_packs(build.root)
    assert (bare.packs_per_step, whole.packs_per_step) == (K, K)
    assert whole.capacity == 64
    assert bare.capacity == max(row.num_tokens for row in iter_records(build.shards("packs"), Pack))
    assert [step_ids(bare, step, 3) for step in range(bare.num_steps)] == [
        step_ids(whole, step, 3) for step in range(whole.num_steps)
    ]


def test_a_manifest_says_what_the_plan_cannot(packing: Any, tmp_path: Path) -> None:
    folder = packing.store(tmp_path, packing.some_sequences(3, 20))
    report = packing.run_pack(folder, packing.recipe(capacity=64, packs_per_step=K))
    manifest = {"stages": [{"stage": "encode", "details": {}}, {"stage": "pack", "details": dict(report.details)}]}
    folder.manifest.write_text(json.dumps(manifest))
    shutil.rmtree(tmp_path / "state")
    reader = open_packs(tmp_path)
    assert (reader.packs_per_step, reader.capacity, reader.step(0).num_packs) == (K, 64, 3)


def test_a_reader_travels_to_another_process(build: Any) -> None:
    reader = open_packs(build.root)
    first = reader.batch(0, 0, K, 0, 1)
    copy = pickle.loads(pickle.dumps(reader)).batch(0, 0, K, 0, 1)
    assert first is not None
    assert copy is not None
    assert first.pack_id == copy.pack_id


def test_an_empty_folder_says_how_to_make_packs(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no packs/.*longalign build"):
        open_packs(tmp_path)


def test_torn_and_foreign_tables_are_refused(build: Any, packing: Any, tmp_path: Path) -> None:
    copies = {name: tmp_path / name for name in ("lost", "foreign", "cut", "other")}
    for folder in copies.values():
        for table in ("packs", "plan"):
            shutil.copytree(build.root / table, folder / table)

    sorted((copies["lost"] / "packs").iterdir())[0].unlink()
    with pytest.raises(BuildError, match="packs but"):
        open_packs(copies["lost"])

    path = sorted((copies["cut"] / "packs").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BuildError, match="cannot be read as Parquet"):
        open_packs(copies["cut"])

    shutil.copy(build.shards("sequences")[0], sorted((copies["foreign"] / "packs").iterdir())[0])
    with pytest.raises(BuildError, match="has no column pack_id"):
        open_packs(copies["foreign"])

    # As many packs, of other sequences.
    sequences = [
        packing.sequence(f"x{number}", item.input_ids, [(s.start, s.end) for s in item.target_spans])
        for number, item in enumerate(packing.some_sequences(150, 64))
    ]
    other = packing.store(tmp_path / "second", sequences)
    packing.run_pack(other, packing.recipe(capacity=64, packs_per_step=K))
    shutil.rmtree(copies["other"] / "plan")
    shutil.copytree(other.root / "plan", copies["other"] / "plan")
    reader = open_packs(copies["other"])
    with pytest.raises(BuildError, match="of two builds"):
        reader.batch(0, 0, K, 0, 1)


def test_the_reader_is_light_to_import() -> None:
    code = "import sys, longalign_data.packing.reader; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pyarrow" in loaded
    heavy = {"torch", "transformers", "datasets", "tiktoken", "pydantic", "duckdb", "polars", "pandas"}
    assert not heavy & set(loaded)
