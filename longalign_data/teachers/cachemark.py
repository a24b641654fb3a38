"""Whether a document is marked for the provider's prompt cache: only where the mark can pay.

A mark costs a quarter more on the tokens it writes and saves nine tenths on those it reads. For k calls about one document
with hit rate h on all but the first, the bill is 1.25 + (k - 1) (1.25 - 1.15 h) of the document's tokens instead of k, so
it pays iff h > 0.25 k / (1.15 (k - 1)): 0.43 for two calls, 0.33 for three, 0.27 for five. The rate is measured, and
marking stops when it falls below.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

LIFETIME_S = 300.0
MIN_BYTES = 4_096
"""Shorter documents stay below every model's smallest cacheable prefix, which is four times as long for some."""
FIRST_JUDGED = 20
_REMEMBERED = 4_096


def break_even(num_calls: int) -> float:
    """The hit rate above which marking pays for `num_calls` calls about each document; above 1 it never does."""
    return 0.25 * num_calls / (1.15 * (num_calls - 1)) if num_calls > 1 else float("inf")


class Begun:
    """Documents that a provider saw within a cache's lifetime; the newest few thousand, by hash."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, float] = OrderedDict()

    def __contains__(self, document: str) -> bool:
        return time.monotonic() - self._seen.get(hash(document), float("-inf")) < LIFETIME_S

    def add(self, document: str) -> None:
        """The document was seen just now."""
        self._seen[hash(document)] = time.monotonic()
        self._seen.move_to_end(hash(document))
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


@dataclass(slots=True)
class CacheMark:
    """The rule and what it has seen; `num_calls` calls are expected about each document."""

    num_calls: int
    num_tried: int = 0
    num_hits: int = 0
    _written: Begun = field(default_factory=Begun)
    _begun: Begun = field(default_factory=Begun)

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that found their document, of those that could; None before any could."""
        return self.num_hits / self.num_tried if self.num_tried else None

    @property
    def pays(self) -> bool:
        rate = self.hit_rate
        if rate is None or self.num_tried < FIRST_JUDGED:
            return break_even(self.num_calls) < 1
        return rate > break_even(self.num_calls)

    def is_begun(self, document: str) -> bool:
        """Whether the document was asked about a moment ago."""
        return document in self._begun

    def is_written(self, document: str) -> bool:
        """Whether the provider wrote the document to its cache, or read it there, a moment ago."""
        return document in self._written

    def should_mark(self, document: str) -> bool:
        """Whether this call about the document carries the mark: the first, while marking pays, and those that can find
        what an earlier one has written."""
        if len(document) < MIN_BYTES and len(document.encode("utf-8", "surrogatepass")) < MIN_BYTES:
            return False
        return self.is_written(document) or (self.pays and not self.is_begun(document))

    def saw(self, document: str, *, marked: bool, num_written: int, num_read: int) -> None:
        """A call was answered: the tokens that it wrote to the cache and read from it. What a provider did not write, as it is
        shorter than its smallest prefix, cannot be found, and cost nothing."""
        if marked and self.is_written(document):
            self.num_tried += 1
            self.num_hits += num_read > 0
        self._begun.add(document)
        if marked and num_written + num_read > 0:
            self._written.add(document)
