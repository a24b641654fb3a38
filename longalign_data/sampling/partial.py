"""What is left of many candidates that a draw may still take: bounded, in any order, and mergeable.

    batches of (id, tokens, language, source) --add--> PartialDraw --merge--> PartialDraw --> draw.finish

For each group (language, source, bucket) the candidates with the smallest keys stay, as many as the whole draw wants. Where
lengths outside the edges are taken too (`power`, `none`), those below and above make a bucket each, first and last. The
result depends on the set of candidates alone, neither on their order nor on how they are cut into batches and parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longalign_data.recipe import SampleDocuments
from longalign_data.sampling.keys import Floats, Ids, uniforms

OTHER = "other"
COMPACT_ROWS = 1 << 18
"""Rows that may wait, beyond twice those that stay, before the superfluous ones are dropped."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Candidates as columns of equal length; `langs` and `sources` are indices into the names."""

    ids: Ids
    num_tokens: Ints
    langs: Ints
    lang_names: Sequence[str]
    sources: Ints
    source_names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Candidates that stay, as columns, sorted by key and id; `groups` as in `PartialDraw.group`."""

    keys: Floats
    ids: Ids
    groups: Ints
    num_tokens: Ints


def _concatenated(parts: Sequence[Kept]) -> Kept:
    return Kept(
        keys=np.concatenate([part.keys for part in parts]),
        ids=np.concatenate([part.ids for part in parts]),
        groups=np.concatenate([part.groups for part in parts]),
        num_tokens=np.concatenate([part.num_tokens for part in parts]),
    )


def _selected(kept: Kept, rows: npt.NDArray[np.intp]) -> Kept:
    return Kept(keys=kept.keys[rows], ids=kept.ids[rows], groups=kept.groups[rows], num_tokens=kept.num_tokens[rows])


class PartialDraw:
    """The candidates of a part of a corpus. Memory: 60 bytes for each that stays, at most `wish.count` for each group, and a
    batch. It can be pickled, so parts may be made in other processes."""

    def __init__(self, wish: SampleDocuments, *, seed: int) -> None:
        self.wish = wish
        self.seed = seed
        self.languages = (*sorted(wish.languages), OTHER)
        self.sources = (*sorted(wish.sources), OTHER)
        self.num_buckets = len(wish.edges) - 1 if wish.strategy == "buckets" else len(wish.edges) + 1
        num_groups = len(self.languages) * len(self.sources) * self.num_buckets
        self.available = np.zeros(num_groups, dtype=np.int64)
        self.num_seen = 0
        self.num_outside = 0
        self.longest = 0
        self._limits = np.full(num_groups, np.inf)
        self._parts: list[Kept] = []
        self._waiting = 0

    def group(self, index: int) -> tuple[str, str, int]:
        """Language, source and bucket of a group."""
        rest, bucket = divmod(index, self.num_buckets)
        lang, source = divmod(rest, len(self.sources))
        return self.languages[lang], self.sources[source], bucket

    def add(self, batch: Batch) -> None:
        """Takes in candidates, each of which comes once in all parts together."""
        self.num_seen += len(batch.ids)
        self.longest = max(self.longest, int(batch.num_tokens.max(initial=0)))
        last = self.wish.edges[-1]
        buckets = np.searchsorted(np.array(self.wish.edges), batch.num_tokens, side="right") - 1
        buckets[batch.num_tokens == last] -= 1
        if self.wish.strategy != "buckets":
            buckets += 1
        inside = (buckets >= 0) & (buckets < self.num_buckets)
        self.num_outside += int(np.count_nonzero(~inside))
        lang = _codes(self.languages, batch.lang_names)[batch.langs]
        source = _codes(self.sources, batch.source_names)[batch.sources]
        groups = (lang * len(self.sources) + source) * self.num_buckets + buckets
        self.available += np.bincount(groups[inside], minlength=len(self.available))
        u = uniforms(self.seed, "sample", batch.ids)
        power = self.wish.strategy == "power"
        weights = batch.num_tokens.astype(np.float64) ** self.wish.beta if power else np.ones(len(u))
        # Logarithms and powers of arrays differ in the last place from machine to machine. They only sort out what cannot
        # be taken, with room to spare; the keys that count are computed one by one.
        rough = -np.log(u) / weights
        rows = np.flatnonzero(inside & (rough <= self._limits[np.where(inside, groups, 0)] * (1 + 1e-9)))
        if not len(rows):
            return
        tokens = batch.num_tokens[rows]
        beta = self.wish.beta
        exact = [
            -math.log(value) / (float(count) ** beta if power else 1.0)
            for value, count in zip(u[rows].tolist(), tokens.tolist(), strict=True)
        ]
        keys = np.array(exact, dtype=np.float64)
        self._keep(Kept(keys=keys, ids=batch.ids[rows], groups=groups[rows].astype(np.int64), num_tokens=tokens))

    def merge(self, other: "PartialDraw") -> None:
        """Takes in what another part has; both are of the same wish and seed."""
        assert (self.wish, self.seed) == (other.wish, other.seed)
        self.available += other.available
        self.num_seen += other.num_seen
        self.num_outside += other.num_outside
        self.longest = max(self.longest, other.longest)
        for part in other._parts:
            self._keep(part)

    def kept(self) -> Kept:
        """What stays of all that was added, sorted by key and then by id."""
        self._compact()
        (part,) = self._parts
        return _selected(part, np.lexsort((part.ids, part.keys)))

    def _keep(self, part: Kept) -> None:
        self._parts.append(part)
        self._waiting += len(part.keys)
        if self._waiting > COMPACT_ROWS + len(self._parts[0].keys):
            self._compact()

    def _compact(self) -> None:
        everything = _concatenated([*self._parts, _EMPTY])
        order = np.lexsort((everything.ids, everything.keys, everything.groups))
        everything = _selected(everything, order)
        sizes = np.bincount(everything.groups, minlength=len(self.available))
        firsts = np.cumsum(sizes) - sizes
        ranks = np.arange(len(order)) - firsts[everything.groups]
        full = sizes >= self.wish.count
        self._limits[full] = everything.keys[firsts[full] + self.wish.count - 1]
        self._parts = [_selected(everything, np.flatnonzero(ranks < self.wish.count))]
        self._waiting = 0


_EMPTY = Kept(
    keys=np.zeros(0),
    ids=np.zeros(0, dtype="S1"),
    groups=np.zeros(0, dtype=np.int64),
    num_tokens=np.zeros(0, dtype=np.int64),
)


def _codes(known: Sequence[str], names: Sequence[str]) -> Ints:
    """For each name its place among the known ones; the last of these is for all others."""
    last = len(known) - 1
    return np.array([known.index(name) if name in known[:last] else last for name in names], dtype=np.int64)
