"""Asking again after transient faults, and saying what a fault means.

The clients' own retries are switched off: theirs obey a `retry-after` of any length and know no deadline. Waits here
double from half a second to 16 s, each shortened by up to half at random so that requests refused together do not come
back together; a server's `retry-after` is honoured up to a minute; all ends at the deadline.
"""

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from longalign_data.errors import TeacherError

ResultT = TypeVar("ResultT")
ReplyT = TypeVar("ReplyT")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 16.0
LONGEST_RETRY_AFTER_S = 60.0
SAID_AFTER_S = 3.0
_SECRET_CHARS = 8
_CHANCE = random.SystemRandom()

_TRANSIENT = frozenset({408, 409, 425, 429})
_LOAD = frozenset({429, 503, 529})
_NOT_THERE = frozenset({404, 405, 501})
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""What the HTTP library raises before a byte of the request has left."""
_CONTEXT = (
    "context length",
    "context_length",
    "context window",
    "maximum context",
    "context size",  # llama.cpp: request (1834 tokens) exceeds the available context size (512 tokens)
    "context limit",  # Anthropic: input length and `max_tokens` exceed context limit
    "maximum model length",  # vLLM: longer than the maximum model length
    "inputs tokens + max_new_tokens must be",  # TGI: ... <= 4096. Given: 5000 `inputs` tokens and 200 `max_new_tokens`
    "inputs must have less than",  # TGI: ... 4096 tokens. Given: 5000
    "maximum allowed length",  # SGLang: input length (9000 tokens) exceeds the maximum allowed length
)
_UNPAID = (
    "credit balance",
    "billing",
    "insufficient_quota",
    "exceeded your current quota",
    "usage limits",  # Anthropic: You have reached your specified API usage limits (or: workspace API usage limits)
)
_UNAUTHORIZED = ("organization has been disabled",)  # Anthropic says it with status 400
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status of each of Anthropic's error types, for where the type stands alone."""

_MAY_BE_UNPAID = frozenset({400, 403})
"""With other statuses the same words are of a limit for a minute, or of a billing service that is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong in one attempt. `wait_s` is what the server asked to wait, None when it did not say. `is_load`: there
    were too many requests. `is_unsure`: the server may have done what was asked, its answer was lost. `may_be_billed`: and it
    may cost; a server that was not reached, or answers with an error, charges nothing."""

    reason: str
    message: str
    retryable: bool
    wait_s: float | None = None
    is_load: bool = False
    is_unsure: bool = False
    may_be_billed: bool = False

    def without(self, key: str | None) -> "Fault":
        """The fault with the API key taken out of its message."""
        return replace(self, message=hidden(self.message, key))


def hidden(text: str, key: str | None) -> str:
    """What a server says, without the API key, which some repeat when they complain of a request."""
    if not key:
        return text
    # A short one is no secret and may be a part of any word.
    pattern = re.escape(key) if len(key) >= _SECRET_CHARS else rf"(?<!\w){re.escape(key)}(?!\w)"
    return re.sub(pattern, "[API key]", text)


def without_password(address: str) -> str:
    """An address without the user and the password that may stand in it."""
    return re.sub(r"(//|^)[^/@]*@", r"\1***@", address)


def reply_without(raw: ReplyT, key: str | None) -> ReplyT:
    """A reply with the API key taken out of every text in it. A key that is too short to be a secret or has no digit stays: a
    server that needs none is given a word, which may stand in any answer."""
    if key is None or len(key) < _SECRET_CHARS or not any(character.isdigit() for character in key):
        return raw
    clean: ReplyT = _without(raw, key)
    return clean


def _without(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return hidden(value, key) if key in value else value
    if isinstance(value, list):
        return [_without(each, key) for each in value]
    if isinstance(value, dict):
        return {_without(name, key): _without(each, key) for name, each in value.items()}
    return value


NO_OBJECT = Fault(reason="unavailable", message="a reply that is no JSON object", retryable=True)


def fault_of_status(status: int, message: str, headers: Mapping[str, str], *, code: object = None) -> Fault:
    """The meaning of an HTTP error status. `headers` are looked up in lower case; `code` is the server's own name for the
    error, where it has one."""
    said = f"HTTP {status}: {message}"
    text = message.lower()
    is_spent = status == 429 and code == "insufficient_quota"
    if status == 402 or is_spent or (status in _MAY_BE_UNPAID and any(mark in text for mark in _UNPAID)):
        return Fault(reason="unpaid", message=said, retryable=False)
    if status in {401, 403} or (status == 400 and any(mark in text for mark in _UNAUTHORIZED)):
        return Fault(reason="unauthorized", message=said, retryable=False)
    if status in _NOT_THERE:
        return Fault(reason="not-found", message=said, retryable=False)
    if status in _TRANSIENT or status >= 500:
        reason = "rate-limited" if status == 429 else "unavailable"
        return Fault(
            reason=reason,
            message=said,
            retryable=True,
            wait_s=_retry_after(headers),
            is_load=status in _LOAD,
            is_unsure=status >= 500 and status not in _LOAD,
        )
    if status == 413 or _is_too_long(text):
        return Fault(reason="context-exceeded", message=said, retryable=False)
    return Fault(reason="bad-request", message=said, retryable=False)


def fault_within(raw: Mapping[str, Any], headers: Mapping[str, str]) -> Fault | None:
    """The fault in a reply of status 200 that holds `error` in place of an answer, or in its first choice, as gateways send it
    when the server behind them failed; None for every other reply. Its status is the error's `code`, else what
    its type or its words say, else 503."""
    error = raw.get("error")
    choices = raw.get("choices")
    of_choice = (
        choices[0].get("error") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    )
    if of_choice:
        error = of_choice
    elif not error or choices or raw.get("content"):
        return None
    inner = error if isinstance(error, dict) else {"message": error}
    code = inner.get("code")
    message = str(inner.get("message") or json.dumps(error))
    if str(code).isdecimal() and 400 <= int(str(code)) < 600:
        status = int(str(code))
    else:
        status = STATUS_OF_TYPE.get(str(inner.get("type")), 400 if _is_too_long(message.lower()) else 503)
    fault = fault_of_status(status, f"{message} (in a reply of status 200)", headers, code=code)
    if not of_choice:
        return fault
    # Who may not ask, or asks for what is not there, gets no choice: a filter spoke of this prompt.
    reason = "bad-request" if fault.reason in {"unauthorized", "not-found"} else fault.reason
    return replace(fault, reason=reason, may_be_billed=bool(raw.get("usage")))


def _is_too_long(text: str) -> bool:
    """Whether an error text speaks of the prompt. "max_tokens is too large" is a mistake in the recipe instead, and must not
    be taken out on a document."""
    if any(mark in text.replace("`", "") for mark in _CONTEXT):
        return True
    of_the_prompt = any(word in text for word in ("prompt", "input", "messages"))
    of_the_limit = any(word in text for word in ("max_tokens", "max_completion_tokens"))
    return ("too long" in text or "too large" in text) and of_the_prompt and not of_the_limit


def transport_fault(error: Exception, connection_error: type[Exception]) -> Fault:
    """What it means that no whole reply came: `connection_error` is the client's class for it. Everything else is raised
    again."""
    if isinstance(error, connection_error):
        cause = error.__cause__
        said = f"{error} ({cause!r})" if cause else str(error)
        was_sent = type(cause).__name__ not in _NOT_SENT
        return Fault(reason="unavailable", message=said, retryable=True, is_unsure=True, may_be_billed=was_sent)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        message = f"a reply that is no JSON: {error}"
        return Fault(reason="unavailable", message=message, retryable=True, is_unsure=True, may_be_billed=True)
    if type(error).__module__.split(".")[0] in {"httpx", "httpx2", "httpcore"}:
        # The clients let faults of reading a body through as their HTTP library raises them.
        return Fault(reason="unavailable", message=repr(error), retryable=True, is_unsure=True, may_be_billed=True)
    raise error


def _retry_after(headers: Mapping[str, str]) -> float | None:
    # A date is possible too; no teacher sends one, and the doubling waits serve as well.
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


class Trouble:
    """What keeps requests from being answered just now, for those who watch. Used inside one event loop."""

    def __init__(self) -> None:
        self._since = 0.0
        self._fault: Fault | None = None

    def met(self, fault: Fault) -> None:
        """An attempt met a transient fault."""
        if self._fault is None:
            self._since = asyncio.get_running_loop().time()
        self._fault = fault

    def over(self) -> None:
        """Something was answered."""
        self._fault = None

    def words(self, retry_s: float) -> str:
        """Empty when all is well, and for single faults among answers."""
        seconds = asyncio.get_running_loop().time() - self._since
        if self._fault is None or seconds < SAID_AFTER_S:
            return ""
        return f"no answer for {seconds:.0f} s ({self._fault.message}); asking again, {retry_s:.0f} s long at most"


async def repeat(
    attempt: Callable[[], Awaitable[ResultT | Fault]],
    *,
    retry_s: float,
    trouble: Trouble | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    queued_s: Callable[[], float] = lambda: 0.0,
) -> ResultT:
    """The first result among repeated attempts; `trouble` learns of them. `queued_s` says how long they have waited for their
    turn altogether, which no deadline counts. Raises TeacherError for a fault that asking again
    cannot mend at once, and for a transient one when the next wait would end after `retry_s` seconds."""
    trouble = trouble or Trouble()
    clock = asyncio.get_running_loop().time
    began = clock()
    wait = FIRST_WAIT_S
    attempts = 0
    while True:
        result = await attempt()
        attempts += 1
        if not isinstance(result, Fault):
            trouble.over()
            return result
        if not result.retryable:
            trouble.over()
            raise TeacherError(result.message, reason=result.reason)
        trouble.met(result)
        pause = max(wait * _CHANCE.uniform(0.5, 1.0), min(result.wait_s or 0.0, LONGEST_RETRY_AFTER_S))
        elapsed = clock() - began - queued_s()
        if elapsed + pause > retry_s:
            raise TeacherError(
                f"{result.message} (after {attempts} attempts in {elapsed:.0f} s)",
                reason=result.reason,
                retryable=True,
            )
        await (sleep or asyncio.sleep)(pause)
        wait = min(2 * wait, LONGEST_WAIT_S)
