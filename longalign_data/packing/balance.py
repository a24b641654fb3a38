"""Step-balanced packing: every step is the data set in small, and its packs do alike work.

In: lengths, longest first, and the shape of a step. Out: the pack of each sequence, K numbers for each step.

S steps are opened. Each block of S consecutive sequences gives one to every step, the longest to the step that has the
fewest tokens so far, so the steps agree in tokens and in the number of sequences, for every length. All S steps then put
their sequence of the block into a pack at once, in a few array operations; a step of a hundred sequences costs a hundred
such moves however many steps there are.

Which pack it is decides how long ranks wait for each other. A long sequence goes where the least work lies so far: the
quadratic part of the work is spread as far as whole sequences allow, for every way of splitting K. A short one goes where
it leaves the least space (best fit), so that packs come out full. Spreading long sequences costs no fill while enough
short ones follow.
"""

import numpy as np

from longalign_data.packing.fill import Floats, Ints, best_fit_decreasing
from longalign_data.packing.steps import Plan, Shape, arrange, further_draw

FINE = 32
"""A sequence of less than capacity / FINE tokens is short: it fills gaps. Measured on 10% long (8k-64k) and 90% short
sequences, 8 ranks, accumulation 4 / 8 / 16: idle 10.9% / 5.7% / 2.9%; with capacity / 8 it is 11.3% / 5.8% / 3.0%, and with
best fit alone 14.3% / 7.1% / 3.6%."""

SPARE = 2000
"""One step in SPARE is added from the start: when steps are many, none of them has a token to spare otherwise, and what
finds no place in its step finds none in another. It keeps packs within 0.05% of the lower bound."""

LOOSE = 0.01
"""Where at least this share of all space stays free, every sequence is placed by work."""

UNEVEN = 0.05
"""Where sequences go to other steps than their own, the steps with the most and the fewest of them may differ by this share
of the mean, and by two: what a step has more or less than the others makes its sequences count less or more. Where
`max_sequences` limits packs, the number a step can hold is bounded already, and holding to this would cost a third of the
fill (10,000 sequences of the mix, 12 a pack: 1,136 packs for 848)."""

GOLDEN = (5**0.5 - 1) / 2


def balanced(lengths: Ints, draws: Floats, shape: Shape) -> Plan:
    """The plan of the strategy `balanced`; `lengths` fall. A step that cannot hold all of its sequences hands some to
    free spaces of other steps; where there is no such place, or where steps would then differ in their number of sequences,
    S is raised and all is dealt again.

    Where hardly any sequence is short, that costs packs: 5% for the primes below 65,536, once each, at K = 8. Dealing
    full packs (best fit over everything) instead costs none but leaves weights of 0.41 to 1.06 there; equal weights are
    what this strategy is for.
    """
    k, num_sequences = shape.packs_per_step, len(lengths)
    bound = shape.lower_bound(lengths)
    num_steps = min(-(-bound // k) + bound // (SPARE * k), num_sequences)
    jitter = further_draw(draws, 2)
    pack_of = _deal(lengths, jitter, num_steps, shape)
    if pack_of is None:
        # The bound is far off for some lengths, such as those just over a third of a pack; best fit knows better.
        _, needed = best_fit_decreasing(lengths, shape.capacity, max_sequences=shape.max_sequences)
        too_few, num_steps = num_steps, max(num_steps + 1, min(-(-needed // k), num_sequences))

        def enough(num_steps: int) -> bool:
            # Best fit is the way that finds a place most often; where the number in a pack is limited, any may.
            if shape.max_sequences:
                return _deal(lengths, jitter, num_steps, shape) is not None
            return _fill(lengths, None, num_steps, shape, None) is not None

        # How many steps are enough is found to one in SPARE.
        exact = more = 1 + num_steps // SPARE
        while not enough(num_steps):
            too_few, num_steps = num_steps, min(num_steps + more, num_sequences)
            more *= 2
        while num_steps - too_few > exact:
            middle = (num_steps + too_few) // 2
            if enough(middle):
                num_steps = middle
            else:
                too_few = middle
        pack_of = _deal(lengths, jitter, num_steps, shape)
        assert pack_of is not None
    # One of the first S sequences is in each step and gives it its place.
    keys = np.empty(num_steps)
    keys[pack_of[:num_steps] // k] = further_draw(draws[:num_steps], 1)
    place = np.empty(num_steps, np.int64)
    place[np.argsort(keys, kind="stable")] = np.arange(num_steps)
    return arrange(lengths, np.repeat(place, k), pack_of, shape)


def _deal(lengths: Ints, jitter: Floats, num_steps: int, shape: Shape) -> Ints | None:
    """The pack of each sequence, by the first of these ways that finds a place for all; None when no way does."""
    space = num_steps * shape.packs_per_step * shape.capacity
    loose = int(lengths.sum()) <= (1 - LOOSE) * space
    # First with companions that change from draw to draw, which leaves the short sequences more to even out.
    short = shape.capacity // FINE
    for shortest_long, mixed in [*([(1, True)] if loose else []), (short, True), (short, False), (None, False)]:
        pack_of = _fill(lengths, jitter[:num_steps] if mixed else None, num_steps, shape, shortest_long)
        if pack_of is not None:
            return pack_of
    return None


def _fill(lengths: Ints, jitter: Floats | None, num_steps: int, shape: Shape, shortest_long: int | None) -> Ints | None:
    """The pack of each sequence, step * K + pack in the step; None when some find no place, when more than one a step finds
    none in its own, or when steps then differ by more than UNEVEN. Sequences of `shortest_long` tokens or more are placed by
    work, the others (all, for None) by best fit."""
    k, num_sequences = shape.packs_per_step, len(lengths)
    free = np.full((num_steps, k), shape.capacity, np.int64)
    room = np.full((num_steps, k), shape.max_sequences or 0, np.int64) if shape.max_sequences else None
    work = np.zeros((num_steps, k))
    filled = np.zeros(num_steps)
    steps = np.arange(num_steps)
    pack_of = np.full(num_sequences, -1, np.int64)
    works = shape.work(lengths)
    # Full packs differ in the quadratic part alone.
    burden = works if shortest_long == 1 else works - shape.linear * lengths
    order = np.arange(num_sequences)
    mixed_until = num_homeless = 0
    for number, start in enumerate(range(0, num_sequences, num_steps)):
        if start >= mixed_until and (wide := _blocks_to_mix(lengths, filled, start)) > 1:
            mixed_until = start + wide * num_steps
            order[start:mixed_until] = order[start:mixed_until].reshape(num_steps, wide).T.ravel()
        members = order[start : start + num_steps]
        block = lengths[members]
        shortest, whole = int(block[-1]), len(block) == num_steps
        by_work = shortest_long is not None and shortest >= shortest_long
        need = filled
        if jitter is not None and whole and shortest >= shape.capacity // FINE:
            need = filled + ((jitter + number * GOLDEN) % 1.0) * float(block[0])
        # Blocks of one length need no order: whoever comes first, all grow alike.
        if not whole or shortest != block[0] or not number:
            takers = np.argsort(need, kind="stable")[: len(block)]
            sequence_of = np.full(num_steps, -1)
            sequence_of[takers] = members
        else:
            sequence_of = members
        taken = sequence_of >= 0
        length = np.where(taken, lengths[sequence_of], 0)
        fits = free >= length[:, None]
        if room is not None:
            fits &= room > 0
        key = np.where(fits, work, np.inf) if by_work else np.where(fits, free, shape.capacity + 1)
        pack = key.argmin(axis=1)
        taken &= fits[steps, pack]
        length = np.where(taken, length, 0)
        free[steps, pack] -= length
        filled += length
        if shortest_long is not None:
            work[steps, pack] += np.where(taken, burden[sequence_of], 0.0)
        if room is not None:
            room[steps, pack] -= taken
        pack_of[sequence_of[taken]] = steps[taken] * k + pack[taken]
        num_homeless += len(members) - int(np.count_nonzero(taken))
        if room is None and num_homeless > num_steps:
            return None
    homeless = np.flatnonzero(pack_of < 0)
    members = np.bincount(pack_of[pack_of >= 0] // k, minlength=num_steps)
    if len(homeless) and not _place(lengths, pack_of, homeless, free, room, members):
        return None
    packs = np.count_nonzero(np.bincount(pack_of, minlength=num_steps * k).reshape(num_steps, k), axis=1)
    if not members.all():
        return None
    for step in np.flatnonzero(packs < np.minimum(members, k)).tolist():
        _split(works, pack_of, np.flatnonzero(pack_of // k == step), step, k)
    return pack_of


def _blocks_to_mix(lengths: Ints, filled: Floats, start: int) -> int:
    """How many of the next blocks to deal as one; 1 where one after the other will do.

    Blocks of neighbours in length even out no more than the lengths fall from here to the end. Where steps are further
    apart, as when sequences that fill a pack are 6 in one step and 7 in another, every block takes a share of several
    blocks' long and short sequences: the fullest steps then get the short ones, and as many as any other."""
    num_steps = len(filled)
    apart = float(filled.max() - filled.min())
    most = (len(lengths) - start) // num_steps // 2
    if most < 2 or apart <= float(lengths[start] - lengths[-1]) or lengths[start] == lengths[-1]:
        return 1
    # The longest half of a block are longer than the others by about half of what the lengths fall by.
    counts = np.arange(2, most + 1)
    gains = counts * (lengths[start] - lengths[start + counts * num_steps - 1]) / 2
    return int(counts[min(int(np.searchsorted(gains, apart)), len(counts) - 1)])


def _place(lengths: Ints, pack_of: Ints, homeless: Ints, free: Ints, room: Ints | None, members: Ints) -> bool:
    """Puts each of the sequences `homeless` (falling lengths) into the pack with the least space that holds it, and
    counts them in `members`, the sequences of each step. False when one finds none, or when steps come to differ in
    their number by more than UNEVEN."""
    spaces, rooms, k = free.ravel(), None if room is None else room.ravel(), free.shape[1]
    if int(lengths[homeless].sum()) > int(spaces.sum()):
        return False
    mean = len(lengths) / len(members)
    apart = max(2.0, UNEVEN * mean) if rooms is None else np.inf
    # Only packs that can hold the shortest are looked at; they become fewer.
    open_ = np.flatnonzero((spaces >= lengths[homeless[-1]]) & (True if rooms is None else rooms > 0))
    order = open_[np.argsort(spaces[open_], kind="stable")]
    sizes = spaces[order]
    for sequence in homeless.tolist():
        length = int(lengths[sequence])
        at = int(np.searchsorted(sizes, length))
        if at == len(sizes):
            return False
        pack, left = order[at], int(sizes[at]) - length
        pack_of[sequence] = pack
        members[pack // k] += 1
        if members[pack // k] > mean + apart:
            return False
        order, sizes = np.delete(order, at), np.delete(sizes, at)
        if rooms is not None:
            rooms[pack] -= 1
        if left and (rooms is None or rooms[pack]):
            at = int(np.searchsorted(sizes, left))
            order, sizes = np.insert(order, at, pack), np.insert(sizes, at, left)
    return bool(members.max() - members.min() <= apart)


def _split(works: Floats, pack_of: Ints, members: Ints, step: int, k: int) -> None:
    """Splits packs of a step until it has K: the slots are paid for, and lighter packs cost less time and memory."""
    packs: dict[int, list[int]] = {}
    for index in members.tolist():
        packs.setdefault(int(pack_of[index]), []).append(index)
    unused = [pack for pack in range(step * k, (step + 1) * k) if pack not in packs]
    for new in unused:
        several = [pack for pack in packs if len(packs[pack]) > 1]
        if not several:
            return
        heaviest = max(several, key=lambda pack: (float(works[packs[pack]].sum()), -pack))
        halves: tuple[list[int], list[int]] = ([], [])
        sums = [0.0, 0.0]
        for index in packs[heaviest]:  # falling lengths, each to the lighter half
            lighter = int(sums[1] < sums[0])
            halves[lighter].append(index)
            sums[lighter] += float(works[index])
        packs[heaviest], packs[new] = halves
        pack_of[halves[1]] = new
