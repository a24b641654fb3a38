"""Near-duplicates: documents of which most shingles stand in a document before them.

    text -> 5-token shingles -> MinHash signature (120 x 32 bits, by rensa)     in any worker
    signatures in the order of the table -> duplicate of the n-th, or new       in one place, first come first kept

The share of equal places of two signatures estimates the Jaccard similarity of their shingle sets, with a standard
deviation of at most 0.046 (Broder, "On the resemblance and containment of documents", 1997). Candidates come from bands of
six places: of pairs that are 0.8 alike, 99.8% share one of the 20 bands; those that are 0.9 alike practically always do.

A document is compared with those *kept* before it in the order of the table, so what is kept depends on that order alone,
never on the number of workers.
"""

import numpy as np
import numpy.typing as npt

from longalign_data.curation.shingles import mix, ngram_hashes, token_hashes

SHINGLE = 5
PLACES = 120
BANDS = 20
SEED = 20240129

Signature = npt.NDArray[np.uint32]


def signature(text: str) -> Signature:
    """The MinHash signature of a text, uint32[PLACES]. A text of fewer than SHINGLE tokens is one shingle."""
    import rensa

    tokens = token_hashes(text)
    shingles = ngram_hashes(tokens, min(SHINGLE, len(tokens))) if len(tokens) else np.zeros(1, dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, [0, len(shingles)], PLACES, SEED)
    return np.array(matrix.to_rows()[0], dtype=np.uint32)


class NearDuplicates:
    """The signatures of the documents kept so far. About 2.5 KB a document."""

    def __init__(self, threshold: float) -> None:
        self._least = int(np.ceil(threshold * PLACES - 1e-9))
        self._kept = np.zeros((1024, PLACES), dtype=np.uint32)
        self._size = 0
        self._bands: dict[int, list[int]] = {}

    def add(self, found: Signature) -> tuple[int, float] | None:
        """Keeps a document and returns None, or does not and returns the number of the kept one (from 0, in the order of
        keeping) that it resembles most, with the estimated similarity."""
        keys = _band_keys(found)
        near = sorted({index for key in keys for index in self._bands.get(key, ())})
        if near:
            equal = np.count_nonzero(self._kept[near] == found, axis=1)
            best = int(np.argmax(equal))
            if equal[best] >= self._least:
                return near[best], float(equal[best]) / PLACES
        if self._size == len(self._kept):
            self._kept = np.concatenate([self._kept, np.zeros_like(self._kept)])
        self._kept[self._size] = found
        for key in keys:
            self._bands.setdefault(key, []).append(self._size)
        self._size += 1
        return None


def _band_keys(found: Signature) -> list[int]:
    rows = found.reshape(BANDS, PLACES // BANDS).astype(np.uint64)
    keys = np.arange(BANDS, dtype=np.uint64)
    for column in range(rows.shape[1]):
        keys = mix(keys ^ rows[:, column])
    return [int(key) for key in keys]
