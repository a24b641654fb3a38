"""Spending no more than was allowed.

Before a request is sent, the most that it can cost is set aside; when its reply is there, what it did cost takes that
place. A request that would not fit waits until those on their way have come back, which frees what they did not use; when
none is on its way and it still does not fit, the run ends with BudgetError. So nothing that is paid for is thrown away, and
the limit holds as long as no prompt has more tokens than `most_tokens` says.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from longalign_data.errors import BudgetError
from longalign_data.generation.ledger import Ledger
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.base import Raw, Teacher, TeacherReply, TeacherRequest, prompt
from longalign_data.teachers.prices import FREE, Prices, Rate, is_batch, load_prices
from longalign_data.teachers.table import PROVIDERS

_OVERHEAD_TOKENS = 64


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
    """More tokens than any teacher's tokenizer makes of a long text: one for two ASCII characters, two for any other.
    English prose is near one for four, code near one for three, Chinese near one a character."""
    num_ascii = len(text.encode("ascii", "ignore"))
    return num_ascii // 2 + 2 * (len(text) - num_ascii)


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
        most = self._worst(request)
        async with self._changed:
            while self.spent_usd + self._reserved + most > self._limit:
                if self._is_over or not self._num_reserved:
                    self._is_over = True
                    self._changed.notify_all()
                    raise BudgetError(
                        f"the budget of {self._limit:,.2f} USD is used up: {self.spent_usd:,.4f} USD are spent in this "
                        f"build, and the next request may cost up to {most:,.4f}. What was received is kept; a larger "
                        "--max-usd goes on from here"
                    )
                await self._changed.wait()
            self._reserved += most
            self._num_reserved += 1
        return most

    async def settle(self, reserved_usd: float, usage: Usage | None, *, batch: bool = False) -> None:
        """Puts what a request cost in the place of what was set aside; None for one that was not answered."""
        async with self._changed:
            self._reserved -= reserved_usd
            self._num_reserved -= 1
            if not self._num_reserved:
                self._reserved = 0.0  # sums and differences of floats leave dust
            if usage is not None:
                self.spent_usd += self._rate.cost(usage, batch=batch)
            self._changed.notify_all()

    def _worst(self, request: TeacherRequest) -> float:
        num_given = most_tokens(prompt(request)) + _OVERHEAD_TOKENS
        as_input = self._rate.cost(Usage(input_tokens=num_given, output_tokens=request.max_tokens))
        as_write = self._rate.cost(Usage(cache_write_tokens=num_given, output_tokens=request.max_tokens))
        return max(as_input, as_write)


class BudgetedTeacher:
    """A teacher whose every request passes through a budget. `read` is the provider's reading of its raw replies."""

    def __init__(self, teacher: Teacher, budget: Budget, read: Callable[[Raw], TeacherReply]) -> None:
        self._teacher = teacher
        self._budget = budget
        self._read = read

    async def ask(self, request: TeacherRequest) -> Raw:
        """As the teacher's own. Raises BudgetError as well."""
        reserved = await self._budget.reserve(request)
        usage, batch = None, False
        try:
            raw = await self._teacher.ask(request)
            usage, batch = self._usage(raw), is_batch(raw)
            return raw
        finally:
            await self._budget.settle(reserved, usage, batch=batch)

    async def close(self) -> None:
        await self._teacher.close()

    def _usage(self, raw: Raw) -> Usage | None:
        try:
            return self._read(raw).usage
        except ValueError:
            return None


def spent(ledger: Ledger, prices: Prices) -> float:
    """What all replies in a ledger cost together, in dollars; those of models without a price count nothing."""
    total = 0.0
    for entry in ledger.entries():
        cost = reply_cost(entry.provider, entry.model, entry.raw if entry.failure is None else None, prices)
        total += cost or 0.0
    return total


def reply_cost(provider: str, model: str, raw: Raw | None, prices: Prices) -> float | None:
    """What one raw reply cost; None where no price is known, 0 for no reply and for one without usage."""
    known = PROVIDERS.get(provider)
    rate = FREE if known is not None and known.is_free else prices.rate(provider, model)
    if rate is None:
        return None
    if raw is None or known is None:
        return 0.0
    try:
        usage = known.read(raw).usage
    except ValueError:
        return 0.0
    return rate.cost(usage, batch=is_batch(raw))


def budgeted(teacher: Teacher, choice: TeacherChoice, spending: Spending, ledger: Ledger) -> Teacher:
    """The teacher, held to the run's limit where there is one. Raises RecipeError for a limit on a model without a price."""
    provider = PROVIDERS[choice.provider]
    if spending.max_usd is None or provider.is_free:
        return teacher
    rate = spending.prices.require(choice.provider, choice.model)
    budget = Budget(spending.max_usd, rate, spent_usd=spent(ledger, spending.prices))
    return BudgetedTeacher(teacher, budget, provider.read)
