import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.errors import BuildError
from longalign_data.packing.reader import open_packs
from longalign_data.records import Pack
from longalign_data.shards.parquet import iter_records
from tests.hub.server import Blob, Repo, hub_server

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
        assert kinds == (np.int64, np.int64, np.float64, np.int32)


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


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_a_stream_from_any_step_is_the_batches_of_that_step_and_on(build: Any, ranks: int) -> None:
    reader = open_packs(build.root)
    for rank in range(ranks):
        for first in range(0, reader.num_steps + 1, 3):
            wanted = [
                (step, micro, reader.batch(step, rank, ranks, micro, K // ranks))
                for step in range(first, reader.num_steps)
                for micro in range(K // ranks)
            ]
            found = list(reader.stream(rank, ranks, K // ranks, first_step=first, ahead=2))
            assert [(s, m, b and (b.pack_id, b.input_ids.tolist())) for s, m, b in found] == [
                (s, m, b and (b.pack_id, b.input_ids.tolist())) for s, m, b in wanted
            ]


def test_a_stream_gives_none_where_a_step_has_no_pack(packing: Any, tmp_path: Path) -> None:
    folder = packing.store(tmp_path, [packing.sequence(f"s{n}", range(64), [(60, 64)]) for n in range(7)])
    packing.run_pack(folder, packing.recipe(capacity=64, packs_per_step=K, strategy="random"))
    reader = open_packs(tmp_path)
    ends = [[batch is None for _, _, batch in reader.stream(rank, 2, 3)] for rank in (0, 1)]
    assert ends == [[False, False, False, False, True, True], [False, False, False, True, True, True]]


def test_a_stream_that_is_left_early_leaves_no_thread_behind(build: Any) -> None:
    stream = open_packs(build.root).stream(0, 1, K)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("packs")]


def test_a_stream_passes_on_what_a_thread_finds_wrong(build: Any, tmp_path: Path) -> None:
    for table in ("packs", "plan"):
        shutil.copytree(build.root / table, tmp_path / table)
    reader = open_packs(tmp_path)
    for path in (tmp_path / "packs").iterdir():
        path.write_bytes(path.read_bytes()[:4] + bytes(path.stat().st_size - 8) + path.read_bytes()[-4:])
    with pytest.raises(BuildError):
        list(reader.stream(0, 1, K))


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_url_serves_what_the_folder_serves(build: Any, protocol: str) -> None:
    url = f"file://{build.root}"
    if protocol == "memory":
        url = "memory://published/packs-of-a-build"
        store = fsspec.filesystem("memory")
        for path in [*build.shards("packs"), *build.shards("plan")]:
            store.pipe_file(f"{url}/{path.relative_to(build.root)}", path.read_bytes())
    there, here = open_packs(url), open_packs(build.root)
    copy = pickle.loads(pickle.dumps(there))
    for reader in (there, copy):
        assert [b and b.pack_id for _, _, b in reader.stream(1, 2, 3)] == [
            b and b.pack_id for _, _, b in here.stream(1, 2, 3)
        ]
    with pytest.raises(BuildError, match="no packs/"):
        open_packs(f"{protocol}:///nowhere-at-all")


def test_an_unknown_store_is_named() -> None:
    with pytest.raises(BuildError, match="nostore://bucket"):
        open_packs("nostore://bucket/build")


def test_a_url_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    url = f"zip://packs::{tmp_path / 'none.zip'}"
    with pytest.raises(BuildError, match=r"none\.zip: cannot be opened: "):
        open_packs(url)


def test_a_stream_from_beyond_the_plan_is_refused_at_the_call(build: Any) -> None:
    reader = open_packs(build.root)
    k = reader.packs_per_step
    assert list(reader.stream(0, k, 1, first_step=reader.num_steps)) == []
    for step in (-1, reader.num_steps + 1):
        with pytest.raises(IndexError, match=f"first_step {step}: out of range; the plan has {reader.num_steps} steps"):
            reader.stream(0, k, 1, first_step=step)


def opened(places: list[str], environment: dict[str, str]) -> list[str]:
    """What a process says that opens each place and reads its first pack: `read`, or the BuildError."""
    program = (
        "import sys\nfrom longalign_data.errors import BuildError\n"
        "from longalign_data.packing.reader import open_packs\n"
        f"for place in sys.argv[1:]:\n    try:\n        open_packs(place).batch(0, 0, 1, 0, {K})\n        print('read')\n"
        "    except BuildError as error:\n        print(str(error).replace('\\n', ' '))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *places],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout.splitlines()


def test_what_the_hub_has_not_and_a_hub_that_cannot_be_reached_are_named(build: Any) -> None:
    place = "hf://datasets/org/packs"
    with hub_server() as hub:
        repo = hub.repos["org/packs"] = Repo(private=False)
        contents = {
            str(path.relative_to(build.root)): path.read_bytes()
            for path in [*build.shards("packs"), *build.shards("plan")]
        }
        files = {path: Blob(hashlib.sha1(data).hexdigest(), len(data), None, data) for path, data in contents.items()}
        repo.branches["closed"] = repo.commit("packs", files).sha
        hub.fault("GET", "/resolve/closed/plan/", status=403, times=100)
        read, no_revision, no_repository, closed = opened(
            [place, f"{place}@9.9.9", "hf://datasets/org/none", f"{place}@closed"], hub.environment()
        )
    assert read == "read"
    assert no_revision.startswith(f"{place}@9.9.9: cannot be reached: ")
    assert no_repository.startswith("hf://datasets/org/none: cannot be reached: ")
    assert "@closed/plan/00000.parquet: cannot be read" in closed
    with socket.socket() as silent:
        # Nobody listens, and nobody else can take it meanwhile.
        silent.bind(("127.0.0.1", 0))
        away = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        (gone,) = opened([place], hub.environment() | away)
    assert gone.startswith(f"{place}: cannot be reached: ")


def test_a_home_folder_is_found(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "builds").symlink_to(build.root.parent)
    for place in (f"~/builds/{build.root.name}", Path("~/builds") / build.root.name):
        assert open_packs(place).num_steps == open_packs(build.root).num_steps


def test_with_a_manifest_no_file_is_opened_before_it_is_needed(build: Any, tmp_path: Path) -> None:
    for table in ("packs", "plan"):
        shutil.copytree(build.root / table, tmp_path / table)
    files = sorted((tmp_path / "packs").iterdir())
    rows = [{"path": f"packs/{path.name}", "rows": pq.ParquetFile(path).metadata.num_rows} for path in files]
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": [], "tables": {"packs": rows}}))
    files[-1].write_bytes(b"not yet here")
    reader = open_packs(tmp_path)
    assert reader.batch(0, 0, 1, 0, K) is not None
    with pytest.raises(BuildError, match="cannot be read as Parquet"):
        reader.batch(reader.num_steps - 1, 0, 1, K - 1, K)
    rows[0]["rows"] += 1
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": [], "tables": {"packs": rows}}))
    with pytest.raises(BuildError, match="plan entries"):
        open_packs(tmp_path)


def test_a_file_that_is_missing_or_not_the_one_that_was_written_is_named(build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(build.root, folder)
    assert open_packs(folder).check_files() == sum(open_packs(folder).check_files(part, 3) for part in range(3)) >= 2
    victim = sorted((folder / "packs").iterdir())[-1]
    whole = victim.read_bytes()
    # One bit of a token: the file still reads, and nothing but the hash tells.
    victim.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(BuildError, match=rf"{victim}: is not the file that the build wrote"):
        open_packs(folder).check_files()
    victim.unlink()
    with pytest.raises(BuildError, match=rf"packs/{victim.name} is missing, one of"):
        open_packs(folder)
