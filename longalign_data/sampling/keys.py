"""Draws for many ids at once: the same number for an id wherever, whenever and beside whatever it is drawn.

    ids (bytes, 32 hexadecimal digits each) -> 128 bits each -> mixed with the seed -> u in (0, 1), float64

Document ids are hashes already, so their bits need no cryptographic hash again: two rounds of a strong 64-bit mixer with
keys made of (seed, purpose) give a draw for a hundredth of the cost of one BLAKE2b call. An id of another form counts by
its BLAKE2b-128.
"""

import functools
import hashlib

import numpy as np
import numpy.typing as npt

from longalign_data.curation.shingles import Hashes, mix
from longalign_data.identity import ID_HEX

Ids = npt.NDArray[np.bytes_]
Floats = npt.NDArray[np.float64]

_NO_DIGIT = 255


def uniforms(seed: int, purpose: str, ids: Ids) -> Floats:
    """A draw from the open interval (0, 1) for each id, fixed by (seed, purpose, id): 53 bits and a half unit, so that
    neither 0 nor 1 occurs."""
    words = hashlib.blake2b(f"{seed}\x1f{purpose}".encode(), digest_size=24).digest()
    first, second, third = (np.uint64(int.from_bytes(words[at : at + 8], "big")) for at in (0, 8, 16))
    high, low = id_bits(ids)
    mixed = mix(mix(mix(high ^ first) + (low ^ second)) ^ third)
    uniform: Floats = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
    return uniform


def id_bits(ids: Ids) -> tuple[Hashes, Hashes]:
    """The 128 bits of each id, as its upper and its lower half."""
    if not len(ids):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    if ids.dtype.itemsize != ID_HEX:
        return _hashed(ids)
    digits = _digits()[np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), ID_HEX)]
    other = np.flatnonzero((digits == _NO_DIGIT).any(axis=1))
    halves = ((digits[:, ::2] << 4) | digits[:, 1::2]).view(">u8").astype(np.uint64)
    high, low = halves[:, 0].copy(), halves[:, 1].copy()
    if len(other):
        high[other], low[other] = _hashed(ids[other])
    return high, low


@functools.lru_cache(maxsize=1)
def _digits() -> npt.NDArray[np.uint8]:
    values = np.full(256, _NO_DIGIT, dtype=np.uint8)
    for value, char in enumerate(b"0123456789abcdef"):
        values[char] = value
    return values


def _hashed(ids: Ids) -> tuple[Hashes, Hashes]:
    raw = b"".join(hashlib.blake2b(value, digest_size=16).digest() for value in ids.tolist())
    halves = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(len(ids), 2)
    return halves[:, 0], halves[:, 1]
