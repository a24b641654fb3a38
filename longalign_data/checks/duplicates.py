"""Questions that a corpus asks twice, or nearly.

In: questions in the order of the samples. Out: for each the likeness of the nearest earlier one. Near-duplicates are found
with MinHash over character 4-grams (64 permutations in 16 bands of 4, so that questions of likeness 0.8 are found with a
chance of 0.9998); memory is 0.5 kB a question. Source: Broder, "On the resemblance and containment of documents", 1997.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt

NUM_PERMUTATIONS = 64
NUM_BANDS = 16
THRESHOLD = 0.8
MOST_ALIKE = 128
"""So many questions that share a band are compared with, the first ones: where thousands are made by one pattern, each new one
is like these too, and the time stays linear."""
_SHINGLE = 4
_PRIME = (1 << 31) - 1

_NOT_TEXT = re.compile(r"[\W_]+")


class SeenQuestions:
    """The questions so far. The same questions in the same order give the same likenesses."""

    def __init__(self) -> None:
        numbers = np.frombuffer(
            b"".join(
                hashlib.blake2b(f"permutation {n}".encode(), digest_size=16).digest() for n in range(NUM_PERMUTATIONS)
            ),
            dtype=np.uint64,
        ).reshape(NUM_PERMUTATIONS, 2)
        # Products of two numbers below 2^31 fit into 64 bits.
        self._factors = numbers[:, 0] % np.uint64(_PRIME - 1) + np.uint64(1)
        self._offsets = numbers[:, 1] % np.uint64(_PRIME)
        self._signatures = np.empty((1_024, NUM_PERMUTATIONS), np.uint32)
        self._num = 0
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(NUM_BANDS)]

    def add(self, question: str) -> float:
        """The likeness in [0, 1] of the nearest earlier question, 0.0 where it is below `THRESHOLD`; remembers this one."""
        signature = self._signature(question)
        width = NUM_PERMUTATIONS // NUM_BANDS
        keys = [signature[band * width : (band + 1) * width].tobytes() for band in range(NUM_BANDS)]
        near = {number for band, key in zip(self._bands, keys, strict=True) for number in band.get(key, ())}
        best = float((self._signatures[list(near)] == signature).mean(axis=1).max()) if near else 0.0
        # An exact repetition adds nothing that a later question could be compared with.
        if best < 1.0:
            for band, key in zip(self._bands, keys, strict=True):
                alike = band.setdefault(key, [])
                if len(alike) < MOST_ALIKE:
                    alike.append(self._num)
            self._remember(signature)
        return best if best >= THRESHOLD else 0.0

    def _remember(self, signature: npt.NDArray[np.uint32]) -> None:
        if self._num == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[self._num] = signature
        self._num += 1

    def _signature(self, question: str) -> npt.NDArray[np.uint32]:
        text = _NOT_TEXT.sub(" ", question.casefold()).strip()
        pieces = {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}
        hashes = np.array(
            sorted(
                int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=4).digest()) % _PRIME for piece in pieces
            ),
            dtype=np.uint64,
        )
        mixed = (hashes[None, :] * self._factors[:, None] + self._offsets[:, None]) % np.uint64(_PRIME)
        lowest: npt.NDArray[np.uint32] = mixed.min(axis=1).astype(np.uint32)
        return lowest
