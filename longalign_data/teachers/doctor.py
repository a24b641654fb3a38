"""One tiny question to a teacher, and in plain words what came of it.

In: the recipe's teacher and how it is reached. Out: findings, each good, to be looked at, or bad:

    ok   reached api.anthropic.com: claude-haiku-5-5 answered in 0.9 s
    ok   the answer is right: 'The lamp is 37 metres above the sea.'
    !    the reply does not name the tokens of its prompt: replies count with the most that they can have cost
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.base import Connection, Raw, TeacherReply, TeacherRequest
from longalign_data.teachers.prices import Prices
from longalign_data.teachers.retry import hidden, without_password
from longalign_data.teachers.table import PROVIDERS, load_teacher

DOCUMENT = (
    "The lighthouse on the rock was finished in 1871. Its lamp is 37 metres above the sea and can be seen from 18 miles "
    "away. Two keepers lived there until 1998, when the lamp was made automatic."
)
INSTRUCTION = "How many metres above the sea is the lamp? Answer in one short sentence."
EXPECTED = "37"
ANSWER = "The lamp is 37 metres above the sea."

ADVICE = {
    "no-key": "give the key of this provider in the environment",
    "unauthorized": "the key is not accepted: check that it is whole, of this provider, and may use this model",
    "unpaid": "the account has no credit left, or its spending limit is reached",
    "not-found": "the server does not know this model, or the address is wrong: check generate.teacher.model and the URL",
    "bad-request": "the server does not take a parameter: check generate.teacher.parameters (some models take no sampling "
    "parameters at all)",
    "context-exceeded": "even this tiny question is too long for the server: check how it was started",
    "rate-limited": "the server is reached and the key accepted, but the limit of requests is used up for now",
    "unavailable": "the server cannot be reached or is overloaded: check the address, and whether it runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`state` is `ok`, `look` (works, but mind this) or `bad` (a build would fail)."""

    state: Literal["ok", "look", "bad"]
    words: str


async def examine(choice: TeacherChoice, connection: Connection, prices: Prices) -> list[Finding]:
    """Asks once and says what works; nothing is raised for a teacher that does not, and the key is never said."""
    found = await _examine(choice, connection, prices)
    return [replace(finding, words=hidden(finding.words, connection.api_key)) for finding in found]


async def _examine(choice: TeacherChoice, connection: Connection, prices: Prices) -> list[Finding]:
    provider = PROVIDERS[choice.provider]
    if provider.is_free:
        return [
            Finding(
                state="ok",
                words=f"{choice.provider!r} is a program of this package: no key, no network, nothing to pay",
            )
        ]
    findings = [_key(choice, connection)]
    request = TeacherRequest(
        model=choice.model,
        document=DOCUMENT,
        instruction=INSTRUCTION,
        max_tokens=choice.max_question_tokens,
        parameters=choice.parameters,
    )
    teacher = load_teacher(
        choice,
        api_key=connection.api_key,
        base_url=connection.base_url,
        timeout_s=connection.timeout_s,
        retry_s=connection.retry_s,
    )
    began = time.monotonic()
    try:
        raw = await teacher.ask(request)
    except TeacherError as error:
        advice = ADVICE.get(error.reason)
        return [*findings, Finding(state="bad", words=f"no answer: {error}" + (f"; {advice}" if advice else ""))]
    finally:
        await teacher.close()
    seconds = time.monotonic() - began
    where = without_password(connection.base_url) if connection.base_url else "the provider's own address"
    findings.append(Finding(state="ok", words=f"reached {where}: {choice.model} answered in {seconds:.1f} s"))
    try:
        reply = provider.read(raw)
    except ValueError as error:
        return [
            *findings,
            Finding(state="bad", words=f"the reply is not in the format of {choice.provider!r}: {error}"),
        ]
    return [*findings, *_of_model(choice, raw), *_of_answer(choice, raw, reply), *_of_bill(choice, raw, reply, prices)]


def _key(choice: TeacherChoice, connection: Connection) -> Finding:
    variable = f"{choice.provider.upper()}_API_KEY"
    if connection.api_key:
        return Finding(state="ok", words=f"a key was given ({variable}, {len(connection.api_key)} characters)")
    if choice.provider == "openai" and connection.base_url:
        return Finding(state="ok", words=f"no key was given ({variable}); a server of your own needs none")
    return Finding(state="bad", words=f"no key was given ({variable} is not set)")


def _of_model(choice: TeacherChoice, raw: Raw) -> Iterator[Finding]:
    served = raw.get("model")
    if isinstance(served, str) and served != choice.model:
        yield Finding(state="look", words=f"the recipe says {choice.model!r}, the server says that {served!r} answered")


def _of_answer(choice: TeacherChoice, raw: Raw, reply: TeacherReply) -> Iterator[Finding]:
    if reply.stop_reason == "max_tokens":
        words = (
            f"the reply was cut off at max_question_tokens ({choice.max_question_tokens:,}), {reply.usage.thinking_tokens:,} "
            "of them thinking: raise the limits, or turn thinking down in generate.teacher.parameters"
        )
        yield Finding(state="bad", words=words)
    elif reply.stop_reason != "end_turn":
        yield Finding(state="bad", words=f"the reply ended with {reply.detail}; only a finished answer can be used")
    elif not reply.text.strip():
        yield Finding(state="bad", words="the reply is finished but empty")
    elif EXPECTED in reply.text:
        yield Finding(state="ok", words=f"finished ({reply.detail}) and right: {_short(reply.text)}")
    else:
        yield Finding(
            state="look", words=f"finished ({reply.detail}), but the document says {EXPECTED}: {_short(reply.text)}"
        )
    if "</think>" in json.dumps(raw):
        words = (
            "the model's thinking stands in the text (</think>); builds leave it out, and it counts against the limits of the "
            "replies: a reasoning parser of the server keeps the two apart, or turn thinking off"
        )
        yield Finding(state="look", words=words)


def _of_bill(choice: TeacherChoice, raw: Raw, reply: TeacherReply, prices: Prices) -> Iterator[Finding]:
    usage = reply.usage
    if not (usage.input_tokens or usage.cache_write_tokens or usage.cache_read_tokens):
        words = "the reply does not name the tokens of its prompt: replies count with the most that they can have cost"
        yield Finding(state="look", words=words)
    else:
        words = f"usage: {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
        if usage.thinking_tokens:
            words += f", {usage.thinking_tokens:,} of these thinking, which are paid like the answer"
        yield Finding(state="ok", words=words)
    if _tells_cache(raw):
        yield Finding(state="ok", words="the usage tells what came from a prompt cache")
    else:
        yield Finding(
            state="look", words="the usage does not tell what came from a prompt cache; its share cannot be shown"
        )
    rate = prices.rate(choice.provider, choice.model)
    if rate is None:
        words = f"no price is known for {choice.model!r}: costs are not told; give prices with --prices FILE"
        yield Finding(state="look", words=words)
    else:
        yield Finding(state="ok", words=f"this question cost {rate.cost(usage):.6f} USD (prices of {prices.dated})")


def _tells_cache(raw: Raw) -> bool:
    usage: Any = raw.get("usage")
    if not isinstance(usage, dict):
        return False
    details = usage.get("prompt_tokens_details")
    return "cache_read_input_tokens" in usage or (isinstance(details, dict) and "cached_tokens" in details)


def _short(text: str, limit: int = 100) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")
