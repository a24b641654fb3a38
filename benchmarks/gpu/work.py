"""Does the work model tell the time? It is fitted as `python -m trainer.fit_work_model` does, then asked about real packs.

The packs are those that `balanced` and `random` make of a mix as in the paper. Goal: the modelled time of a step is within a
tenth of the measured one.
"""

import itertools
import sys
from typing import Any

import numpy as np

from benchmarks.gpu.common import Place, paper_mix, run
from longalign_data.packing.plan import make_plan
from longalign_data.packing.steps import Plan, Shape
from trainer.tools.fit_work_model import Measured, fit, measure, pack_seconds

FARTHEST = 0.10
"""Relative error of a step that the model may have."""


def benchmark(place: Place) -> list[dict[str, Any]]:
    """The fit, then a step of either plan."""
    capacity = place.size(65_536, 512)
    objective = place.objective(place.one_billion())
    found = measure(objective, place.device, capacity, seconds=place.size(60, 3), target_share=0.02)
    measured = [Measured(lengths=lengths, seconds=seconds) for lengths, seconds in found]
    model = fit(measured, capacity)
    rows: list[dict[str, Any]] = [
        {
            "linear": f"{model.linear:.3e}",
            "quadratic": f"{model.quadratic:.3e}",
            "packs": len(measured),
            "largest_deviation": round(model.deviation, 3),
        }
    ]
    lengths = paper_mix(place.size(400, 60), longest=capacity)
    for strategy in ("balanced", "random"):
        shape = Shape(capacity=capacity, packs_per_step=8, linear=model.linear, quadratic=model.quadratic)
        draws = np.random.default_rng(1).uniform(size=len(lengths))
        plan = make_plan(strategy, lengths, draws, shape)
        packs = packs_of(plan, lengths)[:8]
        times = [
            min(pack_seconds(objective, place.device, pack, target_share=0.02) for _ in range(2)) for pack in packs
        ]
        modelled = [model.seconds(pack) for pack in packs]
        error = sum(modelled) / sum(times) - 1
        rows.append(
            {
                "strategy": strategy,
                "measured_seconds": round(sum(times), 3),
                "modelled_seconds": round(sum(modelled), 3),
                "error": f"{error:+.1%}",
                "farthest_pack": f"{max(np.array(modelled) / np.array(times) - 1, key=abs):+.1%}",
                "reached": abs(error) <= FARTHEST,
            }
        )
    return rows


def packs_of(plan: Plan, lengths: np.ndarray) -> list[tuple[int, ...]]:
    """The lengths in each pack, in the order of training."""
    starts = plan.pack_starts.tolist()
    return [tuple(lengths[plan.sequences[a:b]].tolist()) for a, b in itertools.pairwise(starts)]


if __name__ == "__main__":
    sys.exit(run("work", __doc__, benchmark, sys.argv[1:]))
