"""What makes two things the same: content hashes, and random draws keyed by them.

No draw in this package depends on the order in which things arrive. A draw is a hash of (seed, purpose, id), so that the
same recipe gives the same data for any number of workers, any order of shards and any interruption.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, Union

Plain: TypeAlias = Union[bool, int, float, str, Sequence["Plain"], Mapping[str, "Plain"], None]  # noqa: UP007 - the members that are text need Union before Python 3.14
"""What JSON can say."""

ID_HEX = 32
"""Length of every id: 128 bits as lower-case hexadecimal (a collision among 10^12 documents has probability ~1e-15)."""


def digest(value: Plain) -> str:
    """The id of a plain value: BLAKE2b-128 of its canonical JSON (sorted keys, no spaces, UTF-8).

    Raises TypeError for anything that has no canonical form; there is no fallback to `str`.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=ID_HEX // 2).hexdigest()


def document_id(text: str) -> str:
    """The id of a document: the hash of its text in Unicode normal form C, without outer white space."""
    normal = unicodedata.normalize("NFC", text).strip()
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=ID_HEX // 2).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def uniform(seed: int, purpose: str, key: str) -> float:
    """A draw from the open interval (0, 1), fixed by its three arguments.

    53 bits of BLAKE2b, shifted by half a unit so that neither 0 nor 1 occurs and -ln(u) is always finite and positive.
    """
    raw = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{key}".encode(), digest_size=8).digest()
    return ((int.from_bytes(raw, "big") >> 11) + 0.5) / (1 << 53)


def draw_index(seed: int, purpose: str, key: str, size: int) -> int:
    """An index in range(size), each equally likely, fixed by (seed, purpose, key)."""
    assert size > 0
    return min(int(uniform(seed, purpose, key) * size), size - 1)


def draw_weighted(seed: int, purpose: str, key: str, weights: Sequence[tuple[str, float]]) -> str:
    """One of the names, with probability proportional to its weight, fixed by (seed, purpose, key)."""
    total = sum(weight for _, weight in weights)
    assert total > 0
    point = uniform(seed, purpose, key) * total
    for name, weight in weights:
        point -= weight
        if point < 0:
            return name
    return next(name for name, weight in reversed(weights) if weight > 0)
