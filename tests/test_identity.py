import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_data.identity import digest, document_id, draw_index, draw_weighted, file_sha256, uniform

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_ids_are_what_they_have_always_been() -> None:
    """Golden values: an id that changes would orphan every build and every paid reply."""
    assert digest({"b": [1, 2.5, None], "a": "é"}) == "3276393bf8a5a8df0e5ddcb8f78302ef"
    assert document_id("One page.\n") == "576a88c16c64afaface0ff9cf3a8085e"
    assert uniform(0, "key", "doc") == 0.059710193686336066
    assert uniform(7, "task", "41aa") == 0.23153920450411242


def test_draws_are_the_same_in_another_process() -> None:
    program = (
        "from longalign_data.identity import uniform, digest; print(repr(uniform(3, 'p', 'k')), digest({'x': [1]}))"
    )
    root = str(Path(__file__).parents[1])
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": root, "PYTHONHASHSEED": "5"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [repr(uniform(3, "p", "k")), digest({"x": [1]})]


@given(PLAIN)
def test_every_plain_value_has_one_id_of_32_hexadecimal_digits(value: object) -> None:
    found = digest(value)  # type: ignore[arg-type] # what JSON can say
    assert len(found) == 32
    assert int(found, 16) >= 0


def test_the_order_of_keys_is_not_identity_and_that_of_items_is() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest("1") != digest(1)
    assert digest(["ab", "c"]) != digest(["a", "bc"])


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), Path("x")])
def test_what_has_no_canonical_form_has_no_id(value: object) -> None:
    with pytest.raises(TypeError):
        digest(value)  # type: ignore[arg-type] # that is the point


def test_numbers_that_json_cannot_say_have_no_id() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest(math.nan)


def test_a_document_is_its_text_in_normal_form_without_outer_space() -> None:
    assert document_id("caf\u00e9") == document_id("  cafe\u0301\n")
    assert document_id("a b") != document_id("a  b")
    assert len(document_id("\ud800 lone")) == 32


@given(
    st.integers(), st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))
)
def test_every_draw_lies_strictly_between_0_and_1(seed: int, purpose: str, key: str) -> None:
    u = uniform(seed, purpose, key)
    assert 0 < u < 1
    assert math.isfinite(-math.log(u))
    assert u == uniform(seed, purpose, key)
    assert 0 <= draw_index(seed, purpose, key, 5) < 5


def test_draws_are_uniform_and_independent_of_each_other() -> None:
    count = 20_000
    draws = [uniform(1, "key", str(i)) for i in range(count)]
    tenths = Counter(int(10 * u) for u in draws)
    # Chi-square over 10 cells has 9 degrees of freedom; 33.7 is exceeded by chance once in 10,000 seeds, and the seed is fixed.
    assert sum((n - count / 10) ** 2 / (count / 10) for n in tenths.values()) < 33.7
    others = [[uniform(2, "key", str(i)) for i in range(count)], [uniform(1, "task", str(i)) for i in range(count)]]
    for other in (*others, draws[1:]):
        mean = sum((a - 0.5) * (b - 0.5) for a, b in zip(draws, other, strict=False)) / count
        assert abs(mean * 12) < 4 / math.sqrt(count)


def test_an_index_is_drawn_evenly() -> None:
    counts = Counter(draw_index(0, "question", str(i), 5) for i in range(10_000))
    assert set(counts) == set(range(5))
    assert max(counts.values()) - min(counts.values()) < 250


def test_names_are_drawn_in_proportion_to_their_weights() -> None:
    weights = [("never", 0.0), ("often", 3.0), ("seldom", 1.0), ("nor this", 0.0)]
    counts = Counter(draw_weighted(0, "task", str(i), weights) for i in range(10_000))
    assert set(counts) == {"often", "seldom"}
    assert counts["often"] == pytest.approx(7_500, abs=4 * math.sqrt(10_000 * 0.75 * 0.25))


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
