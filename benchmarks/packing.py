"""Packing beside other projects: fill, speed, how equally sequences count, how long ranks wait. All on the same lengths.

python benchmarks/packing.py            the table, on the synthetic mix, the quickstart's build (if it stands) and hard lists
python benchmarks/packing.py --large    plans ten million sequences instead (about 1.2 GB of memory)

Columns: `fill` and packs over the `lower_bound`, at K = 8; `steps` at K = 8 / 32 over the
fewest that hold so many packs; `lost` sequences that are in no pack; `seqs_per_s`; `weight_k8`, `weight_k32`:
1st to 99th percentile of how much a sequence counts, 1 being its fair share, when a step's gradient is divided by its own M;
`idle`: modelled share of time that 8 ranks wait at accumulation 4 / 8 / 16, meeting after every micro-batch; work of a pack is
24576 l + l^2 summed. `bias`: how much sequences of 8k tokens and more count beside the others.
"""

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import peers
from record import store

from longalign_data.packing.plan import STRATEGIES, make_plan
from longalign_data.packing.steps import Shape
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches

CAPACITY = 65_536
LONG = 8_192
QUICKSTART = Path(__file__).parent.parent / "builds" / "quickstart" / "1.0.0"

Steps = list[list[np.ndarray]]
"""Of each step its packs in the order in which ranks take them, each the indexes of its sequences."""


def synthetic(count: int) -> np.ndarray:
    """A tenth long (log-uniform, 8k to 64k), the others as chats are (lognormal), in any order."""
    draws = np.random.default_rng(0)
    long = np.exp(draws.uniform(np.log(8192), np.log(65536), count // 10))
    short = np.clip(np.exp(draws.normal(6.9, 0.9, count - count // 10)), 16, 65536)
    return np.random.default_rng(1).permutation(np.concatenate([long, short]).astype(np.int64))


def length_sets() -> dict[str, np.ndarray]:
    sets = {"synthetic mix": synthetic(100_000)}
    if (QUICKSTART / "sequences").is_dir():
        batches = iter_batches(BuildFolder(QUICKSTART).shards("sequences"), columns=["num_tokens"])
        sets["quickstart"] = np.concatenate([batch.column(0).to_numpy().astype(np.int64) for batch in batches])
    sieve = np.ones(CAPACITY + 1, bool)
    sieve[:2] = False
    for n in range(2, 257):
        if sieve[n]:
            sieve[n * n :: n] = False
    primes = np.random.default_rng(2).permutation(np.flatnonzero(sieve))
    sets["all equal"] = np.full(20_000, 5_000)
    sets["all 64k"] = np.full(2_000, CAPACITY)
    sets["primes"] = primes
    sets["one giant"] = np.append(np.full(20_000, 300), CAPACITY)
    return sets


def work(lengths: np.ndarray) -> np.ndarray:
    return 24_576.0 * lengths + lengths.astype(np.float64) ** 2


def ours(strategy: str, lengths: np.ndarray, k: int) -> Steps:
    shape = Shape(capacity=CAPACITY, packs_per_step=k, linear=24_576.0, quadratic=1.0)
    plan = make_plan(strategy, lengths, np.random.default_rng(3).random(len(lengths)), shape)
    packs = np.split(plan.sequences, plan.pack_starts[1:-1])
    return [packs[a:b] for a, b in zip(plan.step_starts[:-1], plan.step_starts[1:], strict=True)]


def shuffled(pack_of: np.ndarray, k: int) -> Steps:
    """Packs in any order, K a step, as these projects train on them."""
    kept = np.flatnonzero(pack_of >= 0)
    order = kept[np.argsort(pack_of[kept], kind="stable")]
    packs = np.split(order, np.flatnonzero(np.diff(pack_of[order])) + 1)
    places = np.random.default_rng(4).permutation(len(packs))
    return [[packs[p] for p in places[start : start + k]] for start in range(0, len(packs), k)]


def idle(steps: Steps, lengths: np.ndarray, ranks: int, *, local_sort: bool = False) -> float:
    busy = waited = 0.0
    for step in steps:
        works = np.array([work(lengths[pack]).sum() for pack in step])
        order = peers.rank_local_order(works, ranks) if local_sort else np.arange(len(works))
        values = np.where(order >= 0, works[order], 0.0)
        slowest = np.maximum.reduceat(values, np.arange(0, len(values), ranks))
        busy += works.sum()
        waited += ranks * slowest.sum()
    return 1 - busy / waited


def weights(steps: Steps, count: int) -> np.ndarray:
    """M mean / M of the step, for each sequence; 0 for those that are lost."""
    m = np.array([sum(len(pack) for pack in step) for step in steps])
    counts = np.zeros(count)
    for step, size in zip(steps, m.tolist(), strict=True):
        for pack in step:
            counts[pack] = m.mean() / size
    return counts


def rebalanced(lengths: np.ndarray, k: int) -> Steps:
    """verl: the sequences of a step (the same number in each) are split into K micro-batches of nearly equal work."""
    bound = -(-int(lengths.sum()) // CAPACITY)
    size = -(-len(lengths) * k // bound)
    order = np.random.default_rng(4).permutation(len(lengths))
    steps = []
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        part_of = peers.karmarkar_karp(work(lengths[chosen]), k)
        steps.append([pack for part in range(k) if len(pack := chosen[part_of == part])])
    return steps


def measure(name: str, lengths: np.ndarray, make, *, local_sort: bool = False) -> dict[str, object]:
    bound = -(-int(lengths.sum()) // CAPACITY)
    began = time.perf_counter()
    steps = make(8)
    seconds = time.perf_counter() - began
    num_packs = sum(len(step) for step in steps)
    over = sum(int(lengths[pack].sum()) > CAPACITY for step in steps for pack in step)
    steps32 = make(32)
    counted8, counted32 = weights(steps, len(lengths)), weights(steps32, len(lengths))
    long = lengths >= LONG
    row: dict[str, object] = {
        "method": name,
        "packs": num_packs,
        "lower_bound": bound,
        "steps": f"{len(steps)} / {len(steps32)}",
        "fewest_steps": f"{-(-bound // 8)} / {-(-bound // 32)}",
        "fill": round(float(lengths[counted8 > 0].sum()) / (num_packs * CAPACITY), 5),
        "lost": int(np.count_nonzero(counted8 == 0)),
        "over_capacity": over,
        "seqs_per_s": round(len(lengths) / seconds),
    }
    for k, counted in ((8, counted8), (32, counted32)):
        row[f"weight_k{k}"] = " to ".join(f"{v:.3f}" for v in np.percentile(counted, [1, 99]))
    idles = [idle(make(8 * a), lengths, 8, local_sort=local_sort) for a in (4, 8, 16)]
    row["idle"] = " / ".join(f"{value:.1%}" for value in idles)
    several = long.any() and not long.all()
    row["bias"] = round(float(counted8[long].mean() / counted8[~long].mean()), 3) if several else None
    return row


def table(lengths: np.ndarray) -> list[dict[str, object]]:
    rows = [measure(f"ours: {strategy}", lengths, lambda k, s=strategy: ours(s, lengths, k)) for strategy in STRATEGIES]
    methods = {
        "LongAlign: next fit": peers.next_fit,
        "TRL: best fit, per 1000": peers.trl_bfd,
        "axolotl: first fit, per 100k": peers.axolotl_multipack,
        "LLaMA-Factory: knapsack, per 1000": peers.llamafactory_knapsack,
    }
    for name, method in methods.items():
        began = time.perf_counter()
        pack_of = method(lengths, CAPACITY)
        seconds = time.perf_counter() - began
        row = measure(name, lengths, lambda k, p=pack_of: shuffled(p, k))
        rows.append(row | {"seqs_per_s": round(len(lengths) / seconds)})
        if name.startswith("TRL"):
            sorted_by_rank = measure(
                "ProLong: each rank sorts its packs", lengths, lambda k, p=pack_of: shuffled(p, k), local_sort=True
            )
            rows.append(sorted_by_rank | {"seqs_per_s": None})
    rows.append(measure("verl: Karmarkar-Karp, no limit of tokens", lengths, lambda k: rebalanced(lengths, k)))
    return rows


def large() -> dict[str, object]:
    lengths = synthetic(10_000_000)
    draws = np.random.default_rng(3).random(len(lengths))
    shape = Shape(capacity=CAPACITY, packs_per_step=8, linear=24_576.0, quadratic=1.0)
    began, began_cpu = time.perf_counter(), time.process_time()
    plan = make_plan("balanced", lengths, draws, shape)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    bound = shape.lower_bound(lengths)
    return {
        "lengths": "synthetic mix, ten million",
        "method": "ours: balanced",
        "packs": plan.num_packs,
        "lower_bound": bound,
        "fill": round(int(lengths.sum()) / (plan.num_packs * CAPACITY), 5),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "load": round(os.getloadavg()[0], 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--large", action="store_true", help="plan ten million sequences instead")
    if arguments.parse_args().large:
        store("packing-large", [large()], packages=("numpy",))
    else:
        found = [{"lengths": name, **row} for name, lengths in length_sets().items() for row in table(lengths)]
        store("packing", found, packages=("numpy", "pyarrow"))
