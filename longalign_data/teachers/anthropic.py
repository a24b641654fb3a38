"""Anthropic's Messages API through its official client, one live call a request.

The document is a text block of its own that carries the cache mark; the instruction is the block after it. Parameters of
the recipe (`thinking`, `output_config`, `temperature` where a model still takes it) go into the body as they are.
"""

import json
from typing import Any

from longalign_data.errors import TeacherError
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.base import SEPARATOR, Connection, Raw, StopReason, TeacherReply, TeacherRequest
from longalign_data.teachers.retry import Fault, ask_until, fault_of_status

BASE_URL = "https://api.anthropic.com"

TERMS = (
    "Questions and answers were written by a model of Anthropic through its API. Anthropic's terms of service and usage "
    "policies govern the use of its output, training of models included; check them for your purpose."
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
    """Live calls with the official asynchronous client; it is made at the first request, inside its event loop."""

    def __init__(self, choice: TeacherChoice, connection: Connection) -> None:
        del choice  # everything of it travels in each request
        self._connection = connection
        self._client: Any = None

    async def ask(self, request: TeacherRequest) -> Raw:
        import anthropic

        client = self._open()
        body = self._body(request)

        async def attempt() -> Raw | Fault:
            try:
                response = await client.messages.with_raw_response.create(**body)
                raw = json.loads(await response.text())
            except anthropic.APIStatusError as error:
                return fault_of_status(error.status_code, _said(error), error.response.headers)
            except anthropic.APIConnectionError as error:
                cause = error.__cause__
                return Fault(
                    reason="unavailable", message=f"{error} ({cause!r})" if cause else str(error), retryable=True
                )
            except ValueError as error:
                return Fault(reason="unavailable", message=f"a reply that is no JSON: {error}", retryable=True)
            if not isinstance(raw, dict):
                return Fault(reason="unavailable", message="a reply that is no JSON object", retryable=True)
            return raw

        return await ask_until(attempt, retry_s=self._connection.retry_s)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _open(self) -> Any:
        if self._client is None:
            import anthropic

            if not self._connection.api_key:
                raise TeacherError(
                    "the teacher 'anthropic' needs an API key and was given none; set ANTHROPIC_API_KEY",
                    reason="no-key",
                )
            # Key and address are always passed, so that nothing is taken from the environment behind the caller's back.
            self._client = anthropic.AsyncAnthropic(
                api_key=self._connection.api_key,
                base_url=self._connection.base_url or BASE_URL,
                timeout=self._connection.timeout_s,
                max_retries=0,
            )
        return self._client

    def _body(self, request: TeacherRequest) -> dict[str, Any]:
        document: dict[str, Any] = {"type": "text", "text": request.document}
        if self._connection.prompt_cache:
            document["cache_control"] = {"type": "ephemeral"}
        instruction = {"type": "text", "text": SEPARATOR + request.instruction}
        return {
            "model": request.model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": "user", "content": [document, instruction]}],
            "extra_body": dict(request.parameters) or None,
            # An explicit timeout also lifts the client's refusal of more than 21,333 tokens without streaming.
            "timeout": self._connection.timeout_s,
        }


def read(raw: Raw) -> TeacherReply:
    """A Messages API reply: text blocks end to end, thinking and other blocks skipped. Raises ValueError for another format."""
    content, usage = raw.get("content"), raw.get("usage")
    if not isinstance(content, list) or not isinstance(usage, dict):
        raise ValueError("a Messages API reply has a list `content` and an object `usage`")
    text = "".join(
        str(block.get("text") or "") for block in content if isinstance(block, dict) and block.get("type") == "text"
    )
    given = raw.get("stop_reason")
    stop_details = raw.get("stop_details")
    thinking = usage.get("output_tokens_details")
    return TeacherReply(
        text=text,
        stop_reason=_STOP_REASONS.get(str(given), "unknown"),
        usage=Usage(
            input_tokens=_count(usage, "input_tokens"),
            cache_write_tokens=_count(usage, "cache_creation_input_tokens"),
            cache_read_tokens=_count(usage, "cache_read_input_tokens"),
            output_tokens=_count(usage, "output_tokens"),
            thinking_tokens=_count(thinking, "thinking_tokens") if isinstance(thinking, dict) else 0,
        ),
        detail=f"stop_reason {given!r}" + (f", {json.dumps(stop_details, sort_keys=True)}" if stop_details else ""),
    )


def _count(usage: Raw, name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _said(error: Any) -> str:
    return str(error.api_message or error.message)
