"""OpenAI's Batch API: a JSONL file is uploaded, a batch made of it; replies and errors come in two files.

A line of the input: {"custom_id": "q-9f0c...", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from longalign_data.teachers.base import Raw, TeacherRequest
from longalign_data.teachers.batches import EXPIRED, BatchLimits, BatchStatus, Item, ItemResult, UnsureError
from longalign_data.teachers.lines import split_lines
from longalign_data.teachers.retry import Fault, fault_of_status, repeat

ENDPOINT = "/v1/chat/completions"
LABEL = "longalign_submission"
_STATES = {"failed": "failed", "completed": "ended", "expired": "ended", "cancelled": "ended"}


class OpenAIBatches:
    """`params` makes the body of one request, `fault_of` reads the client's exceptions."""

    limits = BatchLimits(max_requests=50_000, max_bytes=190_000_000, kept_s=30 * 86_400)

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
        return len(self._line(item))

    def _line(self, item: Item) -> bytes:
        line = {"custom_id": item.custom_id, "method": "POST", "url": ENDPOINT, "body": self._params(item.request)}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"

    async def submit(self, label: str, items: Sequence[Item]) -> BatchStatus:
        content = b"".join(self._line(item) for item in items)
        # A file uploaded twice costs nothing; only the batch made of it does.
        file = await self._call(self._client.files, "create", file=(f"{label}.jsonl", content), purpose="batch")

        async def attempt() -> BatchStatus | Fault:
            fault = None
            try:
                response = await self._client.batches.with_raw_response.create(
                    input_file_id=file["id"], endpoint=ENDPOINT, completion_window="24h", metadata={LABEL: label}
                )
                return _status(json.loads(response.text))
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                fault = self._fault_of(error)
            if fault.is_unsure:
                raise UnsureError(fault.message)
            return fault

        return await repeat(attempt, retry_s=self._retry_s)

    async def listed(self, since: float) -> AsyncIterator[BatchStatus]:
        after: str | None = None
        while True:
            query = {"limit": 100} | ({"after": after} if after else {})
            page = await self._call(self._client.batches, "list", **query)
            for raw in page["data"]:
                status = _status(raw)
                # The stamps are whole seconds.
                if status.created + 1 < since:
                    return
                yield status
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def status(self, batch_id: str) -> BatchStatus:
        return _status(await self._call(self._client.batches, "retrieve", batch_id=batch_id))

    async def results(self, batch_id: str) -> AsyncIterator[ItemResult]:
        batch = await self._call(self._client.batches, "retrieve", batch_id=batch_id)
        for file_id in (batch.get("output_file_id"), batch.get("error_file_id")):
            if file_id:
                for line in await self._lines(file_id):
                    yield _result(json.loads(line))

    async def _lines(self, file_id: str) -> list[bytes]:
        async def attempt() -> list[bytes] | Fault:
            try:
                async with self._client.files.with_streaming_response.content(file_id) as response:
                    return [line async for line in split_lines(response.iter_bytes())]
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error)

        return await repeat(attempt, retry_s=self._retry_s)

    async def _call(self, resource: Any, method: str, **arguments: Any) -> Raw:
        async def attempt() -> Raw | Fault:
            try:
                response = await getattr(resource.with_raw_response, method)(**arguments)
                raw: Raw = json.loads(response.text)
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error)
            return raw

        return await repeat(attempt, retry_s=self._retry_s)


def _status(raw: Raw) -> BatchStatus:
    state = _STATES.get(str(raw["status"]), "running")
    errors = (raw.get("errors") or {}).get("data") or []
    counts = raw.get("request_counts") or {}
    return BatchStatus(
        batch_id=raw["id"],
        created=float(raw["created_at"]),
        num_requests=int(counts.get("total") or 0),
        state="failed" if state == "failed" else "ended" if state == "ended" else "running",
        label=(raw.get("metadata") or {}).get(LABEL),
        detail="; ".join(f"{error.get('message')} [{error.get('code')}]" for error in errors),
    )


def _result(line: Raw) -> ItemResult:
    custom_id, response = str(line["custom_id"]), line.get("response")
    if not response:
        error = line.get("error") or {}
        if error.get("code") in {"batch_expired", "batch_cancelled"}:
            return ItemResult(custom_id=custom_id, fault=EXPIRED)
        return ItemResult(custom_id=custom_id, fault=fault_of_status(500, str(error.get("message")), {}))
    if response["status_code"] == 200:
        return ItemResult(custom_id=custom_id, raw=response["body"])
    error = response["body"].get("error") or {}
    return ItemResult(
        custom_id=custom_id, fault=fault_of_status(response["status_code"], str(error.get("message")), {})
    )
