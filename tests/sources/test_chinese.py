"""A real Chinese novel through what reads, judges, compares and counts Chinese."""

import json
import random
import re
from pathlib import Path

import pytest

from longalign_data.catalog import load_card
from longalign_data.curation.curate import Curation, Judged, Refused, judge
from longalign_data.curation.decontamination import write_index
from longalign_data.curation.language import identify
from longalign_data.curation.near import NearDuplicates, signature
from longalign_data.recipe import Curate, PlacedSource
from longalign_data.sources.readers import partitions, read
from longalign_data.sources.reading import RawDocument, RawReject
from longalign_data.tokenizers import count_tokens, load_tokenizer
from tests.fixtures import corpora

Text = tuple[str, str]


@pytest.fixture(scope="module")
def novel() -> list[Text]:
    return corpora.chinese_novel()


def everything(card_id: str, path: Path) -> list[RawDocument | RawReject]:
    """What a source of the catalog reads at that place."""
    card, _ = load_card(card_id, relative_to=Path())
    return [raw for part in partitions(PlacedSource(card=card, path=str(path))) for raw in read(part)]


def unspaced(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_chapters_are_chinese_of_good_quality(novel: list[Text]) -> None:
    switched = Curation(
        wish=Curate.model_validate({"language": {"action": "reject"}, "quality": {"action": "reject"}}),
        is_code=False,
        index=None,
    )
    assert len(novel) == 120
    for title, text in novel[::6]:
        found = identify(text)
        assert (found.main, found.share) == ("zh", 1.0), title
        assert judge(text, "zh", switched) == Judged(lang="zh"), title
    refused = judge(novel[0][1], "en", switched)
    assert isinstance(refused, Refused)
    assert refused.reason == "language"


def test_a_chapter_set_anew_is_a_near_duplicate_and_the_other_chapters_are_none(novel: list[Text]) -> None:
    """Another edition breaks lines elsewhere, sets other punctuation and corrects some characters. There are no spaces: a
    comparison by words would take each sentence for one."""
    near = NearDuplicates(0.8)
    assert [near.add(signature(text)) for _, text in novel] == [None] * 120
    draw = random.Random(4)
    for number in (0, 41, 119):
        text = novel[number][1]
        signs = list(unspaced(text).replace("，", ",").replace("。", ". "))
        for _ in range(len(signs) // 150):
            signs[draw.randrange(len(signs))] = draw.choice("之乎者也曰矣")
        edition = "\n".join("".join(signs[at : at + 40]) for at in range(0, len(signs), 40))
        found = near.add(signature(edition))
        assert found is not None
        assert found[0] == number
        half = text[: len(text) // 2] + novel[(number + 7) % 120][1][: len(text) // 2]
        assert NearDuplicates(0.8).add(signature(half)) is None
        assert near.add(signature(half)) is None


def test_tokens_of_a_chapter_are_counted_as_they_are_encoded(novel: list[Text]) -> None:
    texts = [text for _, text in novel]
    for spec in ("qwen", "mistral-v1"):
        tokenizer = load_tokenizer(spec)
        counts = count_tokens(tokenizer, texts[:12], threads=2)
        assert counts == [len(tokenizer.encode(text)) for text in texts[:12]]
        assert [tokenizer.decode(tokenizer.encode(text)) for text in texts[:3]] == texts[:3]
    # The vocabulary knows Chinese: less than a token a character, while UTF-8 has three bytes for each.
    whole = "\n\n".join(texts)
    (count,) = count_tokens(load_tokenizer("qwen"), [whole])
    assert 0.6 < count / len(whole) < 1.0


@pytest.mark.parametrize(("source", "kind"), [("cluecorpus2020", "blocks"), ("wudao", "json"), ("c4-zh", "jsonl")])
def test_every_chapter_comes_whole_out_of_each_format_of_chinese_corpora(
    novel: list[Text], tmp_path: Path, source: str, kind: str
) -> None:
    corpora.write_corpus(kind, tmp_path / source, novel[:20])
    found = everything(source, tmp_path / source)
    assert not [raw for raw in found if isinstance(raw, RawReject)]
    chapters = [raw for raw in found if isinstance(raw, RawDocument)]
    assert {unspaced(raw.text) for raw in chapters} == {unspaced(text) for _, text in novel[:20]}
    assert {raw.lang for raw in chapters} == {"zh"}


def test_a_wiki_page_of_the_novel_keeps_its_characters_but_for_their_long_forms(
    novel: list[Text], tmp_path: Path
) -> None:
    """The edition writes some names in long forms, of which the card's variant has short ones: 朱儁, 朱俊."""
    corpora.write_corpus("wikipedia", tmp_path / "wiki", novel[:6])
    pages = {
        raw.title: raw.text for raw in everything("wikipedia-zh", tmp_path / "wiki") if isinstance(raw, RawDocument)
    }
    for title, text in novel[:6]:
        written = unspaced(text)
        page = unspaced(pages[title])[-len(written) :]
        changed = sum(one != other for one, other in zip(page, written, strict=True))
        assert changed < len(written) / 100, title
    assert "朱俊" in pages[novel[0][0]]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_a_novel_in_another_encoding_is_read_among_ones_own_files_and_elsewhere_a_reject_that_says_so(
    novel: list[Text], tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "a.txt").write_bytes(novel[0][1].encode(encoding))
    (read,) = everything("files", tmp_path)
    assert isinstance(read, RawDocument)
    assert read.text == novel[0][1]
    for source in ("cluecorpus2020", "books-public-domain"):
        found = everything(source, tmp_path)
        assert found, source
        assert {raw.reason for raw in found if isinstance(raw, RawReject)} <= {"bad-utf8", "nul-character"}, source
        assert not [raw for raw in found if isinstance(raw, RawDocument)], source


def test_a_chapter_of_which_a_benchmark_asks_is_kept_out_by_characters(novel: list[Text], tmp_path: Path) -> None:
    passage = novel[10][1][1000:1400]
    (tmp_path / "bench.jsonl").write_text(
        json.dumps({"context": passage, "question": "何人？"}, ensure_ascii=False), encoding="utf-8"
    )
    write_index([tmp_path / "bench.jsonl"], tmp_path / "index.npz")
    switched = Curation(wish=Curate(), is_code=False, index=tmp_path / "index.npz")
    judged = [judge(text, "zh", switched) for _, text in novel]
    refused = [number for number, found in enumerate(judged) if isinstance(found, Refused)]
    assert refused == [10]
