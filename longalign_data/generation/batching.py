"""Filling the ledger: the batch scheduler.

Every request that can be asked now goes out in as few batches as the provider's limits allow; when all of them are back,
what can be asked then goes out: first the questions of all documents, then the answers, then what paid checks there are.
A batch stands in the ledger before the provider is told of it, so the process may end at any moment, for days: the same
call goes on with what the provider has done meanwhile. Nothing is sent while it might already be there.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from longalign_data.engine import Progress
from longalign_data.errors import TeacherError, UserError
from longalign_data.generation.asking import GO_ON, ask_trial, keep
from longalign_data.generation.budget import BatchBudget, most_given
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import Plan
from longalign_data.generation.exchange import waiting as waiting_calls
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.generation.submissions import Submission, Submissions
from longalign_data.generation.telling import telling
from longalign_data.identity import digest
from longalign_data.recipe import limit_words
from longalign_data.teachers.base import ABORTING_REASONS, Teacher
from longalign_data.teachers.batches import Batches, BatchStatus, BatchTeacher, Item, ItemResult, UnsureError
from longalign_data.teachers.retry import FIRST_WAIT_S, Fault

SHARD_BYTES = 128_000_000
"""A batch is held in memory twice while it is sent; the providers would take twice as much."""
ROUNDS = 5
"""So often a request is sent in one run; each time it expired, met the provider's own fault, or did not fit into its queue even
alone."""
PATIENCE_S = 600.0
"""So long a queue is waited for that takes not even one request."""

_FIRST_POLL_S, _LONGEST_POLL_S = 0.25, 60.0
_SKEW_S = 600.0
"""So far apart the provider's own clocks may be; this machine's is never set against them."""
_STORED_TOGETHER = 128


async def ask_in_batches(
    documents: SelectedDocuments,
    *,
    plan: Plan,
    ledger: Ledger,
    teacher: Teacher,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
    budget: BatchBudget | None = None,
) -> None:
    """Afterwards every document has all its replies, or the refusal that ends its way, in the ledger.

    Raises UserError for a teacher without a batch API, BudgetError when `budget`
    holds no further request, and TeacherError as `asking.ask_missing` does; the next call goes on from what the ledger and
    the provider have.
    """
    try:
        if not isinstance(teacher, BatchTeacher):
            provider = plan.recipe.generate.teacher.provider
            raise UserError(f"the teacher {provider!r} has no batch API; take --schedule live")
        batcher = _Batcher(
            documents=documents,
            plan=plan,
            ledger=ledger,
            teacher=teacher,
            progress=progress,
            shard_bytes=shard_bytes,
            budget=budget,
            submissions=Submissions(ledger),
        )
        async with telling(progress, batcher.words):
            await batcher.run()
    finally:
        await teacher.close()
    batcher.conclude()


@dataclass(slots=True, kw_only=True)
class _Shard:
    """The requests of one batch, with the bytes and the estimated tokens of each."""

    calls: list[Call] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    num_bytes: int = 0
    num_tokens: int = 0

    def add(self, call: Call, *, num_bytes: int, num_tokens: int) -> None:
        self.calls.append(call)
        self.sizes.append(num_bytes)
        self.tokens.append(num_tokens)
        self.num_bytes += num_bytes
        self.num_tokens += num_tokens

    def cut(self, count: int) -> None:
        """Keeps the first `count` requests."""
        for each in (self.calls, self.sizes, self.tokens):
            del each[count:]
        self.num_bytes, self.num_tokens = sum(self.sizes), sum(self.tokens)


@dataclass(slots=True, kw_only=True)
class _Batcher:
    documents: SelectedDocuments
    plan: Plan
    ledger: Ledger
    teacher: BatchTeacher
    progress: Progress
    shard_bytes: int
    budget: BatchBudget | None
    submissions: Submissions
    max_tokens: int | None = None
    pause_s: float = 0.0
    full_since: float | None = None
    has_tried: bool = False
    rounds: Counter[str] = field(default_factory=Counter)
    last_fault: str = ""
    most_usd: float = 0.0
    abort: Fault | None = None
    left: set[str] = field(init=False)
    _batches: Batches | None = None
    _out: str = ""

    def __post_init__(self) -> None:
        self.left = set(self.documents.measures)

    def words(self) -> str:
        """What somebody who watches may want to know."""
        return "; ".join(filter(None, (self._out, self.teacher.status() if self._batches else "")))

    @property
    def batches(self) -> Batches:
        # The client is made on first use: a build whose replies are all there needs no key.
        if self._batches is None:
            self._batches = self.teacher.batches()
        return self._batches

    async def run(self) -> None:
        self._say_whose_are_left()
        while True:
            await self._until(lambda waiting: not waiting)
            num_sent = 0
            for shard in self._shards():
                num_sent += len(shard.calls)
                await self._until(partial(self._has_room, shard))
                await self._afford(shard)
                await self._pause()
                await self._submit(shard)
            if not num_sent:
                return

    def conclude(self) -> None:
        if self.left:
            raise TeacherError(
                f"{len(self.left)} of {len(self.documents)} documents could not be asked in {ROUNDS} batches each: "
                f"{self.last_fault or 'the results of these say nothing about them'}; {GO_ON}",
                reason="unavailable",
                retryable=True,
            )

    # Sending

    def _shards(self) -> Iterator[_Shard]:
        """Everything that can be asked now and is not under way, in batches within the limits."""
        in_flight = self.submissions.in_flight()
        shard = _Shard()
        left = self.documents.left(self.plan, self.ledger)
        ended = self.left.difference(left)
        self.left.intersection_update(left)
        self.progress.advance(len(ended), self.documents.num_tokens(ended))
        for document in self.documents.documents(left):
            for call in waiting_calls(document, self.plan, self.ledger):
                if call.request_id in in_flight or self.rounds[call.request_id] >= ROUNDS:
                    continue
                limits = self.batches.limits
                num_bytes = self.batches.size(_item(call))
                num_tokens = document.num_tokens + call.request.max_tokens
                if shard.calls and (
                    len(shard.calls) >= limits.max_requests
                    or shard.num_bytes + num_bytes > min(self.shard_bytes, limits.max_bytes)
                    or (self.max_tokens is not None and shard.num_tokens + num_tokens > self.max_tokens)
                ):
                    yield shard
                    shard = _Shard()
                shard.add(call, num_bytes=num_bytes, num_tokens=num_tokens)
        if shard.calls:
            yield shard

    def _has_room(self, shard: _Shard, waiting: Sequence[Submission]) -> bool:
        if self.max_tokens is None or not waiting:
            return True
        return sum(submission.num_tokens for submission in waiting) + shard.num_tokens <= self.max_tokens

    async def _afford(self, shard: _Shard) -> None:
        """Takes out of a batch what the budget does not hold. Money bound by batches that are out may come free, so the last
        word is only spoken when none is."""
        if self.budget is None:
            return
        costs = [self.budget.cost(call.request) for call in shard.calls]
        await self._until(lambda waiting: not waiting or self._left() >= sum(costs))
        left = self._left()
        if costs[0] > left:
            raise self.budget.used_up(costs[0], self.submissions.unfinished())
        num_fitting = sum(total <= left for total in itertools.accumulate(costs))
        shard.cut(num_fitting)
        self.most_usd = sum(costs[:num_fitting])

    def _left(self) -> float:
        assert self.budget is not None
        return self.budget.left(self.submissions.unfinished())

    def _unfinished(self) -> list[Submission]:
        """Batches of this recipe's teacher that are out; another's are not asked for here, and nothing waits for them."""
        return self.submissions.unfinished_of(self.plan.recipe.generate.teacher)

    def _say_whose_are_left(self) -> None:
        own = {submission.submission_id for submission in self._unfinished()}
        for submission in self.submissions.unfinished():
            if submission.submission_id not in own:
                self.progress.say(
                    f"{submission.num_requests:,} requests of this build are out in {submission.words} of {submission.provider} "
                    f"{submission.model}, which is left alone; the recipe with that teacher fetches them"
                )

    async def _submit(self, shard: _Shard) -> None:
        if not self.has_tried:
            await self._try(shard.calls[0])
            self.has_tried = True
        newer_than = await self._newest()
        created = time.time()
        submission_id = digest([created, [call.request_id for call in shard.calls]])
        first = shard.calls[0]
        submission = Submission(
            submission_id=submission_id,
            provider=first.provider,
            model=first.request.model,
            state="sending",
            batch_id=None,
            num_requests=len(shard.calls),
            num_bytes=shard.num_bytes,
            num_tokens=shard.num_tokens,
            created=created,
            kept_until=None,
            newer_than=newer_than,
        )
        with self.ledger.together():
            self.submissions.begin(submission, shard.calls)
            for call in shard.calls:
                self.ledger.in_batch(call, num_tokens=most_given(call.request))
        if self.budget is not None:
            self.budget.sent(submission_id, self.most_usd)
        self.rounds.update(call.request_id for call in shard.calls)
        try:
            status = await self.batches.submit(submission_id, [_item(call) for call in shard.calls])
        except UnsureError as error:
            # It stays `sending`; the provider's list will tell.
            self.last_fault = str(error)
            return
        except TeacherError:
            self.submissions.closed(submission_id, "lost")
            raise
        self.submissions.opened(submission_id, status.batch_id, kept_s=self.batches.limits.kept_s)

    async def _pause(self) -> None:
        """Waits while the provider's queue is full."""
        if self.pause_s:
            self._out = f"the provider takes no further batch ({self.last_fault}); trying again in {self.pause_s:.0f} s"
            self.progress.advance(note=self.words())
            await asyncio.sleep(self.pause_s)

    async def _newest(self) -> float:
        """When the provider's newest batch was created, by its own clock; 0 where it has none."""
        async for status in self.batches.listed(0.0):
            return status.created
        return 0.0

    async def _try(self, like: Call) -> None:
        """Asks a tiny question at once, at full price, unless requests like this one have been answered before. A parameter
        that the model does not take would otherwise be heard of a day later, from every request alike."""
        if self.ledger.has_answers(like):
            return
        async for _ in self.batches.listed(time.time()):
            break  # a server without a batch API says so before anything is paid
        await ask_trial(self.teacher, self.ledger, self.plan, like)

    # Receiving

    async def _until(self, is_enough: Callable[[Sequence[Submission]], bool]) -> None:
        """Fetches what has ended until the batches that are still out are few enough."""
        poll_s = _FIRST_POLL_S
        began = time.monotonic()
        while True:
            for submission in self._unfinished():
                if submission.batch_id is None:
                    await self._find(submission, looked_s=time.monotonic() - began)
                else:
                    await self._look(submission, submission.batch_id)
            waiting = self._unfinished()
            if is_enough(waiting):
                return
            self._out = _note(waiting)
            self.progress.advance(note=self.words())
            await asyncio.sleep(poll_s)
            poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)

    async def _look(self, submission: Submission, batch_id: str) -> None:
        status = await self._status(submission, batch_id)
        refused: list[ItemResult] = []
        if status.state == "ended" and (missing := await self._fetched(submission, batch_id, refused)):
            status = replace(status, state="gone", detail=missing)
        if status.state == "ended":
            await self._refuse(submission, refused)
            self.submissions.closed(submission.submission_id, "done")
            self.pause_s, self.full_since = 0.0, None
            if self.max_tokens is not None:
                # The queue may have been full for a moment only.
                self.max_tokens *= 2
            if self.abort is not None:
                raise TeacherError(f"{self.abort.message}; {GO_ON}", reason=self.abort.reason)
        elif status.state == "gone":
            # Paid for and not fetched in time: the only way on is to ask again, and to keep account of it.
            self.last_fault = f"the results of batch {batch_id} are no longer kept: {status.detail}"
            self.submissions.closed(submission.submission_id, "gone")
            self.progress.say(
                f"the provider no longer keeps the results of batch {batch_id}: its {submission.num_requests:,} requests were "
                "paid for and are asked again; `longalign ledger` says what they cost"
            )
        elif status.state == "failed":
            # Nothing of it was answered or will be: before anything else its requests are free again.
            self.submissions.closed(submission.submission_id, "lost")
            self._learn(submission, status)

    async def _status(self, submission: Submission, batch_id: str) -> BatchStatus:
        try:
            return await self.batches.status(batch_id)
        except TeacherError as error:
            if error.reason != "not-found":
                raise
            ledger = f"longalign ledger RECIPE{limit_words(self.plan.recipe.name)}"
            raise TeacherError(
                f"{error}: {submission.num_requests:,} requests of this build are out in batch {batch_id}, and the provider does "
                "not know it. If the key is of another account or workspace, or the address of another server (a fake provider "
                "forgets its batches when it ends), the same command with the right one goes on. If the batch was deleted, give "
                f"it up: {ledger} --forget {batch_id}; it counts as paid, and its requests are asked again",
                reason="not-found",
            ) from error

    async def _fetched(self, submission: Submission, batch_id: str, refused: list[ItemResult]) -> str:
        """Fetches the results; what the provider says where it has the batch and no longer its files. Requests that were refused
        for good go into `refused`."""
        try:
            await self._fetch(submission, batch_id, refused)
        except TeacherError as error:
            if error.reason != "not-found":
                raise
            return str(error)
        return ""

    def _learn(self, submission: Submission, status: BatchStatus) -> None:
        """A batch was refused as a whole: for too many tokens in waiting batches, or for good."""
        self.last_fault = status.detail
        if "token_limit_exceeded" not in status.detail:
            raise TeacherError(
                f"the provider refuses the batch {status.batch_id}: {status.detail}; {GO_ON}", reason="bad-request"
            )
        if submission.num_requests == 1:
            self._wait_longer(submission)
            return
        self.rounds.subtract(self.submissions.requests(submission.submission_id))
        if self.max_tokens is None or submission.num_tokens <= self.max_tokens:
            self.max_tokens = max(1, submission.num_tokens // 2)

    def _wait_longer(self, submission: Submission) -> None:
        """Not even one request fits into the provider's queue: the request is too large for it, or others fill it."""
        now = time.monotonic()
        self.full_since = self.full_since or now
        self.pause_s = min(2 * self.pause_s or FIRST_WAIT_S, _LONGEST_POLL_S)
        (alone,) = self.submissions.requests(submission.submission_id)
        self.last_fault += (
            f" (not even for one request of about {submission.num_tokens:,} tokens about document "
            f"{self.ledger.call(alone).document_id}; --schedule live has no such queue)"
        )
        if now - self.full_since > PATIENCE_S:
            raise TeacherError(f"{self.last_fault}; {GO_ON}", reason="rate-limited", retryable=True)

    async def _find(self, submission: Submission, *, looked_s: float) -> None:
        """Whether a submission whose answer was lost has arrived: by its label where there is one, else by the number of its
        requests and, once the batch has ended, their ids. While a batch of that size is running, nobody can tell."""
        known = self.submissions.batch_ids()
        own = self.submissions.requests(submission.submission_id)
        async for status in self.batches.listed(submission.newer_than - _SKEW_S):
            if status.batch_id in known:
                continue
            if status.label is not None:
                if status.label == submission.submission_id:
                    return self._found(submission, status)
            elif status.num_requests == submission.num_requests:
                if status.state == "running":
                    return None
                if status.state == "ended" and await self._is_ours(status.batch_id, own):
                    return self._found(submission, status)
        # What was still on its way when the process ended may arrive a moment after it.
        if looked_s > 1.0 + submission.num_bytes / 2_000_000:
            self.submissions.closed(submission.submission_id, "lost")
        return None

    def _found(self, submission: Submission, status: BatchStatus) -> None:
        self.submissions.opened(submission.submission_id, status.batch_id, kept_s=self.batches.limits.kept_s)

    async def _is_ours(self, batch_id: str, own: set[str]) -> bool:
        async for result in self.batches.results(batch_id):
            return _request_id(result.custom_id) in own
        return False

    async def _refuse(self, submission: Submission, refused: list[ItemResult]) -> None:
        """Holds refusals against the documents that they are about. Raises TeacherError where every request would be refused
        like them, which are then free to be sent again."""
        try:
            await self._require_others_taken(refused)
        except TeacherError as error:
            if not error.retryable:
                self.submissions.closed(submission.submission_id, "done")
            raise
        self._store(refused)

    async def _require_others_taken(self, refused: Sequence[ItemResult]) -> None:
        """Asks a tiny question for each kind of request that was refused: what is said of an account or a parameter is said in
        the same way as of one odd document."""
        doubtful = {
            result.custom_id.partition("-")[0]: result
            for result in refused
            if result.fault is not None and result.fault.reason != "context-exceeded"
        }
        for result in doubtful.values():
            like = self.ledger.call(_request_id(result.custom_id))
            await ask_trial(self.teacher, self.ledger, self.plan, like, after=like.request_id)

    async def _fetch(self, submission: Submission, batch_id: str, refused: list[ItemResult]) -> None:
        own = self.submissions.requests(submission.submission_id)
        held: list[ItemResult] = []
        try:
            async for result in self.batches.results(batch_id):
                if _request_id(result.custom_id) not in own:
                    continue
                if result.fault is None:
                    held.append(result)
                elif result.fault.reason in ABORTING_REASONS:
                    self.abort = result.fault
                elif result.fault.retryable:
                    self.last_fault = result.fault.message
                else:
                    refused.append(result)
                if len(held) >= _STORED_TOGETHER:
                    self._store(held)
                    await asyncio.sleep(0)
        finally:
            # Results that never come whole end with an error, and what came was paid for.
            self._store(held)

    def _store(self, results: list[ItemResult]) -> None:
        with self.ledger.together():
            for result in results:
                request = _Named(_request_id(result.custom_id))
                if result.raw is not None:
                    keep(self.ledger, request, result.raw, self.plan)
                elif result.fault is not None:
                    self.ledger.refused(request, reason=result.fault.reason, message=result.fault.message)
        results.clear()


@dataclass(frozen=True, slots=True)
class _Named:
    """A request of which the ledger knows all the rest."""

    request_id: str


def _item(call: Call) -> Item:
    return Item(custom_id=f"{call.kind[0]}-{call.request_id}", request=call.request)


def _request_id(custom_id: str) -> str:
    return custom_id.partition("-")[2]


def _note(waiting: Sequence[Submission]) -> str:
    unsure = sum(submission.batch_id is None for submission in waiting)
    num_requests = sum(submission.num_requests for submission in waiting)
    kept = min((submission.kept_until for submission in waiting if submission.kept_until is not None), default=None)
    said = f"{len(waiting)} batches with {num_requests:,} requests are out"
    if unsure:
        said += f", {unsure} of them perhaps not arrived"
    if kept is not None:
        said += f"; fetch them before {time.strftime('%Y-%m-%d', time.localtime(kept))}"
    return said
