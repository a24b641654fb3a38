"""The level of live calls, driven by a server that is simulated in the loop: no clock of the test's own, no waiting."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from longalign_data.teachers import retry
from longalign_data.teachers.base import Connection, Raw, TeacherRequest
from longalign_data.teachers.cachemark import CacheMark, break_even
from longalign_data.teachers.line import Line
from longalign_data.teachers.pace import Pace
from longalign_data.teachers.retry import Fault, fault_of_status, repeat
from tests.virtual_time import run_in_virtual_time


async def drive(pace: Pace, capacity: Callable[[int], int], num_requests: int) -> tuple[int, list[int]]:
    """Sends so many requests as the pace allows to a server that takes `capacity(number)` at once; the refusals, and the
    level after each request."""
    busy = refused = number = 0
    levels: list[int] = []
    chance = Random(7)

    async def worker() -> None:
        nonlocal busy, refused, number
        while number < num_requests:
            number += 1
            ticket = await pace.enter(num_tokens=1, is_begun=False)
            if busy >= capacity(number):
                refused += 1
                await asyncio.sleep(0)
                pace.leave(ticket, succeeded=False, is_load=True)
                continue
            busy += 1
            await asyncio.sleep(chance.uniform(0.001, 0.003))
            busy -= 1
            pace.leave(ticket, succeeded=True)
            levels.append(int(pace.level))

    await asyncio.gather(*(worker() for _ in range(pace.ceiling)))
    return refused, levels


def test_the_level_finds_what_the_server_takes_and_is_rarely_refused() -> None:
    refused, levels = run_in_virtual_time(drive(Pace(64), lambda _: 16, 3000))
    assert refused < 0.02 * 3000
    settled = levels[500:]
    assert sum(settled) / len(settled) > 0.93 * 16
    assert max(settled) <= 17


def test_the_level_follows_a_server_that_takes_less_and_then_more() -> None:
    pace = Pace(64)
    _, levels = run_in_virtual_time(drive(pace, lambda n: 16 if n < 1500 else 6 if n < 3000 else 24, 7000))
    before, less, more = levels[1000:1400], levels[2200:2800], levels[-800:]
    assert 13 < sum(before) / len(before) <= 17
    assert 4.5 < sum(less) / len(less) <= 7
    assert 19 < sum(more) / len(more) <= 26


PHASE_S, WARM_UP_S, LATENCY_S = 30.0, 10.0, 0.8
WAY_S = 0.005
"""From us to the server, and back, on average."""


class Throttling:
    """A server that takes `places[n]` requests at once in the n-th phase, or so many a second, and notes what it said
    when. Limits a minute stand in its headers; where places are the limit, it asks to wait `wait_s`."""

    def __init__(
        self, *, at_once: tuple[int, ...] = (), per_minute: tuple[int, ...] = (), wait_s: float = LATENCY_S / 2
    ) -> None:
        self.at_once, self.per_minute, self.wait_s = at_once, per_minute, wait_s
        self.said: list[tuple[float, int]] = []
        self._busy = 0
        self._bucket = (0.0, 0.0)

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    def _left(self, limit: int) -> float:
        level, at = self._bucket
        self._bucket = (min(limit / 30, level + (self.now() - at) * limit / 60), self.now())
        return self._bucket[0]

    def _limit(self, limits: tuple[int, ...]) -> int:
        return limits[min(len(limits) - 1, int(self.now() / PHASE_S))]

    async def ask(self) -> tuple[int, dict[str, str]]:
        if self.at_once and self._busy >= self._limit(self.at_once):
            self.said.append((self.now(), 429))
            return 429, {"retry-after": str(self.wait_s)}
        if self.per_minute:
            limit = self._limit(self.per_minute)
            if self._left(limit) < 1:
                self.said.append((self.now(), 429))
                return 429, self._told() | {"retry-after": str((1 - self._left(limit)) * 60 / limit)}
            self._bucket = (self._bucket[0] - 1, self.now())
        self._busy += 1
        await asyncio.sleep(LATENCY_S)
        self._busy -= 1
        self.said.append((self.now(), 200))
        return 200, self._told()

    def _told(self) -> dict[str, str]:
        if not self.per_minute:
            return {}
        limit = self._limit(self.per_minute)
        names = ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining")
        return dict(zip(names, (str(limit), str(int(self._left(limit)))), strict=True))


async def ask_for(server: Throttling, seconds: float, ceiling: int) -> None:
    pace = Pace(ceiling)
    chance = Random(7)

    async def attempt() -> dict[str, Any] | Fault:
        ticket = await pace.enter(num_tokens=100, is_begun=False)
        await asyncio.sleep(chance.expovariate(1 / WAY_S))
        status, headers = await server.ask()
        await asyncio.sleep(chance.expovariate(1 / WAY_S))
        fault = None if status == 200 else fault_of_status(status, "slow down", headers)
        wait_s = fault.wait_s if fault else None
        pace.leave(ticket, succeeded=fault is None, is_load=fault is not None, wait_s=wait_s, headers=headers)
        return fault or {}

    async def work() -> None:
        while server.now() < seconds:
            await repeat(attempt, retry_s=600)

    await asyncio.gather(*(work() for _ in range(ceiling)))


@pytest.mark.parametrize("limits", [{"at_once": (16, 8, 24)}, {"per_minute": (1200, 600, 1800)}])
def test_a_server_that_throttles_and_changes_its_mind_is_used_to_the_full_and_rarely_annoyed(
    limits: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_CHANCE", Random(0))
    server = Throttling(**limits)
    run_in_virtual_time(ask_for(server, 3 * PHASE_S, ceiling=64))
    for phase in range(3):
        start, stop = PHASE_S * phase + WARM_UP_S, PHASE_S * (phase + 1)
        said = Counter(status for when, status in server.said if start <= when < stop)
        ideal = server.at_once[phase] / LATENCY_S if server.at_once else server.per_minute[phase] / 60
        assert said[200] / (stop - start) > 0.95 * ideal
        assert said[429] < 0.02 * said.total()


class SlowDownError(Exception):
    """A refusal for load, as a client raises it."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("slow down")
        self.response = SimpleNamespace(headers=headers)


class Metered:
    """A server that takes so many tokens a minute and tells in its headers, of a document of 3,600 bytes `num_tokens`; of one that
    it has just seen it counts the tokens as well, or leaves them out."""

    def __init__(self, limit: int, num_tokens: int, *, is_cached_free: bool) -> None:
        self.limit, self.num_tokens, self.is_cached_free = limit, num_tokens, is_cached_free
        self.said: list[tuple[float, int]] = []
        self._left, self._at = float(limit), 0.0
        self._seen: set[str] = set()

    async def ask(self, document: str) -> tuple[Raw, dict[str, str]]:
        now = asyncio.get_running_loop().time()
        self._left, self._at = min(self.limit, self._left + (now - self._at) * self.limit / 60), now
        num_tokens = self.num_tokens * len(document) / 3_600
        cost = 0.0 if document in self._seen and self.is_cached_free else num_tokens
        if self._left < cost:
            self.said.append((now, 429))
            raise SlowDownError(self._told() | {"retry-after": str((cost - self._left) * 60 / self.limit)})
        self._left -= cost
        self._seen.add(document)
        await asyncio.sleep(LATENCY_S)
        self.said.append((now, 200))
        return {"usage": {"prompt_tokens": round(num_tokens)}}, self._told()

    def _told(self) -> dict[str, str]:
        return {"x-ratelimit-limit-tokens": str(self.limit), "x-ratelimit-remaining-tokens": str(int(self._left))}


@pytest.mark.parametrize(
    ("is_cached_free", "num_tokens"), [(False, 1_000), (True, 1_000), (False, 700), (False, 1_250), (False, 1_700)]
)
def test_a_limit_of_tokens_is_used_to_the_full_however_the_server_counts_them(
    is_cached_free: bool, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_CHANCE", Random(0))
    server = Metered(200 * num_tokens, num_tokens, is_cached_free=is_cached_free)
    line = Line(Connection(retry_s=600.0))
    seen: set[str] = set()
    length = Random(1)

    def fault_of(error: Exception) -> Fault:
        assert isinstance(error, SlowDownError)
        return fault_of_status(429, str(error), error.response.headers)

    async def ask(document: str) -> None:
        await line.ask(
            TeacherRequest(model="m", document=document, instruction="i", max_tokens=5),
            lambda: server.ask(document),
            fault_of=fault_of,
            is_begun=lambda: document in seen,
            is_cached=lambda: is_cached_free and document in seen,
        )
        seen.add(document)

    async def work(worker: int) -> None:
        number = 0
        while asyncio.get_running_loop().time() < 240:
            document = f"{worker}.{number}".ljust(length.randrange(1_800, 5_400))
            await ask(document)
            await ask(document)
            number += 1

    async def all_of_them() -> None:
        await asyncio.gather(*(work(worker) for worker in range(64)))

    run_in_virtual_time(all_of_them())
    said = Counter(status for when, status in server.said if 120 <= when < 240)
    assert said[200] > 0.95 * (2 if is_cached_free else 1) * 120 * server.limit / 60 / server.num_tokens
    assert said[429] < 0.02 * said.total()


def test_a_try_at_more_that_is_refused_makes_nobody_else_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_CHANCE", Random(0))
    server = Throttling(at_once=(16,), wait_s=20.0)
    run_in_virtual_time(ask_for(server, 200.0, ceiling=64))
    # Until the level is found, everybody waits.
    said = Counter(status for when, status in server.said if 120 <= when < 200)
    assert said[429] > 0
    assert said[200] / 80 > 0.95 * 16 / LATENCY_S


def test_without_refusals_the_level_rises_to_its_ceiling() -> None:
    pace = Pace(32)
    refused, _ = run_in_virtual_time(drive(pace, lambda _: 1000, 400))
    assert (refused, int(pace.level)) == (0, 32)


def test_a_burst_of_refusals_cuts_the_level_once() -> None:
    async def burst() -> tuple[float, float]:
        pace = Pace(64, level=16.0)
        tickets = [await pace.enter(num_tokens=1, is_begun=False) for _ in range(16)]
        before = pace.level
        for ticket in tickets:
            pace.leave(ticket, succeeded=False, is_load=True)
        return before, pace.level

    before, after = asyncio.run(burst())
    assert after == 0.75 * before


def test_no_request_is_sent_beyond_the_input_tokens_that_the_headers_leave() -> None:
    async def spend() -> tuple[int, bool]:
        pace = Pace(64, level=32.0)
        headers = {
            "anthropic-ratelimit-input-tokens-limit": "60000",
            "anthropic-ratelimit-input-tokens-remaining": "10000",
        }
        pace.leave(await pace.enter(num_tokens=1, is_begun=False), succeeded=True, headers=headers)
        waiting = [asyncio.create_task(pace.enter(num_tokens=3000, is_begun=False)) for _ in range(8)]
        await asyncio.sleep(0.1)
        num_sent = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return num_sent, pace.num_refused == 0

    assert run_in_virtual_time(spend()) == (3, True)


def test_after_a_pause_no_more_is_sent_at_once_than_has_ever_been_left() -> None:
    async def burst() -> int:
        pace = Pace(64, level=64.0)
        names = ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining")
        for left in ("12", "20", "7"):
            headers = dict(zip(names, ("6000", left), strict=True))
            pace.leave(await pace.enter(num_tokens=1, is_begun=False), succeeded=True, headers=headers)
        await asyncio.sleep(30)
        waiting = [asyncio.create_task(pace.enter(num_tokens=1, is_begun=False)) for _ in range(60)]
        await asyncio.sleep(0.001)
        num_sent = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return num_sent

    assert run_in_virtual_time(burst()) == 20


def test_requests_about_a_document_that_was_just_seen_go_first() -> None:
    async def order() -> list[str]:
        pace = Pace(1)
        first = await pace.enter(num_tokens=1, is_begun=False)
        came: list[str] = []

        async def wait(name: str, *, is_begun: bool) -> None:
            ticket = await pace.enter(num_tokens=1, is_begun=is_begun)
            came.append(name)
            pace.leave(ticket, succeeded=True)

        tasks = [asyncio.create_task(wait("new", is_begun=False)), asyncio.create_task(wait("begun", is_begun=True))]
        await asyncio.sleep(0)
        pace.leave(first, succeeded=True)
        await asyncio.gather(*tasks)
        return came

    assert asyncio.run(order()) == ["begun", "new"]


def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    async def cancel() -> int:
        pace = Pace(1)
        first = await pace.enter(num_tokens=1, is_begun=False)
        gone, stays = (asyncio.create_task(pace.enter(num_tokens=1, is_begun=False)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        pace.leave(first, succeeded=True)
        await asyncio.wait_for(stays, 60)
        return pace.num_inside

    assert asyncio.run(cancel()) == 1


@pytest.mark.parametrize(("num_calls", "rate"), [(2, 0.4348), (3, 0.3261), (5, 0.2717)])
def test_the_break_even_of_a_cache_mark_is_that_of_the_bill(num_calls: int, rate: float) -> None:
    assert break_even(num_calls) == pytest.approx(rate, abs=1e-4)
    marked = 1.25 + (num_calls - 1) * (1.25 - 1.15 * break_even(num_calls))
    assert marked == pytest.approx(num_calls)


def test_marking_stops_where_it_does_not_pay_and_never_starts_for_one_call_or_short_texts() -> None:
    long = "word " * 2000
    assert CacheMark(2).should_mark(long)
    assert not CacheMark(1).should_mark(long)
    assert not CacheMark(2).should_mark("short")
    mark = CacheMark(2)
    for number in range(40):
        document = f"{number} {long}"
        for num_read in (0, 2000 if number % 4 == 0 else 0):
            marked = mark.should_mark(document)
            mark.saw(document, marked=marked, num_written=2000 - num_read if marked else 0, num_read=num_read)
    assert mark.hit_rate is not None
    assert mark.hit_rate < 0.43
    assert not mark.should_mark("a new " + long)


def test_documents_that_the_provider_does_not_cache_do_not_stop_the_marking_of_the_others() -> None:
    long = "word " * 9000
    mark = CacheMark(2)
    for number in range(60):
        is_cached = number % 5 < 2
        document = f"{number} {long if is_cached else 'word ' * 2000}"
        num_written = 9000 if is_cached else 0
        assert mark.should_mark(document)
        mark.saw(document, marked=True, num_written=num_written, num_read=0)
        assert mark.should_mark(document) == is_cached
        mark.saw(document, marked=is_cached, num_written=0, num_read=num_written)
    assert (mark.hit_rate, mark.num_tried) == (1.0, 24)


def test_the_time_until_a_lost_reply_is_booked_is_not_counted_against_the_deadline() -> None:
    line = Line(Connection(retry_s=60.0))
    request = TeacherRequest(model="m", document="d", instruction="i", max_tokens=5)
    heard: list[str] = []

    class Watching:
        async def sending(self) -> None:
            heard.append("sending")

        async def lost(self) -> None:
            heard.append("lost")
            await asyncio.sleep(3600)  # as for money that other requests have set aside

    async def send() -> tuple[Raw, dict[str, str]]:
        if heard.count("sending") < 3:
            raise ConnectionError("away for a moment")
        return {"text": "ok"}, {}

    def fault_of(error: Exception) -> Fault:
        return Fault(reason="unavailable", message=str(error), retryable=True, may_be_billed=True)

    ask = line.ask(request, send, fault_of=fault_of, is_begun=lambda: False, watch=Watching())
    assert run_in_virtual_time(ask) == {"text": "ok"}
    assert heard == ["sending", "lost", "sending", "lost", "sending"]


def test_the_time_in_the_queue_is_not_counted_against_the_deadline() -> None:
    line = Line(Connection(concurrency=1, retry_s=60.0))
    request = TeacherRequest(model="m", document="d", instruction="i", max_tokens=5)
    num_sent = 0

    async def ask() -> Raw:
        is_first = True

        async def send() -> tuple[Raw, dict[str, str]]:
            nonlocal is_first, num_sent
            num_sent += 1
            await asyncio.sleep(20)
            if is_first:
                is_first = False
                raise ConnectionError("away for a moment")
            return {"text": "ok"}, {}

        return await line.ask(request, send, fault_of=fault_of, is_begun=lambda: False)

    def fault_of(error: Exception) -> Fault:
        return Fault(reason="unavailable", message=str(error), retryable=True)

    async def all_of_them() -> list[Raw]:
        return await asyncio.gather(*(ask() for _ in range(6)))

    assert run_in_virtual_time(all_of_them()) == [{"text": "ok"}] * 6
    assert num_sent == 12
