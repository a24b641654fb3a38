"""The sampler itself, on (id, tokens, language, source) alone.

Weighted sampling without replacement with exponential clocks (Efraimidis and Spirakis, Inf. Process. Lett. 97, 2006): the
key of a document is -ln(u) / w with u drawn from (seed, doc_id) by `keys.uniforms`, and the smallest keys are taken. One
pass, mergeable over partitions (`partial`), independent of order.

What is taken is bounded by quotas. A *stratum* is a language group in a length bucket; its target is count x share of
the language x share of the bucket, in whole documents that add up. Three passes, each in a fixed order:

1. every document in key order, while its stratum and its source have room;
2. what a language still lacks, from any of its buckets (`shortfall: fill`);
3. what the count still lacks, from any language and source (`shortfall: fill`).

Passes 2 and 3 take the longest bucket first with the strategy `buckets`; with the others, whose chances do not know buckets,
they go on in key order.

A language or source without a share of its own belongs to the group "other", which has what the named ones leave.
"""

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longalign_data.identity import uniform
from longalign_data.recipe import SampleDocuments
from longalign_data.sampling.partial import OTHER, Batch, PartialDraw

BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the sampler sees of a document."""

    doc_id: str
    num_tokens: int
    lang: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One line of target against achieved. `target` is None where nothing was asked for."""

    lang: str
    source: str
    bucket: str
    target: int | None
    achieved: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One document taken."""

    doc_id: str
    bucket: str
    key: float
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The documents taken, in the order in which they are used; `cells` by language and bucket, `sources` by source."""

    drawn: Sequence[Drawn]
    cells: Sequence[Cell]
    sources: Sequence[Cell]
    num_seen: int
    num_outside: int


@dataclass(frozen=True, slots=True, order=True)
class _Kept:
    key: float
    doc_id: str
    bucket: int
    lang: str
    source: str
    num_tokens: int


def bucket_names(edges: Sequence[int]) -> list[str]:
    """The buckets between the edges, as `low-high` in tokens."""
    return [f"{low}-{high}" for low, high in itertools.pairwise(edges)]


def bucket_index(edges: Sequence[int], num_tokens: int) -> int:
    """The bucket of a length: it includes its lower edge, the last one both. -1 below all, len(edges) - 1 above all."""
    if num_tokens == edges[-1]:
        return len(edges) - 2
    return bisect.bisect_right(edges, num_tokens) - 1


def whole_targets(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`count` in whole parts proportional to `shares`; parts add up to round(count * sum of shares).

    Largest remainders; equal remainders go to the earlier name, so the result depends on nothing else.
    """
    exact = {name: count * share for name, share in shares.items()}
    parts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    missing = round(sum(exact.values())) - sum(parts.values())
    by_remainder = sorted(exact, key=lambda name: (-(round(exact[name] - parts[name], 9)), list(shares).index(name)))
    for name in by_remainder[:missing]:
        parts[name] += 1
    return parts


def draw(candidates: Iterable[Candidate], wish: SampleDocuments, *, seed: int) -> Draw:
    """Takes `wish.count` of the candidates, or as many as there are. Memory: see `PartialDraw`."""
    partial = PartialDraw(wish, seed=seed)
    rows = iter(candidates)
    while block := list(itertools.islice(rows, BLOCK_ROWS)):
        langs = {name: index for index, name in enumerate(sorted({row.lang for row in block}))}
        sources = {name: index for index, name in enumerate(sorted({row.source for row in block}))}
        partial.add(
            Batch(
                ids=np.array([row.doc_id.encode() for row in block]),
                num_tokens=np.array([row.num_tokens for row in block], dtype=np.int64),
                langs=np.array([langs[row.lang] for row in block]),
                lang_names=list(langs),
                sources=np.array([sources[row.source] for row in block]),
                source_names=list(sources),
            )
        )
    return finish(partial)


def finish(partial: PartialDraw) -> Draw:
    """The draw, once every candidate was added to the partial draw or to one merged into it."""
    wish, seed = partial.wish, partial.seed
    by_bucket = wish.strategy == "buckets"
    names = bucket_names(wish.edges if by_bucket else (0, *wish.edges, max(wish.edges[-1] + 1, partial.longest)))
    kept = partial.kept()
    pool = [
        _Kept(key, doc_id.decode(), bucket, lang, source, num_tokens)
        for key, doc_id, (lang, source, bucket), num_tokens in zip(
            kept.keys.tolist(),
            kept.ids.tolist(),
            map([partial.group(index) for index in range(len(partial.available))].__getitem__, kept.groups.tolist()),
            kept.num_tokens.tolist(),
            strict=True,
        )
    ]
    available = {partial.group(index): int(count) for index, count in enumerate(partial.available) if count}

    languages = _targets(wish.count, wish.languages)
    sources = _targets(wish.count, wish.sources)
    strata = _strata(wish, languages, names)
    taken = _take(pool, wish, languages, sources, strata)
    order = sorted(taken, key=lambda item: (uniform(seed, "order", item.doc_id), item.doc_id))

    return Draw(
        drawn=[Drawn(doc_id=k.doc_id, bucket=names[k.bucket], key=k.key, num_tokens=k.num_tokens) for k in order],
        cells=_cells(names, languages, strata, taken, available),
        sources=_source_cells(sources, wish, taken, available),
        num_seen=partial.num_seen,
        num_outside=partial.num_outside,
    )


def missing(drawn: Draw, wish: SampleDocuments) -> list[str]:
    """What the draw has less of than was asked for, a phrase each: buckets of a language, languages where buckets have no
    shares, and sources. The documents that they lack may be the same."""
    cells = [(f"{cell.lang} {cell.bucket} tokens", cell.target, cell.achieved) for cell in drawn.cells]
    if any(target is None for _, target, _ in cells) or not cells:
        achieved = Counter[str]()
        for cell in drawn.cells:
            achieved[cell.lang] += cell.achieved
        cells = [
            (f"language {lang}", target, achieved[lang])
            for lang, target in _targets(wish.count, wish.languages).items()
        ]
    cells += [(f"source {cell.source}", cell.target, cell.achieved) for cell in drawn.sources]
    return [
        f"{name}: {target - have} of {target}" for name, target, have in cells if target is not None and have < target
    ]


def _targets(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    named = dict(sorted(shares.items()))
    return whole_targets(count, named | {OTHER: max(0.0, 1.0 - sum(named.values()))})


def _strata(wish: SampleDocuments, languages: Mapping[str, int], names: Sequence[str]) -> dict[tuple[str, int], int]:
    """Targets by language and bucket; without bucket shares every bucket may take the whole of its language."""
    if wish.strategy != "buckets":
        return {(lang, bucket): target for lang, target in languages.items() for bucket in range(len(names))}
    shares = wish.shares or [1.0] * len(names)
    parts = {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}
    return {
        (lang, names.index(name)): part
        for lang, target in languages.items()
        for name, part in whole_targets(target, parts).items()
    }


def _take(
    pool: Sequence[_Kept],
    wish: SampleDocuments,
    languages: Mapping[str, int],
    sources: Mapping[str, int],
    strata: Mapping[tuple[str, int], int],
) -> list[_Kept]:
    room_stratum, room_lang, room_source = dict(strata), dict(languages), dict(sources)
    taken: list[_Kept] = []
    left: list[_Kept] = []

    def accept(item: _Kept) -> None:
        taken.append(item)
        room_stratum[(item.lang, item.bucket)] -= 1
        room_lang[item.lang] -= 1
        room_source[item.source] -= 1

    for item in pool:
        fits = room_stratum[(item.lang, item.bucket)] > 0 and room_lang[item.lang] > 0 and room_source[item.source] > 0
        accept(item) if fits else left.append(item)
    if wish.shortfall != "fill":
        return taken
    if wish.strategy == "buckets":
        left.sort(key=lambda item: (-item.bucket, item))
    for keep_shares in (True, False):
        still: list[_Kept] = []
        for item in left:
            has_room = room_lang[item.lang] > 0 and room_source[item.source] > 0
            if len(taken) < wish.count and (has_room or not keep_shares):
                accept(item)
            else:
                still.append(item)
        left = still
    return taken


def _cells(
    names: Sequence[str],
    languages: Mapping[str, int],
    strata: Mapping[tuple[str, int], int],
    taken: Sequence[_Kept],
    available: Mapping[tuple[str, str, int], int],
) -> list[Cell]:
    achieved = Counter((item.lang, item.bucket) for item in taken)
    there: Counter[tuple[str, int]] = Counter()
    for (lang, _, bucket), number in available.items():
        there[(lang, bucket)] += number
    bucketed = all(sum(strata[(lang, b)] for b in range(len(names))) == target for lang, target in languages.items())
    return [
        Cell(
            lang=lang,
            source="",
            bucket=name,
            target=strata[(lang, index)] if bucketed else None,
            achieved=achieved[(lang, index)],
            available=there[(lang, index)],
        )
        for lang in languages
        for index, name in enumerate(names)
        # Below and above the edges there is nothing to show but what is there.
        if there[(lang, index)] or (strata[(lang, index)] and (bucketed or 0 < index < len(names) - 1))
    ]


def _source_cells(
    sources: Mapping[str, int],
    wish: SampleDocuments,
    taken: Sequence[_Kept],
    available: Mapping[tuple[str, str, int], int],
) -> list[Cell]:
    achieved = Counter(item.source for item in taken)
    there: Counter[str] = Counter()
    for (_, source, _), number in available.items():
        there[source] += number
    return [
        Cell(
            lang="",
            source=source,
            bucket="",
            target=target if wish.sources else None,
            achieved=achieved[source],
            available=there[source],
        )
        for source, target in sources.items()
        if target or there[source]
    ]
