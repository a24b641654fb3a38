"""Benchmarks that must not be trained on, as an index of hashes, and the overlap of a document with them.

    benchmark files --index--> benchmarks.npz (hashes and names of places, no text)
    document + index -> Overlap(place="longbench.jsonl:17#context", of_item=0.93, of_document=0.02)

Every text of a benchmark (a field of a JSON line, or a whole text file) is an *item*; its 13-token n-grams are hashed (see
`shingles`). A text that stands in several records is one item. N-grams that stand in more than ten items which have little
else in common are idioms and licence texts and do not count; a passage that comes back with one question after the other
is no idiom. A document is measured by the share of an item's n-grams that it holds, and by the share of its own n-grams
that any item holds.

Long items keep one hash in eight, those divisible by eight: the share among them is that of all, within a few percent.
"""

import functools
import gzip
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longalign_data.curation.shingles import Hashes, ngram_hashes, token_hashes
from longalign_data.errors import SourceError
from longalign_data.shards.files import whole_file

NGRAM = 13
COMMON_ITEMS = 10
ALIKE = 0.8
"""An item is like earlier ones when they hold so much of it: a passage with another question behind it. What such items
share is counted once. A header over short items stays below, as the n-grams across its end belong to each item alone."""
LEAST_NGRAMS = 8
"""An item of fewer n-grams (20 tokens) is left out: whole answers such as "Paris" would match everywhere."""
LONG_NGRAMS = 4096
KEPT_OF = 8
FORMAT = "longalign decontamination index 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """`hashes` is sorted and unique; the items that hold hash i are `items[starts[i]:starts[i + 1]]`. `sizes` counts the
    kept hashes of each item, 0 for items that do not count; `places` are their names."""

    hashes: Hashes
    starts: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    places: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """The item of which a document holds the largest share, that share, and the share of the document that stands in any
    item."""

    place: str
    of_item: float
    of_document: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """What an index was made of: items that count, texts that are one of them again, texts too short to count, items of
    idioms alone, and hashes."""

    num_items: int
    num_repeated: int
    num_short: int
    num_common: int
    num_hashes: int


def write_index(files: Sequence[Path], out: Path) -> Indexed:
    """Makes an index of benchmark files: `.jsonl` and `.json` (each text in each record), `.txt` and `.md` (each file); any of
    them may end in `.gz`. Raises SourceError for a file that cannot be read, and when nothing is left to look for."""
    found: dict[bytes, Hashes] = {}
    places: list[str] = []
    num_repeated = num_short = 0
    for file in files:
        for place, text in _items(file):
            grams = np.unique(ngram_hashes(token_hashes(text), NGRAM))
            if len(grams) < LEAST_NGRAMS:
                num_short += 1
                continue
            if (digest := hashlib.sha256(grams.tobytes()).digest()) in found:
                num_repeated += 1
                continue
            found[digest] = grams[grams % KEPT_OF == 0] if len(grams) >= LONG_NGRAMS else grams
            places.append(place)
    hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *found.values()])
    items = np.repeat(np.arange(len(found), dtype=np.int32), [len(grams) for grams in found.values()])
    order = np.argsort(hashes, kind="stable")
    hashes, items = hashes[order], items[order]
    unique, counts = np.unique(hashes, return_counts=True)
    starts = np.cumsum(counts) - counts
    groups = _groups(list(found.values()), unique, items[starts])[items]
    hash_of = np.repeat(np.arange(len(unique)), counts)
    # One pair for each group in which a hash stands; pairs of two small numbers are sorted as one number.
    pairs = np.unique(hash_of * max(1, len(found)) + groups)
    rare = np.bincount(pairs // max(1, len(found)), minlength=len(unique)) <= COMMON_ITEMS
    items = items[np.repeat(rare, counts)]
    # An item that consists of common n-grams alone would be found everywhere or nowhere.
    sizes = np.bincount(items, minlength=len(found))
    sizes[sizes < LEAST_NGRAMS] = 0
    num_items = int(np.count_nonzero(sizes))
    num_common = len(found) - num_items
    if not num_items:
        raise SourceError(
            f"{', '.join(map(str, files))}: nothing to look for: {num_short} texts are shorter than "
            f"{NGRAM + LEAST_NGRAMS - 1} words or Chinese characters, and {num_common} consist of what stands in more than "
            f"{COMMON_ITEMS} texts; give the files that hold the benchmarks' passages or questions"
        )
    with whole_file(out) as temporary, temporary.open("wb") as target:
        np.savez(
            target,
            format=np.array(FORMAT),
            hashes=unique[rare],
            starts=np.concatenate([[0], np.cumsum(counts[rare])]),
            items=items,
            sizes=sizes,
            places=np.array(places, dtype=np.str_),
        )
    return Indexed(
        num_items=num_items,
        num_repeated=num_repeated,
        num_short=num_short,
        num_common=num_common,
        num_hashes=int(rare.sum()),
    )


def _groups(found: Sequence[Hashes], unique: Hashes, first: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """For each item the number of the first item like it, or its own; `first` is the first item that holds each hash."""
    groups = np.arange(len(found))
    for number, grams in enumerate(found):
        # Of a long item one hash in eight is kept, so only those can be compared with all others.
        sampled = grams[grams % KEPT_OF == 0]
        compared = sampled if len(sampled) >= LONG_NGRAMS // KEPT_OF // 2 else grams
        holders, counts = np.unique(groups[first[np.searchsorted(unique, compared)]], return_counts=True)
        earlier = holders < number
        if earlier.any():
            best = int(counts[earlier].argmax())
            if counts[earlier][best] >= ALIKE * len(compared):
                groups[number] = holders[earlier][best]
    return groups


_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises of a file that is cut, changed, or of another kind: a single array named .npz is a TypeError."""


@functools.lru_cache(maxsize=2)
def load_index(path: Path) -> Index:
    """The index in a file. Raises SourceError when there is none."""
    try:
        # Opened here: NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["format"]) != FORMAT:
                raise ValueError(f"its format is {str(stored['format'])!r}, expected {FORMAT!r}")
            index = Index(
                hashes=stored["hashes"],
                starts=stored["starts"],
                items=stored["items"],
                sizes=stored["sizes"],
                places=[str(place) for place in stored["places"]],
            )
        if not len(index.hashes):
            raise ValueError("it holds no hash, so that nothing would be found")
    except FileNotFoundError:
        raise SourceError(
            f"{path}: no such file; make it with: longalign decontam index FILES --out {path.name}"
        ) from None
    except _DAMAGE as error:
        raise SourceError(
            f"{path}: not a decontamination index, or a damaged one: {error}; make it anew with: longalign decontam index "
            f"FILES --out {path.name}"
        ) from None
    return index


def overlap(text: str, index: Index) -> Overlap:
    """How much a document and the benchmarks share."""
    grams = np.unique(ngram_hashes(token_hashes(text), NGRAM))
    none = Overlap(place="", of_item=0.0, of_document=0.0)
    if not len(grams) or not len(index.hashes):
        return none
    places = np.minimum(np.searchsorted(index.hashes, grams), len(index.hashes) - 1)
    hit = index.hashes[places] == grams
    matched = places[hit]
    if not len(matched):
        return none
    items = np.concatenate([index.items[index.starts[place] : index.starts[place + 1]] for place in matched])
    held: npt.NDArray[np.int64] = np.bincount(items, minlength=len(index.sizes))
    shares: npt.NDArray[np.float64] = np.divide(held, index.sizes, out=np.zeros(len(held)), where=index.sizes > 0)
    best = int(shares.argmax())
    # Every item keeps the hashes divisible by KEPT_OF, so among these the share of the document is not biased.
    sampled = grams % KEPT_OF == 0
    of_document = int(np.count_nonzero(hit & sampled)) / max(1, int(np.count_nonzero(sampled)))
    return Overlap(place=index.places[best], of_item=float(shares[best]), of_document=of_document)


def _items(file: Path) -> Iterator[tuple[str, str]]:
    name = file.name.removesuffix(".gz")
    try:
        data = gzip.decompress(file.read_bytes()) if file.name.endswith(".gz") else file.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SourceError(
            f"{file}: cannot be read: {error}; expected UTF-8 text or JSON, plain or .gz; fetch the file again"
        ) from None
    if name.endswith((".txt", ".md")):
        yield file.name, text
    elif name.endswith(".jsonl"):
        # Not splitlines: JSON may hold U+2028 and the like inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield from _texts(f"{file.name}:{number}", _parsed(file, number, line))
    elif name.endswith(".json"):
        yield from _texts(file.name, _parsed(file, 1, text))
    else:
        raise SourceError(f"{file}: unknown kind of benchmark file; expected .jsonl, .json, .txt or .md, plain or .gz")


def _parsed(file: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}:{number}: not JSON: {error}; mend the line or leave the file out") from None


def _texts(place: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text inside a JSON value, with where it stands."""
    pending: list[tuple[str, Any]] = [(place, value)]
    while pending:
        where, current = pending.pop()
        if isinstance(current, str):
            yield where, current
        elif isinstance(current, dict):
            joint = "/" if "#" in where else "#"
            pending.extend((f"{where}{joint}{key}", item) for key, item in reversed(current.items()))
        elif isinstance(current, list):
            joint = "/" if "#" in where else "#"
            pending.extend((f"{where}{joint}{n}", current[n]) for n in reversed(range(len(current))))
