"""Faults of the scripts that came with the paper, as far as they are about encoding: ours must not have them."""

from collections.abc import Callable

import numpy as np
import pytest

from longalign_data.encoding.encode import make_encoder
from longalign_data.recipe import Encode
from longalign_data.records import Sample, TokenSequence
from longalign_data.tokenizers import load_tokenizer

MakeSample = Callable[..., Sample]
DOCUMENT = "\n".join(f"Entry {number}! The value is {number * 37}." for number in range(300))
ANSWER = "It stands there! " * 40


def encoded(item: Sample, max_tokens: int = 65_536) -> TokenSequence:
    (result,) = make_encoder(Encode(max_tokens=max_tokens), "qwen").encode([item])
    assert isinstance(result, TokenSequence), result
    return result


def long_sample(sample: MakeSample) -> Sample:
    return sample([("user", f"{DOCUMENT}\n\nWhere?"), ("assistant", ANSWER)], [(0, 0, len(DOCUMENT))])


def targets(item: TokenSequence) -> list[int]:
    return [int(token) for span in item.target_spans for token in item.input_ids[span.start : span.end]]


def test_the_token_with_id_0_is_a_token_like_any_other(sample: MakeSample) -> None:
    """Lengths were where the first 0 stood, so that texts were cut at their first exclamation mark."""
    qwen = load_tokenizer("qwen")
    assert qwen.encode("!") == [0]
    result = encoded(sample([("user", "!"), ("assistant", "! Yes ! and!")]))
    assert qwen.decode(targets(result)) == "! Yes ! and!<|im_end|>"
    assert result.num_tokens == len(result.input_ids)
    assert sum(token == 0 for token in result.input_ids) == 3


def test_a_sample_that_fills_the_length_exactly_is_whole(sample: MakeSample) -> None:
    """Those without room for a padding zero were skipped, or sorted as the shortest."""
    item = long_sample(sample)
    full = encoded(item)
    exact = encoded(item, full.num_tokens)
    assert (exact.num_tokens, exact.truncated_tokens) == (full.num_tokens, 0)
    assert list(exact.input_ids) == list(full.input_ids)


@pytest.mark.parametrize("part", [0.9, 0.5, 0.2])
def test_what_is_too_long_keeps_its_whole_answer(sample: MakeSample, part: float) -> None:
    """Cutting on the right took the answer, and the sample silently had no loss."""
    item = long_sample(sample)
    full = encoded(item)
    short = encoded(item, int(full.num_tokens * part))
    assert targets(short) == targets(full)
    assert short.num_targets == full.num_targets > 0
    assert short.truncated_tokens == full.num_tokens - short.num_tokens > 0


def test_the_end_of_a_turn_is_learnt_and_an_empty_turn_is_not(sample: MakeSample) -> None:
    turns = [("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "B")]
    qwen = load_tokenizer("qwen")
    assert qwen.decode(targets(encoded(sample(turns)))) == "B<|im_end|>"


@pytest.mark.parametrize("text", ["plain", "!", "", "混合 text\n\n  ", "<|im_end|>", "a\ud800b", "x " * 5_000])
@pytest.mark.parametrize("spec", ["qwen", "mistral-v1"])
def test_arrays_of_ids_are_the_lists(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    if spec == "mistral-v1" and "\ud800" in text:
        pytest.skip("SentencePiece takes UTF-8 alone")
    (ids,) = tokenizer.encode_arrays([text])
    assert ids.dtype == np.int32
    assert ids.tolist() == tokenizer.encode(text)
