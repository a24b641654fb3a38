"""Anthropic's Message Batches: one JSON body a batch, no label, no word on the items before the whole batch has ended.

A line of the results: {"custom_id": "q-9f0c...", "result": {"type": "succeeded", "message": {...}}}
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from longalign_data.teachers.base import Raw, TeacherRequest
from longalign_data.teachers.batches import EXPIRED, BatchLimits, BatchStatus, Item, ItemResult, UnsureError
from longalign_data.teachers.lines import split_lines
from longalign_data.teachers.retry import Fault, fault_of_status, repeat

_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status of each error type; batch items carry the type alone."""


class AnthropicBatches:
    """`params` makes the body of one request, `fault_of` reads the client's exceptions."""

    limits = BatchLimits(max_requests=100_000, max_bytes=240_000_000, kept_s=29 * 86_400)

    def __init__(
        self,
        client: Any,
        *,
        params: Callable[[TeacherRequest], dict[str, Any]],
        fault_of: Callable[[Exception], Fault],
        retry_s: float,
    ) -> None:
        self._client = client
        self._params = params
        self._fault_of = fault_of
        self._retry_s = retry_s

    def size(self, item: Item) -> int:
        return len(json.dumps(self._item(item), ensure_ascii=False, separators=(",", ":")).encode()) + 1

    def _item(self, item: Item) -> dict[str, Any]:
        return {"custom_id": item.custom_id, "params": self._params(item.request)}

    async def submit(self, label: str, items: Sequence[Item]) -> BatchStatus:
        del label  # the API has no place for one
        requests = [self._item(item) for item in items]

        async def attempt() -> BatchStatus | Fault:
            fault = None
            try:
                response = await self._client.messages.batches.with_raw_response.create(requests=requests)
                return _status(json.loads(await response.text()))
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                fault = self._fault_of(error)
            if fault.is_unsure:
                raise UnsureError(fault.message)
            return fault

        return await repeat(attempt, retry_s=self._retry_s)

    async def listed(self, since: float) -> AsyncIterator[BatchStatus]:
        after: str | None = None
        while True:
            query = {"limit": 100} | ({"after_id": after} if after else {})
            page = await self._get("list", **query)
            for raw in page["data"]:
                status = _status(raw)
                if status.created < since:
                    return
                yield status
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def status(self, batch_id: str) -> BatchStatus:
        return _status(await self._get("retrieve", message_batch_id=batch_id))

    async def _get(self, method: str, **arguments: Any) -> Raw:
        async def attempt() -> Raw | Fault:
            try:
                response = await getattr(self._client.messages.batches.with_raw_response, method)(**arguments)
                raw: Raw = json.loads(await response.text())
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error)
            return raw

        return await repeat(attempt, retry_s=self._retry_s)

    async def results(self, batch_id: str) -> AsyncIterator[ItemResult]:
        async def attempt() -> list[bytes] | Fault:
            try:
                stream = self._client.messages.batches.with_streaming_response.results(batch_id)
                async with stream as response:
                    return [line async for line in split_lines(response.iter_bytes())]
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error)

        for line in await repeat(attempt, retry_s=self._retry_s):
            yield _result(json.loads(line))


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
        return ItemResult(custom_id=custom_id, raw=result["message"])
    if result["type"] == "errored":
        error = result["error"].get("error", result["error"])
        status = _STATUS_OF.get(str(error.get("type")), 500)
        return ItemResult(custom_id=custom_id, fault=fault_of_status(status, str(error.get("message")), {}))
    return ItemResult(custom_id=custom_id, fault=EXPIRED)
