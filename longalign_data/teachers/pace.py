"""How many requests are under way at once, found from what the server answers, and never set by hand.

The level starts at four and grows with every success (doubling from round to round) until the first refusal for load.
That cuts it to three quarters, once for a burst: refusals of requests that were sent before the last cut say nothing
new, and a mere try at more that failed costs a tenth, and no pause of those that were taken before. From then on it climbs
back quickly, to half-way between what was good and what was refused, on to just below that by halves, and tries what was
refused only now and then; where that succeeds the server has changed its mind, and the level grows by half from round to
round. Servers that tell their budgets of requests and input tokens in headers are not asked for more than is left. Among
those who wait, requests about a document that the provider has just seen go first, while it still stands in the prompt cache.
"""

import asyncio
import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_LEVEL = 4.0
CUT = 0.75
PROBE_CUT = 0.9
"""What is left of the level after a refusal, and after one of a mere try at more."""
SOONEST_PROBE, LATEST_PROBE = 8, 96
"""Successes before more is tried: below what was refused last, and at it. A failed try is one refusal, so that these stay
below 2%."""
LONGEST_PAUSE_S = 60.0
_TRUST = 0.25
"""How far a header that tells of more than we reckoned is believed: requests on their way may not be counted in it."""
_TICK_S = 0.001


@dataclass(slots=True, eq=False)
class Ticket:
    """One request under way. `num_inside` is how many were, itself included, when it was sent."""

    cost: float
    started: float
    num_inside: int


@dataclass(slots=True)
class _Budget:
    """A limit per minute that fills continuously, to `holds` at most."""

    limit: float
    level: float
    at: float
    holds: float

    def now(self, now: float) -> float:
        return min(self.holds, self.level + (now - self.at) * self.limit / 60)

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `cost` is there; a cost beyond the limit waits for a nearly full one."""
        missing = min(cost, 0.98 * self.limit) - self.now(now)
        return max(0.0, missing * 60 / self.limit)

    def spend(self, cost: float, now: float) -> None:
        self.level, self.at = self.now(now) - cost, now


@dataclass(slots=True, eq=False)
class Pace:
    """The pace of one model at one provider; at most `ceiling` at once. Used inside one event loop."""

    ceiling: int
    level: float = FIRST_LEVEL
    num_inside: int = 0
    num_sent: int = 0
    num_refused: int = 0
    _known: float | None = None
    _good: float = 1.0
    _budgets: dict[str, _Budget] = field(default_factory=dict)
    _inside: set[Ticket] = field(default_factory=set)
    _waiting: list[tuple[int, int, float, "asyncio.Future[None]"]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _last_cut: float = float("-inf")
    _paused_until: float = 0.0
    _since_change: int = 0
    _probe_after: int = LATEST_PROBE
    _over: float = float("inf")
    _alarm: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.level = min(self.level, float(self.ceiling))

    async def enter(self, *, num_tokens: float, is_begun: bool) -> Ticket:
        """Waits for a place. `num_tokens` is what the request will count against the input budget; `is_begun` that its
        document was asked about just now. Every ticket goes back through `leave`."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (0 if is_begun else 1, next(self._order), num_tokens, place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.num_inside -= 1
                self._admit()
            raise
        now = asyncio.get_running_loop().time()
        ticket = Ticket(cost=num_tokens, started=now, num_inside=self.num_inside)
        self._inside.add(ticket)
        self.num_sent += 1
        return ticket

    def leave(
        self,
        ticket: Ticket,
        *,
        succeeded: bool,
        is_load: bool = False,
        wait_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A request is over: with a reply, with a refusal for load (`is_load`; `wait_s` is what the server asked to wait),
        or with another fault."""
        now = asyncio.get_running_loop().time()
        self._inside.discard(ticket)
        self.num_inside -= 1
        told = self._read(headers or {}, now)
        if succeeded:
            self._grow(ticket)
        elif is_load:
            self.num_refused += 1
            is_budget = told and any(budget.wait(ticket.cost, now) > 0 for budget in self._budgets.values())
            is_new = ticket.started > self._last_cut
            # The one that was too many waits by itself; those that were taken before it still are.
            is_one_too_many = is_new and self._is_try() and not is_budget
            if wait_s is not None and not is_one_too_many:
                self._paused_until = max(self._paused_until, now + min(wait_s, LONGEST_PAUSE_S))
            if is_new and not is_budget:
                self._cut(ticket, now)
        self._admit()

    def _grow(self, ticket: Ticket) -> None:
        # Successes say something about the level only when it was made use of.
        if ticket.num_inside < int(self.level) and not self._waiting:
            return
        self._since_change += 1
        if self._since_change >= int(self.level):
            self._good = max(self._good, self.level)
        if self._known is None:
            self._set(self.level + 1)
        elif self.level < self._known:
            self._set(min(self._known, self.level + 0.5))
        elif self._since_change >= self._probe_after:
            self._probe()

    def _probe(self) -> None:
        """Tries more: by halves up to just below what was refused last, then, much later, that itself; where even that is
        taken, all is open again."""
        if self._over == float("inf"):
            self._known = float("inf")
            return
        if self.level < self._over - 1:
            self._known = min(self.level + max(1.0, (self._over - 1 - self.level) / 2), self._over - 1)
        else:
            self._known, self._over = self.level + 1, float("inf")
        self._probe_after = self._patience(self._known)
        self._set(self._known)

    def _is_try(self) -> bool:
        """Whether the level is one that was not good before."""
        return 1.0 < self._good < self.level

    def _patience(self, level: float) -> int:
        """Successes before the next try from this level."""
        return max(int(level), SOONEST_PROBE) if level < self._over - 1 else LATEST_PROBE

    def _set(self, level: float) -> None:
        if int(level) != int(self.level):
            self._since_change = 0
        self.level = max(1.0, min(level, float(self.ceiling)))

    def _cut(self, ticket: Ticket, now: float) -> None:
        refused = max(2.0, float(min(max(ticket.num_inside, self.num_inside + 1), int(self.level))))
        # A try at more that failed says nothing against what was good before it.
        cut = max(CUT, PROBE_CUT * min(1.0, self._good / refused)) if self._is_try() else CUT
        self._good = min(self._good, refused - 1)
        self._over = refused
        self._known = max(1.0, refused - 1 - (refused - 1 - self._good) // 2)
        self._good = min(self._good, cut * refused)
        self._set(cut * refused)
        self._probe_after = self._patience(self._known)
        self._since_change, self._last_cut = 0, now

    def _read(self, headers: Mapping[str, str], now: float) -> bool:
        """Takes over what the headers say is left; whether they said anything."""
        told = False
        for name, pairs in _HEADERS.items():
            for limit_name, left_name in pairs:
                try:
                    limit, left = float(headers[limit_name]), float(headers[left_name])
                except (KeyError, ValueError):
                    continue
                if limit <= 0:
                    continue
                told = True
                known = self._budgets.get(name)
                if known is None:
                    under_way = sum(ticket.cost if name == "tokens" else 1 for ticket in self._inside)
                    self._budgets[name] = _Budget(limit, left - under_way, now, _holds(name, limit, left))
                    continue
                reckoned = min(known.now(now), limit)
                level = left if left < reckoned else reckoned + _TRUST * (left - reckoned)
                seen = known.holds if known.limit == limit else 0.0
                self._budgets[name] = _Budget(limit, level, now, max(seen, _holds(name, limit, left)))
        return told

    def _admit(self) -> None:
        """Lets in whom the level, the pause and the budgets allow, and sets an alarm for the next moment to look."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self.num_inside < int(self.level):
            _, _, num_tokens, place = self._waiting[0]
            if place.done():
                heapq.heappop(self._waiting)
                continue
            costs = {"requests": 1.0, "tokens": num_tokens}
            wait = max(
                [self._paused_until - now, *(budget.wait(costs[name], now) for name, budget in self._budgets.items())]
            )
            if wait > 0:
                self._wake_in(wait)
                return
            heapq.heappop(self._waiting)
            for name, budget in self._budgets.items():
                budget.spend(costs[name], now)
            self.num_inside += 1
            place.set_result(None)

    def _wake_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(max(seconds, _TICK_S), self._admit)


def _holds(name: str, limit: float, left: float) -> float:
    """How much a budget holds, by what a header says is left. Servers hold less than a minute's requests, some a few seconds';
    after a moment in which nothing was sent no more is there than has ever been left. Of tokens one request may need more."""
    return max(1.0, left) if name == "requests" else limit


_HEADERS = {
    "requests": (
        ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining"),
        ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
    ),
    "tokens": (
        ("anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining"),
        ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"),
    ),
}
