"""OpenAI's Batch API: a JSONL file is uploaded, a batch made of it; replies and errors come in two files.

A line of the input: {"custom_id": "q-9f0c...", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
"""

import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from longalign_data.teachers.base import Raw
from longalign_data.teachers.batch_calls import NOTHING_SAID, BatchCalls, object_of
from longalign_data.teachers.batches import EXPIRED, BatchLimits, BatchStatus, Item, ItemResult
from longalign_data.teachers.retry import fault_of_status, fault_within

ENDPOINT = "/v1/chat/completions"
LABEL = "longalign_submission"
_STATES = {"failed": "failed", "completed": "ended", "expired": "ended", "cancelled": "ended"}


class OpenAIBatches(BatchCalls):
    """The Batch API; see `batches.Batches`."""

    limits = BatchLimits(max_requests=50_000, max_bytes=190_000_000, kept_s=30 * 86_400)

    def size(self, item: Item) -> int:
        return len(self._line(item))

    def _line(self, item: Item) -> bytes:
        line = {"custom_id": item.custom_id, "method": "POST", "url": ENDPOINT, "body": self._params(item.request)}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"

    @property
    def _api(self) -> Any:
        return self._client.batches.with_raw_response

    async def submit(self, label: str, items: Sequence[Item]) -> BatchStatus:
        content = b"".join(self._line(item) for item in items)
        # A file uploaded twice costs nothing; only the batch made of it does.
        create_file = self._client.files.with_raw_response.create
        file = await self._call(create_file, file=(f"{label}.jsonl", content), purpose="batch")
        raw = await self._call_once(
            self._api.create,
            input_file_id=file.get("id"),
            endpoint=ENDPOINT,
            completion_window="24h",
            metadata={LABEL: label},
        )
        return self._submitted(_status, raw)

    async def listed(self, since: float) -> AsyncIterator[BatchStatus]:
        async for raw in self._pages(self._api.list, after="after"):
            status = self._batch(_status, raw)
            # The stamps are whole seconds.
            if status.created + 1 < since:
                return
            yield status

    async def status(self, batch_id: str) -> BatchStatus:
        return self._batch(_status, await self._call(self._api.retrieve, batch_id=batch_id))

    async def results(self, batch_id: str) -> AsyncIterator[ItemResult]:
        batch = await self._call(self._api.retrieve, batch_id=batch_id)
        # What was completed is paid for, and has a line in the first file.
        files = ((batch.get("output_file_id"), _counts(batch)["completed"]), (batch.get("error_file_id"), 0))
        for file_id, least in files:
            if file_id:
                content = partial(self._client.files.with_streaming_response.content, file_id)
                async for result in self._results(content, _result, least=least):
                    yield result


def _status(raw: Raw) -> BatchStatus:
    state = _STATES.get(str(raw["status"]), "running")
    errors = (raw.get("errors") or {}).get("data") or []
    return BatchStatus(
        batch_id=raw["id"],
        created=float(raw["created_at"]),
        num_requests=_counts(raw)["total"],
        state="failed" if state == "failed" else "ended" if state == "ended" else "running",
        label=(raw.get("metadata") or {}).get(LABEL),
        detail="; ".join(f"{error.get('message')} [{error.get('code')}]" for error in errors),
    )


def _counts(raw: Raw) -> dict[str, int]:
    """The requests of a batch, and how many of them are answered; 0 where the server does not count."""
    counts = raw.get("request_counts") or {}
    return {name: int(counts.get(name) or 0) for name in ("total", "completed")}


def _result(line: Raw) -> ItemResult:
    custom_id, response = str(line["custom_id"]), line.get("response")
    if not response:
        said, code = _error(line.get("error"))
        if code in {"batch_expired", "batch_cancelled"}:
            return ItemResult(custom_id=custom_id, fault=EXPIRED)
        return ItemResult(custom_id=custom_id, fault=fault_of_status(500, said, {}))
    status, body = int(response["status_code"]), response.get("body")
    if status == 200:
        fault = fault_within(object_of(body), {})
        return ItemResult(custom_id=custom_id, raw=None if fault else body, fault=fault)
    said, code = _error(body.get("error", body) if isinstance(body, dict) else body)
    return ItemResult(custom_id=custom_id, fault=fault_of_status(status, said, {}, code=code))


def _error(error: Any) -> tuple[str, object]:
    """The message and the code of an error; gateways put a text, or nothing, in its place."""
    if isinstance(error, dict):
        return str(error.get("message") or NOTHING_SAID), error.get("code")
    return str(error or NOTHING_SAID), None
