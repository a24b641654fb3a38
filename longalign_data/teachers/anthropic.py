"""Anthropic's Messages API through its official client, one live call a request.

The document is a text block of its own that can carry the cache mark; the instruction is the block after it. Parameters of
the recipe (`thinking`, `output_config`, `temperature` where a model still takes it) go into the body as they are.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.anthropic_batches import AnthropicBatches
from longalign_data.teachers.base import (
    SEPARATOR,
    STILL_THINKING,
    UNWATCHED,
    Connection,
    Raw,
    StopReason,
    TeacherReply,
    TeacherRequest,
    Watch,
    count_of,
    without_thinking,
)
from longalign_data.teachers.cachemark import CacheMark
from longalign_data.teachers.client import Client
from longalign_data.teachers.line import Line
from longalign_data.teachers.retry import Fault, fault_of_status, transport_fault

BASE_URL = "https://api.anthropic.com"

TERMS = (
    "Questions and answers were written by a model of Anthropic through its API. Anthropic's terms of service and usage "
    "policies govern the use of its output, training of models included; check them for your purpose."
)

NOTICE = (
    "Anthropic's terms restrict training models on the output of its models: without written permission only narrow tools that "
    "do not compete with it are allowed. Read them for your purpose, and write what applies to you under generate.teacher.terms; "
    "it goes into every sample and onto the card"
)

_STOP_REASONS: dict[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_exceeded",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause_turn",
}


class AnthropicTeacher:
    """Calls with the official asynchronous client; it is made at the first request, inside its event loop."""

    def __init__(self, choice: TeacherChoice, connection: Connection) -> None:
        del choice  # everything of it travels in each request
        self._connection = connection
        self._client = Client(self._open)
        self._line = Line(connection)
        self._cache = CacheMark(connection.calls_per_document)

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        client = await self._client.ready()
        marked = False

        async def send() -> tuple[Raw, Mapping[str, str]]:
            # Decided at the moment of sending: what was in the cache may have gone while the request waited.
            nonlocal marked
            marked = self._connection.prompt_cache and self._cache.should_mark(request.document)
            # An explicit timeout also lifts the client's refusal of more than 21,333 tokens without streaming.
            response = await client.messages.with_raw_response.create(
                **self._params(request, marked=marked), timeout=self._connection.timeout_s
            )
            return json.loads(await response.text()), response.headers

        raw = await self._line.ask(
            request,
            send,
            fault_of=fault_of,
            is_begun=lambda: self._cache.is_begun(request.document),
            is_cached=lambda: self._cache.is_written(request.document),
            watch=watch,
        )
        num_written = num_read = 0
        with contextlib.suppress(ValueError):
            num_read = count_of(raw.get("usage"), "cache_read_input_tokens")
            num_written = count_of(raw.get("usage"), "cache_creation_input_tokens")
        self._cache.saw(request.document, marked=marked, num_written=num_written, num_read=num_read)
        return raw

    def batches(self) -> AnthropicBatches:
        """The Message Batches API. Documents are not marked for the cache: at half the price the mark costs more than it
        brings."""
        return AnthropicBatches(
            self._client.get(),
            params=self._batch_params,
            fault_of=fault_of,
            retry_s=self._connection.retry_s,
            trouble=self._line.trouble,
            key=self._connection.api_key,
        )

    async def close(self) -> None:
        await self._client.close()

    def status(self) -> str:
        rate = self._cache.hit_rate
        cache = "" if rate is None else f", cache hits {rate:.0%}" + ("" if self._cache.pays else " (marking stopped)")
        return self._line.status() + cache

    def _open(self) -> Any:
        import anthropic

        if not self._connection.api_key:
            raise TeacherError(
                "the teacher 'anthropic' needs an API key and was given none; set ANTHROPIC_API_KEY",
                reason="no-key",
            )
        # Key and address are always passed, so that nothing is taken from the environment behind the caller's back.
        client = anthropic.AsyncAnthropic(
            api_key=self._connection.api_key,
            base_url=self._connection.base_url or BASE_URL,
            timeout=self._connection.timeout_s,
            max_retries=0,
        )
        _ = client.messages  # imports the rest
        return client

    def _params(self, request: TeacherRequest, *, marked: bool) -> dict[str, Any]:
        return {
            "model": request.model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": "user", "content": content_of(request, marked=marked)}],
            "extra_body": dict(request.parameters) or None,
        }

    def _batch_params(self, request: TeacherRequest) -> dict[str, Any]:
        params = self._params(request, marked=False)
        return params | (params.pop("extra_body") or {})


def content_of(request: TeacherRequest, *, marked: bool = False) -> list[dict[str, Any]]:
    """The blocks of the user's turn, end to end `prompt(request)`. The API takes no empty block."""
    if not request.document:
        return [{"type": "text", "text": request.instruction}]
    document: dict[str, Any] = {"type": "text", "text": request.document}
    if marked:
        document["cache_control"] = {"type": "ephemeral"}
    return [document, {"type": "text", "text": SEPARATOR + request.instruction}]


def fault_of(error: Exception) -> Fault:
    """The meaning of an exception of the client; one that is not the client's is raised again."""
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        return fault_of_status(error.status_code, _said(error), error.response.headers)
    return transport_fault(error, anthropic.APIConnectionError)


def read(raw: Raw) -> TeacherReply:
    """A Messages API reply: text blocks end to end, thinking and other blocks skipped, and the thinking that other servers of
    this API leave in the text. Raises ValueError for another format."""
    content, usage = raw.get("content"), raw.get("usage")
    if not isinstance(content, list) or not isinstance(usage, dict):
        raise ValueError("a Messages API reply has a list `content` and an object `usage`")
    text = "".join(
        str(block.get("text") or "") for block in content if isinstance(block, dict) and block.get("type") == "text"
    )
    text, is_thought_out = without_thinking(text)
    given = raw.get("stop_reason")
    stop_details = raw.get("stop_details")
    stop_reason = _STOP_REASONS.get(str(given), "unknown")
    if stop_reason == "end_turn" and not is_thought_out:
        stop_reason, stop_details = "unknown", STILL_THINKING
    return TeacherReply(
        text=text,
        stop_reason=stop_reason,
        usage=Usage(
            input_tokens=count_of(usage, "input_tokens"),
            cache_write_tokens=count_of(usage, "cache_creation_input_tokens"),
            cache_read_tokens=count_of(usage, "cache_read_input_tokens"),
            output_tokens=count_of(usage, "output_tokens"),
            thinking_tokens=count_of(usage.get("output_tokens_details"), "thinking_tokens"),
        ),
        detail=f"stop_reason {given!r}" + (f", {json.dumps(stop_details, sort_keys=True)}" if stop_details else ""),
    )


def _said(error: Any) -> str:
    return str(error.api_message or error.message)
