"""Language, quality and overlap with benchmarks, on real English, Chinese and code."""

import gzip
import json
import pydoc_data.topics
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_data.curation import decontamination
from longalign_data.curation.curate import Curation, Judged, Refused, judge
from longalign_data.curation.decontamination import load_index, overlap, write_index
from longalign_data.curation.language import WINDOW_CHARS, identify, windows
from longalign_data.curation.quality import measure
from longalign_data.curation.shingles import BLOCK, ngram_hashes, token_hashes
from longalign_data.errors import SourceError
from longalign_data.recipe import Curate

ENGLISH = pydoc_data.topics.topics["typesseq"] + pydoc_data.topics.topics["with"]
# Opening chapters of the Analects and of Mencius.
CHINESE = (
    "子曰：“学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？”"
    "有子曰：“其为人也孝弟，而好犯上者，鲜矣；不好犯上而好作乱者，未之有也。君子务本，本立而道生。孝弟也者，其为仁之本与！”"
    "子曰：“巧言令色，鲜矣仁！”曾子曰：“吾日三省吾身：为人谋而不忠乎？与朋友交而不信乎？传不习乎？”"
    "子曰：“道千乘之国，敬事而信，节用而爱人，使民以时。”"
    "孟子见梁惠王。王曰：“叟不远千里而来，亦将有以利吾国乎？”孟子对曰：“王何必曰利？亦有仁义而已矣。”"
)


def curation(*, is_code: bool = False, index: Path | None = None, **switches: object) -> Curation:
    return Curation(wish=Curate.model_validate(switches), is_code=is_code, index=index)


def test_english_and_chinese_are_told_apart() -> None:
    assert identify(ENGLISH).main == "en"
    assert identify(CHINESE * 8).main == "zh"


def test_a_head_in_another_language_decides_nothing() -> None:
    text = ENGLISH[:WINDOW_CHARS] + "\n" + CHINESE * 40
    assert identify(text[:WINDOW_CHARS]).main == "en"
    assert identify(text).main == "zh"
    assert judge(text, "zh-Hans", curation(language={"action": "reject"})) == Judged(lang="zh-Hans")
    refused = judge(text, "en", curation(language={"action": "reject"}))
    assert isinstance(refused, Refused)
    assert refused.reason == "language"
    assert judge(text, "en", curation(language={"action": "relabel"})) == Judged(lang="zh")
    assert judge(text, "en", curation()) == Judged(lang="en")
    assert judge(text, "en", curation(is_code=True, language={"action": "reject"})) == Judged(lang="en")


@given(st.integers(1, 20_000))
def test_windows_lie_within_the_text_and_reach_its_end(length: int) -> None:
    text = "".join(chr(0x4E00 + n % 20_000) for n in range(length))
    found = windows(text)
    assert 1 <= len(found) <= 5
    assert text.startswith(found[0])
    assert all(window in text for window in found)
    assert len(found) < 5 or text.endswith(found[-1])


def test_written_text_is_far_from_every_limit_of_quality() -> None:
    limits = Curate().quality
    for text in (ENGLISH, "\n".join(pydoc_data.topics.topics.values()), CHINESE):
        found = measure(text)
        assert found.garbled == 0
        assert found.repeated_lines < limits.max_repeated_lines / 2
        assert found.repeated_ngrams < limits.max_repeated_ngrams / 2
        assert found.boilerplate < limits.max_boilerplate / 2


MENU = "\n".join(
    f"{word}\nMore {word}\n{word} archive {n}" for n, word in enumerate(["Home", "News", "Sport", "About", "Jobs"] * 9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENGLISH + " “naïve” café — résumé… Ça va? " * 3, None),
        ("It’s “déjà vu” — naïve café, über façade. ".encode().decode("cp1252", "replace") * 40, "garbled"),
        ("It’s “smart” – for 5 € each. ".encode("cp1252").decode("latin-1") * 40, "garbled"),
        ("锟斤拷烫烫烫" + CHINESE, "garbled"),
        (("The same line stands here again and again, as pages of a broken crawl do.\n" * 50), "repetition"),
        (" ".join(["so said the raven on the bust above the chamber door once more"] * 60), "repetition"),
        (MENU, "boilerplate"),
    ],
)
def test_bad_extractions_are_rejected_by_name(text: str, reason: str | None) -> None:
    judged = judge(text, "en", curation(quality={"action": "reject"}))
    assert (judged.reason if isinstance(judged, Refused) else None) == reason
    assert isinstance(judge(text, "en", curation()), Judged)


def benchmark(folder: Path) -> Path:
    lines = [
        {"question": "Which?", "context": ENGLISH[:6000], "answers": ["x"]},
        {"question": "何解？", "context": CHINESE, "nested": {"deep": [ENGLISH[8000:9000]]}},
    ]
    (folder / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with gzip.open(folder / "more.txt.gz", "wt", encoding="utf-8") as file:
        file.write(pydoc_data.topics.topics["lambda"])
    made = write_index([folder / "bench.jsonl", folder / "more.txt.gz"], folder / "index.npz")
    assert (made.num_items, made.num_short) == (4, 3)
    return folder / "index.npz"


def test_a_document_that_holds_a_benchmark_text_is_rejected(tmp_path: Path) -> None:
    path = benchmark(tmp_path)
    switched = curation(index=path)
    filler = pydoc_data.topics.topics["operator-summary"] + pydoc_data.topics.topics["debugger"]
    assert isinstance(judge(filler, "en", switched), Judged)
    for planted, place in ((ENGLISH[:6000], "bench.jsonl:1#context"), (CHINESE, "bench.jsonl:2#context")):
        refused = judge(filler + planted + filler, "en", switched)
        assert isinstance(refused, Refused)
        assert refused.reason == "contaminated"
        assert place in refused.detail
    # Other case, white space and punctuation do not hide it; a third of it is not enough.
    assert isinstance(judge(filler + ENGLISH[:6000].upper().replace(" ", "\n* "), "en", switched), Refused)
    assert isinstance(judge(filler + CHINESE[: len(CHINESE) // 3], "en", switched), Judged)


def test_a_short_document_that_stands_in_a_benchmark_is_rejected(tmp_path: Path) -> None:
    found = overlap(ENGLISH[1000:3000], load_index(benchmark(tmp_path)))
    assert found.of_document > 0.9
    assert found.of_item < 0.5


def test_the_index_holds_no_text(tmp_path: Path) -> None:
    stored = benchmark(tmp_path).read_bytes()
    assert b"sequence" not in stored
    assert "子曰".encode() not in stored
    assert "子曰".encode("utf-32-le") not in stored


def test_what_stands_in_many_items_counts_for_none(tmp_path: Path) -> None:
    with (tmp_path / "b.jsonl").open("w", encoding="utf-8") as file:
        for number in range(decontamination.COMMON_ITEMS + 1):
            own = " ".join(f"w{number}x{n}" for n in range(200))
            file.write(json.dumps({"text": ENGLISH[:2000] + own}) + "\n")
    write_index([tmp_path / "b.jsonl"], tmp_path / "i.npz")
    assert overlap(ENGLISH[:2000], load_index(tmp_path / "i.npz")).of_item == 0


def context(number: int, num_words: int) -> str:
    rng = random.Random(number)
    return " ".join(f"fact{rng.randrange(10**6)}" for _ in range(num_words))


@pytest.mark.parametrize("num_words", [150, 4100])
@pytest.mark.parametrize("joined", [False, True])
def test_a_passage_with_many_questions_is_looked_for(joined: bool, num_words: int, tmp_path: Path) -> None:
    """As reading benchmarks have it: the passage in every record, or in one text with each of its questions, whose number
    takes a text of 4,100 words over the length from which hashes are sampled."""
    records = []
    for number in range(2):
        passage = context(number, num_words)
        for asked in range(decontamination.COMMON_ITEMS + 5):
            question = context(1000 + 100 * number + asked, 5 + asked % 15) + "?"
            records.append({"text": f"{passage} {question}"} if joined else {"context": passage, "question": question})
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    made = write_index([tmp_path / "b.jsonl"], tmp_path / "i.npz")
    assert made.num_items == (len(records) if joined else 2)
    assert made.num_repeated == (0 if joined else 2 * (decontamination.COMMON_ITEMS + 4))
    assert (made.num_short, made.num_common) == (0 if joined else len(records), 0)
    index = load_index(tmp_path / "i.npz")
    for number in range(2):
        found = overlap(f"{context(77, 3000)} {context(number, num_words)} {context(78, 3000)}", index)
        assert found.of_item > 0.9
        assert found.place.startswith("b.jsonl:")
    assert overlap(context(99, 3000), index).of_item == 0


def test_texts_of_idioms_alone_are_counted_apart_from_short_ones(tmp_path: Path) -> None:
    idiom = context(0, 100)
    texts = [f"{idiom} {context(number, 200)}" for number in range(1, decontamination.COMMON_ITEMS + 3)]
    other = [f"{context(50, 100)} {context(number, 200)}" for number in range(101, decontamination.COMMON_ITEMS + 103)]
    lines = [*texts, *other, idiom[: len(idiom) // 2], "too short"]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    made = write_index([tmp_path / "b.jsonl"], tmp_path / "i.npz")
    assert (made.num_items, made.num_short, made.num_common) == (len(texts) + len(other), 1, 1)
    assert overlap(f"{idiom} {context(50, 100)}", load_index(tmp_path / "i.npz")).of_item == 0


def test_an_index_in_which_nothing_can_be_found_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("too short")
    with pytest.raises(SourceError, match=r"b\.txt: nothing to look for: 1 texts are shorter than 20 words"):
        write_index([tmp_path / "b.txt"], tmp_path / "i.npz")
    assert not (tmp_path / "i.npz").exists()
    with np.load(benchmark(tmp_path)) as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "none.npz", **(arrays | {"hashes": arrays["hashes"][:0]}))
    with pytest.raises(
        SourceError, match=r"none\.npz: .*it holds no hash.*make it anew with: longalign decontam index"
    ):
        load_index(tmp_path / "none.npz")


def test_damaged_files_of_a_benchmark_and_of_an_index_are_said_with_their_names(tmp_path: Path) -> None:
    whole = benchmark(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:3000])
    np.save(tmp_path / "array.npy", np.arange(9))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 0xFF
    (tmp_path / "changed.npz").write_bytes(changed)
    (tmp_path / "text.npz").write_text("no index")
    for name in ("cut", "array", "changed", "text"):
        with pytest.raises(
            SourceError, match=rf"{name}\.npz: not a decontamination index, or a damaged one: .*make it anew"
        ):
            load_index(tmp_path / f"{name}.npz")
    packed = bytearray(gzip.compress(json.dumps({"text": ENGLISH}).encode()))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    with pytest.raises(SourceError, match=r"b\.jsonl\.gz: cannot be read: .*fetch the file again"):
        write_index([tmp_path / "b.jsonl.gz"], tmp_path / "o.npz")


def test_a_long_item_is_measured_by_a_sample_of_its_hashes(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = [f"w{rng.randrange(5000)}" for _ in range(40_000)]
    (tmp_path / "long.txt").write_text(" ".join(words))
    made = write_index([tmp_path / "long.txt"], tmp_path / "i.npz")
    assert 4_500 < made.num_hashes < 5_500
    index = load_index(tmp_path / "i.npz")
    assert overlap(" ".join(words[:24_000]), index).of_item == pytest.approx(0.6, abs=0.03)
    assert overlap(" ".join(words[:24_000]), index).of_document == 1.0


def test_what_is_no_index_or_no_benchmark_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK no zip")
    with pytest.raises(SourceError, match=r"x\.npz: not a decontamination index.*longalign decontam index"):
        load_index(tmp_path / "x.npz")
    with pytest.raises(SourceError, match=r"none\.npz: no such file; .*longalign decontam index"):
        load_index(tmp_path / "none.npz")
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{oops\n')
    with pytest.raises(SourceError, match=r"b\.jsonl:2: not JSON"):
        write_index([tmp_path / "b.jsonl"], tmp_path / "o.npz")
    with pytest.raises(SourceError, match="unknown kind"):
        write_index([tmp_path / "x.npz"], tmp_path / "o.npz")
    assert not (tmp_path / "o.npz").exists()


# tokens and n-grams


def test_tokens_are_words_and_chinese_characters_without_case_and_punctuation() -> None:
    assert len(token_hashes("Don't stop: 3 cats!")) == 5
    assert len(token_hashes("学而时习之，abc不亦")) == 8
    assert token_hashes("HELLO world").tolist() == token_hashes("  hello, —World_").tolist()
    assert token_hashes("ＡＢＣ ﬁne").tolist() == token_hashes("abc fine").tolist()
    assert len(token_hashes("𠀀𠀁 😀 x")) == 3
    assert len(token_hashes("")) == len(token_hashes(" \n。")) == 0


@given(st.text(alphabet="ab c\n.学而é😀", max_size=60))
def test_a_token_hashes_alike_wherever_it_stands(text: str) -> None:
    alone = token_hashes(text).tolist()
    assert token_hashes("zz " + text + " zz").tolist()[1:-1] == alone
    far = token_hashes("y. " * (BLOCK // 3) + text + " zz").tolist()
    assert far[BLOCK // 3 : -1] == alone


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(1, 13))
def test_equal_runs_have_equal_hashes_and_others_differ(values: list[int], n: int) -> None:
    import numpy as np

    grams = ngram_hashes(np.array(values, dtype=np.uint64), n).tolist()
    runs = [tuple(values[i : i + n]) for i in range(len(values) - n + 1)]
    assert len(grams) == len(runs)
    assert len(set(grams)) == len(set(runs))
