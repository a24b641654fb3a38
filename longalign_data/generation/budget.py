"""Spending no more than was allowed.

Before a request is sent, the most that it can cost is set aside; when its reply is there, what it did cost takes that
place. A request that would not fit waits until those on their way have come back, which frees what they did not use; when
none is on its way and it still does not fit, the run ends with BudgetError. So nothing that is paid for is thrown away, and
the limit holds as long as no prompt has more tokens than `most_tokens` says. An attempt whose reply never came may have been
billed, and so was one whose reply does not name its tokens: they count with the most that they can have cost, in this run and,
from the ledger, in every later one.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longalign_data.errors import BudgetError
from longalign_data.generation.ledger import Call, Entry, Ledger
from longalign_data.generation.submissions import Submission, Submissions
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.base import UNWATCHED, Raw, Teacher, TeacherReply, TeacherRequest, Watch, prompt
from longalign_data.teachers.prices import FREE, Prices, Rate, is_batch, load_prices
from longalign_data.teachers.table import PROVIDERS

_OVERHEAD_TOKENS = 64
_UNKNOWN_FACTOR = 3
"""What an earlier run noted of a batch are tokens of the recipe's tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a run knows of money. `max_usd` is for the whole build, what its ledger holds already included."""

    prices: Prices
    max_usd: float | None = None


def default_spending() -> Spending:
    """The package's own prices, and no limit."""
    return Spending(prices=load_prices())


def rate_of(choice: TeacherChoice, prices: Prices) -> Rate | None:
    """What a recipe's teacher costs: nothing for a free one, None where no price is known."""
    return FREE if PROVIDERS[choice.provider].is_free else prices.rate(choice.provider, choice.model)


def most_tokens(text: str) -> int:
    """More tokens than a teacher's tokenizer makes of a text: one for each byte of its UTF-8, and two for three of the small
    letters and blanks that stand together, three or more (fewer of them, between digits say, can be a token each). No token
    covers less than a byte; of digits, line breaks and rare scripts many tokenizers make one for each, of small letters drawn by
    chance up to 0.59 a letter. English and Chinese prose is near 0.25 a byte."""
    data = text.encode("utf-8", "surrogatepass")
    codes = np.frombuffer(data, np.uint8)
    small = ((codes >= ord("a")) & (codes <= ord("z"))) | (codes == ord(" "))
    three = small[:-2] & small[1:-1] & small[2:]
    within = np.zeros(len(codes), bool)
    for place in range(3):
        within[place : len(codes) - 2 + place] |= three
    return len(codes) - int(within.sum()) // 3


class Budget:
    """A limit in dollars and what of it is spent or set aside; for one event loop."""

    def __init__(self, limit_usd: float, rate: Rate, *, spent_usd: float = 0.0) -> None:
        self._limit = limit_usd
        self._rate = rate
        self._reserved = 0.0
        self._num_reserved = 0
        self._changed = asyncio.Condition()
        self._is_over = False
        self.spent_usd = spent_usd

    async def reserve(self, request: TeacherRequest) -> float:
        """Sets aside the most that a request can cost, in dollars, and says how much that is. Raises BudgetError when it
        cannot fit any more."""
        most = most_cost(request, self._rate)
        async with self._changed:
            # What is sent once the run is ending would be paid for and thrown away.
            while self._is_over or self.spent_usd + self._reserved + most > self._limit:
                if self._is_over or not self._num_reserved:
                    self._is_over = True
                    self._changed.notify_all()
                    raise used_up(self._limit, self.spent_usd, most)
                await self._changed.wait()
            self._reserved += most
            self._num_reserved += 1
        return most

    async def settle(self, reserved_usd: float, usage: Usage | None) -> None:
        """Puts what a request cost in the place of what was set aside; None for one that was not answered."""
        async with self._changed:
            self._reserved -= reserved_usd
            self._num_reserved -= 1
            if not self._num_reserved:
                self._reserved = 0.0  # sums and differences of floats leave dust
            if usage is not None:
                self.spent_usd += self._rate.cost(usage)
            self._changed.notify_all()

    async def lost(self, reserved_usd: float) -> None:
        """Counts what was set aside as spent: the request may have been answered, and nobody has seen its bill."""
        async with self._changed:
            self._reserved -= reserved_usd
            self._num_reserved -= 1
            if not self._num_reserved:
                self._reserved = 0.0
            self.spent_usd += reserved_usd
            self._changed.notify_all()


class BatchBudget:
    """A limit for batches, whose money is bound for hours: what is spent is read from the ledger, and what is out is
    remembered by batch. Batches of an earlier run count with what their noted tokens may cost."""

    def __init__(self, limit_usd: float, rate: Rate, ledger: Ledger, prices: Prices) -> None:
        self._limit = limit_usd
        self._rate = rate
        self._ledger = ledger
        self._prices = prices
        self._out: dict[str, float] = {}
        self._spent = 0.0
        self._read_at = -1

    def cost(self, request: TeacherRequest) -> float:
        """The most that a request can cost in a batch, in dollars."""
        return most_cost(request, self._rate, batch=True)

    def sent(self, batch: str, most_usd: float) -> None:
        """A batch goes out that may cost so much."""
        self._out[batch] = most_usd

    def left(self, waiting: Sequence[Submission]) -> float:
        """Dollars that are neither spent nor bound by the batches that are out."""
        return self._limit - self._spent_now() - sum(map(self._bound, waiting))

    def _bound(self, batch: Submission) -> float:
        """The most that a batch may cost, of another model at that model's prices where they are known."""
        rate = self._prices.rate(batch.provider, batch.model) or self._rate
        unknown = rate.cost(Usage(input_tokens=_UNKNOWN_FACTOR * batch.num_tokens), batch=True)
        return self._out.get(batch.submission_id, unknown)

    def used_up(self, most_usd: float, waiting: Sequence[Submission] = ()) -> BudgetError:
        """What to raise when a request that may cost so much does not fit beside the batches that are out."""
        bound = "; ".join(
            f"{self._bound(batch):,.4f} USD are bound by batch {batch.known_as} of {batch.provider} "
            f"{batch.model}, which is out"
            for batch in waiting
        )
        return used_up(self._limit, self._spent_now(), most_usd, bound)

    def _spent_now(self) -> float:
        """As `booked`, which reads every reply again, once for each state of the ledger: batches are polled for hours."""
        if self._ledger.num_changes != self._read_at:
            self._spent = booked(self._ledger, self._prices)
            self._read_at = self._ledger.num_changes
        return self._spent


def used_up(limit_usd: float, spent_usd: float, most_usd: float, bound: str = "") -> BudgetError:
    beside = f"{bound}, " if bound else ""
    return BudgetError(
        f"the budget of {limit_usd:,.2f} USD is used up: {spent_usd:,.4f} USD are spent in this build, {beside}and the next "
        f"request may cost up to {most_usd:,.4f}. What was received is kept; a larger --max-usd goes on from here"
    )


def most_cost(request: TeacherRequest, rate: Rate, *, batch: bool = False) -> float:
    """The most that a request can cost, in dollars: all of its prompt written to the cache where that is dearer, and all
    the output that it allows."""
    return _most_cost(most_given(request), request.max_tokens, rate, batch=batch)


def most_given(request: TeacherRequest) -> int:
    """More tokens than the prompt of a request has."""
    return most_tokens(prompt(request)) + _OVERHEAD_TOKENS


def _most_cost(num_given: int, max_tokens: int, rate: Rate, *, batch: bool = False) -> float:
    as_input = Usage(input_tokens=num_given, output_tokens=max_tokens)
    as_write = Usage(cache_write_tokens=num_given, output_tokens=max_tokens)
    return max(rate.cost(as_input, batch=batch), rate.cost(as_write, batch=batch))


class BudgetedTeacher:
    """A teacher whose every request passes through a budget. `read` is the provider's reading of its raw replies."""

    def __init__(self, teacher: Teacher, budget: Budget, read: Callable[[Raw], TeacherReply]) -> None:
        self._teacher = teacher
        self._budget = budget
        self._read = read

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        """As the teacher's own. Raises BudgetError as well, between attempts too: one whose reply was lost counts with all
        that was set aside for it."""
        reserved = _Reserved(self._budget, request, watch, await self._budget.reserve(request))
        usage = None
        try:
            raw = await self._teacher.ask(request, watch=reserved)
            usage = told_usage(self._read, raw)
            if usage is None:
                await reserved.spent()
            return raw
        finally:
            if reserved.usd is not None:
                await self._budget.settle(reserved.usd, usage)

    async def close(self) -> None:
        await self._teacher.close()

    def status(self) -> str:
        """The teacher's own, and what is spent."""
        return ", ".join(filter(None, (self._teacher.status(), f"{self._budget.spent_usd:,.2f} USD")))


def told_usage(read: Callable[[Raw], TeacherReply], raw: Raw) -> Usage | None:
    """What a reply says that it used; None where it names no token of its prompt, or cannot be read."""
    try:
        usage = read(raw).usage
    except ValueError:
        return None
    return usage if usage.input_tokens or usage.cache_write_tokens or usage.cache_read_tokens else None


class _Reserved:
    """What is set aside for the attempt that is under way, None between a lost one and the next; passes on what it is told."""

    def __init__(self, budget: Budget, request: TeacherRequest, watch: Watch, usd: float) -> None:
        self._budget = budget
        self._request = request
        self._watch = watch
        self.usd: float | None = usd

    async def sending(self) -> None:
        await self._watch.sending()

    async def lost(self) -> None:
        await self._watch.lost()
        await self.spent()
        self.usd = await self._budget.reserve(self._request)

    async def spent(self) -> None:
        """The attempt counts with all that was set aside for it."""
        assert self.usd is not None
        gone, self.usd = self.usd, None
        await self._budget.lost(gone)


class Booking:
    """Books the attempts at one call in the ledger, each before it leaves, so that what may have been billed is known even
    if the process ends before the reply is there."""

    def __init__(self, ledger: Ledger, call: Call) -> None:
        self._ledger = ledger
        self._call = call
        self._is_booked = False

    async def sending(self) -> None:
        if not self._is_booked:
            self._ledger.sending(self._call, num_tokens=most_given(self._call.request))
            self._is_booked = True

    async def lost(self) -> None:
        self._ledger.lost(self._call)

    def over(self) -> None:
        """No attempt of this process is under way any more; what another one left is not touched."""
        if self._is_booked:
            self._ledger.over(self._call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """Attempts that may have been billed and whose replies never came, or did not name their tokens (`num_unnamed` of them), and
    the most that they can have cost, in dollars; those of models without a price cost nothing here."""

    num_attempts: int
    num_unnamed: int
    most_usd: float


def unheard(ledger: Ledger, prices: Prices, *, is_at_work: bool = False) -> Unheard:
    """What a ledger knows of such attempts. Of a request that was answered later the tokens of the prompt are known, of the
    others the most that they can be."""
    num_attempts, num_unnamed, most_usd = 0, 0, 0.0
    batched = ledger.in_batches()
    for attempts in ledger.unheard():
        # What a process has under way is lost only once the process is.
        count = attempts.num_attempts - (attempts.num_under_way if is_at_work else 0)
        num_attempts += count
        num_unnamed += attempts.is_unnamed
        known = PROVIDERS.get(attempts.provider)
        rate = FREE if known is not None and known.is_free else prices.rate(attempts.provider, attempts.model)
        if rate is not None:
            given = attempts.prompt_tokens or attempts.most_tokens
            costs = [_most_cost(given, attempts.max_tokens, rate, batch=batch) for batch in (False, True)]
            num_batched = min(count, int(attempts.is_unnamed and attempts.request_id in batched))
            most_usd += (count - num_batched) * costs[False] + num_batched * costs[True]
    return Unheard(num_attempts=num_attempts, num_unnamed=num_unnamed, most_usd=most_usd)


def booked(ledger: Ledger, prices: Prices) -> float:
    """What counts against a limit, in dollars: all that is spent, and the most that attempts without a reply can have cost."""
    return spent(ledger, prices) + unheard(ledger, prices).most_usd


def spent(ledger: Ledger, prices: Prices) -> float:
    """What all replies in a ledger cost together, in dollars, with those that were paid for and not fetched in time; those of
    models without a price count nothing."""
    gone = sum(gone_cost(batch, prices) or 0.0 for batch in Submissions(ledger).gone())
    return gone + sum(entry_cost(entry, prices) or 0.0 for entry in ledger.entries())


def gone_cost(batch: Submission, prices: Prices) -> float | None:
    """About what a batch cost whose results nobody has seen, in dollars, by the tokens noted when it was sent; None where no
    price is known."""
    rate = prices.rate(batch.provider, batch.model)
    return None if rate is None else rate.cost(Usage(input_tokens=batch.num_tokens), batch=True)


def entry_cost(entry: Entry, prices: Prices) -> float | None:
    """What one request of a ledger cost, as `reply_cost`."""
    raw = entry.raw if entry.failure is None else None
    return reply_cost(entry.provider, entry.model, raw, prices, was_in_batch=entry.was_in_batch)


def reply_cost(provider: str, model: str, raw: Raw | None, prices: Prices, *, was_in_batch: bool) -> float | None:
    """What one raw reply cost; None where no price is known, 0 for no reply and for one whose usage does not name its prompt, of
    which `unheard` knows the most."""
    known = PROVIDERS.get(provider)
    rate = FREE if known is not None and known.is_free else prices.rate(provider, model)
    if rate is None:
        return None
    if raw is None or known is None:
        return 0.0
    usage = told_usage(known.read, raw)
    return 0.0 if usage is None else rate.cost(usage, batch=is_batch(raw, was_in_batch=was_in_batch))


def budgeted(teacher: Teacher, choice: TeacherChoice, spending: Spending, ledger: Ledger) -> Teacher:
    """The teacher, held to the run's limit where there is one. Raises RecipeError for a limit on a model without a price."""
    provider = PROVIDERS[choice.provider]
    if spending.max_usd is None or provider.is_free:
        return teacher
    rate = spending.prices.require(choice.provider, choice.model)
    budget = Budget(spending.max_usd, rate, spent_usd=booked(ledger, spending.prices))
    return BudgetedTeacher(teacher, budget, provider.read)


def batch_budget(choice: TeacherChoice, spending: Spending, ledger: Ledger) -> BatchBudget | None:
    """The run's limit for batches, where there is one. Raises RecipeError for a limit on a model without a price."""
    if spending.max_usd is None or PROVIDERS[choice.provider].is_free:
        return None
    rate = spending.prices.require(choice.provider, choice.model)
    return BatchBudget(spending.max_usd, rate, ledger, spending.prices)
