"""What both batch APIs have in common: calls through the official client, asked again after transient faults, and pages."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from longalign_data.errors import TeacherError, UserError
from longalign_data.teachers.base import Raw, TeacherRequest
from longalign_data.teachers.batches import ItemResult, UnsureError
from longalign_data.teachers.lines import split_lines
from longalign_data.teachers.retry import NO_OBJECT, Fault, Trouble, fault_within, repeat, reply_without

NO_BATCHES = "this server has no batch API; take --schedule live"
_PAGE = 100


class BatchCalls:
    """`params` makes the body of one request, `fault_of` reads the client's exceptions, `trouble` learns of what is met, `key`
    is kept out of everything that the provider says."""

    def __init__(
        self,
        client: Any,
        *,
        params: Callable[[TeacherRequest], dict[str, Any]],
        fault_of: Callable[[Exception], Fault],
        retry_s: float,
        trouble: Trouble,
        key: str | None,
    ) -> None:
        self._client = client
        self._params = params
        self._fault_of = fault_of
        self._retry_s = retry_s
        self._trouble = trouble
        self._key = key

    async def _call(self, method: Callable[..., Awaitable[Any]], **arguments: Any) -> Raw:
        """What a method of the client's raw responses says."""

        async def attempt() -> Raw | Fault:
            return await self._attempt(method, **arguments)

        return await repeat(attempt, retry_s=self._retry_s, trouble=self._trouble)

    async def _call_once(self, method: Callable[..., Awaitable[Any]], **arguments: Any) -> Raw:
        """As `_call`, of something that must not happen twice: raises UnsureError when the answer was lost."""

        async def attempt() -> Raw | Fault:
            result = await self._attempt(method, **arguments)
            if isinstance(result, Fault) and result.is_unsure:
                raise UnsureError(result.message)
            return result

        return await repeat(attempt, retry_s=self._retry_s, trouble=self._trouble)

    async def _attempt(self, method: Callable[..., Awaitable[Any]], **arguments: Any) -> Raw | Fault:
        try:
            raw = await _said(await method(**arguments))
        except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
            return self._fault_of(error).without(self._key)
        if not isinstance(raw, dict):
            return NO_OBJECT
        fault = fault_within(raw, {})
        return raw if fault is None else fault.without(self._key)

    def _said_safely(self, result: ItemResult) -> ItemResult:
        fault = None if result.fault is None else result.fault.without(self._key)
        return replace(result, raw=reply_without(result.raw, self._key), fault=fault)

    async def _lines(self, stream: Callable[[], Any]) -> list[bytes]:
        """The lines of a streamed response."""

        async def attempt() -> list[bytes] | Fault:
            try:
                async with stream() as response:
                    return [line async for line in split_lines(response.iter_bytes())]
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error).without(self._key)

        return await repeat(attempt, retry_s=self._retry_s, trouble=self._trouble)

    async def _pages(self, method: Callable[..., Awaitable[Any]], *, after: str) -> AsyncIterator[Raw]:
        """The objects of a list, newest first; `after` is what the API calls its cursor."""
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            try:
                page = await self._call(method, **query)
            except TeacherError as error:
                if error.reason != "not-found":
                    raise
                raise UserError(f"{NO_BATCHES} ({error})") from None
            if not isinstance(page.get("data"), list):
                raise UserError(f"{NO_BATCHES} (its list of batches is none)")
            for raw in page["data"]:
                yield raw
            if not page.get("has_more") or not page["data"]:
                return
            query[after] = page["data"][-1]["id"]


async def _said(response: Any) -> Any:
    # One client reads the body lazily, the other has read it.
    text = response.text if isinstance(response.text, str) else await response.text()
    return json.loads(text)
