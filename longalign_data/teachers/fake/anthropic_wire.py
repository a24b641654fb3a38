"""What Anthropic's wire says: replies, errors, message batches and the lines of their results, as JSON objects."""

import time
from datetime import UTC, datetime
from typing import Any

from longalign_data.identity import digest
from longalign_data.teachers.base import REHEARSED
from longalign_data.teachers.fake.state import Asked, Batch, BatchItem, Refused, Reply


def message(asked: Asked, reply: Reply) -> dict[str, Any]:
    """A Messages reply."""
    kind = reply.fault.kind if reply.fault else None
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    if kind == "thinking-first":
        blocks.insert(0, {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln"})
    elif kind == "several-blocks":
        half = len(reply.text) // 2
        blocks = [{"type": "text", "text": part} for part in (reply.text[:half], reply.text[half:])]
    stops = {"context_exceeded": "model_context_window_exceeded"}
    return {
        "id": f"msg_{digest([asked.key, reply.text])[:24]}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": blocks,
        "stop_reason": stops.get(reply.stop, reply.stop),
        "stop_sequence": None,
        REHEARSED: True,
        "stop_details": {"type": "refusal", "category": "general_harms"} if reply.stop == "refusal" else None,
        "usage": {
            "input_tokens": reply.billed.input,
            "cache_creation_input_tokens": reply.billed.cache_write,
            "cache_read_input_tokens": reply.billed.cache_read,
            "output_tokens": reply.billed.output,
            "output_tokens_details": {"thinking_tokens": 50 if kind == "thinking-first" else 0},
            "service_tier": "standard",
        },
    }


def error(refused: Refused) -> dict[str, Any]:
    """The body of an error response."""
    return {"type": "error", "error": {"type": refused.kind, "message": refused.message}, "request_id": None}


def batch_object(batch: Batch, base: str, *, archived: bool = False) -> dict[str, Any]:
    """A message batch, with its counts once it has ended."""

    def stamp(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")

    kinds = [item.result for item in batch.items] if batch.settled else []
    counts = {
        "processing": 0 if batch.settled else len(batch.items),
        "succeeded": sum(isinstance(result, Reply) for result in kinds),
        "errored": sum(isinstance(result, Refused) for result in kinds),
        "expired": sum(result == "expired" for result in kinds) if not batch.cancelled else 0,
        "canceled": len(kinds) if batch.cancelled else 0,
    }
    return {
        "id": batch.batch_id,
        "type": "message_batch",
        "processing_status": "ended" if batch.settled else "in_progress",
        "request_counts": counts,
        "created_at": stamp(batch.created),
        "ended_at": stamp(batch.ready) if batch.settled else None,
        "expires_at": stamp(batch.created + 86_400),
        "archived_at": stamp(time.time()) if archived else None,
        "cancel_initiated_at": None,
        "results_url": f"{base}/v1/messages/batches/{batch.batch_id}/results"
        if batch.settled and not archived
        else None,
    }


def result_line(item: BatchItem) -> dict[str, Any]:
    """A line of the results."""
    result: dict[str, Any]
    if isinstance(item.result, Reply):
        assert isinstance(item.asked, Asked)
        whole = message(item.asked, item.result)
        whole["usage"]["service_tier"] = "batch"
        result = {"type": "succeeded", "message": whole}
    elif isinstance(item.result, Refused):
        result = {"type": "errored", "error": error(item.result)}
    else:
        result = {"type": "expired"}
    return {"custom_id": item.custom_id, "result": result}
