"""Filling the ledger: the live scheduler.

Up to `concurrency` documents are on their way at a time, each depth-first: its answer is asked for as soon as its
questions are there, while the provider still has the document in its cache. Which order the replies come in changes
nothing but the bill.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from longalign_data.engine import Progress
from longalign_data.errors import BudgetError, TeacherError
from longalign_data.generation.budget import Booking, most_given, told_usage
from longalign_data.generation.exchange import Finished, Plan, Rejected, follow
from longalign_data.generation.ledger import Call, Ledger, Named, request_id
from longalign_data.generation.telling import telling
from longalign_data.identity import digest
from longalign_data.records import Document
from longalign_data.teachers import doctor
from longalign_data.teachers.base import ABORTING_REASONS, Raw, Teacher
from longalign_data.teachers.table import PROVIDERS

READ_BYTES = 100_000
BREATH_S = 0.005
"""So long the documents go on before the event loop sees to all else."""

GO_ON = "nothing that was received is lost; run the same command again to go on"


async def ask_missing(
    documents: Iterable[Document],
    num_documents: int,
    *,
    plan: Plan,
    ledger: Ledger,
    teacher: Teacher,
    concurrency: int,
    progress: Progress,
) -> None:
    """Afterwards every document has all its replies, or the refusal that ends its way, in the ledger.

    Raises TeacherError when that cannot be had: at once for a fault that every request would meet (a bad key, an unknown
    model), at the end for documents whose calls failed until their deadline. What was received stays in the ledger.
    """
    asker = _Asker(plan=plan, ledger=ledger, teacher=teacher, progress=progress, patience=max(3, concurrency))
    shared = iter(documents)
    workers = [asyncio.create_task(asker.work(shared)) for _ in range(max(1, concurrency))]
    try:
        async with telling(progress, teacher.status):
            await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await teacher.close()
    asker.conclude(num_documents)


def keep(ledger: Ledger, request: Named, raw: Raw, plan: Plan) -> None:
    """Stores a reply before anything reads it, then what it used: one that does not tell counts with the most that it can have
    cost. One that cannot be read is made a reject by `follow`."""
    call = request if isinstance(request, Call) else None
    is_free = call is not None and PROVIDERS[call.provider].is_free
    with ledger.together():
        # A batch that is fetched again has the same reply.
        if not is_free and told_usage(plan.read, raw) is None and ledger.reply(request.request_id) is None:
            ledger.unnamed(request, num_tokens=None if call is None else most_given(call.request))
        ledger.answered(request, raw)
    try:
        usage = plan.read(raw).usage
    except ValueError:
        return
    ledger.note_usage(request, usage)


async def ask_trial(teacher: Teacher, ledger: Ledger, plan: Plan, like: Call, *, after: str = "") -> None:
    """Asks a tiny question with the model, the parameters and the limit of a call, and keeps the reply: whether the teacher
    takes such requests at all. `after` is the id of the refused request that gave the reason to ask, so that each of these
    questions stands in the ledger with its cost. Raises TeacherError where it is refused or cannot be asked."""
    request = replace(like.request, document=doctor.DOCUMENT, instruction=doctor.INSTRUCTION)
    document_hash = digest(doctor.DOCUMENT)
    hashed = digest([document_hash, after]) if after else document_hash
    identity = request_id(like.provider, request, document_hash=hashed)
    while after and ledger.reply(identity) is not None:
        # The same request was refused before, and taken back since.
        hashed = digest([hashed, after])
        identity = request_id(like.provider, request, document_hash=hashed)
    trial = Call(
        request_id=identity,
        document_id=document_hash,
        kind="trial",
        provider=like.provider,
        request=request,
    )
    booking = Booking(ledger, trial)
    try:
        raw = await teacher.ask(request, watch=booking)
    except TeacherError as error:
        booking.over()
        if error.retryable:
            raise
        raise refuses_all(error) from error
    except BudgetError:
        booking.over()
        raise
    keep(ledger, trial, raw, plan)


def refuses_all(error: TeacherError) -> TeacherError:
    """What to end a run with whose every request would be refused like this."""
    return TeacherError(
        f"the teacher refuses every request: {error}. Check the key, the account, the model and the parameters of "
        f"generate.teacher; {GO_ON}",
        reason=error.reason,
    )


def _some(documents: Iterator[Document]) -> Sequence[Document]:
    """The next documents: one long one, or short ones together; none at the end."""
    found: list[Document] = []
    size = 0
    while size < READ_BYTES and (document := next(documents, None)) is not None:
        found.append(document)
        size += document.num_bytes
    return found


@dataclass(slots=True, kw_only=True)
class _Asker:
    """What the workers share. `patience` documents that fail in a row mean that the teacher is away."""

    plan: Plan
    ledger: Ledger
    teacher: Teacher
    progress: Progress
    patience: int
    num_done: int = 0
    num_failed_in_row: int = 0
    num_tried_in_vain: int = 0
    last_fault: TeacherError | None = None
    abort: TeacherError | None = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    trying: asyncio.Lock = field(default_factory=asyncio.Lock)
    breathed: float = 0.0
    read: deque[Document] = field(default_factory=deque)

    async def work(self, documents: Iterator[Document]) -> None:
        while (document := await self._next(documents)) is not None:
            await self._document(document)
            if self.abort or self.num_failed_in_row >= self.patience:
                return

    async def _next(self, documents: Iterator[Document]) -> Document | None:
        if self.read:
            return self.read.popleft()
        # Beside the loop: decompressing a long document takes longer than anything else here.
        async with self.reading:
            if not self.read:
                self.read.extend(await asyncio.to_thread(_some, documents))
            return self.read.popleft() if self.read else None

    async def _document(self, document: Document) -> None:
        while isinstance(step := await self._step(document), Call):
            if self.abort or not await self._ask(step):
                return
        self._done(document)

    async def _step(self, document: Document) -> Call | Finished | Rejected:
        # One at a time, with a breath between: replies come in bursts, and a long document takes milliseconds. A teacher on
        # this machine never waits; without the breath an interruption would only be seen at the end.
        async with self.turn:
            if time.monotonic() - self.breathed > BREATH_S:
                await asyncio.sleep(0)
                self.breathed = time.monotonic()
            return follow(document, self.plan, self.ledger)

    def _done(self, document: Document) -> None:
        self.num_done += 1
        self.progress.advance(1, document.num_tokens, note=self.teacher.status())

    async def _ask(self, call: Call) -> bool:
        """Whether the ledger now has an end for this call."""
        booking = Booking(self.ledger, call)
        try:
            raw = await self.teacher.ask(call.request, watch=booking)
        except TeacherError as error:
            booking.over()
            return await self._failed(call, error)
        except BudgetError:
            booking.over()
            raise
        self.num_failed_in_row = 0
        keep(self.ledger, call, raw, self.plan)
        return True

    async def _failed(self, call: Call, error: TeacherError) -> bool:
        if error.reason in ABORTING_REASONS:
            self.abort = refuses_all(error)
            return False
        if error.retryable:
            self.last_fault = error
            self.num_failed_in_row += 1
            return False
        if error.reason != "context-exceeded" and not await self._takes_others(call):
            return False
        self.ledger.refused(call, reason=error.reason, message=str(error))
        return True

    async def _takes_others(self, call: Call) -> bool:
        """Whether a request was refused for what it asks about. A parameter that the model does not take, or an account that is
        closed, is said in the same way as one odd document, at any time of a run; a tiny question tells."""
        num_in_vain = self.num_tried_in_vain
        async with self.trying:
            if self.abort:
                return False
            if self.num_tried_in_vain > num_in_vain:
                # Nobody answered while this one waited for its turn; each would wait as long again.
                self.num_failed_in_row += 1
                return False
            try:
                await ask_trial(self.teacher, self.ledger, self.plan, call, after=call.request_id)
            except TeacherError as error:
                if error.retryable:
                    self.last_fault = error
                    self.num_failed_in_row += 1
                    self.num_tried_in_vain += 1
                else:
                    self.abort = error
                return False
        return True

    def conclude(self, num_documents: int) -> None:
        if self.abort is not None:
            raise self.abort
        num_left = num_documents - self.num_done
        if num_left:
            raise TeacherError(
                f"{num_left} of {num_documents} documents could not be asked: {self.last_fault}; {GO_ON}",
                reason=self.last_fault.reason if self.last_fault else "unavailable",
                retryable=True,
            )
