"""Counting the tokens of a prompt with the provider's own tokenizer, which costs nothing.

Only Anthropic has an endpoint for it (`/v1/messages/count_tokens`); it has a rate limit of its own.
"""

from collections.abc import Sequence
from typing import Any

from longalign_data.errors import TeacherError, UserError
from longalign_data.recipe import TeacherChoice
from longalign_data.teachers.anthropic import BASE_URL, content_of
from longalign_data.teachers.base import Connection, TeacherRequest
from longalign_data.teachers.retry import fault_of_status


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
            counts.append(counted.input_tokens)
    except anthropic.APIStatusError as error:
        fault = fault_of_status(error.status_code, str(error.message), error.response.headers)
        raise TeacherError(f"counting tokens: {fault.message}", reason=fault.reason) from error
    except anthropic.APIConnectionError as error:
        raise TeacherError(f"counting tokens: {error}", reason="unavailable", retryable=True) from error
    finally:
        await client.close()
    return counts
