"""What OpenAI's wire says: completions, errors, files, batches and the lines of their files, as JSON objects."""

import time
from typing import Any

from longalign_data.identity import digest
from longalign_data.teachers.base import REHEARSED
from longalign_data.teachers.fake.state import Asked, Batch, BatchItem, Refused, Reply


def completion(asked: Asked, reply: Reply) -> dict[str, Any]:
    """A chat completion."""
    finish = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter", "context_exceeded": "length"}
    prompt_tokens = reply.billed.input + reply.billed.cache_read + reply.billed.cache_write
    return {
        "id": f"chatcmpl-{digest([asked.key, reply.text])[:24]}",
        "object": "chat.completion",
        REHEARSED: True,
        "created": int(time.time()),
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish[reply.stop],
                "logprobs": None,
                "message": {
                    "role": "assistant",
                    "content": reply.text or None,
                    "refusal": "I cannot help with that." if reply.stop == "refusal" else None,
                },
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reply.billed.output,
            "total_tokens": prompt_tokens + reply.billed.output,
            "prompt_tokens_details": {"cached_tokens": reply.billed.cache_read},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def error(refused: Refused) -> dict[str, Any]:
    """What stands under `error` in the body of an error response."""
    return {"message": refused.message, "type": refused.kind, "param": None, "code": None}


def batch_object(batch: Batch) -> dict[str, Any]:
    """A batch object."""
    status = "in_progress"
    if batch.failed:
        status = "failed"
    elif batch.cancelled:
        status = "cancelled"
    elif batch.settled:
        status = "completed"
    num_done = sum(isinstance(item.result, Reply) for item in batch.items)
    errors = {"object": "list", "data": [{"code": batch.failed_code, "message": batch.failed, "line": None}]}
    return {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "errors": errors if batch.failed else None,
        "input_file_id": batch.files[0],
        "completion_window": "24h",
        "status": status,
        "output_file_id": (batch.files[1] or None) if len(batch.files) > 1 else None,
        "error_file_id": (batch.files[2] or None) if len(batch.files) > 1 else None,
        "created_at": int(batch.created),
        "expires_at": int(batch.created) + 86_400,
        "completed_at": int(batch.ready) if batch.settled else None,
        "request_counts": {
            "total": len(batch.items),
            "completed": num_done if batch.settled else 0,
            "failed": len(batch.items) - num_done if batch.settled else 0,
        },
        "metadata": dict(batch.metadata),
    }


def result_line(batch: Batch, item: BatchItem) -> dict[str, Any]:
    """A line of the output or the error file."""
    line: dict[str, Any] = {
        "id": f"batch_req_{digest([batch.batch_id, item.custom_id])[:24]}",
        "custom_id": item.custom_id,
        "response": None,
        "error": None,
    }
    if isinstance(item.result, Reply):
        assert isinstance(item.asked, Asked)
        line["response"] = {"status_code": 200, "request_id": "req", "body": completion(item.asked, item.result)}
    elif isinstance(item.result, Refused):
        line["response"] = {
            "status_code": item.result.status,
            "request_id": "req",
            "body": {"error": error(item.result)},
        }
    else:
        line["error"] = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
    return line


def file_object(file_id: str, size: int) -> dict[str, Any]:
    """A file object."""
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "filename": "batch.jsonl",
        "purpose": "batch",
        "status": "processed",
    }
