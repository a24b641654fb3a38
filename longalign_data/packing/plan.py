"""The plan: which sequences share a pack, which packs share an optimizer step. Pure functions over arrays of lengths.

In: the length of every sequence, one draw in (0, 1) for each, the shape of a step. Out: a `Plan` (see `steps`).

| strategy   | a pack holds                          | a step holds                                              |
|------------|---------------------------------------|-----------------------------------------------------------|
| `balanced` | what fills it, long ones spread       | the data set in small; as many sequences as any other     |
| `random`   | what best-fit-decreasing puts into it | any packs                                                 |
| `sorted`   | one sequence                          | sequences of like length; steps in any order              |
| `naive`    | one sequence                          | any sequences                                             |

The result depends on lengths, draws and shape alone, not on the order in which the sequences come (those with equal
length and equal draw excepted), nor on how the packs of a step are later dealt to ranks and micro-batches.
"""

from collections.abc import Callable

import numpy as np

from longalign_data.packing.balance import balanced
from longalign_data.packing.fill import Floats, Ints, best_fit_decreasing
from longalign_data.packing.steps import Plan, Shape, arrange, empty_plan, further_draw, join, reorder, stable_order

Strategy = Callable[[Ints, Floats, Shape], Plan]


def make_plan(strategy: str, lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """The plan of a strategy of `STRATEGIES`, of one epoch. `lengths` (int64) must lie in [1, capacity]; `draws` (float64,
    in (0, 1)) decide between equals and the order of the steps. Every sequence is in exactly one pack."""
    assert len(lengths) == len(draws)
    if not len(lengths):
        return empty_plan()
    order = np.argsort(draws, kind="stable")
    order = order[stable_order(int(lengths.max()) - lengths[order])]
    lengths, draws = lengths[order], draws[order]
    groups = _by_capacity(lengths, shape)
    plans = []
    for capacity, members in groups:
        sub = Shape(
            capacity=capacity,
            packs_per_step=shape.packs_per_step,
            linear=shape.linear,
            quadratic=shape.quadratic,
            max_sequences=shape.max_sequences,
        )
        plan = STRATEGIES[strategy](lengths[members], draws[members], sub)
        plans.append(_renumbered(plan, order[members]))
    if len(plans) == 1:
        return plans[0]
    plan = join(plans)
    by_input = np.empty(len(order))
    by_input[order] = draws
    first = plan.sequences[plan.pack_starts[plan.step_starts[:-1]]]
    return reorder(plan, np.argsort(further_draw(by_input[first], 2), kind="stable"))


def plan_epochs(strategy: str, lengths: Ints, draws: list[Floats], shape: Shape) -> Plan:
    """One plan after the other, each with the draws of its epoch."""
    plans = [make_plan(strategy, lengths, of_epoch, shape) for of_epoch in draws]
    joined = join(plans)
    epochs = np.repeat(np.arange(len(plans)), [plan.num_steps for plan in plans])
    return Plan(
        sequences=joined.sequences,
        pack_starts=joined.pack_starts,
        step_starts=joined.step_starts,
        step_capacity=joined.step_capacity,
        step_epoch=epochs,
    )


def random(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """Best-fit-decreasing over everything, and the packs shuffled: the fullest packs, but of one long sequence or of a
    hundred short ones, so that the number of sequences differs from step to step. `lengths` fall."""
    pack_of, num_packs = best_fit_decreasing(lengths, shape.capacity, max_sequences=shape.max_sequences)
    first = np.empty(num_packs, np.int64)
    first[pack_of[::-1]] = np.arange(len(lengths))[::-1]
    place = np.empty(num_packs, np.int64)
    place[np.argsort(further_draw(draws[first], 1), kind="stable")] = np.arange(num_packs)
    return arrange(lengths, place // shape.packs_per_step, pack_of, shape)


def sorted_batches(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """LongAlign's sorted batching (section 3.2.2), one sequence a pack: K sequences next to each other in length make a
    step, the shortest ones a smaller one, and the steps are shuffled. `lengths` fall."""
    steps = np.arange(len(lengths)) // shape.packs_per_step
    place = np.empty(int(steps[-1]) + 1, np.int64)
    place[np.argsort(further_draw(draws[:: shape.packs_per_step], 1), kind="stable")] = np.arange(len(place))
    return arrange(lengths, place[steps], np.arange(len(lengths)), shape)


def naive(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """No packing: one sequence a pack, K sequences of any lengths a step."""
    place = np.empty(len(lengths), np.int64)
    place[np.argsort(draws, kind="stable")] = np.arange(len(lengths))
    return arrange(lengths, place // shape.packs_per_step, np.arange(len(lengths)), shape)


STRATEGIES: dict[str, Strategy] = {"balanced": balanced, "random": random, "sorted": sorted_batches, "naive": naive}
"""Every packing strategy. They are given the sequences sorted: longest first, equal ones by their draws."""


def _renumbered(plan: Plan, numbers: Ints) -> Plan:
    return Plan(
        sequences=numbers[plan.sequences],
        pack_starts=plan.pack_starts,
        step_starts=plan.step_starts,
        step_capacity=plan.step_capacity,
        step_epoch=plan.step_epoch,
    )


def _by_capacity(lengths: Ints, shape: Shape) -> list[tuple[int, Ints]]:
    """Which sequences (indexes, rising) are trained on in packs of which capacity.

    A sequence must go where it fits. Those that fit the smallest capacity can go anywhere; if all stayed there, steps of
    large packs would hold few sequences, each of which would weigh more than its share. So as many of them as make the
    steps of all capacities alike in number of sequences keep the long ones company, every so manieth by length.
    """
    capacities = sorted({*shape.smaller_capacities, shape.capacity})
    group = np.searchsorted(capacities, lengths)  # the smallest capacity that holds each
    free = np.flatnonzero(group == 0)
    if len(capacities) > 1 and len(free):
        mean = float(lengths[free].mean())
        wanted = []
        for number in range(1, len(capacities)):
            share = capacities[0] / capacities[number]
            bound = np.flatnonzero(group == number)
            # x of them make M equal: (n + x) / packs = smallest / mean, where the packs are those that the tokens need
            # or those that sequences of more than half a pack need, whichever are more.
            by_tokens = (share * float(lengths[bound].sum()) / mean - len(bound)) / (1 - share)
            halves = int(np.count_nonzero(2 * lengths[bound] > capacities[number]))
            company = max(by_tokens, halves * capacities[0] / mean - len(bound))
            wanted.append(max(0.0, company) if len(bound) else 0.0)
        scale = min(1.0, len(free) / sum(wanted)) if sum(wanted) else 0.0
        borders = np.cumsum(wanted) * scale / len(free)
        # Place i of the free ones goes where i * golden ratio falls: evenly over all lengths.
        spot = (np.arange(len(free)) * 0.6180339887498949) % 1.0
        group[free] = (np.searchsorted(borders, spot, side="right") + 1) % len(capacities)
    return [(capacity, np.flatnonzero(group == n)) for n, capacity in enumerate(capacities) if np.any(group == n)]
