"""Near-duplicates: the estimate against the true similarity, and who stays."""

import pydoc_data.topics
import random

import numpy as np
import pytest

from longalign_data.curation.near import PLACES, NearDuplicates, signature

WORDS = sorted(set(" ".join(pydoc_data.topics.topics.values()).split()))


def changed(words: list[str], share: float, rng: random.Random) -> list[str]:
    """The words with a stretch of them replaced; of the shingles about (1 - share) / (1 + share) stay common."""
    at = rng.randrange(int(len(words) * (1 - share)))
    return [*words[:at], *rng.choices(WORDS, k=int(len(words) * share)), *words[at + int(len(words) * share) :]]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_equal_places_estimate_the_similarity_of_the_shingle_sets(share: float) -> None:
    rng = random.Random(7)
    errors = []
    for _ in range(20):
        words = rng.choices(WORDS, k=1500)
        other = changed(words, share, rng)
        estimate = np.mean(signature(" ".join(words)) == signature(" ".join(other)))
        errors.append(float(estimate) - (1 - share) / (1 + share))
    assert abs(float(np.mean(errors))) < 0.03
    assert max(map(abs, errors)) < 4 * 0.046


def test_a_chinese_text_is_compared_by_its_characters() -> None:
    rng = random.Random(3)
    text = "".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(3000))
    edited = text[:1000] + "，" + text[1000:2000] + "新" + text[2001:]
    assert np.mean(signature(text) == signature(edited)) > 0.9
    assert np.mean(signature(text) == signature(text[::-1])) < 0.05


def test_the_first_of_near_duplicates_stays_and_chains_do_not_carry() -> None:
    rng = random.Random(5)
    first = rng.choices(WORDS, k=3000)
    second = changed(first, 0.03, rng)
    other = rng.choices(WORDS, k=3000)
    near = NearDuplicates(0.8)
    assert near.add(signature(" ".join(first))) is None
    found = near.add(signature(" ".join(second)))
    assert found is not None
    assert found[0] == 0
    assert found[1] > 0.8
    assert near.add(signature(" ".join(other))) is None
    assert near.add(signature(" ".join(changed(other, 0.02, rng)))) == (1, pytest.approx(0.96, abs=0.06))


def test_unlike_documents_stay_and_alike_ones_are_found_among_many() -> None:
    rng = random.Random(11)
    near = NearDuplicates(0.8)
    texts = [rng.choices(WORDS, k=400) for _ in range(1500)]
    assert all(near.add(signature(" ".join(text))) is None for text in texts)
    # 4% of the words changed: similarity 0.92.
    found = [near.add(signature(" ".join(changed(text, 0.04, rng)))) for text in texts[:200]]
    assert sum(like is not None and like[0] == n for n, like in enumerate(found)) >= 198


def test_a_signature_depends_on_the_text_alone_and_is_fixed() -> None:
    value = signature("the quick brown fox jumps over the lazy dog")
    assert (value.shape, value.dtype) == ((PLACES,), np.uint32)
    assert value[:3].tolist() == signature("The quick, brown fox jumps over the lazy dog!")[:3].tolist()
    assert signature("one").tolist() != signature("two").tolist()
    assert signature("").tolist() == signature("...").tolist()
