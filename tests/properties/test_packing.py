from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.engine import RunOptions, Silent
from longalign_data.packing.fill import best_fit_decreasing
from longalign_data.packing.pack import pack
from longalign_data.packing.plan import STRATEGIES, make_plan, plan_epochs
from longalign_data.packing.reader import PackReader, open_packs
from longalign_data.packing.steps import Shape
from longalign_data.recipe import LoadedRecipe, Recipe
from longalign_data.records import TargetSpan, TokenSequence
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter

CAPACITY = 24


@st.composite
def sequence_lists(draw: st.DrawFn) -> list[TokenSequence]:
    """Sequences with one or two target spans of at least one token that has a token before it, anywhere."""
    made = []
    for number, length in enumerate(draw(st.lists(st.integers(2, CAPACITY), min_size=1, max_size=40))):
        start = draw(st.integers(0, length - 2))
        end = draw(st.integers(max(start, 1) + 1, length))
        spans = [TargetSpan(start=start, end=end)]
        if end + 1 < length and draw(st.booleans()):
            spans.append(TargetSpan(start=end + 1, end=length))
        ids = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
        made.append(
            TokenSequence(
                sequence_id=f"id-{number}",
                sample_id=f"sample-{number}",
                input_ids=ids,
                target_spans=spans,
                num_tokens=length,
                num_targets=sum(span.end - max(span.start, 1) for span in spans),
                truncated_tokens=0,
            )
        )
    return made


def packed(folder: Path, sequences: list[TokenSequence], strategy: str, k: int, alpha: float) -> PackReader:
    """Through encode's and pack's Parquet files, in small shards."""
    run = RunOptions(shard_bytes=700, row_group_bytes=250)
    build = BuildFolder(folder)
    with StageWriter(build, "encode", fingerprint="e", run=run) as writer:
        for item in sequences:
            writer.write("sequences", item)
            writer.next_input()
        writer.finish()
    plain = {
        "name": "p",
        "version": "1.0.0",
        "sources": [{"card": "none"}],
        "sample": {"count": 1},
        "encode": {"max_tokens": CAPACITY},
        "pack": {"strategy": strategy, "capacity": CAPACITY, "packs_per_step": k, "alpha": alpha},
    }
    loaded = LoadedRecipe(recipe=Recipe.model_validate(plain), path=folder, text="", sources=[])
    pack(loaded, build, fingerprint="p", run=run, progress=Silent())
    return open_packs(folder)


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=80),
    spikes=st.integers(0, 40),
    spike=st.sampled_from([CAPACITY, CAPACITY - 1, CAPACITY // 2]),
    k=st.integers(1, 5),
)
def test_every_step_of_a_balanced_plan_holds_about_as_many_sequences(
    lengths: list[int], spikes: int, spike: int, k: int
) -> None:
    chosen = np.asarray(lengths + [spike] * spikes, np.int64)
    shape = Shape(capacity=CAPACITY, packs_per_step=k, linear=8.0, quadratic=1.0)
    plan = make_plan("balanced", chosen, np.random.default_rng(0).random(len(chosen)), shape)
    assert sorted(plan.sequences.tolist()) == list(range(len(chosen)))
    assert plan.pack_sums(chosen).max() <= CAPACITY
    m = plan.sequences_in_steps()
    assert m.max() - m.min() <= max(2, 0.05 * m.mean())


@settings(max_examples=40)
@given(sequence_lists(), st.sampled_from(list(STRATEGIES)), st.sampled_from([1, 2, 4, 6]), st.sampled_from([0, 0.5, 1]))
def test_every_sequence_reaches_the_trainer_once_with_its_weight(
    sequences: list[TokenSequence], strategy: str, k: int, alpha: float
) -> None:
    with TemporaryDirectory() as folder:
        reader = packed(Path(folder), sequences, strategy, k, alpha)
        arrived: list[tuple[tuple[int, ...], tuple[bool, ...]]] = []
        for step in range(reader.num_steps):
            counts: list[int] = []
            packs_seen: list[set[str]] = []
            for ranks in (ranks for ranks in range(1, k + 1) if k % ranks == 0):
                seen = set()
                for micro in range(k // ranks):
                    for rank in range(ranks):
                        batch = reader.batch(step, rank, ranks, micro, k // ranks)
                        if batch is None:
                            continue
                        seen.add(batch.pack_id)
                        assert batch.num_tokens == len(batch.input_ids) == batch.cu_seqlens[-1] <= CAPACITY
                        assert np.flatnonzero(batch.position_ids == 0).tolist() == batch.cu_seqlens[:-1].tolist()
                        assert set(np.diff(batch.position_ids)[batch.position_ids[1:] > 0].tolist()) <= {1}
                        assert batch.max_seqlen == batch.position_ids.max() + 1
                        assert not batch.loss_weights[batch.cu_seqlens[:-1]].any()
                        if ranks > 1:
                            continue
                        for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
                            weights = batch.loss_weights[start:end]
                            number = int(np.count_nonzero(weights))
                            assert weights.sum() == pytest.approx(number ** (1 - alpha), rel=1e-6)
                            counts.append(number)
                            arrived.append((tuple(batch.input_ids[start:end].tolist()), tuple((weights > 0).tolist())))
                packs_seen.append(seen)
            info = reader.step(step)
            assert all(seen == packs_seen[0] for seen in packs_seen)
            assert len(packs_seen[0]) == info.num_packs
            assert info.num_sequences == len(counts)
            assert info.normalizer == pytest.approx(sum(number ** (1 - alpha) for number in counts), rel=1e-12)
        wanted = []
        for item in sequences:
            marks = [any(span.start <= at < span.end for span in item.target_spans) for at in range(item.num_tokens)]
            wanted.append((tuple(item.input_ids), (False, *marks[1:])))
        assert sorted(arrived) == sorted(wanted)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, CAPACITY), min_size=1, max_size=80),
    st.integers(1, 9),
    st.sampled_from(list(STRATEGIES)),
    st.integers(0, 5),
)
def test_every_plan_holds_each_sequence_once_within_capacity_and_k(
    lengths: list[int], k: int, strategy: str, seed: int
) -> None:
    tokens = np.array(lengths, np.int64)
    draws = np.random.default_rng(seed).random(len(lengths))
    shape = Shape(capacity=CAPACITY, packs_per_step=k, linear=3.0, quadratic=1.0)
    plan = make_plan(strategy, tokens, draws, shape)
    assert sorted(plan.sequences.tolist()) == list(range(len(lengths)))
    assert plan.pack_sums(tokens).max() <= CAPACITY
    packs = np.diff(plan.step_starts)
    assert 1 <= packs.min() <= packs.max() <= k
    members = np.diff(plan.pack_starts[plan.step_starts])
    if strategy == "balanced":
        assert np.all(packs[members >= k] == k)
    elif strategy == "sorted":
        assert np.count_nonzero(packs < k) <= 1
    else:
        assert np.all(packs[:-1] == k)
    work = plan.pack_sums(shape.work(tokens))
    for first, end in zip(plan.step_starts[:-1], plan.step_starts[1:], strict=True):
        assert np.all(np.diff(work[first:end]) <= 0)


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, CAPACITY), min_size=1, max_size=80),
    st.integers(1, 9),
    st.sampled_from(list(STRATEGIES)),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 5)),
    st.sets(st.integers(1, CAPACITY - 1), max_size=2),
)
def test_every_plan_keeps_its_limits_in_every_epoch(
    lengths: list[int], k: int, strategy: str, epochs: int, most: int | None, smaller: set[int]
) -> None:
    tokens = np.array(lengths, np.int64)
    draws = [np.random.default_rng(epoch).random(len(lengths)) for epoch in range(epochs)]
    shape = Shape(
        capacity=CAPACITY,
        packs_per_step=k,
        linear=3.0,
        quadratic=1.0,
        max_sequences=most,
        smaller_capacities=tuple(smaller) if strategy in ("balanced", "random") else (),
    )
    plan = plan_epochs(strategy, tokens, draws, shape)
    in_steps = plan.packs_in_steps()
    of_pack = np.repeat(plan.step_capacity, in_steps)
    assert np.all(plan.pack_sums(tokens) <= of_pack)
    assert most is None or np.diff(plan.pack_starts).max() <= most
    assert 1 <= in_steps.min() <= in_steps.max() <= k
    epoch_of = np.repeat(plan.step_epoch, plan.sequences_in_steps())
    for epoch in range(epochs):
        assert sorted(plan.sequences[epoch_of == epoch].tolist()) == list(range(len(lengths)))
    assert np.all(np.diff(plan.step_epoch) >= 0)
    work = plan.pack_sums(shape.work(tokens))
    for first, end in zip(plan.step_starts[:-1], plan.step_starts[1:], strict=True):
        assert np.all(np.diff(work[first:end]) <= 0)


@settings(max_examples=100)
@given(
    st.integers(2, 40).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))),
    st.integers(1, 6),
)
def test_every_limited_fill_is_whole(case: tuple[int, list[int]], most: int) -> None:
    capacity, lengths = case
    falling = np.sort(np.array(lengths, np.int64))[::-1]
    packs, num_packs = best_fit_decreasing(falling, capacity, max_sequences=most)
    counts = np.bincount(packs, minlength=num_packs)
    assert np.all(np.bincount(packs, falling, minlength=num_packs) <= capacity)
    assert counts.sum() == len(lengths)
    assert not len(lengths) or 1 <= counts.min() <= counts.max() <= most


@settings(max_examples=60)
@given(sequence_lists(), st.integers(1, 3), st.integers(0, 60))
def test_every_stream_goes_on_from_any_step_as_if_it_had_come_there(
    sequences: list[TokenSequence], ranks: int, first: int
) -> None:
    with TemporaryDirectory() as folder:
        reader = packed(Path(folder), sequences, "balanced", 6, 1.0)
        first = min(first, reader.num_steps)
        for rank in range(ranks):
            whole = [(s, m, b and b.pack_id) for s, m, b in reader.stream(rank, ranks, 6 // ranks)]
            rest = [
                (s, m, b and b.pack_id) for s, m, b in reader.stream(rank, ranks, 6 // ranks, first_step=first, ahead=1)
            ]
            assert rest == [place for place in whole if place[0] >= first]


@settings(max_examples=100)
@given(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=200))
def test_every_fill_needs_less_than_twice_the_bound(lengths: list[int]) -> None:
    falling = np.sort(np.array(lengths, np.int64))[::-1]
    _, num_packs = best_fit_decreasing(falling, CAPACITY)
    bound = -(-sum(lengths) // CAPACITY)
    # Two packs hold more than one's capacity together: what opened the later did not fit into the earlier.
    assert max(bound, sum(length > CAPACITY // 2 for length in lengths)) <= num_packs <= 2 * bound
