"""What can be known of a plan before a GPU is paid: fill, balance between steps, balance between ranks.

In: a plan and what its sequences are like. Out: plain numbers for the stage's report.
"""

import numpy as np

from longalign_data.packing.fill import Floats, Ints
from longalign_data.packing.plan import Plan, Shape


def effective_weights(plan: Plan, totals: Floats) -> Floats:
    """How much each sequence counts in training, 1 being its fair share; in the plan's order of sequences.

    `totals` are N_i^(1 - alpha). Sequence i moves the parameters of its step by totals_i / Z_step. Over the data set its
    fair share is totals_i / (mean Z), so the ratio is mean Z / Z_step, the same for all sequences of a step.
    """
    z = np.asarray(plan.step_sums(totals), np.float64)
    members = np.diff(plan.pack_starts[plan.step_starts])
    return np.repeat(z.mean() / z, members)


def idle_share(plan: Plan, lengths: Ints, shape: Shape, *, ranks: int) -> float:
    """The modelled share of time for which ranks wait for the slowest of them, when all meet after every micro-batch.

    Micro-batch m of a step takes its packs m * ranks to (m + 1) * ranks; a missing pack is a rank that waits.
    """
    work = np.asarray(plan.pack_sums(shape.work(lengths)), np.float64)
    packs_in_step = np.diff(plan.step_starts)
    position = np.arange(plan.num_packs) - np.repeat(plan.step_starts[:-1], packs_in_step)
    # Packs fall in work within a step, so the first of each micro-batch is its slowest.
    slowest = work[position % ranks == 0].sum()
    return float(1.0 - work.sum() / (ranks * slowest)) if slowest else 0.0


def figures(plan: Plan, lengths: Ints, totals: Floats, shape: Shape) -> dict[str, object]:
    """The numbers of a plan: `fill` (share of the capacity of all packs that is used), `lower_bound` (packs that the tokens
    alone need), M and Z of the steps, percentiles of the effective weight, and modelled idle for each split of K."""
    num_tokens = int(lengths.sum())
    lower_bound = -(-num_tokens // shape.capacity)
    k = shape.packs_per_step
    numbers: dict[str, object] = {
        "num_packs": plan.num_packs,
        "num_steps": plan.num_steps,
        "packs_per_step": k,
        "capacity": shape.capacity,
        "lower_bound": lower_bound,
        "fill": round(num_tokens / (plan.num_packs * shape.capacity), 6) if plan.num_packs else 0.0,
    }
    if not plan.num_packs:
        return numbers
    m = np.diff(plan.pack_starts[plan.step_starts]).astype(np.float64)
    numbers["sequences_per_step"] = _spread(m)
    numbers["normalizer_per_step"] = _spread(np.asarray(plan.step_sums(totals), np.float64))
    low, middle, high = np.percentile(effective_weights(plan, totals), [1, 50, 99]).tolist()
    numbers["effective_weight"] = {"p1": round(low, 4), "p50": round(middle, 4), "p99": round(high, 4)}
    numbers["modelled_idle"] = [
        {"ranks": ranks, "accumulation": k // ranks, "idle": round(idle_share(plan, lengths, shape, ranks=ranks), 4)}
        for ranks in range(2, k + 1)
        if k % ranks == 0
    ]
    return numbers


def _spread(values: Floats) -> dict[str, float]:
    mean = float(values.mean())
    return {
        "min": round(float(values.min()), 4),
        "mean": round(mean, 4),
        "max": round(float(values.max()), 4),
        "cv": round(float(values.std() / mean), 6) if mean else 0.0,
    }
