"""Asking again after transient faults, and saying what a fault means.

The clients' own retries are switched off: theirs obey a `retry-after` of any length and know no deadline. Waits here
double from half a second to 16 s without jitter, are never shorter than the server's `retry-after`, and end at the
deadline.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from longalign_data.errors import TeacherError
from longalign_data.teachers.base import Raw

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 16.0

_TRANSIENT = frozenset({408, 409, 425, 429})
_TOO_LONG = ("too long", "too large", "context length", "context_length", "context window", "maximum context")
_UNPAID = ("credit balance", "billing", "insufficient_quota", "exceeded your current quota")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong in one attempt. `wait_s` is what the server asked to wait, None when it did not say."""

    reason: str
    message: str
    retryable: bool
    wait_s: float | None = None


def fault_of_status(status: int, message: str, headers: Mapping[str, str]) -> Fault:
    """The meaning of an HTTP error status. `headers` are looked up in lower case."""
    said = f"HTTP {status}: {message}"
    text = message.lower()
    if any(mark in text for mark in _UNPAID) or status == 402:
        return Fault(reason="unpaid", message=said, retryable=False)
    if status in {401, 403}:
        return Fault(reason="unauthorized", message=said, retryable=False)
    if status == 404:
        return Fault(reason="not-found", message=said, retryable=False)
    if status in _TRANSIENT or status >= 500:
        reason = "rate-limited" if status == 429 else "unavailable"
        return Fault(reason=reason, message=said, retryable=True, wait_s=_retry_after(headers))
    if status == 413 or any(mark in text for mark in _TOO_LONG):
        return Fault(reason="context-exceeded", message=said, retryable=False)
    return Fault(reason="bad-request", message=said, retryable=False)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    # A date is possible too; no teacher sends one, and the doubling waits serve as well.
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


async def ask_until(
    attempt: Callable[[], Awaitable[Raw | Fault]],
    *,
    retry_s: float,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> Raw:
    """The first reply among repeated attempts. Raises TeacherError for a fault that asking again cannot mend at once, and
    for a transient one when the next wait would end after `retry_s` seconds."""
    began = time.monotonic()
    wait = FIRST_WAIT_S
    attempts = 0
    while True:
        result = await attempt()
        attempts += 1
        if not isinstance(result, Fault):
            return result
        if not result.retryable:
            raise TeacherError(result.message, reason=result.reason)
        pause = max(wait, result.wait_s or 0.0)
        if time.monotonic() - began + pause > retry_s:
            raise TeacherError(
                f"{result.message} (after {attempts} attempts in {time.monotonic() - began:.0f} s)",
                reason=result.reason,
                retryable=True,
            )
        await (sleep or asyncio.sleep)(pause)
        wait = min(2 * wait, LONGEST_WAIT_S)
