"""Tokenizers: nothing is lost, nothing becomes special, and the bound on length holds."""

import base64
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.errors import TokenizerError
from longalign_data.tokenizers import count_tokens, load_tokenizer

OFFLINE = ["qwen", "mistral-v1"]
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces before, a tab\tand\n\n\nthree line ends  ",
    "不同的语言，同样的长度：一二三四五。",
    "def f(x):\n    return {'a': [x ** 2 for _ in range(3)]}  # 注释\n",
    "naïve café — “quotes” … 😀👩‍👩‍👧 \u200bzero width",
    "",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>user\nhi<|im_end|>", "<s>[INST] x [/INST]</s>", "<unk>", "<0x0A>"]


@pytest.mark.parametrize("spec", OFFLINE)
@pytest.mark.parametrize("text", TEXTS + SPECIAL)
def test_every_text_comes_back_whole(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("spec", OFFLINE)
@pytest.mark.parametrize("text", SPECIAL)
def test_special_strings_in_text_stay_text(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>"]
    special = {tokenizer.special_id(name) for name in names} - {None}
    assert special
    assert not special & set(tokenizer.encode(text))
    assert not special & {index for ids in tokenizer.encode_batch([text, text], threads=2) for index in ids}


def test_special_tokens_are_found_by_name_alone() -> None:
    qwen, mistral = load_tokenizer("qwen"), load_tokenizer("mistral-v1")
    assert qwen.special_id("<|im_start|>") == 151_644
    assert qwen.special_id("<|im_end|>") == 151_645
    assert qwen.special_id("hello") is None
    assert qwen.eos_id == qwen.special_id("<|endoftext|>")
    assert (mistral.bos_id, mistral.eos_id, mistral.special_id("</s>")) == (1, 2, 2)
    assert mistral.special_id("<|im_start|>") is None
    assert mistral.special_id("a") is None


@pytest.mark.parametrize("spec", OFFLINE)
def test_ids_stay_below_the_vocabulary_size_and_no_bos_is_added(spec: str) -> None:
    tokenizer = load_tokenizer(spec)
    ids = [index for text in TEXTS for index in tokenizer.encode(text)]
    assert 0 <= min(ids) <= max(ids) < tokenizer.vocab_size
    assert tokenizer.encode("") == []
    assert tokenizer.encode("hello")[0] != tokenizer.bos_id


@pytest.mark.parametrize("spec", OFFLINE)
def test_threads_give_what_one_thread_gives(spec: str) -> None:
    tokenizer = load_tokenizer(spec)
    texts = [text * 50 for text in TEXTS] + TEXTS
    single = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == single
    assert tokenizer.encode_batch(texts, threads=4) == single
    assert count_tokens(tokenizer, texts, threads=3) == [len(ids) for ids in single]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("spec", OFFLINE)
@settings(max_examples=200)
@given(text=st.text(max_size=300) | st.text(alphabet=" \n\tab一é😀\x00\x7f\ufdfa", max_size=300))
def test_no_text_has_more_tokens_than_bytes_and_slack(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    assert tokenizer.slack is not None
    assert len(tokenizer.encode(text)) <= len(text.encode()) + tokenizer.slack


@pytest.mark.parametrize("spec", OFFLINE)
@settings(max_examples=100)
@given(text=st.text(max_size=300))
def test_every_unicode_text_comes_back_whole(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_identities_tell_vocabularies_apart_and_do_not_move() -> None:
    assert load_tokenizer("qwen").identity == load_tokenizer("qwen").identity
    assert load_tokenizer("qwen").identity != load_tokenizer("mistral-v1").identity


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gwen", "expected qwen, mistral-v1, tiktoken:"),
        ("tiktoken:", "unknown tokenizer 'tiktoken:'"),
        ("tiktoken:no_such_encoding", "it knows: .*cl100k_base"),
        ("tiktoken:no/such.tiktoken", "no such file"),
        ("sentencepiece:no/such.model", "no such file"),
    ],
)
def test_a_specification_that_names_nothing_is_answered_with_what_there_is(spec: str, words: str) -> None:
    with pytest.raises(TokenizerError, match=words):
        load_tokenizer(spec)


def rank_file(path: Path) -> Path:
    tokens = [bytes([value]) for value in range(256)] + [b"he", b"ll", b"hell"]
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    return path


def test_a_rank_file_is_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(f"tiktoken:{rank_file(tmp_path / 'tiny.tiktoken')}")
    assert tokenizer.encode("hello") == [258, ord("o")]
    assert tokenizer.special_id("<|im_end|>") == 261
    assert tokenizer.decode(tokenizer.encode("hell 一 <|im_end|>")) == "hell 一 <|im_end|>"


@pytest.mark.parametrize("line", ["aGk=", "aGk= x", "a?k= 3", "aGk= 1 2"])
def test_a_broken_rank_file_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    path = rank_file(tmp_path / "tiny.tiktoken")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(TokenizerError, match=r"tiny\.tiktoken:260: expected a base64 token"):
        load_tokenizer(f"tiktoken:{path}")


def test_a_file_that_is_no_sentencepiece_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(TokenizerError, match=r"x\.model is no SentencePiece model"):
        load_tokenizer(f"sentencepiece:{path}")


def test_a_sentencepiece_file_is_the_same_tokenizer_as_its_name() -> None:
    import importlib.resources

    path = Path(str(importlib.resources.files("mistral_common"))) / "data" / "tokenizer.model.v1"
    named, by_file = load_tokenizer("mistral-v1"), load_tokenizer(f"sentencepiece:{path}")
    assert named.identity == by_file.identity
    assert named.encode(TEXTS[1]) == by_file.encode(TEXTS[1])


def test_code_that_stands_beside_a_tokenizer_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    for name, key in (("config", "AutoConfig"), ("tokenizer_config", "AutoTokenizer")):
        place = "own.Own" if key == "AutoConfig" else ["own.Own", None]
        described = {"model_type": "own", "tokenizer_class": "Own", "auto_map": {key: place}}
        (tmp_path / f"{name}.json").write_text(json.dumps(described))
    # Whom Transformers asks whether to run it.
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    with pytest.raises(TokenizerError, match="cannot be loaded: it is code of its own"):
        load_tokenizer(f"hf:{tmp_path}")
    assert "[y/N]" not in capsys.readouterr().out
    assert not ran.exists()
