"""Counting the tokens of a prompt with the provider's own tokenizer, which costs nothing.

Only Anthropic has an endpoint for it (`/v1/messages/count_tokens`); it has a rate limit of its own.
"""

import json
from collections.abc import Sequence
from typing import Any

from longalign_data.errors import TeacherError, UserError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.anthropic import BASE_URL, content_of, fault_of
from longalign_data.teachers.base import Connection, TeacherRequest


async def count_prompts(
    choice: TeacherChoice, connection: Connection, requests: Sequence[TeacherRequest]
) -> Sequence[int]:
    """Tokens of each prompt as the provider counts them. Raises UserError for a provider that cannot be asked, and
    TeacherError when it does not answer."""
    if choice.provider != "anthropic":
        raise UserError(
            f"generate.teacher.provider: {choice.provider!r} has no free counting endpoint; estimate without --pilot, or "
            "ask a few documents first: a build that has replies is estimated from them"
        )
    if not connection.api_key:
        raise TeacherError("counting needs an API key; set ANTHROPIC_API_KEY", reason="no-key")
    import anthropic

    # The client's own retries do here: counting is free and nothing is lost.
    client = anthropic.AsyncAnthropic(
        api_key=connection.api_key, base_url=connection.base_url or BASE_URL, timeout=60.0, max_retries=4
    )
    counts: list[int] = []
    try:
        for request in requests:
            turn: Any = {"role": "user", "content": content_of(request)}
            counted = await client.messages.count_tokens(model=request.model, messages=[turn])
            num_tokens = getattr(counted, "input_tokens", None)
            if type(num_tokens) is not int or num_tokens < 1:
                raise TeacherError(
                    "counting tokens: the server answers without a number `input_tokens`, so it has no counting endpoint; "
                    "estimate without --pilot",
                    reason="not-found",
                )
            counts.append(num_tokens)
    except (anthropic.APIStatusError, anthropic.APIConnectionError, json.JSONDecodeError) as error:
        # The client's error repeats what the server said, the key perhaps with it.
        fault = fault_of(error).without(connection.api_key)
        advice = "; a server without a counting endpoint? estimate without --pilot" * (fault.reason == "not-found")
        raise TeacherError(
            f"counting tokens: {fault.message}{advice}", reason=fault.reason, retryable=fault.retryable
        ) from None
    finally:
        await client.close()
    return counts
