"""Anthropic's Message Batches: one JSON body a batch, no label, no word on the items before the whole batch has ended.

A line of the results: {"custom_id": "q-9f0c...", "result": {"type": "succeeded", "message": {...}}}
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from longalign_data.teachers.base import Raw
from longalign_data.teachers.batch_calls import NOTHING_SAID, BatchCalls, object_of
from longalign_data.teachers.batches import EXPIRED, BatchLimits, BatchStatus, Item, ItemResult
from longalign_data.teachers.retry import STATUS_OF_TYPE, fault_of_status


class AnthropicBatches(BatchCalls):
    """Message Batches; see `batches.Batches`."""

    limits = BatchLimits(max_requests=100_000, max_bytes=240_000_000, kept_s=29 * 86_400)

    def size(self, item: Item) -> int:
        return len(json.dumps(self._item(item), ensure_ascii=False, separators=(",", ":")).encode()) + 1

    def _item(self, item: Item) -> dict[str, Any]:
        return {"custom_id": item.custom_id, "params": self._params(item.request)}

    @property
    def _api(self) -> Any:
        return self._client.messages.batches.with_raw_response

    async def submit(self, label: str, items: Sequence[Item]) -> BatchStatus:
        del label  # the API has no place for one
        raw = await self._call_once(self._api.create, requests=[self._item(item) for item in items])
        return self._submitted(_status, raw)

    async def listed(self, since: float) -> AsyncIterator[BatchStatus]:
        async for raw in self._pages(self._api.list, after="after_id"):
            status = self._batch(_status, raw)
            if status.created < since:
                return
            yield status

    async def status(self, batch_id: str) -> BatchStatus:
        return self._batch(_status, await self._call(self._api.retrieve, message_batch_id=batch_id))

    async def results(self, batch_id: str) -> AsyncIterator[ItemResult]:
        # Of every request of an ended batch there is a line.
        status = await self.status(batch_id)
        streamed = self._client.messages.batches.with_streaming_response
        async for result in self._results(lambda: streamed.results(batch_id), _result, least=status.num_requests):
            yield result


def _status(raw: Raw) -> BatchStatus:
    from datetime import datetime

    has_ended = raw["processing_status"] == "ended"
    is_gone = has_ended and (raw.get("archived_at") is not None or not raw.get("results_url"))
    return BatchStatus(
        batch_id=raw["id"],
        created=datetime.fromisoformat(raw["created_at"]).timestamp(),
        num_requests=sum(raw["request_counts"].values()),
        state="gone" if is_gone else "ended" if has_ended else "running",
        detail=f"archived at {raw.get('archived_at')}" if is_gone else "",
    )


def _result(line: Raw) -> ItemResult:
    custom_id, result = str(line["custom_id"]), line["result"]
    if result["type"] == "succeeded":
        return ItemResult(custom_id=custom_id, raw=object_of(result["message"]))
    if result["type"] == "errored":
        error = result.get("error")
        inner = error.get("error", error) if isinstance(error, dict) else error
        kind, said = (inner.get("type"), inner.get("message")) if isinstance(inner, dict) else (None, inner)
        status = STATUS_OF_TYPE.get(str(kind), 500)
        return ItemResult(custom_id=custom_id, fault=fault_of_status(status, str(said or NOTHING_SAID), {}))
    return ItemResult(custom_id=custom_id, fault=EXPIRED)
