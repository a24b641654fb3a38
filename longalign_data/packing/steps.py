"""What a plan is: the shape of a step, and which sequences share a pack and which packs share a step.

A `Plan` is five integer arrays:

    sequences      [4, 0, 2, 1, 3]     indexes of the sequences in the order in which they are trained on
    pack_starts    [0, 2, 3, 5]        pack p holds sequences[pack_starts[p]:pack_starts[p + 1]]
    step_starts    [0, 2, 3]           step s holds the packs step_starts[s] to step_starts[s + 1]
    step_capacity  [10, 10]            the most tokens that a pack of step s may hold
    step_epoch     [0, 0]              the epoch of step s; each epoch holds every sequence once
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longalign_data.packing.fill import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a step may hold: `packs_per_step` (K) packs of at most `capacity` tokens and, where it is given, at most
    `max_sequences` sequences. With `smaller_capacities` some steps have packs of at most so many tokens instead. A sequence
    of l tokens is modelled to cost `linear` * l + `quadratic` * l^2."""

    capacity: int
    packs_per_step: int
    linear: float
    quadratic: float
    max_sequences: int | None = None
    smaller_capacities: tuple[int, ...] = ()

    def work(self, lengths: Ints) -> Floats:
        """The modelled cost of each length."""
        l = lengths.astype(np.float64)  # noqa: E741 - the letter of the formula
        return self.linear * l + self.quadratic * l * l

    def lower_bound(self, lengths: Ints) -> int:
        """Packs of `capacity` that these sequences need at least: by their tokens, by their number where that is limited,
        and by those of more than half a pack, no two of which share one."""
        by_number = -(-len(lengths) // self.max_sequences) if self.max_sequences else 0
        return max(
            -(-int(lengths.sum()) // self.capacity), by_number, int(np.count_nonzero(2 * lengths > self.capacity))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """See the head of the module. Every step has at least one pack and at most K; within a step the packs stand by
    work, heaviest first. Under `balanced` a step has fewer than K packs only where it has fewer than K sequences; else
    only one step of an epoch and of each capacity may, under `naive` and `random` the last."""

    sequences: Ints
    pack_starts: Ints
    step_starts: Ints
    step_capacity: Ints
    step_epoch: Ints

    @property
    def num_packs(self) -> int:
        return len(self.pack_starts) - 1

    @property
    def num_steps(self) -> int:
        return len(self.step_starts) - 1

    def pack_sums(self, values: Floats | Ints) -> Floats | Ints:
        """The sum over each pack of one value for each sequence (given in the order of the input)."""
        return _sums(values[self.sequences], self.pack_starts)

    def step_sums(self, values: Floats | Ints) -> Floats | Ints:
        """The sum over each step of one value for each sequence (given in the order of the input)."""
        return _sums(values[self.sequences], self.pack_starts[self.step_starts])

    def packs_in_steps(self) -> Ints:
        """How many packs each step holds."""
        return np.diff(self.step_starts)

    def sequences_in_steps(self) -> Ints:
        """M of each step."""
        return np.diff(self.pack_starts[self.step_starts])


def empty_plan() -> Plan:
    """A plan of nothing."""
    nothing = np.zeros(0, np.int64)
    start = np.zeros(1, np.int64)
    return Plan(sequences=nothing, pack_starts=start, step_starts=start, step_capacity=nothing, step_epoch=nothing)


def arrange(lengths: Ints, step_of_pack: Ints, pack_of: Ints, shape: Shape) -> Plan:
    """The plan in which sequence i is in pack `pack_of[i]` and pack p in step `step_of_pack[p]`, each step with its packs
    by work. Numbers of packs and steps that nothing is in are passed over."""
    counts = np.bincount(pack_of, minlength=len(step_of_pack))
    work = np.bincount(pack_of, shape.work(lengths), minlength=len(step_of_pack))
    used = np.flatnonzero(counts)
    used = used[np.lexsort((used, -work[used], step_of_pack[used]))]
    place = np.empty(len(step_of_pack), np.int64)
    place[used] = np.arange(len(used))
    borders = np.flatnonzero(np.diff(step_of_pack[used])) + 1
    num_steps = len(borders) + 1
    return Plan(
        sequences=stable_order(place[pack_of]),
        pack_starts=np.concatenate(([0], np.cumsum(counts[used]))),
        step_starts=np.concatenate(([0], borders, [len(used)])),
        step_capacity=np.full(num_steps, shape.capacity),
        step_epoch=np.zeros(num_steps, np.int64),
    )


def join(plans: Sequence[Plan]) -> Plan:
    """The steps of several plans over the same sequences, one plan after the other."""
    packs = np.cumsum([0, *(plan.num_packs for plan in plans)])
    sequences = np.cumsum([0, *(len(plan.sequences) for plan in plans)])
    return Plan(
        sequences=np.concatenate([plan.sequences for plan in plans]),
        pack_starts=_chained([plan.pack_starts for plan in plans], sequences),
        step_starts=_chained([plan.step_starts for plan in plans], packs),
        step_capacity=np.concatenate([plan.step_capacity for plan in plans]),
        step_epoch=np.concatenate([plan.step_epoch for plan in plans]),
    )


def reorder(plan: Plan, order: Ints) -> Plan:
    """The plan with its steps in another order."""
    packs_in = plan.packs_in_steps()[order]
    packs = _ranges(plan.step_starts[order], packs_in)
    sequences_in = np.diff(plan.pack_starts)[packs]
    return Plan(
        sequences=plan.sequences[_ranges(plan.pack_starts[packs], sequences_in)],
        pack_starts=np.concatenate(([0], np.cumsum(sequences_in))),
        step_starts=np.concatenate(([0], np.cumsum(packs_in))),
        step_capacity=plan.step_capacity[order],
        step_epoch=plan.step_epoch[order],
    )


def stable_order(keys: Ints) -> Ints:
    """What `np.argsort(keys, kind="stable")` gives, for keys in [0, 2^32), in a third of its time: numpy sorts numbers of
    16 bits by counting."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    high = (keys >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if high.any() else order


def further_draw(draws: Floats, number: int) -> Floats:
    """Other draws in [0, 1) out of the lower bits of these, for `number` 1 or 2. The first sequence among equals has a
    small draw, so its high bits are used up; the low ones, of 53, are not."""
    return (draws * 2.0 ** (10 + 14 * number)) % 1.0


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """starts[0], starts[0] + 1, ... (counts[0] numbers), starts[1], ..."""
    ends = np.cumsum(counts)
    shifts: Ints = np.repeat(starts - (ends - counts), counts)
    return np.arange(len(shifts)) + shifts


def _chained(starts: list[Ints], bases: Ints) -> Ints:
    parts = [part[:-1] + base for part, base in zip(starts, bases, strict=False)]
    return np.concatenate([*parts, bases[-1:]])


def _sums(values: Floats | Ints, starts: Ints) -> Floats | Ints:
    return np.add.reduceat(values, starts[:-1]) if len(starts) > 1 else values[:0]
