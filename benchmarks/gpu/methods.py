"""Packing against sorted batches against plain batches on the paper's length mix, on eight ranks (LongAlign, Figure 5).

Every pack of some steps is timed forward and backward on this one device. Eight ranks are then replayed from the times: a
micro-batch lasts as long as its slowest pack (all ranks meet after it, as under ZeRO-3). Communication and the optimizer,
alike for all methods, are left out. The paper: without packing or sorting training takes more than twice as long.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.common import Place, paper_mix, run
from benchmarks.gpu.work import packs_of
from longalign_data.packing.plan import make_plan
from longalign_data.packing.steps import Shape
from trainer.measure.metrics import idle
from trainer.tools.compare import deal
from trainer.tools.fit_work_model import Measured, fit, measure, pack_seconds

RANKS = 8
LEAST_OF_NAIVE = 2.0
"""Times the seconds of `balanced`; the paper says "more than twice"."""


def benchmark(place: Place) -> Iterator[dict[str, Any]]:
    """One row a method; times are of the same sequences."""
    capacity = place.size(65_536, 512)
    objective = place.objective(place.one_billion())
    found = measure(objective, place.device, capacity, seconds=place.size(30, 2), target_share=0.02)
    work = fit([Measured(lengths=lengths, seconds=seconds) for lengths, seconds in found], capacity)
    known: dict[tuple[int, ...], float] = {}

    def timed(pack: tuple[int, ...]) -> float:
        # A sequence alone is timed once for all lengths that are about its own.
        grain = max(capacity // 128, 1)
        key = pack if len(pack) > 1 else (max(8, round(pack[0] / grain) * grain),)
        if key not in known:
            known[key] = pack_seconds(objective, place.device, key, target_share=0.02)
        return known[key]

    lengths = paper_mix(place.size(400, 96), longest=capacity)
    draws = np.random.default_rng(2).uniform(size=len(lengths))
    packed_k = RANKS * 2
    steps = math.ceil(lengths.sum() / (capacity * packed_k * 0.99))
    fastest = 0.0
    for strategy in ("balanced", "random", "sorted", "naive"):
        # Steps of every method hold about as many sequences.
        packed = strategy in ("balanced", "random")
        k = packed_k if packed else RANKS * math.ceil(len(lengths) / steps / RANKS)
        shape = Shape(capacity=capacity, packs_per_step=k, linear=work.linear, quadratic=work.quadratic)
        plan = make_plan(strategy, lengths, draws, shape)
        times = np.array([timed(pack) for pack in packs_of(plan, lengths)])
        dealt = np.concatenate([deal(times[a:b], RANKS) for a, b in itertools.pairwise(plan.step_starts)])
        seconds = float(dealt.max(axis=1).sum())
        fastest = fastest or seconds
        row: dict[str, Any] = {
            "method": strategy,
            "steps": plan.num_steps,
            "packs": plan.num_packs,
            "seconds": round(seconds, 2),
            "idle": f"{idle(dealt):.1%}",
            "tokens_per_second": round(float(lengths.sum() / seconds)),
            "against_balanced": round(seconds / fastest, 2),
        }
        if strategy == "naive":
            row |= {"goal": f"against_balanced > {LEAST_OF_NAIVE}", "reached": row["against_balanced"] > LEAST_OF_NAIVE}
        yield row


if __name__ == "__main__":
    sys.exit(run("methods", __doc__, benchmark, sys.argv[1:]))
