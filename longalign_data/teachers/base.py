"""What a teacher is: something that answers one request about one document.

In: a `TeacherRequest`. Out: the provider's raw reply, a JSON object exactly as it came, which the caller stores before
anything reads it. `Provider.read` turns a stored raw reply into a `TeacherReply` and depends on nothing else, so a
ledger can be read again without the network, and a bug in the reading never costs a paid reply.

What every provider is sent is `prompt(request)`: the document, a blank line, the instruction; no system prompt. The
document is the same prefix, byte for byte, when questions are asked for and when one of them is answered, which is what
prompt caches key on.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import JsonValue

from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage

Raw = dict[str, Any]
"""A provider's reply as JSON says it."""

StopReason = Literal[
    "end_turn", "max_tokens", "refusal", "context_exceeded", "stop_sequence", "tool_use", "pause_turn", "unknown"
]
"""Why a reply ended, in one vocabulary for all providers. Only `end_turn` is a finished answer."""

SEPARATOR = "\n\n"

STILL_THINKING = "the text ends within its thinking: <think> is not closed"

REHEARSED = "longalign_fake_provider"
"""Stands in every raw reply of `longalign fake-provider`, so that a rehearsal is never taken for what a model wrote."""

ABORTING_REASONS = frozenset({"unauthorized", "unpaid", "not-found", "no-key"})
"""Reasons of a TeacherError that hold for every request alike: the run ends with them instead of rejecting documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRequest:
    """One call: `instruction` about `document` (empty: about none), answered by `model` in at most `max_tokens` tokens.
    `parameters` go into the provider's request body as they are."""

    model: str
    document: str
    instruction: str
    max_tokens: int
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherReply:
    """What a raw reply says. `evidence` are the characters (start inclusive, end exclusive) of the document that the
    answer quotes, where the teacher tells; `detail` says more about a stop reason other than `end_turn`."""

    text: str
    stop_reason: StopReason
    usage: Usage
    evidence: Sequence[tuple[int, int]] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a teacher is reached; none of it changes what is asked.

    One attempt may take `timeout_s` seconds; transient faults are retried until `retry_s` seconds have passed. At most
    `concurrency` requests are under way at once; the level within is found by itself. `prompt_cache` allows marking
    documents for the provider's cache where it wants a mark and the mark pays for `calls_per_document` calls.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    timeout_s: float = 600.0
    retry_s: float = 600.0
    concurrency: int = 64
    prompt_cache: bool = True
    calls_per_document: int = 2


class Watch(Protocol):
    """Is told of the attempts at one request. What it raises ends the asking."""

    async def sending(self) -> None:
        """An attempt leaves as soon as this returns."""
        ...

    async def lost(self) -> None:
        """The attempt may have been answered and billed, and no reply came."""
        ...


class _Unwatched:
    async def sending(self) -> None:
        return None

    async def lost(self) -> None:
        return None


UNWATCHED: Watch = _Unwatched()
"""For those who do not want to hear of attempts."""


class Teacher(Protocol):
    """A connection to something that answers. Used inside one event loop."""

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        """The provider's reply; `watch` is told of every attempt before it leaves. Raises TeacherError: `retryable` when the
        fault was transient and outlasted the retries, with a reason of `ABORTING_REASONS` when no request can succeed, else
        because of this one request."""
        ...

    async def close(self) -> None:
        """Closes the connection."""
        ...

    def status(self) -> str:
        """What somebody who watches may want to know: requests under way, hits of the prompt cache. May be empty."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One kind of teacher: how it is opened, how its raw replies are read (raises ValueError for one that is not in the
    provider's format), what is said of its output's use when the recipe says nothing, whether it is free and
    deterministic, and what its users should have read before they train on the output, where the provider behind this address
    (None: its own) restricts that; empty where not."""

    open: Callable[[TeacherChoice, Connection], Teacher]
    read: Callable[[Raw], TeacherReply]
    terms: str
    is_free: bool = False
    notice: Callable[[str | None], str] = lambda base_url: ""


MOST_TOKENS = 2**31 - 1
"""More than this no reply used; sums of such counts fit every store."""


def count_of(usage: Any, name: str) -> int:
    """A number of tokens as a usage names it, "6000" and 2.5 (rounded up) too; 0 where it names none, or something else, which does
    not decide about the text. Raises ValueError for one that cannot be."""
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    if 0 <= value <= MOST_TOKENS:
        return math.ceil(value)
    raise ValueError(f"the usage gives {name} as no number of tokens; expected 0 to {MOST_TOKENS:,}")


_OPENING = re.compile(r"\s*<think>(?:(?P<line>[ \t]*(?:\r?\n|\Z))|(?P<blank>[ \t]+))?")
_END_OF_LINE = re.compile(
    r"```(?s:.*?)(?:```|\Z)|(?P<end>^</think>[ \t\r]*$|(?<=[^\s<>/\\(])</think>[ \t\r]*\n)", re.MULTILINE
)
_BEFORE, _BEHIND = r"""[`'"„“‚‘「『«‹(\[]""", r"""[`'"“”‘’」』»›)\]]"""
_UNQUOTED_OPENING, _UNQUOTED_END = (
    re.compile(rf"(?<!{_BEFORE}){tag}|{tag}(?!{_BEHIND})") for tag in ("<think>", "</think>")
)


def without_thinking(text: str) -> tuple[str, bool]:
    """A text without the thinking that servers without a reasoning parser leave at its head, and whether that came to its end.

    Thinking ends at the first `</think>` that ends a line and is in no code block. Some chat templates put its opening tag into
    the prompt; with one at the head, any `</think>` that is not in quotes will do, unless the tag reads as a word of a sentence.
    All else is a text about thinking."""
    opening = _OPENING.match(text)
    end = next((found for found in _END_OF_LINE.finditer(text) if found["end"]), None)
    if opening and not end and not opening["blank"]:
        end = _UNQUOTED_END.search(text)
    if end and (opening or not _UNQUOTED_OPENING.search(text, 0, end.start())):
        return text[end.end() :].lstrip(), True
    return ("", False) if opening and opening["line"] is not None else (text, True)


def prompt(request: TeacherRequest) -> str:
    """The whole of what a teacher is told, as one text; without a document, the instruction alone."""
    return request.document + SEPARATOR + request.instruction if request.document else request.instruction
