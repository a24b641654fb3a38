"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, OpenAI itself.

The user message is one string, not two parts: servers join parts in different ways (some with a line break), and the
prompt would differ from server to server. Prefix caches of these servers work on tokens and want no mark.
"""

import json
import textwrap
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.base import (
    STILL_THINKING,
    UNWATCHED,
    Connection,
    Raw,
    StopReason,
    TeacherReply,
    TeacherRequest,
    Watch,
    count_of,
    prompt,
    without_thinking,
)
from longalign_data.teachers.cachemark import Begun
from longalign_data.teachers.client import Client
from longalign_data.teachers.line import Line
from longalign_data.teachers.openai_batches import OpenAIBatches
from longalign_data.teachers.retry import Fault, fault_of_status, hidden, transport_fault

BASE_URL = "https://api.openai.com/v1"

TERMS = (
    "Questions and answers were written by the named model behind an OpenAI-compatible server. The licence of that model "
    "and the terms of whoever serves it govern the use of its output; check them for your purpose."
)

NOTICE = (
    "OpenAI's terms restrict training models on the output of its models: it may not be used to develop models that compete with "
    "OpenAI. Read them for your purpose, and write what applies to you under generate.teacher.terms; it goes into every sample "
    "and onto the card"
)

_SAID_CHARS = 500
_READ_CHARS = 8 * _SAID_CHARS
"""Some servers repeat the whole request."""

_STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}


def notice(base_url: str | None) -> str:
    """What OpenAI restricts, where it is OpenAI that answers at this address (None: its own); of other servers nothing is known."""
    return NOTICE if _is_openai(base_url) else ""


def _is_openai(base_url: str | None) -> bool:
    host = urlsplit(base_url or BASE_URL).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


class OpenAITeacher:
    """Live calls with the official asynchronous client; it is made at the first request, inside its event loop."""

    def __init__(self, choice: TeacherChoice, connection: Connection) -> None:
        del choice  # everything of it travels in each request
        self._connection = connection
        self._client = Client(self._open)
        self._line = Line(connection)
        self._begun = Begun()

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        client = await self._client.ready()

        async def send() -> tuple[Raw, Mapping[str, str]]:
            params = self._params(request)
            first = {name: params.pop(name) for name in ("model", "messages")}
            response = await client.chat.completions.with_raw_response.create(
                **first, extra_body=params, timeout=self._connection.timeout_s
            )
            return json.loads(response.text), response.headers

        # What OpenAI reads from its cache is cheaper and counts against the limit of tokens all the same.
        raw = await self._line.ask(
            request, send, fault_of=self._fault_of, is_begun=lambda: request.document in self._begun, watch=watch
        )
        self._begun.add(request.document)
        return raw

    def batches(self) -> OpenAIBatches:
        """The Batch API; servers other than OpenAI's mostly have none."""
        return OpenAIBatches(
            self._client.get(),
            params=self._params,
            fault_of=self._fault_of,
            retry_s=self._connection.retry_s,
            trouble=self._line.trouble,
            key=self._connection.api_key,
        )

    def _params(self, request: TeacherRequest) -> dict[str, Any]:
        # OpenAI's newer models refuse `max_tokens`; many other servers know nothing else.
        limit = "max_completion_tokens" if _is_openai(self._connection.base_url) else "max_tokens"
        return {
            "model": request.model,
            "messages": [{"role": "user", "content": prompt(request)}],
            limit: request.max_tokens,
            **request.parameters,
        }

    def _fault_of(self, error: Exception) -> Fault:
        return fault_of(error, key=self._connection.api_key)

    def status(self) -> str:
        return self._line.status()

    async def close(self) -> None:
        await self._client.close()

    def _open(self) -> Any:
        import openai

        if not self._connection.api_key and not self._connection.base_url:
            raise TeacherError(
                "the teacher 'openai' needs the address of a server (OPENAI_BASE_URL), or an API key "
                "(OPENAI_API_KEY) for OpenAI's own, and was given neither",
                reason="no-key",
            )
        client = openai.AsyncOpenAI(
            # The client insists on a key; servers of one's own ignore it.
            api_key=self._connection.api_key or "none",
            base_url=self._connection.base_url or BASE_URL,
            timeout=self._connection.timeout_s,
            max_retries=0,
        )
        _ = client.chat.completions  # imports the rest
        return client


def fault_of(error: Exception, *, key: str | None) -> Fault:
    """The meaning of an exception of the client; one that is not the client's is raised again. `key` is left out of what is cut
    from a server's words."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return fault_of_status(error.status_code, _said(error, key), error.response.headers, code=error.code)
    return transport_fault(error, openai.APIConnectionError)


def read(raw: Raw) -> TeacherReply:
    """A chat completion: the first choice; of content in parts the texts, end to end, and of these not the thinking. Raises
    ValueError for another format."""
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("a chat completion has a list `choices` with at least one object")
    if choices[0].get("error"):
        raise ValueError(f"the choice of a chat completion holds an error: {json.dumps(choices[0]['error'])}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise ValueError("the choice of a chat completion has an object `message`")
    given = choices[0].get("finish_reason")
    refusal = message.get("refusal")
    text, is_thought_out = without_thinking(_text(message.get("content")))
    stop_reason = "refusal" if refusal else _STOP_REASONS.get(str(given), "unknown")
    is_thinking = stop_reason == "end_turn" and not is_thought_out
    said = refusal or (STILL_THINKING if is_thinking else "")
    return TeacherReply(
        text=text,
        stop_reason="unknown" if is_thinking else stop_reason,
        usage=_usage(raw.get("usage")),
        detail=f"finish_reason {given!r}" + (f": {said}" if said else ""),
    )


def _text(content: Any) -> str:
    """Content is a text, or a list of parts as Mistral's reasoning models send it: {"type": "text", "text": ...} and others."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _usage(usage: Any) -> Usage:
    """`prompt_tokens` includes what was read from a cache and what was written to it; `Usage.input_tokens` does not."""
    if not isinstance(usage, dict):
        return Usage()
    cached = count_of(usage.get("prompt_tokens_details"), "cached_tokens")
    written = count_of(usage.get("prompt_tokens_details"), "cache_write_tokens")
    return Usage(
        input_tokens=max(0, count_of(usage, "prompt_tokens") - cached - written),
        cache_write_tokens=written,
        cache_read_tokens=cached,
        output_tokens=count_of(usage, "completion_tokens"),
        thinking_tokens=count_of(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _said(error: Any, key: str | None) -> str:
    """What a server says against a request: OpenAI's `error.message`, a text in place of `error` (TGI), `detail` (FastAPI), or
    whatever text the body is. The client's own words hold only the first."""
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        if inner.get("message"):
            code = inner.get("code")
            return f"{inner['message']}" + (f" [{code}]" if code else "")
        inner = inner.get("detail") or inner
    said = inner if isinstance(inner, str) else json.dumps(inner) if inner else ""
    # The key goes before any cut: half of it would not be known for one. A page of a proxy says no more than its status.
    said = hidden(said, key)[:_READ_CHARS]
    short = textwrap.shorten(said, _SAID_CHARS, placeholder=" …", break_on_hyphens=False)
    return short if short and not short.startswith("<") else str(error.message)
