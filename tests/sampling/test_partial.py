"""Sampling in parts: the law of the draw, and that neither order nor partition changes it."""

import itertools
import math
import pickle
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.identity import document_id
from longalign_data.recipe import SampleDocuments
from longalign_data.sampling import partial as partial_module
from longalign_data.sampling.draw import Candidate, draw, finish
from longalign_data.sampling.keys import id_bits, uniforms
from longalign_data.sampling.partial import PartialDraw
from longalign_data.sampling.sample import to_batch

IDS = np.array([document_id(str(n)).encode() for n in range(20_000)])


def table(ids: np.ndarray, tokens: list[int], langs: list[str], sources: list[str]) -> pa.Table:
    doc_ids = [value.decode() for value in ids.tolist()]
    return pa.table({"doc_id": doc_ids, "num_tokens": tokens, "lang": langs, "source": sources})


def test_an_id_is_its_own_bits_and_another_name_is_hashed() -> None:
    ids = np.array([b"0123456789abcdef0011223344556677", b"0123456789ABCDEF0011223344556677"])
    high, low = id_bits(ids)
    assert (int(high[0]), int(low[0])) == (0x0123456789ABCDEF, 0x0011223344556677)
    assert high[0] != high[1]
    assert id_bits(np.array([b"a", b"bb"]))[0][0] == id_bits(np.array([b"a"]))[0][0]


def test_a_draw_is_fixed_by_seed_purpose_and_id_alone() -> None:
    whole = uniforms(7, "sample", IDS)
    assert np.array_equal(uniforms(7, "sample", IDS[::-1]), whole[::-1])
    assert np.array_equal(np.concatenate([uniforms(7, "sample", part) for part in np.split(IDS, 40)]), whole)
    # Another draw for the same seed would change every build.
    stored = uniforms(7, "sample", np.array([b"0" * 32, b"0123456789abcdef0011223344556677"]))
    assert stored.tolist() == [0.2965078844929579, 0.9186256522306251]
    for other in (uniforms(8, "sample", IDS), uniforms(7, "order", IDS)):
        assert abs(float(np.corrcoef(whole, other)[0, 1])) < 4 / math.sqrt(len(IDS))


def test_draws_are_uniform() -> None:
    u = uniforms(7, "sample", IDS)
    assert 0 < u.min() < u.max() < 1
    counts, _ = np.histogram(u, bins=100, range=(0, 1))
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    # 99 degrees of freedom: mean 99, standard deviation 14.
    assert 50 < chi_square < 160


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_documents_are_included_as_often_as_theory_says(beta: float) -> None:
    """Of two groups with weights 1 and 4^beta, a sample of n without replacement by exponential clocks takes from each the
    share 1 - exp(-w t), with t such that both add up to n."""
    num, count = 10_000, 4_000
    tokens = [10_000] * num + [40_000] * num
    wish = SampleDocuments(count=count, strategy="power", beta=beta, languages={})
    part = PartialDraw(wish, seed=3)
    part.add(to_batch(table(IDS, tokens, ["en"] * 2 * num, ["s"] * 2 * num)))
    long = sum(item.num_tokens == 40_000 for item in finish(part).drawn)
    weight = 4.0**beta
    low, high = 0.0, 10.0
    for _ in range(60):
        t = (low + high) / 2
        taken = num * (2 - math.exp(-t) - math.exp(-weight * t))
        low, high = (t, high) if taken < count else (low, t)
    share = 1 - math.exp(-weight * t)
    assert long == pytest.approx(num * share, abs=4 * math.sqrt(num * share * (1 - share)))


def test_every_document_of_a_bucket_is_as_likely_as_another() -> None:
    hits = np.zeros(200)
    wish = SampleDocuments(count=50, languages={}, edges=[1, 100], shares=[1.0])
    batch = to_batch(table(IDS[:200], [50] * 200, ["en"] * 200, ["s"] * 200))
    places = {value.decode(): n for n, value in enumerate(IDS[:200].tolist())}
    for seed in range(400):
        part = PartialDraw(wish, seed=seed)
        part.add(batch)
        for item in finish(part).drawn:
            hits[places[item.doc_id]] += 1
    # 400 draws with chance 1/4: mean 100, standard deviation 8.7; 200 documents stay within 4.5 of them.
    assert hits.sum() == 400 * 50
    assert 60 < hits.min() < hits.max() < 140


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 70_000), st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=300
    ),
    st.integers(1, 40),
    st.sampled_from(["buckets", "power", "none"]),
    st.lists(st.integers(0, 300), max_size=6),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_parts_nor_batches_change_a_draw(
    rows: list[tuple[int, str, str]], count: int, strategy: str, cuts: list[int], rng: random.Random
) -> None:
    wish = SampleDocuments.model_validate(
        {"count": count, "strategy": strategy, "languages": {"a": 0.3}, "sources": {"x": 0.4}}
    )
    candidates = [
        Candidate(doc_id=IDS[n].decode(), num_tokens=tokens, lang=lang, source=source)
        for n, (tokens, lang, source) in enumerate(rows)
    ]
    expected = draw(candidates, wish, seed=5)
    rng.shuffle(candidates)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = []
    for low, high in itertools.pairwise(edges):
        part = PartialDraw(wish, seed=5)
        for block in (candidates[low : (low + high) // 2], candidates[(low + high) // 2 : high]):
            if block:
                ids = np.array([item.doc_id.encode() for item in block])
                columns = (
                    [item.num_tokens for item in block],
                    [item.lang for item in block],
                    [item.source for item in block],
                )
                part.add(to_batch(table(ids, *columns)))
        parts.append(pickle.loads(pickle.dumps(part)))
    rng.shuffle(parts)
    whole = PartialDraw(wish, seed=5)
    for part in parts:
        whole.merge(part)
    assert finish(whole) == expected


def test_what_waits_is_bounded_and_nothing_that_counts_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    wish = SampleDocuments(count=50, languages={"zh": 0.2})
    rng = random.Random(1)
    tokens = [rng.randrange(8_000, 64_000) for _ in IDS]
    langs = [rng.choice(["zh", "en"]) for _ in IDS]
    whole = PartialDraw(wish, seed=1)
    whole.add(to_batch(table(IDS, tokens, langs, ["s"] * len(IDS))))
    monkeypatch.setattr(partial_module, "COMPACT_ROWS", 500)
    small = PartialDraw(wish, seed=1)
    for at in range(0, len(IDS), 100):
        part = slice(at, at + 100)
        small.add(to_batch(table(IDS[part], tokens[part], langs[part], ["s"] * 100)))
        assert sum(len(kept.keys) for kept in small._parts) <= 2 * 14 * 50 + 500 + 100
    assert finish(small) == finish(whole)
    assert len(small.kept().keys) == 14 * 50
