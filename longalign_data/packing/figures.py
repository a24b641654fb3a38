"""What can be known of a plan before a GPU is paid: fill, balance between steps, balance between ranks.

In: a plan and what its sequences are like. Out: plain numbers for the stage's report.
"""

import dataclasses

import numpy as np

from longalign_data.packing.fill import Floats, Ints
from longalign_data.packing.steps import Plan, Shape


def effective_weights(plan: Plan, totals: Floats) -> Floats:
    """How much each sequence counts in training, 1 being its fair share; in the plan's order of sequences.

    `totals` are N_i^(1 - alpha). Sequence i moves the parameters of its step by totals_i / Z_step. Over the data set its
    fair share is totals_i / (mean Z), so the ratio is mean Z / Z_step, the same for all sequences of a step.
    """
    z = np.asarray(plan.step_sums(totals), np.float64)
    return np.repeat(z.mean() / z, plan.sequences_in_steps())


def shares(plan: Plan, totals: Floats) -> Floats:
    """How much each sequence counts, 1 being what it would if all sequences counted the same; in the order of the input,
    summed over epochs. For alpha = 1 these are the effective weights."""
    z = np.asarray(plan.step_sums(totals), np.float64)
    return _relative(totals[plan.sequences] / np.repeat(z, plan.sequences_in_steps()), plan, len(totals))


def pack_mean_shares(plan: Plan, num_targets: Ints) -> Floats:
    """The same for training without weights, on the mean over packs of the mean over a pack's target tokens (LongAlign,
    Eq. 3): sequence i moves its step by N_i / (targets of its pack * packs of the step)."""
    targets = np.asarray(plan.pack_sums(num_targets), np.float64)
    per_pack = targets * np.repeat(plan.packs_in_steps(), plan.packs_in_steps())
    return _relative(
        num_targets[plan.sequences] / np.repeat(per_pack, np.diff(plan.pack_starts)), plan, len(num_targets)
    )


def idle_share(plan: Plan, lengths: Ints, shape: Shape, *, ranks: int) -> float:
    """The modelled share of time for which ranks wait for the slowest of them, when all meet after every micro-batch.

    Micro-batch m of a step takes its packs m * ranks to (m + 1) * ranks; a missing pack is a rank that waits.
    """
    slowest, work = step_times(plan, lengths, shape, ranks=ranks).sum(), plan.pack_sums(shape.work(lengths)).sum()
    return float(1.0 - work / (ranks * slowest)) if slowest else 0.0


def step_times(plan: Plan, lengths: Ints, shape: Shape, *, ranks: int) -> Floats:
    """The modelled time of each step, in units of work: the sum over its micro-batches of the slowest pack's work."""
    work = np.asarray(plan.pack_sums(shape.work(lengths)), np.float64)
    position = np.arange(plan.num_packs) - np.repeat(plan.step_starts[:-1], plan.packs_in_steps())
    # Packs fall in work within a step, so the first of each micro-batch is its slowest.
    slowest = np.where(position % ranks == 0, work, 0.0)
    return np.add.reduceat(slowest, plan.step_starts[:-1]) if plan.num_steps else work


def figures(plan: Plan, lengths: Ints, totals: Floats, shape: Shape) -> dict[str, object]:
    """The numbers of a plan.

    `lower_bound`: packs that no packing can do without (see `Shape.lower_bound`). `fill`: the share of the capacity of all
    packs that is used. M and Z of the steps; percentiles of the effective weight; for each split of K the modelled idle
    and the mean modelled `step_time`, in units of the work of one sequence that fills a pack.
    """
    num_tokens = int(lengths[plan.sequences].sum())
    capacity_of_pack = np.repeat(plan.step_capacity, plan.packs_in_steps())
    k = shape.packs_per_step
    numbers: dict[str, object] = {
        "num_packs": plan.num_packs,
        "num_steps": plan.num_steps,
        "num_epochs": int(plan.step_epoch[-1]) + 1 if plan.num_steps else 0,
        "packs_per_step": k,
        "capacity": shape.capacity,
        "max_sequences": shape.max_sequences,
        "lower_bound": _lower_bound(plan, lengths, shape),
        "fill": round(num_tokens / int(capacity_of_pack.sum()), 6) if plan.num_packs else 0.0,
        "work": {"linear": shape.linear, "quadratic": shape.quadratic},
    }
    if shape.smaller_capacities:
        numbers["steps_by_capacity"] = {
            str(capacity): int(np.count_nonzero(plan.step_capacity == capacity))
            for capacity in sorted({*shape.smaller_capacities, shape.capacity})
        }
    if not plan.num_packs:
        return numbers
    numbers["sequences_per_step"] = _spread(plan.sequences_in_steps().astype(np.float64))
    numbers["normalizer_per_step"] = _spread(np.asarray(plan.step_sums(totals), np.float64))
    low, middle, high = np.percentile(effective_weights(plan, totals), [1, 50, 99]).tolist()
    numbers["effective_weight"] = {"p1": round(low, 4), "p50": round(middle, 4), "p99": round(high, 4)}
    unit = float(shape.work(np.array([shape.capacity]))[0]) or 1.0
    numbers["modelled_idle"] = [
        {
            "ranks": ranks,
            "accumulation": k // ranks,
            "idle": round(idle_share(plan, lengths, shape, ranks=ranks), 4),
            "step_time": round(float(step_times(plan, lengths, shape, ranks=ranks).mean()) / unit, 4),
        }
        for ranks in range(1, k + 1)
        if k % ranks == 0
    ]
    return numbers


def _lower_bound(plan: Plan, lengths: Ints, shape: Shape) -> int:
    """Summed over epochs and capacities."""
    bound = 0
    step_of = np.repeat(np.arange(plan.num_steps), plan.sequences_in_steps())
    for epoch in np.unique(plan.step_epoch):
        for capacity in np.unique(plan.step_capacity):
            here = ((plan.step_epoch == epoch) & (plan.step_capacity == capacity))[step_of]
            bound += dataclasses.replace(shape, capacity=int(capacity)).lower_bound(lengths[plan.sequences[here]])
    return bound


def _relative(pulls: Floats, plan: Plan, num_sequences: int) -> Floats:
    summed = np.bincount(plan.sequences, pulls, minlength=num_sequences).astype(np.float64)
    return summed / summed.mean() if num_sequences else summed


def _spread(values: Floats) -> dict[str, float]:
    mean = float(values.mean())
    return {
        "min": round(float(values.min()), 4),
        "mean": round(mean, 4),
        "max": round(float(values.max()), 4),
        "cv": round(float(values.std() / mean), 6) if mean else 0.0,
    }
