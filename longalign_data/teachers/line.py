"""One request through to its reply: waits for its turn, is sent, and is sent again after a transient fault."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from longalign_data.teachers.base import UNWATCHED, Connection, Raw, TeacherRequest, Watch, count_of
from longalign_data.teachers.pace import Pace
from longalign_data.teachers.retry import NO_OBJECT, Fault, Trouble, fault_within, repeat, reply_without

_FIRST_TOKENS_PER_BYTE = 1 / 3.6
"""On the high side for English and Chinese alike, until replies name what their prompts used."""
_MOST_TOKENS_PER_BYTE = 1.5
_MARGIN = 1.1
"""Texts differ, and what is under way is not in the headers: reckoned to the token, one request in twenty was refused. Too much
by a little costs nothing, since the headers tell what is left."""
_LEARNT = 0.1
"""How far a reply moves the tokens a byte: a dozen decide, and other texts later on are learnt as fast."""

_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""What Anthropic's usage names of a prompt; OpenAI's has it in one."""


class Line:
    """The line to one model at one provider."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.pace = Pace(connection.concurrency)
        self.trouble = Trouble()
        self._tokens_per_byte = _FIRST_TOKENS_PER_BYTE
        self._turn = asyncio.Lock()

    async def ask(
        self,
        request: TeacherRequest,
        send: Callable[[], Awaitable[tuple[Raw, Mapping[str, str]]]],
        *,
        fault_of: Callable[[Exception], Fault],
        is_begun: Callable[[], bool],
        is_cached: Callable[[], bool] = lambda: False,
        watch: Watch = UNWATCHED,
    ) -> Raw:
        """The reply. `send` makes one attempt and gives the reply with its headers, `fault_of` reads what it raises,
        `is_begun` says whether the provider has just seen the document, `is_cached` whether it will read it from its cache and
        leave these tokens out of its limit. Raises TeacherError as `Teacher.ask` does."""
        num_bytes = sum(len(part.encode("utf-8", "surrogatepass")) for part in (request.document, request.instruction))
        clock = asyncio.get_running_loop().time
        queued = 0.0

        async def attempt() -> Raw | Fault:
            nonlocal queued
            begun = is_begun()
            came = clock()
            # The instruction counts, and now and then the document is not found.
            counted = (0.1 if is_cached() else 1.0) * num_bytes * self._tokens_per_byte * _MARGIN
            ticket = await self.pace.enter(num_tokens=counted, is_begun=begun)
            queued += clock() - came
            fault: Fault | None = None
            headers: Mapping[str, str] = {}
            raw: Any = None
            try:
                # One after the other, with a breath before each: a long prompt takes milliseconds to be written out.
                async with self._turn:
                    await asyncio.sleep(0)
                await watch.sending()
                raw, headers = await send()
                fault = fault_within(raw, headers) if isinstance(raw, dict) else NO_OBJECT
            except Exception as error:  # noqa: BLE001 - fault_of raises again what is not the client's
                fault = fault_of(error)
                headers = getattr(getattr(error, "response", None), "headers", {})
            finally:
                self.pace.leave(
                    ticket,
                    succeeded=fault is None and raw is not None,
                    is_load=fault is not None and fault.is_load,
                    wait_s=fault.wait_s if fault else None,
                    headers=headers,
                )
            if fault is None:
                self._learn(raw, num_bytes)
            else:
                fault = fault.without(self._connection.api_key)
            if fault is not None and fault.may_be_billed:
                came = clock()
                await watch.lost()
                queued += clock() - came
            return fault or reply_without(dict(raw), self._connection.api_key)

        return await repeat(attempt, retry_s=self._connection.retry_s, trouble=self.trouble, queued_s=lambda: queued)

    def _learn(self, raw: Raw, num_bytes: int) -> None:
        """Takes over how many tokens a byte stands for from a reply that names what its prompt used."""
        usage = raw.get("usage")
        try:
            used = count_of(usage, "prompt_tokens") or sum(count_of(usage, name) for name in _INPUT)
        except ValueError:
            return  # said where the reply is read
        if used and num_bytes:
            found = min(used / num_bytes, _MOST_TOKENS_PER_BYTE)
            self._tokens_per_byte += _LEARNT * (found - self._tokens_per_byte)

    def status(self) -> str:
        """Requests under way of the level found, and what is the matter where nothing comes back."""
        trouble = self.trouble.words(self._connection.retry_s)
        return f"{self.pace.num_inside} under way, level {int(self.pace.level)}" + (f", {trouble}" if trouble else "")
