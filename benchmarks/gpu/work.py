"""Does the work model tell the time? It is fitted as `python -m trainer.fit_work_model` does, then asked about real packs.

The packs are those that `balanced` and `random` make of a mix as in the paper. Goal: the modelled time of a step is within a
tenth of the measured one. Then full packs by what `--layers` would say of them, from half of the layers and a quarter.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.common import Place, paper_mix, run
from longalign_data.packing.plan import make_plan
from longalign_data.packing.steps import Plan, Shape
from trainer.objective import Objective
from trainer.tools.fit_work_model import Measured, fit, measure, of_all_layers, pack_seconds

FARTHEST = 0.10
"""Relative error of a step that the model may have."""


def benchmark(place: Place) -> Iterator[dict[str, Any]]:
    """The fit, then a step of either plan, then what a few layers say."""
    capacity = place.size(65_536, 512)
    objective = place.objective(place.one_billion())
    found = measure(objective, place.device, capacity, seconds=place.size(60, 3), target_share=0.02)
    measured = [Measured(lengths=lengths, seconds=seconds) for lengths, seconds in found]
    model = fit(measured, capacity)
    yield {
        "linear": f"{model.linear:.3e}",
        "quadratic": f"{model.quadratic:.3e}",
        "packs": len(measured),
        "largest_deviation": round(model.deviation, 3),
    }
    lengths = paper_mix(place.size(400, 60), longest=capacity)
    for strategy in ("balanced", "random"):
        shape = Shape(capacity=capacity, packs_per_step=8, linear=model.linear, quadratic=model.quadratic)
        draws = np.random.default_rng(1).uniform(size=len(lengths))
        plan = make_plan(strategy, lengths, draws, shape)
        packs = packs_of(plan, lengths)[:8]
        times = [quickest(place, objective, pack) for pack in packs]
        modelled = [model.seconds(pack) for pack in packs]
        error = sum(modelled) / sum(times) - 1
        yield {
            "strategy": strategy,
            "measured_seconds": round(sum(times), 3),
            "modelled_seconds": round(sum(modelled), 3),
            "error": f"{error:+.1%}",
            "farthest_pack": f"{max(np.array(modelled) / np.array(times) - 1, key=abs):+.1%}",
            "goal": f"error within {FARTHEST:.0%}",
            "reached": abs(error) <= FARTHEST,
        }
    yield from few_layers(place, objective, capacity)


def few_layers(place: Place, whole: Objective, capacity: int) -> list[dict[str, Any]]:
    """A row for a full pack of one sequence and one for sixteen: all layers as measured, and as a few of them say."""
    packs = [(capacity // parts,) * parts for parts in (1, 16)]
    total = whole.model.config.num_hidden_layers
    counts = (max(2, total // 2), max(1, total // 4))
    times = []
    for count in counts:
        config = place.one_billion()
        config.num_hidden_layers = count
        objective = place.objective(config)
        times.append([quickest(place, objective, pack) for pack in packs])
    rows = []
    for pack, few in zip(packs, zip(*times, strict=True), strict=True):
        measured, told = quickest(place, whole, pack), of_all_layers(few, counts, total)
        rows.append(
            {
                "layers": f"{counts[0]} and {counts[1]} of {total}",
                "pack": f"{len(pack)} x {pack[0]}",
                "measured_seconds": round(measured, 3),
                "modelled_seconds": round(told, 3),
                "error": f"{told / measured - 1:+.1%}",
                "goal": f"error within {FARTHEST:.0%}",
                "reached": abs(told / measured - 1) <= FARTHEST,
            }
        )
    return rows


def quickest(place: Place, objective: Objective, pack: tuple[int, ...]) -> float:
    """The seconds of a pack, of two runs the quicker one."""
    return min(pack_seconds(objective, place.device, pack, target_share=0.02) for _ in range(2))


def packs_of(plan: Plan, lengths: np.ndarray) -> list[tuple[int, ...]]:
    """The lengths in each pack, in the order of training."""
    starts = plan.pack_starts.tolist()
    return [tuple(lengths[plan.sequences[a:b]].tolist()) for a, b in itertools.pairwise(starts)]


if __name__ == "__main__":
    sys.exit(run("work", __doc__, benchmark, sys.argv[1:]))
