"""The plan: which sequences share a pack, which packs share an optimizer step. Pure functions over arrays of lengths.

In: the length of every sequence, one draw in (0, 1) for each, the shape of a step. Out: a `Plan`, three integer arrays:

    sequences    [4, 0, 2, 1, 3]     indexes of the sequences in the order in which they are trained on
    pack_starts  [0, 2, 3, 5]        pack p holds sequences[pack_starts[p]:pack_starts[p + 1]]
    step_starts  [0, 2, 3]           step s holds the packs step_starts[s] to step_starts[s + 1]

The result depends on lengths, draws and shape alone, not on the order in which the sequences come (those with equal
length and equal draw excepted), nor on how the packs of a step are later dealt to ranks and micro-batches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from longalign_data.packing.fill import Floats, Ints, best_fit_decreasing


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a step may hold: `packs_per_step` (K) packs of at most `capacity` tokens. A sequence of l tokens is modelled to
    cost `linear` * l + `quadratic` * l^2."""

    capacity: int
    packs_per_step: int
    linear: float
    quadratic: float

    def work(self, lengths: Ints) -> Floats:
        """The modelled cost of each length."""
        l = lengths.astype(np.float64)  # noqa: E741 - the letter of the formula
        return self.linear * l + self.quadratic * l * l


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """See the head of the module. Every step has at least one pack and at most K; within a step the packs stand by
    work, heaviest first. Under `balanced` a step has fewer than K packs only where it has fewer than K sequences; under
    `random` only the last step may."""

    sequences: Ints
    pack_starts: Ints
    step_starts: Ints

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


Strategy = Callable[[Ints, Floats, Shape], Plan]


def make_plan(strategy: str, lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """The plan of a strategy of `STRATEGIES`. `lengths` (int64) must lie in [1, capacity]; `draws` (float64, in (0, 1))
    decide between equals and the order of the steps. Every sequence is in exactly one pack."""
    assert len(lengths) == len(draws)
    if not len(lengths):
        return Plan(
            sequences=np.zeros(0, np.int64), pack_starts=np.zeros(1, np.int64), step_starts=np.zeros(1, np.int64)
        )
    order = np.lexsort((draws, -lengths))
    plan = STRATEGIES[strategy](lengths[order], draws[order], shape)
    return Plan(sequences=order[plan.sequences], pack_starts=plan.pack_starts, step_starts=plan.step_starts)


def balanced(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """Step-balanced packing: every step is the data set in small.

    `lengths` fall. S steps are opened; each block of S consecutive sequences gives one to every step, the longest to the
    step that has the fewest tokens so far. So the steps agree in tokens and in the number of sequences, for every length.
    Then best-fit-decreasing fills packs inside each step. A step that needs more than K packs hands what is in its
    emptiest ones to free spaces of other steps; where there is no such place, S is raised and all is dealt again.
    """
    capacity, k = shape.capacity, shape.packs_per_step
    num_sequences = len(lengths)
    # Best-fit-decreasing over everything, not the sum of lengths: with lengths just over half a pack the sum is far off.
    _, packs_needed = best_fit_decreasing(lengths, capacity)
    num_steps = -(-packs_needed // k)
    more = 1
    while True:
        step_of = _deal(lengths, num_steps)
        pack_of = _fill_steps(lengths, step_of, num_steps, shape)
        if pack_of is not None:
            break
        num_steps = min(num_steps + more, num_sequences)
        more *= 2
    # One of the first S sequences is in each step and gives it its place.
    keys = np.empty(num_steps)
    keys[step_of[:num_steps]] = _second_draw(draws[:num_steps])
    place = np.empty(num_steps, np.int64)
    place[np.argsort(keys, kind="stable")] = np.arange(num_steps)
    return _arrange(lengths, place[pack_of // k], pack_of, shape)


def random(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """Best-fit-decreasing over everything, and the packs shuffled: the fullest packs, but of one long sequence or of a
    hundred short ones, so that the number of sequences differs from step to step. `lengths` fall."""
    pack_of, num_packs = best_fit_decreasing(lengths, shape.capacity)
    first = np.empty(num_packs, np.int64)
    first[pack_of[::-1]] = np.arange(len(lengths))[::-1]
    place = np.empty(num_packs, np.int64)
    place[np.argsort(_second_draw(draws[first]), kind="stable")] = np.arange(num_packs)
    return _arrange(lengths, place[pack_of] // shape.packs_per_step, pack_of, shape)


STRATEGIES: dict[str, Strategy] = {"balanced": balanced, "random": random}
"""Every packing strategy. They are given the sequences sorted: longest first, equal ones by their draws."""


def _second_draw(draws: Floats) -> Floats:
    # A draw has 53 bits. The first sequence among equals has a small draw, so the high bits are used up; the low are not.
    return (draws * 2.0**22) % 1.0


def _deal(lengths: Ints, num_steps: int) -> Ints:
    """The step of each sequence."""
    if num_steps == 1:
        return np.zeros(len(lengths), np.int64)
    step_of = np.empty(len(lengths), np.int64)
    filled = np.zeros(num_steps, np.int64)
    for start in range(0, len(lengths), num_steps):
        block = lengths[start : start + num_steps]
        emptiest = np.argsort(filled, kind="stable")[: len(block)]
        step_of[start : start + num_steps] = emptiest
        filled[emptiest] += block
    return step_of


def _fill_steps(lengths: Ints, step_of: Ints, num_steps: int, shape: Shape) -> Ints | None:
    """The pack of each sequence, K numbers for each step: step * K + pack in the step. None when it cannot be done."""
    k = shape.packs_per_step
    by_step = np.argsort(step_of, kind="stable")
    bounds = np.searchsorted(step_of[by_step], np.arange(num_steps + 1))
    pack_of = np.empty(len(lengths), np.int64)
    left_over: list[Ints] = []
    short: list[int] = []
    for step in range(num_steps):
        members = by_step[bounds[step] : bounds[step + 1]]
        local, num_packs = best_fit_decreasing(lengths[members], shape.capacity)
        if num_packs > k:
            fullest = np.argsort(-np.bincount(local, lengths[members]), kind="stable")
            number = np.full(num_packs, -1)
            number[fullest[:k]] = np.arange(k)
            local = number[local]
            left_over.append(members[local < 0])
        elif num_packs < k:
            short.append(step)
        pack_of[members] = np.where(local < 0, -1, step * k + local)
    if left_over and not _place(lengths, pack_of, np.sort(np.concatenate(left_over)), num_steps * k, shape.capacity):
        return None
    for step in short:
        members = by_step[bounds[step] : bounds[step + 1]]
        _spread(lengths, pack_of, members, step, shape)
    return pack_of


def _place(lengths: Ints, pack_of: Ints, homeless: Ints, num_packs: int, capacity: int) -> bool:
    """Puts each of the sequences `homeless` (falling lengths) into the pack with the least space that holds it."""
    housed = pack_of >= 0
    free = (capacity - np.bincount(pack_of[housed], lengths[housed], minlength=num_packs)).astype(np.int64)
    for sequence in homeless:
        fits = np.where(free >= lengths[sequence], free, capacity + 1)
        pack = int(np.argmin(fits))
        if fits[pack] > capacity:
            return False
        pack_of[sequence] = pack
        free[pack] -= lengths[sequence]
    return True


def _spread(lengths: Ints, pack_of: Ints, members: Ints, step: int, shape: Shape) -> None:
    """Splits packs of a step until it has K: the slots are paid for, and lighter packs cost less time and memory."""
    k = shape.packs_per_step
    work = shape.work(lengths[members])
    packs: dict[int, list[int]] = {}
    for index, pack in enumerate(pack_of[members].tolist()):
        packs.setdefault(pack, []).append(index)
    unused = [pack for pack in range(step * k, (step + 1) * k) if pack not in packs]
    while unused:
        heaviest = max(
            (pack for pack in packs if len(packs[pack]) > 1),
            key=lambda pack: (float(work[packs[pack]].sum()), -pack),
            default=None,
        )
        if heaviest is None:
            return
        halves: tuple[list[int], list[int]] = ([], [])
        sums = [0.0, 0.0]
        for index in packs[heaviest]:  # falling lengths, each to the lighter half
            lighter = int(sums[1] < sums[0])
            halves[lighter].append(index)
            sums[lighter] += float(work[index])
        new = unused.pop(0)
        packs[heaviest], packs[new] = halves
        pack_of[members[halves[1]]] = new


def _arrange(lengths: Ints, step_of: Ints, pack_of: Ints, shape: Shape) -> Plan:
    """The plan with these steps, each with its packs by work; a pack lies in one step."""
    _, pack_of = np.unique(pack_of, return_inverse=True)
    work = np.bincount(pack_of, shape.work(lengths))
    order = np.lexsort((np.arange(len(lengths)), pack_of, -work[pack_of], step_of))
    packs = pack_of[order]
    pack_starts = np.concatenate(([0], np.flatnonzero(np.diff(packs)) + 1, [len(packs)]))
    steps = step_of[order][pack_starts[:-1]]
    step_starts = np.concatenate(([0], np.flatnonzero(np.diff(steps)) + 1, [len(steps)]))
    return Plan(sequences=order, pack_starts=pack_starts, step_starts=step_starts)


def _sums(values: Floats | Ints, starts: Ints) -> Floats | Ints:
    return np.add.reduceat(values, starts[:-1]) if len(starts) > 1 else values[:0]
