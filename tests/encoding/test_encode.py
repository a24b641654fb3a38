from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longalign_data.encoding.cut import Cutter
from longalign_data.encoding.encode import Encoder, encode, make_encoder
from longalign_data.encoding.templates import Refusal, Rendered, load_template
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import Encode, LoadedRecipe, Recipe
from longalign_data.records import Message, Reject, Sample, TokenSequence
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageWriter
from longalign_data.tokenizers import load_tokenizer

ENGLISH = "\n".join(f"Line {number}: the fox number {number} met dog number {number * 7}." for number in range(400))
CHINESE = "".join(f"第{number}章，狐狸跳过了第{number * 3}条狗。龘靐齉爩\n" for number in range(300))
QUESTION, ANSWER = "\n\nHow many foxes are there, and 多少条狗?", "Four hundred foxes. 三百条狗。"
MakeSample = Callable[..., Sample]


def outcome(item: Sample, tokenizer: str = "qwen", **choice: Any) -> TokenSequence | Reject:
    (result,) = make_encoder(Encode(**choice), tokenizer).encode([item])
    return result


def sequence(item: Sample, tokenizer: str = "qwen", **choice: Any) -> TokenSequence:
    result = outcome(item, tokenizer, **choice)
    assert isinstance(result, TokenSequence), result
    return result


def reason(item: Sample, tokenizer: str = "qwen", **choice: Any) -> str:
    result = outcome(item, tokenizer, **choice)
    assert isinstance(result, Reject), result
    assert result.id == item.sample_id
    return result.reason


def targets_of(item: TokenSequence) -> list[int]:
    return [int(token) for span in item.target_spans for token in item.input_ids[span.start : span.end]]


def long_sample(sample: MakeSample, document: str, name: str = "a") -> Sample:
    turns = [("system", "Answer from the text."), ("user", document + QUESTION), ("assistant", ANSWER)]
    return sample(turns, [(1, 0, len(document))], name)


def test_targets_are_counted_and_spans_say_where(sample: MakeSample) -> None:
    turns = [("user", "Q"), ("assistant", "A b c"), ("user", "R"), ("assistant", "D")]
    result = sequence(sample(turns))
    qwen = load_tokenizer("qwen")
    end = qwen.special_id("<|im_end|>")
    assert targets_of(result) == [*qwen.encode("A b c"), end, *qwen.encode("D"), end]
    assert result.num_targets == len(targets_of(result))
    assert result.num_tokens == len(result.input_ids)
    # The answer and the token that ends it are one span.
    assert len(result.target_spans) == 2
    assert result.truncated_tokens == 0


@pytest.mark.parametrize("document", [ENGLISH, CHINESE], ids=["en", "zh"])
@pytest.mark.parametrize(("tokenizer", "template"), [("qwen", "chatml"), ("mistral-v1", "llama-inst")])
@pytest.mark.parametrize("max_tokens", [100, 1_001, 2_500])
def test_an_overlong_sample_loses_the_middle_of_its_document_alone(
    document: str, tokenizer: str, template: str, max_tokens: int, sample: MakeSample
) -> None:
    item = long_sample(sample, document)
    whole = sequence(item, tokenizer, template=template)
    result = sequence(item, tokenizer, template=template, max_tokens=max_tokens)
    assert max_tokens - 8 <= result.num_tokens <= max_tokens < whole.num_tokens
    assert result.truncated_tokens == whole.num_tokens - result.num_tokens
    assert targets_of(result) == targets_of(whole)
    text = load_tokenizer(tokenizer).decode([int(token) for token in result.input_ids])
    assert QUESTION in text
    assert "Answer from the text." in text
    head, tail = text[text.index(document[:6]) :], text[: text.index(QUESTION)]
    kept_head = next(n for n in range(len(document)) if head[n] != document[n])
    kept_tail = next(n for n in range(1, len(document)) if tail[-n] != document[-n])
    assert abs(kept_head - kept_tail) < 0.2 * (kept_head + kept_tail) + 12
    assert "\ufffd" not in text


class Forgetful:
    """A template that drops the end of an answer when the conversation is short."""

    name, identity = "forgetful", "forgetful"

    def __init__(self, below: int) -> None:
        self._below = below
        self._inner = load_template("chatml", load_tokenizer("qwen"))

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        return [
            rendered[:-2]
            if sum(len(turn.content) for turn in turns) < self._below and not isinstance(rendered, Refusal)
            else rendered
            for turns, rendered in zip(conversations, self._inner.render(conversations), strict=True)
        ]


def test_an_answer_that_loses_targets_with_the_cut_is_counted(sample: MakeSample, tmp_path: Path) -> None:
    items = [long_sample(sample, ENGLISH, "cut"), long_sample(sample, ENGLISH[:400], "whole")]
    rows_in = pq.ParquetFile(store(tmp_path, items).shards("samples")[0]).read()
    choice = Encode(template="chatml", max_tokens=1_001)
    tokenizer = load_tokenizer("qwen")
    good = Encoder(tokenizer, load_template("chatml", tokenizer), choice).encode_rows(rows_in)
    bad = Encoder(tokenizer, Forgetful(len(ENGLISH)), choice).encode_rows(rows_in)
    assert (good.answers_cut, good.figures()["truncated_samples"]) == (0, 1)
    assert (bad.answers_cut, bad.figures()["truncated_samples"]) == (1, 1)


def test_several_documents_lose_in_proportion(sample: MakeSample) -> None:
    text = f"One:\n{ENGLISH}\nTwo:\n{ENGLISH[: len(ENGLISH) // 4]}\nWhich?"
    first = len("One:\n")
    second = text.index("Two:\n") + len("Two:\n")
    spans = [(0, second, second + len(ENGLISH) // 4), (0, first, first + len(ENGLISH))]
    item = sample([("user", text), ("assistant", "Both.")], spans)
    result = sequence(item, max_tokens=2_000)
    decoded = load_tokenizer("qwen").decode([int(token) for token in result.input_ids])
    one, two = decoded.split("\nTwo:\n")
    assert "\nWhich?" in two
    assert 3 < len(one) / len(two) < 5


def test_a_sample_of_exactly_the_length_is_left_alone(sample: MakeSample) -> None:
    item = long_sample(sample, ENGLISH)
    num_tokens = sequence(item).num_tokens
    assert sequence(item, max_tokens=num_tokens).truncated_tokens == 0
    assert sequence(item, max_tokens=num_tokens - 1).num_tokens <= num_tokens - 1


def test_what_cannot_be_encoded_is_a_reject_with_its_reason(sample: MakeSample) -> None:
    assert reason(sample([("user", "Q")])) == "no-assistant-turn"
    assert reason(sample([("user", "Q"), ("assistant", "  ")])) == "no-targets"
    assert reason(sample([("tool", "Q"), ("assistant", "A")])) == "template"
    assert reason(sample([("user", ENGLISH), ("assistant", "A")]), max_tokens=500) == "too-long-without-document"
    assert reason(long_sample(sample, ENGLISH), max_tokens=500, overlong="reject") == "too-long"
    assert reason(long_sample(sample, ENGLISH), max_tokens=30) == "too-long-beside-document"
    long_answer = sample([("user", "Doc Q"), ("assistant", ENGLISH)], [(0, 0, 3)])
    assert reason(long_answer, max_tokens=500) == "too-long-beside-document"
    # A span that lies in the answer does not open the answer to cutting.
    marked_answer = sample([("user", "Q"), ("assistant", ENGLISH)], [(1, 0, len(ENGLISH))])
    assert reason(marked_answer, max_tokens=500) == "too-long-without-document"


def test_hub_templates_are_cut_as_well(hub_folder: Callable[[str | None], Path], sample: MakeSample) -> None:
    for template in ("chatml", "marked"):
        spec = f"hf:{hub_folder(template)}"
        item = long_sample(sample, ENGLISH.replace("number 7 ", "<|im_end|> "))
        whole = sequence(item, spec, template="tokenizer")
        result = sequence(item, spec, template="tokenizer", max_tokens=800)
        assert 780 <= result.num_tokens <= 800
        assert targets_of(result) == targets_of(whole)
        assert QUESTION in load_tokenizer(spec).decode([int(token) for token in result.input_ids])


def test_a_cut_takes_about_as_many_tokens_as_asked(sample: MakeSample) -> None:
    item = long_sample(sample, CHINESE)
    qwen = load_tokenizer("qwen")
    cutter = Cutter(item.messages, item.document_spans, qwen)
    for excess in (1, 2, 3, 100, cutter.num_tokens - 1):
        _, user, _ = cutter.without(excess)
        left = len(qwen.encode(user.content.removesuffix(QUESTION)))
        assert abs(cutter.num_tokens - excess - left) <= 6
    assert cutter.without(0) == list(item.messages)
    assert cutter.without(cutter.num_tokens)[1].content == QUESTION


def test_sequence_ids_follow_the_sample_and_what_encodes_it(sample: MakeSample) -> None:
    item = sample([("user", "Q"), ("assistant", "A")])
    ids = {
        sequence(item).sequence_id,
        sequence(item, max_tokens=99).sequence_id,
        sequence(item, overlong="reject").sequence_id,
        sequence(item, "mistral-v1", template="llama-inst").sequence_id,
        sequence(sample([("user", "Q"), ("assistant", "A")], name="b")).sequence_id,
    }
    assert len(ids) == 5
    assert sequence(item).sequence_id in ids


def store(folder: Path, samples: Sequence[Sample], *, row_group_bytes: int = 4 << 20) -> BuildFolder:
    build = BuildFolder(folder)
    with StageWriter(build, "generate", fingerprint="g", run=RunOptions(row_group_bytes=row_group_bytes)) as writer:
        for item in samples:
            writer.write("samples", item)
            writer.next_input()
        writer.finish()
    return build


def recipe(**choice: Any) -> LoadedRecipe:
    plain = {"name": "e", "version": "1.0.0", "sources": [{"card": "c"}], "sample": {"count": 1}, "encode": choice}
    return LoadedRecipe(recipe=Recipe.model_validate(plain), path=Path("e.yaml"), text="", sources=[])


def rows(build: BuildFolder) -> tuple[list[TokenSequence], list[Reject]]:
    return list(iter_records(build.shards("sequences"), TokenSequence)), list(
        iter_records(build.shards("rejects"), Reject)
    )


class CutError(Exception):
    """Power goes off."""


class CutAfter(Silent):
    def __init__(self, samples: int) -> None:
        self.left = samples

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        self.left -= items if tokens else 0
        if self.left < 0:
            raise CutError


def test_the_stage_accounts_for_every_sample_however_it_is_run_or_cut(sample: MakeSample, tmp_path: Path) -> None:
    samples = [
        sample([("user", f"Q{number}"), ("assistant", "A " * number)], name=f"n{number}")
        if number % 3
        else long_sample(sample, ENGLISH[: 60 * number + 1], f"n{number}")
        for number in range(40)
    ]
    samples.insert(5, sample([("user", "Q"), ("assistant", "")], name="mute"))
    loaded = recipe(max_tokens=600)
    whole = store(tmp_path / "whole", samples)
    report = encode(loaded, whole, fingerprint="f", run=RunOptions(), progress=Silent())
    assert (report.num_in, report.num_out, report.rejected) == (41, 40, {"no-targets": 1})
    assert report.details["truncated_samples"] > 3
    assert report.details["answers_cut"] == 0
    assert report.details["truncated_tokens"] == sum(item.truncated_tokens for item in rows(whole)[0])
    assert report.details["num_targets"] == sum(item.num_targets for item in rows(whole)[0])
    assert [item.sample_id for item in rows(whole)[0]] == [f"n{number}" for number in range(40)]

    cut = store(tmp_path / "cut", samples, row_group_bytes=2_000)
    run = RunOptions(workers=2, shard_bytes=4_000, row_group_bytes=1_000)
    for _ in range(2):
        with pytest.raises(CutError):
            encode(loaded, cut, fingerprint="f", run=run, progress=CutAfter(12))
    again = encode(loaded, cut, fingerprint="f", run=run, progress=Silent())
    assert rows(cut) == rows(whole)
    assert len(cut.shards("sequences")) > 2
    assert (again.num_in, again.num_out, again.rejected) == (report.num_in, report.num_out, report.rejected)
    assert again.details == report.details
