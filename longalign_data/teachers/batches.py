"""Batch APIs: many requests handed over at once, answered within a day at half the price, fetched when they are done.

In: `Item`s. Out, in any order: an `ItemResult` for each. The difficulty is that a submission whose reply gets lost may
or may not have been accepted, and the providers promise nothing about sending it again; `Batches.listed` is how to find out.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from longalign_data.teachers.base import Raw, Teacher, TeacherRequest
from longalign_data.teachers.retry import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One request of a batch. `custom_id` has 1 to 64 characters of a-z, 0-9 and `-`, and is unique in its batch."""

    custom_id: str
    request: TeacherRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A batch as the provider has it. `created` is in Unix seconds by the provider's clock. `label` is what was given at its
    submission, None where the provider keeps no labels. `failed`: refused as a whole, nothing was or will be answered;
    `gone`: its results are no longer kept. `detail` says more about these two."""

    batch_id: str
    created: float
    num_requests: int
    state: Literal["running", "ended", "failed", "gone"]
    label: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What became of an item: the raw reply, or the fault; a fault that is `retryable` is worth asking again."""

    custom_id: str
    raw: Raw | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one batch may hold, and for how many seconds after its creation results are kept."""

    max_requests: int
    max_bytes: int
    kept_s: float


class UnsureError(Exception):
    """A submission that may or may not have been accepted."""


class Batches(Protocol):
    """The batch API of a teacher. Every method raises TeacherError as `Teacher.ask` does; `listed` raises UserError for a
    server that has no batch API."""

    limits: BatchLimits

    def size(self, item: Item) -> int:
        """The item's bytes as they are sent, what joins it to the next included."""
        ...

    async def submit(self, label: str, items: Sequence[Item]) -> BatchStatus:
        """Hands a batch over, once. Raises UnsureError when the provider's answer was lost."""
        ...

    def listed(self, since: float) -> AsyncIterator[BatchStatus]:
        """The batches created since (Unix seconds by the provider's clock), newest first."""
        ...

    async def status(self, batch_id: str) -> BatchStatus:
        """How a batch stands."""
        ...

    def results(self, batch_id: str) -> AsyncIterator[ItemResult]:
        """The results of a batch that has ended, in any order. Items that it says nothing about were not answered."""
        ...


@runtime_checkable
class BatchTeacher(Teacher, Protocol):
    """A teacher with a batch API."""

    def batches(self) -> Batches:
        """The batch API over the same connection."""
        ...


EXPIRED = Fault(reason="expired", message="the batch ended before this request was answered", retryable=True)
