"""Filling packs: best-fit-decreasing over lengths alone.

In: the lengths of the sequences, longest first, and the capacity of a pack, in tokens. Out: the pack of each sequence.

    best_fit_decreasing([6, 5, 4, 3, 2], capacity=10) -> packs [0, 1, 0, 1, 1], 2 packs

Sequences of one length are alike, and so are packs with one free space. Best fit sends the next sequence of length l into
the pack with the least free space f >= l, and then keeps that pack as long as another l fits; so a whole group of packs
with free space f takes f // l sequences each in one move. The loop below runs over such moves, not over sequences.
"""

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def best_fit_decreasing(lengths: Ints, capacity: int, *, max_sequences: int | None = None) -> tuple[Ints, int]:
    """The pack number of each sequence (int64, shape of `lengths`) and the number of packs.

    `lengths` must fall or stay, and lie in [1, capacity]. The result is exactly best-fit-decreasing: as many packs, with
    the same free spaces, as placing the sequences one by one. With `max_sequences`, a pack that holds so many is closed,
    and of packs with one free space the one that may take the fewest more is the best fit. Packs are numbered in the order
    in which they open.
    """
    if not len(lengths):
        return np.zeros(0, np.int64), 0
    assert 1 <= lengths[-1] <= lengths[0] <= capacity
    assert bool(np.all(lengths[1:] <= lengths[:-1]))
    shortest = int(lengths[-1])
    borders = np.flatnonzero(np.diff(lengths)) + 1
    firsts = np.concatenate(([0], borders))
    counts = np.diff(firsts, append=len(lengths)).tolist()

    most = max_sequences or len(lengths)
    # (free space, sequences that may still come) that some pack has, rising; those that can take none are forgotten
    levels: list[tuple[int, int]] = []
    packs_at: dict[tuple[int, int], list[tuple[int, int]]] = {}  # level -> ranges of packs that stand there
    first_pack: list[int] = []  # one entry a move: `how_many` packs from `first_pack` on take `each` sequences
    how_many: list[int] = []
    each: list[int] = []
    num_packs = 0

    def keep(free: int, room: int, start: int, end: int) -> None:
        if free < shortest or not room:
            return
        # Without a limit all packs with one free space are alike.
        level = (free, room if max_sequences else 0)
        if level in packs_at:
            packs_at[level].append((start, end))
        else:
            packs_at[level] = [(start, end)]
            levels.insert(bisect_left(levels, level), level)

    for length, count in zip(lengths[firsts].tolist(), counts, strict=True):
        while count:
            at = bisect_left(levels, (length, 0))
            if at == len(levels):
                free, room = capacity, most
                start, end = num_packs, num_packs + -(-count // min(capacity // length, most))
                num_packs = end
            else:
                level = levels[at]
                free, room = level[0], level[1] or most
                ranges = packs_at[level]
                start, end = ranges.pop()
                if not ranges:
                    del levels[at], packs_at[level]
            take = min(free // length, room)
            full = min(end - start, count // take)
            if full:
                first_pack.append(start)
                how_many.append(full)
                each.append(take)
                keep(free - take * length, room - take, start, start + full)
                start += full
                count -= full * take
            if count and start < end:
                first_pack.append(start)
                how_many.append(1)
                each.append(count)
                keep(free - count * length, room - count, start, start + 1)
                start += 1
                count = 0
            if start < end:
                keep(free, room, start, end)
    repeats = np.asarray(each, np.int64)
    sizes = np.asarray(how_many, np.int64) * repeats
    moves = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(len(lengths)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(first_pack, np.int64)[moves] + within // repeats[moves], num_packs
