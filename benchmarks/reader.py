"""How fast packs come out of Parquet, one process, and how soon the first batch of any step is there.

python benchmarks/reader.py

The folder is made here: random token ids (which compress worse than text), 2% targets, 64k packs, 32 a step.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from record import store

from longalign_data.engine import RunOptions
from longalign_data.packing.pack import ROW_GROUP_BYTES
from longalign_data.packing.reader import PackReader, open_packs
from longalign_data.records import Pack, PlanEntry
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter

K, CAPACITY, STEPS = 32, 65_536, 12


def make(folder: Path) -> None:
    draws = np.random.default_rng(0)
    run = RunOptions(row_group_bytes=ROW_GROUP_BYTES)
    with StageWriter(BuildFolder(folder), "pack", fingerprint="benchmark", run=run) as writer:
        for number in range(K * STEPS):
            borders = np.unique(np.concatenate([[0, CAPACITY], draws.integers(1, CAPACITY, 15)])).astype(np.int32)
            weights = np.where(draws.random(CAPACITY) < 0.02, 1 / 80, 0.0)
            pack = Pack(
                pack_id=f"{number:032x}",
                input_ids=draws.integers(0, 150_000, CAPACITY, dtype=np.int32),
                loss_weights=weights,
                cu_seqlens=borders,
                sequence_ids=[f"{number}-{i}" for i in range(len(borders) - 1)],
                num_tokens=CAPACITY,
                num_sequences=len(borders) - 1,
                num_targets=int(np.count_nonzero(weights)),
                work=1.0,
            )
            place = PlanEntry(
                step=number // K,
                position=number % K,
                pack_id=pack.pack_id,
                num_sequences=K * 16,
                normalizer=K * 16.0,
                epoch=0,
                capacity=CAPACITY,
            )
            writer.write("packs", pack)
            writer.write("plan", place)
            writer.next_input()
        writer.finish({"packs_per_step": K, "capacity": CAPACITY})


def throughput(reader: PackReader, ranks: int, *, ahead: bool) -> float:
    """Tokens a second that rank 0 of `ranks` gets."""
    began, tokens = time.perf_counter(), 0
    accumulation = K // ranks
    if ahead:
        batches = (batch for _, _, batch in reader.stream(0, ranks, accumulation))
    else:
        batches = (
            reader.batch(s, 0, ranks, m, accumulation) for s in range(reader.num_steps) for m in range(accumulation)
        )
    for batch in batches:
        assert batch is not None
        tokens += batch.num_tokens
    return tokens / (time.perf_counter() - began)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        began = time.perf_counter()
        reader = open_packs(folder)
        rows = [{"what": "open", "ms": round(1000 * (time.perf_counter() - began), 2)}]
        firsts = []
        for step in np.random.default_rng(1).permutation(STEPS).tolist():
            fresh = open_packs(folder)
            began = time.perf_counter()
            fresh.batch(step, 3, 8, 1, K // 8)
            firsts.append(1000 * (time.perf_counter() - began))
        rows.append(
            {
                "what": "first batch of a step",
                "ms": round(statistics.median(firsts), 2),
                "max_ms": round(max(firsts), 2),
            }
        )
        for ranks in (1, 8):
            for ahead in (False, True):
                speed = max(throughput(reader, ranks, ahead=ahead) for _ in range(3))
                what = f"rank 0 of {ranks}, {'reading ahead' if ahead else 'one by one'}"
                rows.append({"what": what, "tokens_per_s": round(speed)})
    store("reader", rows, packages=("numpy", "pyarrow"))
