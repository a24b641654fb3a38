"""The sampler: quotas, independence of order, and the law that its keys follow."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.recipe import SampleDocuments
from longalign_data.sampling.draw import Candidate, bucket_index, bucket_names, draw, missing, whole_targets


def corpus(
    num: int, *, seed: int = 1, langs: tuple[str, ...] = ("en",), sources: tuple[str, ...] = ("web",)
) -> list[Candidate]:
    """Short documents are common and long ones rare, as in the wild."""
    rng = random.Random(seed)
    return [
        Candidate(
            doc_id=f"{rng.getrandbits(64):016x}",
            num_tokens=min(64_000, int(8_000 * rng.paretovariate(1.2))),
            lang=rng.choice(langs),
            source=rng.choice(sources),
        )
        for _ in range(num)
    ]


def test_buckets_come_out_flat_from_a_corpus_that_is_mostly_short() -> None:
    wish = SampleDocuments(count=700, languages={})
    drawn = draw(corpus(40_000), wish, seed=3)
    assert Counter(item.bucket for item in drawn.drawn) == dict.fromkeys(bucket_names(wish.edges), 100)
    assert all(cell.target == cell.achieved == 100 for cell in drawn.cells)


def test_the_order_in_which_documents_arrive_changes_nothing() -> None:
    wish = SampleDocuments(count=200, languages={"zh": 0.1}, sources={"books": 0.3})
    documents = corpus(5_000, langs=("en", "zh"), sources=("web", "books"))
    first = draw(documents, wish, seed=5)
    random.Random(9).shuffle(documents)
    assert draw(documents, wish, seed=5) == first
    assert draw(documents, wish, seed=6).drawn != first.drawn


def test_language_and_source_shares_are_met_to_the_document() -> None:
    wish = SampleDocuments(count=1_000, languages={"zh": 0.1}, sources={"books": 0.25})
    documents = corpus(60_000, langs=("en", "zh", "de"), sources=("web", "books", "code"))
    by_id = {document.doc_id: document for document in documents}
    taken = [by_id[item.doc_id] for item in draw(documents, wish, seed=1).drawn]
    assert Counter(document.lang == "zh" for document in taken) == {False: 900, True: 100}
    assert Counter(document.source == "books" for document in taken) == {False: 750, True: 250}


def test_a_bucket_that_the_corpus_cannot_fill_is_filled_by_others_and_said() -> None:
    documents = [Candidate(doc_id=str(n), num_tokens=9_000, lang="en", source="web") for n in range(500)]
    documents += [Candidate(doc_id=f"long{n}", num_tokens=60_000, lang="en", source="web") for n in range(3)]
    wish = SampleDocuments(count=70, languages={})
    drawn = draw(documents, wish, seed=1)
    assert len(drawn.drawn) == 70
    cells = {cell.bucket: cell for cell in drawn.cells}
    assert (cells["56000-64000"].target, cells["56000-64000"].achieved, cells["56000-64000"].available) == (10, 3, 3)
    assert cells["8000-16000"].achieved == 67

    strict = draw(documents, wish.model_copy(update={"shortfall": "leave"}), seed=1)
    assert Counter(item.bucket for item in strict.drawn) == {"8000-16000": 10, "56000-64000": 3}


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, {"other 56000-64000 tokens: 7 of 10"}),
        ({"edges": [8_000, 10_000, 64_000], "shares": [67, 3]}, set()),
        ({"strategy": "none"}, set()),
        ({"strategy": "none", "languages": {"zh": 0.5}}, {"language zh: 35 of 35"}),
        ({"strategy": "power", "sources": {"books": 0.1}}, {"source books: 7 of 7", "language other: 7 of 70"}),
    ],
)
def test_what_a_draw_lacks_is_named_and_nothing_else_takes_its_place(
    switches: dict[str, object], expected: set[str]
) -> None:
    documents = [Candidate(doc_id=str(n), num_tokens=9_000, lang="en", source="web") for n in range(500)]
    documents += [Candidate(doc_id=f"long{n}", num_tokens=60_000, lang="en", source="web") for n in range(3)]
    wish = SampleDocuments.model_validate({"count": 70, "languages": {}, "shortfall": "stop", **switches})
    found = missing(draw(documents, wish, seed=1), wish)
    if not switches:
        # The five buckets between are empty.
        found = [line for line in found if "10 of 10" not in line]
    assert set(found) == expected


def test_a_language_that_is_not_there_is_reported_with_its_target() -> None:
    drawn = draw(corpus(2_000), SampleDocuments(count=100), seed=1)
    assert len(drawn.drawn) == 100
    assert sum(cell.target or 0 for cell in drawn.cells if cell.lang == "zh") == 10
    assert sum(cell.achieved for cell in drawn.cells if cell.lang == "zh") == 0


def test_a_prefix_of_the_draw_has_the_mix_of_the_whole() -> None:
    drawn = draw(corpus(40_000), SampleDocuments(count=700, languages={}), seed=3).drawn
    head = Counter(item.bucket for item in drawn[:350])
    assert all(30 <= head[name] <= 70 for name in head)
    assert len(head) == 7


def test_power_weights_take_documents_in_proportion_to_their_length() -> None:
    documents = [Candidate(doc_id=f"a{n}", num_tokens=10_000, lang="en", source="s") for n in range(20_000)]
    documents += [Candidate(doc_id=f"b{n}", num_tokens=40_000, lang="en", source="s") for n in range(20_000)]
    wish = SampleDocuments(count=1_000, strategy="power", beta=1.0, languages={})
    long = sum(item.num_tokens == 40_000 for item in draw(documents, wish, seed=2).drawn)
    # 4:1 in weight; 1,000 of 40,000 taken, so the shares stay near 80% (standard deviation 13).
    assert 745 <= long <= 855


@pytest.mark.parametrize("strategy", ["none", "power"])
@pytest.mark.parametrize(
    "quotas", [{"languages": {"zh": 0.1}}, {"languages": {}, "sources": {"books": 0.3}}, {"languages": {}}]
)
def test_what_a_quota_lacks_is_filled_by_the_same_chances(strategy: str, quotas: dict[str, dict[str, float]]) -> None:
    # 400 of 20,000 are long; a quota for what is not there leaves every document in the one draw.
    documents = [
        Candidate(doc_id=f"d{n}", num_tokens=60_000 if n % 50 == 0 else 9_000, lang="en", source="web")
        for n in range(20_000)
    ]
    wish = SampleDocuments.model_validate({"count": 1_000, "strategy": strategy, **quotas})
    drawn = draw(documents, wish, seed=4)
    plain = draw(documents, wish.model_copy(update={"languages": {}, "sources": {}}), seed=4)
    assert drawn.drawn == plain.drawn
    long = sum(item.num_tokens == 60_000 for item in drawn.drawn)
    # none: mean 20, standard deviation 4.3. power: weights 20 to 3, so 2/17 of the draws: mean about 118, deviation 10.
    assert (3 if strategy == "none" else 70) <= long <= (40 if strategy == "none" else 170)


@pytest.mark.parametrize("strategy", ["none", "power"])
def test_lengths_outside_the_edges_have_buckets_of_their_own_where_they_are_taken(strategy: str) -> None:
    lengths = [99, 100, 199, 200, 300, 301, 5_000]
    documents = [Candidate(doc_id=str(n), num_tokens=n, lang="en", source="s") for n in lengths]
    wish = SampleDocuments.model_validate(
        {"count": 10, "strategy": strategy, "languages": {}, "edges": [100, 200, 300, 400]}
    )
    drawn = draw(documents, wish, seed=1)
    buckets = {item.num_tokens: item.bucket for item in drawn.drawn}
    expected = {99: "0-100", 100: "100-200", 199: "100-200", 200: "200-300", 300: "300-400", 301: "300-400"}
    assert buckets == expected | {5_000: "400-5000"}
    assert [cell.bucket for cell in drawn.cells] == ["0-100", "100-200", "200-300", "300-400", "400-5000"]
    inside = draw([document for document in documents if 100 <= document.num_tokens <= 400], wish, seed=1)
    assert [cell.bucket for cell in inside.cells] == ["100-200", "200-300", "300-400"]
    # The last edge belongs to the last bucket between edges.
    edge = draw([Candidate(doc_id="e", num_tokens=400, lang="en", source="s")], wish, seed=1)
    assert [item.bucket for item in edge.drawn] == ["300-400"]


def test_lengths_outside_the_edges_are_counted_and_not_taken() -> None:
    documents = [Candidate(doc_id=str(n), num_tokens=n, lang="en", source="s") for n in (7_999, 8_000, 64_000, 64_001)]
    drawn = draw(documents, SampleDocuments(count=10, languages={}), seed=1)
    assert {item.num_tokens for item in drawn.drawn} == {8_000, 64_000}
    assert (drawn.num_seen, drawn.num_outside) == (4, 2)


@pytest.mark.parametrize(("tokens", "index"), [(1, -1), (2, 0), (3, 0), (4, 1), (8, 1), (9, 2)])
def test_a_bucket_includes_its_lower_edge_and_the_last_one_both(tokens: int, index: int) -> None:
    assert bucket_index([2, 4, 8], tokens) == index


@given(st.integers(0, 10_000), st.lists(st.floats(0.001, 1), min_size=1, max_size=12))
def test_whole_targets_add_up_and_stay_within_one_of_their_share(count: int, weights: list[float]) -> None:
    shares = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    parts = whole_targets(count, shares)
    assert sum(parts.values()) == count
    assert all(abs(parts[name] - count * share) < 1 for name, share in shares.items())


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 70_000), st.sampled_from(["en", "zh", "de"]), st.sampled_from(["a", "b", "c"])),
        max_size=120,
    ),
    st.integers(1, 60),
    st.sampled_from(["buckets", "power", "none"]),
    st.sampled_from(["fill", "leave", "stop"]),
)
def test_every_draw_keeps_to_its_bounds(
    rows: list[tuple[int, str, str]], count: int, strategy: str, shortfall: str
) -> None:
    wish = SampleDocuments.model_validate(
        {"count": count, "strategy": strategy, "shortfall": shortfall, "languages": {"zh": 0.2}, "sources": {"a": 0.5}}
    )
    documents = [Candidate(doc_id=str(n), num_tokens=t, lang=lang, source=s) for n, (t, lang, s) in enumerate(rows)]
    drawn = draw(documents, wish, seed=1)
    ids = [item.doc_id for item in drawn.drawn]
    assert len(ids) == len(set(ids)) <= min(count, len(documents))
    assert sum(cell.achieved for cell in drawn.cells) == len(ids) == sum(cell.achieved for cell in drawn.sources)
    assert all(cell.achieved <= cell.available for cell in drawn.cells)
    if shortfall == "fill":
        assert len(ids) == min(len(documents) - drawn.num_outside, count)
    else:
        assert sum(documents[int(i)].source == "a" for i in ids) <= round(count * 0.5 + 0.5)
        assert all(cell.achieved <= cell.target for cell in drawn.cells if cell.target is not None)
    assert bool(missing(drawn, wish)) >= (len(ids) < count)
