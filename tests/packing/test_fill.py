from bisect import bisect_left, insort

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.packing.fill import best_fit_decreasing


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """The free spaces, rising, after best-fit-decreasing as the textbook has it."""
    free: list[int] = []
    for length in lengths:
        at = bisect_left(free, length)
        space = free.pop(at) if at < len(free) else capacity
        insort(free, space - length)
    return free


@settings(max_examples=300)
@given(st.integers(1, 60).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=120))))
def test_every_list_is_filled_as_if_placed_one_by_one(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    lengths = sorted(lengths, reverse=True)
    packs, num_packs = best_fit_decreasing(np.array(lengths, np.int64), capacity)
    free = capacity - np.bincount(packs, lengths, minlength=num_packs)
    assert sorted(free.tolist()) == one_by_one(lengths, capacity)


def test_packs_are_numbered_as_they_open() -> None:
    packs, num_packs = best_fit_decreasing(np.array([6, 5, 4, 3, 2]), 10)
    assert packs.tolist() == [0, 1, 0, 1, 1]
    assert num_packs == 2


def test_a_hundred_thousand_lengths_fill_packs_to_within_a_thousandth_of_the_bound() -> None:
    draws = np.random.default_rng(0)
    long = np.exp(draws.uniform(np.log(8192), np.log(65536), 10_000))
    short = np.clip(np.exp(draws.normal(6.9, 0.9, 90_000)), 16, 65536)
    lengths = np.sort(np.concatenate([long, short]).astype(np.int64))[::-1]
    _, num_packs = best_fit_decreasing(lengths, 65536)
    bound = -(-lengths.sum() // 65536)
    assert bound <= num_packs <= bound * 1.001
