"""A first look at a corpus: is it what its card says, how fast is it read, how long are its documents?

In: a placed source. Out: a `Check`, from its first partitions alone; nothing is written.
"""

import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np

from longalign_data.curation.language import identify
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import partitions, read, skipped
from longalign_data.sources.reading import RawReject
from longalign_data.tokenizers import Tokenizer, count_tokens

MEASURED = 200
"""Documents whose tokens are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What the first partitions hold. `lengths` are tokens of the first MEASURED documents: least, quartiles, greatest;
    `num_bytes` is the UTF-8 of all documents read, `seconds` the time of the reader alone.
    `languages` are those that the card or the records declare, `found_languages` those of the texts of the first MEASURED
    documents, by their windows; `skipped` are the files of a folder that the card does not read, by suffix."""

    num_partitions: int
    read_partitions: int
    num_documents: int
    num_bytes: int
    seconds: float
    lengths: tuple[int, ...]
    languages: dict[str, int]
    found_languages: dict[str, int]
    licences: dict[str, int]
    rejects: dict[str, int]
    skipped: dict[str, int]
    examples: tuple[RawReject, ...]
    titles: tuple[str, ...]


def check(placed: PlacedSource, tokenizer: Tokenizer, *, max_partitions: int = 2, max_documents: int = 2000) -> Check:
    """Reads the first partitions, and at most so many documents and rejects of them. Raises SourceError."""
    found = partitions(placed)
    taken = found[:max_partitions]
    texts: list[str] = []
    titles: list[str] = []
    languages, licences, rejects = Counter[str](), Counter[str](), Counter[str]()
    examples: dict[str, RawReject] = {}
    num_documents, num_bytes = 0, 0
    begin = time.perf_counter()
    for raw in islice((raw for partition in taken for raw in read(partition)), max_documents):
        if isinstance(raw, RawReject):
            rejects[raw.reason] += 1
            examples.setdefault(raw.reason, raw)
            continue
        num_documents += 1
        num_bytes += raw.num_bytes
        languages[raw.lang] += 1
        licences[raw.license] += 1
        if len(texts) < MEASURED:
            texts.append(raw.text)
            titles.append(raw.title)
    seconds = time.perf_counter() - begin
    counts = count_tokens(tokenizer, texts) if texts else []
    quantiles = np.percentile(counts, (0, 25, 50, 75, 100), method="nearest") if counts else ()
    return Check(
        num_partitions=len(found),
        read_partitions=len(taken),
        num_documents=num_documents,
        num_bytes=num_bytes,
        seconds=seconds,
        lengths=tuple(int(value) for value in quantiles),
        languages=dict(languages.most_common(10)),
        found_languages=dict(Counter(identify(text).main for text in texts if text.strip()).most_common(10)),
        licences=dict(licences.most_common(10)),
        rejects=dict(rejects.most_common()),
        skipped=dict(skipped(placed, found)),
        examples=tuple(examples.values()),
        titles=tuple(titles[:5]),
    )
