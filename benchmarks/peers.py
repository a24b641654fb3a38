"""Packing as other projects do it, as algorithms over lengths, in code of our own, so that all can be put beside each other.

Each takes lengths in the order of the data set and the capacity, and gives the pack of each sequence (-1: lost). What is
named in brackets is where the algorithm was read; their tokenising, truncating and storing are left out, which makes their
times a lower bound. Over-long sequences do not occur here.
"""

import heapq
from collections.abc import Callable

import numpy as np

Packs = np.ndarray


def next_fit(lengths: np.ndarray, capacity: int) -> Packs:
    """LongAlign (`sort_and_group.py`): one open pack; what does not fit opens the next. The last open one is never written."""
    pack_of = np.empty(len(lengths), np.int64)
    pack = used = 0
    for i, length in enumerate(lengths.tolist()):
        if used + length > capacity:
            pack, used = pack + 1, 0
        used += length
        pack_of[i] = pack
    pack_of[pack_of == pack] = -1
    return pack_of


def _in_batches(pack_batch: Callable[[np.ndarray, int], tuple[np.ndarray, int]], size: int):
    def whole(lengths: np.ndarray, capacity: int) -> Packs:
        pack_of = np.empty(len(lengths), np.int64)
        base = 0
        for start in range(0, len(lengths), size):
            found, count = pack_batch(lengths[start : start + size], capacity)
            pack_of[start : start + size] = found + base
            base += count
        return pack_of

    return whole


def _best_fit_tree(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit-decreasing with a segment tree over free spaces, one sequence at a time."""
    size = 1 << capacity.bit_length()
    present = bytearray(2 * size)
    packs_at: dict[int, list[int]] = {}
    pack_of = np.empty(len(lengths), np.int64)
    num_packs = 0

    def mark(space: int, value: int) -> None:
        node = space + size
        present[node] = value
        node >>= 1
        while node:
            present[node] = present[2 * node] | present[2 * node + 1]
            node >>= 1

    def smallest_from(space: int) -> int:
        node = space + size
        if present[node]:
            return space
        while node > 1:
            if not node & 1 and present[node + 1]:
                node += 1
                while node < size:
                    node = 2 * node if present[2 * node] else 2 * node + 1
                return node - size
            node >>= 1
        return -1

    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        space = smallest_from(length)
        if space < 0:
            pack, space = num_packs, capacity
            num_packs += 1
        else:
            pack = packs_at[space].pop()
            if not packs_at[space]:
                del packs_at[space]
                mark(space, 0)
        pack_of[i] = pack
        left = space - length
        if left:
            if left not in packs_at:
                packs_at[left] = []
                mark(left, 1)
            packs_at[left].append(pack)
    return pack_of, num_packs


trl_bfd = _in_batches(_best_fit_tree, 1000)
"""TRL (`_pack_bfd`, inside `Dataset.map` in batches of 1,000)."""


def _first_fit(lengths: np.ndarray, capacity: int, most: int = 200) -> tuple[np.ndarray, int]:
    # The original scans all open packs in compiled code; a tree of the largest free space finds the same pack.
    size = 1 << max(1, (len(lengths) - 1).bit_length())
    largest = [0] * (2 * size)
    counts: list[int] = []
    pack_of = np.empty(len(lengths), np.int64)
    for i, length in enumerate(lengths.tolist()):
        if largest[1] >= length:
            node = 1
            while node < size:
                node = 2 * node if largest[2 * node] >= length else 2 * node + 1
            pack = node - size
        else:
            pack = len(counts)
            counts.append(0)
            largest[pack + size] = capacity
        pack_of[i] = pack
        counts[pack] += 1
        node = pack + size
        largest[node] = largest[node] - length if counts[pack] < most else 0
        node >>= 1
        while node:
            largest[node] = max(largest[2 * node], largest[2 * node + 1])
            node >>= 1
    return pack_of, len(counts)


axolotl_multipack = _in_batches(_first_fit, 100_000)
"""axolotl (`multipack.py`): first fit in the order given, in groups of 100,000, at most 200 sequences a pack."""


def _knapsack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    from bisect import bisect_right

    order = np.argsort(lengths, kind="stable").tolist()
    sizes = lengths[order].tolist()
    pack_of = np.empty(len(lengths), np.int64)
    pack = 0
    while sizes:
        room = capacity
        while (at := bisect_right(sizes, room) - 1) >= 0:
            room -= sizes.pop(at)
            pack_of[order.pop(at)] = pack
        pack += 1
    return pack_of, pack


llamafactory_knapsack = _in_batches(_knapsack, 1000)
"""LLaMA-Factory (`greedy_knapsack`, per 1,000 examples): the largest that still fits, pack by pack."""


def karmarkar_karp(work: np.ndarray, parts: int) -> np.ndarray:
    """The part of each item, by the largest differencing method: parts of nearly equal sums of work (verl,
    `seqlen_balancing.py`)."""
    heap: list[tuple[float, int, list[tuple[float, list[int]]]]] = []
    for i, value in enumerate(work.tolist()):
        sets: list[tuple[float, list[int]]] = [(value, [i]), *((0.0, []) for _ in range(parts - 1))]
        heapq.heappush(heap, (-value, i, sets))
    while len(heap) > 1:
        _, tie, one = heapq.heappop(heap)
        _, _, two = heapq.heappop(heap)
        merged = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(one, reversed(two), strict=True)]
        merged.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], tie, merged))
    part_of = np.empty(len(work), np.int64)
    for number, (_, members) in enumerate(heap[0][2]):
        part_of[members] = number
    return part_of


def rank_local_order(work: np.ndarray, ranks: int) -> np.ndarray:
    """The order of a step's packs, micro-batch by micro-batch, when each rank is dealt its own and sorts them by work
    (ProLong, `SortByLengthDataset`)."""
    places = np.full(-(-len(work) // ranks) * ranks, -1)
    places[: len(work)] = np.arange(len(work))
    columns = places.reshape(-1, ranks)
    known = np.where(columns >= 0, work[columns], -1.0)
    return np.take_along_axis(columns, np.argsort(-known, axis=0, kind="stable"), axis=0).ravel()
