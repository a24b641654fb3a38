"""What both batch APIs have in common: calls through the official client, asked again after transient faults, and pages."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from longalign_data.errors import TeacherError, UserError
from longalign_data.teachers.base import Raw, TeacherRequest
from longalign_data.teachers.batches import BatchStatus, ItemResult, UnsureError
from longalign_data.teachers.lines import split_lines
from longalign_data.teachers.retry import NO_OBJECT, Fault, Trouble, fault_within, hidden, repeat, reply_without

NO_BATCHES = "this server has no batch API; take --schedule live"
NOTHING_SAID = "nothing is said of why"
_PAGE = 100
_SHOWN_CHARS = 200
_ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a JSON value raises that is not in the expected format."""


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

    def _batch(self, read: Callable[[Raw], BatchStatus], raw: Raw) -> BatchStatus:
        """How a batch stands; raises TeacherError for one that is not in the provider's format."""
        try:
            status = read(raw)
        except _ODD as error:
            raise TeacherError(
                self._not_in_format("a batch", raw, error), reason="unavailable", retryable=True
            ) from error
        return replace(status, detail=hidden(status.detail, self._key))

    def _submitted(self, read: Callable[[Raw], BatchStatus], raw: Raw) -> BatchStatus:
        """As `_batch`, of one that was just handed over: it may be there."""
        try:
            return self._batch(read, raw)
        except TeacherError as error:
            raise UnsureError(str(error)) from error

    async def _results(
        self, stream: Callable[[], Any], read: Callable[[Raw], ItemResult], *, least: int
    ) -> AsyncIterator[ItemResult]:
        """What the lines of a streamed file of results say, of which there are `least` or more. One that ends early is fetched
        again; where it never comes whole, raises TeacherError behind what came."""
        most: list[bytes] = []

        async def attempt() -> list[bytes] | Fault:
            nonlocal most
            try:
                lines, is_whole = await self._lines(stream)
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                return self._fault_of(error).without(self._key)
            if is_whole and len(lines) >= least:
                return lines
            most = max(most, lines, key=len)
            said = f"results that end early: {len(lines):,} whole lines" + (f" of {least:,}" if least else "")
            return Fault(reason="unavailable", message=said, retryable=True)

        failure: TeacherError | None = None
        try:
            lines = await repeat(attempt, retry_s=self._retry_s, trouble=self._trouble)
        except TeacherError as error:
            lines, failure = most, error
        for result in self._read(lines, read):
            yield result
        if failure is not None:
            raise failure

    def _read(self, lines: Sequence[bytes], read: Callable[[Raw], ItemResult]) -> Iterator[ItemResult]:
        """What the lines of the results say. One that cannot be read is a fault of its item, to be asked again as the item of a
        line without an id is: what else is in the file was paid for, and will never read otherwise."""
        for text in lines:
            try:
                line = json.loads(text)
                custom_id = str(line["custom_id"])
            except _ODD:
                continue
            try:
                result = read(line)
            except _ODD as error:
                said = self._not_in_format("a result", line, error)
                result = ItemResult(
                    custom_id=custom_id, fault=Fault(reason="unavailable", message=said, retryable=True)
                )
            fault = None if result.fault is None else result.fault.without(self._key)
            yield replace(result, raw=reply_without(result.raw, self._key), fault=fault)

    def _not_in_format(self, what: str, raw: Any, error: Exception) -> str:
        # Before the cut: half a key would not be known for one.
        said = hidden(json.dumps(raw, ensure_ascii=False), self._key)
        shown = said if len(said) <= _SHOWN_CHARS else said[: _SHOWN_CHARS - 1] + "…"
        return hidden(f"{what} that is not in the provider's format ({error!r}): {shown}", self._key)

    async def _lines(self, stream: Callable[[], Any]) -> tuple[list[bytes], bool]:
        """The whole lines of a streamed response, and whether it ends with one: where its length is not known, a broken
        connection looks like its end."""
        end = b"\n"

        async def chunks(response: Any) -> AsyncIterator[bytes]:
            nonlocal end
            async for chunk in response.iter_bytes():
                end = chunk[-1:] or end
                yield chunk

        async with stream() as response:
            lines = [line async for line in split_lines(chunks(response))]
        if end == b"\n" or not lines or _is_json(lines[-1]):
            return lines, True
        return lines[:-1], False

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


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def object_of(value: Any) -> Raw:
    """A JSON object. Raises ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    return value


async def _said(response: Any) -> Any:
    # One client reads the body lazily, the other has read it.
    text = response.text if isinstance(response.text, str) else await response.text()
    return json.loads(text)
