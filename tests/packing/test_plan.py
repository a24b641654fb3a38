import itertools

import numpy as np
import pytest

from longalign_data.packing.figures import effective_weights, figures, idle_share, pack_mean_shares, shares
from longalign_data.packing.fill import best_fit_decreasing
from longalign_data.packing.plan import STRATEGIES, make_plan, plan_epochs
from longalign_data.packing.steps import Shape


def shape(k: int, capacity: int = 65_536) -> Shape:
    return Shape(capacity=capacity, packs_per_step=k, linear=24_576.0, quadratic=1.0)


def draws_for(lengths: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).random(len(lengths))


@pytest.fixture(scope="module")
def mixed() -> np.ndarray:
    """10,000 long and 90,000 short sequences, as a long instruction set mixed with chats is."""
    draws = np.random.default_rng(0)
    long = np.exp(draws.uniform(np.log(8192), np.log(65536), 10_000))
    short = np.clip(np.exp(draws.normal(6.9, 0.9, 90_000)), 16, 65536)
    return np.concatenate([long, short]).astype(np.int64)


@pytest.mark.parametrize("k", [8, 32])
def test_balanced_packing_lets_every_sequence_count_the_same_and_random_does_not(mixed: np.ndarray, k: int) -> None:
    spread = {}
    for strategy in ("balanced", "random"):
        plan = make_plan(strategy, mixed, draws_for(mixed), shape(k))
        spread[strategy] = np.percentile(effective_weights(plan, np.ones(len(mixed))), [1, 99])
    assert spread["balanced"][0] > 0.99
    assert spread["balanced"][1] < 1.01
    assert spread["random"][0] < 0.6
    assert spread["random"][1] > 1.5


def test_balanced_packing_costs_no_step_more_than_the_fullest_packing_needs(mixed: np.ndarray) -> None:
    for k in (8, 32, 96):
        bound = -(-int(mixed.sum()) // 65_536)
        assert make_plan("balanced", mixed, draws_for(mixed), shape(k)).num_steps == -(-bound // k)


def test_packs_by_work_keep_ranks_busier_than_packs_in_any_order(mixed: np.ndarray) -> None:
    sizes = shape(32)
    plan = make_plan("balanced", mixed, draws_for(mixed), sizes)
    work = plan.pack_sums(sizes.work(mixed))
    shuffled = np.random.default_rng(2).permuted(work.reshape(-1, 32), axis=1).reshape(-1, 4, 8)
    unordered = 1 - work.sum() / (8 * shuffled.max(axis=2).sum())
    assert idle_share(plan, mixed, sizes, ranks=8) < 0.15 < 0.3 < unordered


ADVERSARIAL = {
    "all equal": np.full(2_000, 5_000),
    "all fill a pack": np.full(301, 65_536),
    "all just over half a pack": np.full(101, 32_769),
    "one giant among small ones": np.append(np.full(5_000, 300), 65_536),
    "uniform": np.random.default_rng(3).integers(1, 65_537, 2_000),
    "one sequence": np.array([17]),
    "fewer sequences than packs in a step": np.array([60_000, 30_000, 10, 7]),
    "exactly one step": np.full(8, 65_536),
    "without a token to spare": np.concatenate([np.full(16, 65_535), np.ones(16, int)]),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hard_lists_of_lengths_are_planned_whole(name: str, strategy: str) -> None:
    lengths = ADVERSARIAL[name].astype(np.int64)
    plan = make_plan(strategy, lengths, draws_for(lengths), shape(8))
    assert sorted(plan.sequences.tolist()) == list(range(len(lengths)))
    assert plan.pack_sums(lengths).max() <= 65_536
    packs = np.diff(plan.step_starts)
    members = np.diff(plan.pack_starts[plan.step_starts])
    assert packs.min() >= 1
    assert packs.max() <= 8
    if strategy == "balanced":
        assert np.all((packs == 8) | (packs == members))
    elif strategy == "sorted":
        assert np.count_nonzero(packs < 8) <= 1
    else:
        assert np.all(packs[:-1] == 8)


def test_nothing_to_pack_is_an_empty_plan() -> None:
    nothing = np.zeros(0, np.int64)
    for strategy in STRATEGIES:
        plan = make_plan(strategy, nothing, nothing.astype(float), shape(8))
        assert (plan.num_packs, plan.num_steps) == (0, 0)
        assert figures(plan, nothing, nothing.astype(float), shape(8))["num_packs"] == 0


@pytest.mark.parametrize(("k", "num_steps"), [(8, 151), (16, 76), (32, 38)])
def test_many_sequences_that_fill_a_pack_leave_steps_alike(k: int, num_steps: int) -> None:
    # 1,000 are 6 or 7 packs of each of 151 steps: a step has one pack or two for its chats, and as many chats as any other.
    chats = np.clip(np.exp(np.random.default_rng(0).normal(6.9, 0.9, 9_000)), 16, 65_536).astype(np.int64)
    lengths = np.concatenate([np.full(1_000, 65_536), chats])
    plan = make_plan("balanced", lengths, draws_for(lengths), shape(k))
    m = plan.sequences_in_steps()
    assert plan.num_steps == num_steps == -(-shape(k).lower_bound(lengths) // k)
    assert m.max() - m.min() <= 1
    low, high = np.percentile(effective_weights(plan, np.ones(len(lengths))), [1, 99])
    assert 0.98 < low < high < 1.01


def test_where_hardly_any_chat_stands_beside_full_packs_steps_are_added() -> None:
    chats = np.clip(np.exp(np.random.default_rng(0).normal(6.9, 0.9, 1_000)), 16, 65_536).astype(np.int64)
    lengths = np.concatenate([np.full(1_000, 65_536), chats])
    plan = make_plan("balanced", lengths, draws_for(lengths), shape(8))
    assert np.ptp(plan.sequences_in_steps()) <= 1
    assert plan.num_steps == 143  # 1,000 / 7: one pack of each step is for chats


def test_leftovers_of_a_step_move_to_free_places_before_a_step_is_added() -> None:
    # Dealt evenly, one of the eight steps gets lengths that need three packs; another step has room for what is over.
    lengths = np.array([8, 3, 4, 10, 2, 9, 9, 3, 6, 9, 2, 10, 9, 3, 9, 9, 5, 4, 2, 6, 3, 2, 5, 9])
    plan = make_plan("balanced", lengths, draws_for(lengths), shape(2, capacity=10))
    _, num_packs = best_fit_decreasing(np.sort(lengths)[::-1], 10)
    assert plan.num_steps == -(-num_packs // 2) == 8
    assert np.diff(plan.step_starts).max() <= 2
    assert np.diff(plan.pack_starts[plan.step_starts]).max() > 3


def test_the_order_of_the_sequences_does_not_matter() -> None:
    draws = np.random.default_rng(5)
    lengths = draws.integers(1, 400, 3_000).astype(np.int64)
    keys = draws.random(3_000)
    mixed_up = draws.permutation(3_000)
    for strategy in STRATEGIES:
        plan = make_plan(strategy, lengths, keys, shape(4, capacity=1_000))
        other = make_plan(strategy, lengths[mixed_up], keys[mixed_up], shape(4, capacity=1_000))
        assert np.array_equal(plan.sequences, mixed_up[other.sequences])
        assert np.array_equal(plan.pack_starts, other.pack_starts)


def test_steps_come_in_no_order_of_length(mixed: np.ndarray) -> None:
    for strategy in STRATEGIES:
        plan = make_plan(strategy, mixed, draws_for(mixed), shape(8))
        longest = np.maximum.reduceat(mixed[plan.sequences], plan.pack_starts[plan.step_starts[:-1]])
        assert abs(np.corrcoef(longest, np.arange(plan.num_steps))[0, 1]) < 0.15


def test_other_draws_give_another_plan_of_the_same_size() -> None:
    lengths = np.random.default_rng(6).integers(1, 400, 1_000).astype(np.int64)
    for strategy in STRATEGIES:
        one = make_plan(strategy, lengths, draws_for(lengths), shape(4, capacity=1_000))
        two = make_plan(strategy, lengths, np.random.default_rng(9).random(1_000), shape(4, capacity=1_000))
        assert one.num_steps == two.num_steps
        assert not np.array_equal(one.sequences, two.sequences)


@pytest.mark.parametrize(("accumulation", "most"), [(4, 0.12), (8, 0.06), (16, 0.03)])
def test_ranks_wait_less_than_packs_sorted_by_work_let_them(mixed: np.ndarray, accumulation: int, most: float) -> None:
    sizes = shape(8 * accumulation)
    balanced = make_plan("balanced", mixed, draws_for(mixed), sizes)
    filled_best = make_plan("random", mixed, draws_for(mixed), sizes)
    waits = [idle_share(plan, mixed, sizes, ranks=8) for plan in (balanced, filled_best)]
    assert waits[0] < most < waits[1]


def test_packs_are_as_few_as_tokens_allow_to_a_thousandth(mixed: np.ndarray) -> None:
    sizes = shape(8)
    plan = make_plan("balanced", mixed, draws_for(mixed), sizes)
    numbers = figures(plan, mixed, np.ones(len(mixed)), sizes)
    assert numbers["fill"] >= 0.999
    assert plan.num_packs <= sizes.lower_bound(mixed) * 1.001


def test_sorted_batches_hold_neighbours_in_length_and_the_tail() -> None:
    lengths = np.random.default_rng(4).permutation(np.arange(1, 1_004))
    plan = make_plan("sorted", lengths, draws_for(lengths), shape(8))
    trained = lengths[plan.sequences]
    assert plan.num_packs == len(lengths) == len(plan.sequences)
    steps = np.split(trained, plan.step_starts[1:-1])
    assert sorted(len(step) for step in steps) == [3, *[8] * 125]
    assert all(step.max() - step.min() == len(step) - 1 for step in steps)
    firsts = [int(step[0]) for step in steps]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


def test_naive_training_puts_one_sequence_of_any_length_into_a_pack() -> None:
    lengths = np.arange(1, 1_004)
    plan = make_plan("naive", lengths, draws_for(lengths), shape(8))
    assert plan.num_packs == len(lengths)
    assert np.diff(plan.step_starts).tolist() == [*[8] * 125, 3]
    assert np.std(np.add.reduceat(lengths[plan.sequences], plan.step_starts[:-1])[:-1]) > 500


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_pack_holds_more_sequences_than_its_limit(mixed: np.ndarray, strategy: str) -> None:
    lengths = mixed[::10]
    sizes = Shape(capacity=65_536, packs_per_step=8, linear=24_576.0, quadratic=1.0, max_sequences=12)
    plan = make_plan(strategy, lengths, draws_for(lengths), sizes)
    assert np.diff(plan.pack_starts).max() <= 12
    assert plan.pack_sums(lengths).max() <= 65_536
    assert sorted(plan.sequences.tolist()) == list(range(len(lengths)))
    if strategy == "balanced":
        assert plan.num_packs <= sizes.lower_bound(lengths) * 1.05


@pytest.mark.parametrize("strategy", ["balanced", "random"])
def test_a_step_has_packs_of_one_capacity_and_steps_of_all_hold_as_many_sequences(
    mixed: np.ndarray, strategy: str
) -> None:
    sizes = Shape(
        capacity=65_536, packs_per_step=8, linear=24_576.0, quadratic=1.0, smaller_capacities=(16_384, 32_768)
    )
    plan = make_plan(strategy, mixed, draws_for(mixed), sizes)
    assert sorted(plan.sequences.tolist()) == list(range(len(mixed)))
    assert set(plan.step_capacity.tolist()) == {16_384, 32_768, 65_536}
    of_pack = np.repeat(plan.step_capacity, plan.packs_in_steps())
    assert np.all(plan.pack_sums(mixed) <= of_pack)
    order = plan.step_capacity[:200]
    assert np.count_nonzero(np.diff(order)) > 20
    m = plan.sequences_in_steps()
    means = [m[plan.step_capacity == capacity].mean() for capacity in (16_384, 32_768, 65_536)]
    assert max(means) < 1.02 * min(means)
    if strategy == "balanced":
        low, high = np.percentile(effective_weights(plan, np.ones(len(mixed))), [1, 99])
        assert 0.97 < low < high < 1.03
    numbers = figures(plan, mixed, np.ones(len(mixed)), sizes)
    assert 0.9 < numbers["fill"] <= 1
    assert sum(numbers["steps_by_capacity"].values()) == plan.num_steps


def test_epochs_hold_everything_once_each_in_other_company(mixed: np.ndarray) -> None:
    lengths = mixed[::5]
    draws = [np.random.default_rng(epoch).random(len(lengths)) for epoch in range(3)]
    plan = plan_epochs("balanced", lengths, draws, shape(8))
    step_of = np.repeat(np.arange(plan.num_steps), plan.sequences_in_steps())
    companies = []
    for epoch in range(3):
        here = plan.sequences[(plan.step_epoch == epoch)[step_of]]
        assert sorted(here.tolist()) == list(range(len(lengths)))
        steps = np.empty(len(lengths), int)
        steps[here] = step_of[(plan.step_epoch == epoch)[step_of]]
        long = np.flatnonzero(lengths > 30_000)
        companies.append({tuple(sorted(long[steps[long] == step].tolist())) for step in set(steps[long].tolist())})
    assert plan.step_epoch.tolist() == sorted(plan.step_epoch.tolist())
    for one, two in itertools.combinations(companies, 2):
        assert len(one & two) < 0.1 * len(one)


def test_plain_packing_lets_long_sequences_count_more_and_weights_do_not(mixed: np.ndarray) -> None:
    targets = np.where(mixed >= 8_192, 290, mixed // 2)
    plain = make_plan("random", mixed, draws_for(mixed), shape(8))
    biased = pack_mean_shares(plain, targets)
    assert biased.mean() == pytest.approx(1.0)
    assert biased[mixed >= 8_192].mean() > 4
    assert biased[mixed < 8_192].mean() < 0.6
    plan = make_plan("balanced", mixed, draws_for(mixed), shape(8))
    fair = shares(plan, np.ones(len(mixed)))
    assert np.percentile(fair, [1, 99]) == pytest.approx([1, 1], abs=0.01)


def test_shares_are_those_of_a_hand_count() -> None:
    # Two packs of one step: 10 and 30 targets together, 20 alone.
    plan = make_plan("random", np.array([6, 4, 9]), np.array([0.1, 0.2, 0.3]), shape(2, capacity=10))
    targets = np.array([10, 30, 20])
    assert pack_mean_shares(plan, targets) == pytest.approx(np.array([0.125, 0.375, 0.5]) * 3)
    assert shares(plan, targets.astype(float)) == pytest.approx(targets / 60 * 3)
    assert shares(plan, np.ones(3)) == pytest.approx(np.ones(3))
