"""What replies cost, and what happens where nobody knows."""

import datetime
from pathlib import Path

import pytest

from longalign_data.errors import RecipeError
from longalign_data.records import Usage
from longalign_data.teachers.prices import is_batch, load_prices

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "usage", "batch", "dollars"),
    [
        ("claude-sonnet-5-5", Usage(input_tokens=MILLION), False, 2.0),
        ("claude-sonnet-5-5", Usage(output_tokens=MILLION, thinking_tokens=900_000), False, 10.0),
        ("claude-sonnet-5-5", Usage(cache_write_tokens=MILLION), False, 2.5),
        ("claude-sonnet-5-5", Usage(cache_read_tokens=MILLION), False, 0.1),
        ("claude-sonnet-5", Usage(cache_read_tokens=MILLION), False, 0.2),
        ("claude-sonnet-5-5", Usage(input_tokens=MILLION, output_tokens=MILLION), True, 6.0),
        ("claude-haiku-5-5", Usage(input_tokens=100_000), False, 0.01),
        ("claude-haiku-5-5", Usage(input_tokens=100_001), False, 0.0500005),
        # What came from the cache is part of the prompt that decides about the tier.
        ("claude-haiku-5-5", Usage(input_tokens=1, cache_read_tokens=100_000, output_tokens=1_000), False, 0.0075005),
        ("claude-haiku-4-5-20251001", Usage(input_tokens=MILLION), False, 1.0),
    ],
)
def test_usage_costs_what_the_provider_says(model: str, usage: Usage, batch: bool, dollars: float) -> None:
    assert load_prices().require("anthropic", model).cost(usage, batch=batch) == pytest.approx(dollars)


def test_a_model_without_a_price_is_asked_for_and_never_guessed() -> None:
    prices = load_prices()
    assert prices.rate("anthropic", "claude-sonnet-99") is None
    with pytest.raises(RecipeError) as raised:
        prices.require("openai", "my-model")
    assert "--prices FILE" in str(raised.value)
    assert "my-model: {cache_write: 1, cache_read: 0.5, batch: 0.5, tiers:" in str(raised.value)


def test_a_model_of_openai_whose_price_alone_is_given_costs_half_in_a_batch_and_out_of_the_cache(
    tmp_path: Path,
) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        "dated: 2026-12-24\nproviders: {openai: {models: {mine: {tiers: [{input: 1, output: 4}]}, "
        "newer: {cache_read: 0.1, tiers: [{input: 1, output: 4}]}}}}\n",
        encoding="utf-8",
    )
    mine = load_prices(own).require("openai", "mine")
    assert mine.cost(Usage(input_tokens=MILLION, output_tokens=MILLION)) == pytest.approx(5.0)
    assert mine.cost(Usage(input_tokens=MILLION, output_tokens=MILLION), batch=True) == pytest.approx(2.5)
    assert mine.cost(Usage(cache_read_tokens=MILLION)) == pytest.approx(0.5)
    assert load_prices(own).require("openai", "newer").cost(Usage(cache_read_tokens=MILLION)) == pytest.approx(0.1)


def test_a_price_file_of_ones_own_replaces_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(
        "dated: 2026-12-24\nproviders:\n"
        "  openai: {batch: 0.5, models: {mine: {tiers: [{input: 1, output: 4}]}}}\n"
        "  anthropic: {models: {claude-sonnet-5-5: {tiers: [{input: 7, output: 8}]}}}\n",
        encoding="utf-8",
    )
    prices = load_prices(own)
    assert prices.dated == datetime.date(2026, 12, 24)
    assert prices.require("openai", "mine").cost(Usage(output_tokens=MILLION), batch=True) == pytest.approx(2.0)
    assert prices.require("anthropic", "claude-sonnet-5-5").cost(Usage(input_tokens=MILLION)) == pytest.approx(7.0)
    assert prices.require("anthropic", "claude-sonnet-5-5").cost(Usage(cache_write_tokens=MILLION)) == pytest.approx(
        8.75
    )
    assert prices.require("anthropic", "claude-opus-5-5").cost(Usage(input_tokens=MILLION)) == pytest.approx(4.0)


def test_the_example_that_the_error_shows_is_a_price_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        load_prices().require("openai", "my-model")
    own = tmp_path / "prices.yaml"
    own.write_text(str(raised.value).split("\n\n", 1)[1], encoding="utf-8")
    assert load_prices(own).rate("openai", "my-model") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dated: 2026-01-01\nproviders: {a: {models: {m: {tiers: [{input: 1, outptu: 2}]}}}}\n", "prices.yaml:2"),
        ("dated: 2026-01-01\nproviders: {a: {models: {m: {tiers: [{up_to: 5, input: 1, output: 2}]}}}}\n", "up_to"),
        ("dated: soon\nproviders: {}\n", "dated"),
        ("dated: 2026-01-01\nproviders: {a: {models: {m: {tiers: [{input: -1, output: 2}]}}}}\n", "greater than"),
    ],
)
def test_a_mistake_in_a_price_file_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        load_prices(own)


def test_old_prices_are_warned_about_and_new_ones_are_not() -> None:
    prices = load_prices()
    last_good = prices.dated + datetime.timedelta(days=prices.stale_after_days)
    assert prices.age_warning(last_good) is None
    warning = prices.age_warning(last_good + datetime.timedelta(days=1))
    assert warning is not None
    assert "--prices" in warning


def test_the_providers_word_on_a_batch_outweighs_ours() -> None:
    assert is_batch({"usage": {"service_tier": "batch"}}, was_in_batch=False)
    assert not is_batch({"usage": {"service_tier": "standard"}}, was_in_batch=True)
    assert is_batch({"usage": {"prompt_tokens": 3}}, was_in_batch=True)
    assert not is_batch({}, was_in_batch=False)
