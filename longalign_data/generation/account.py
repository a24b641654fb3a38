"""What a ledger says: how far a build is, what failed, and what was paid for what.

In: the ledger, prices, and for each document its source and, where it became a sample, its task. Out: an `Account`. A request's
task is told by its instruction; an answer has its document's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from longalign_data.generation.budget import Unheard, entry_cost, gone_cost, unheard
from longalign_data.generation.exchange import REASONS
from longalign_data.generation.ledger import Entry, Ledger
from longalign_data.generation.submissions import Submission, Submissions
from longalign_data.records import Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.tasks.questions import parse_questions
from longalign_data.tasks.templates import Templates
from longalign_data.teachers.base import TeacherReply
from longalign_data.teachers.prices import Prices
from longalign_data.teachers.table import PROVIDERS

UNKNOWN = "(unknown)"
TINY = "(tiny question)"
"""Source and task of what is asked ahead of the first batch, which is about no document."""


@dataclass(slots=True, kw_only=True)
class Line:
    """Requests that have something in common. `usd` counts those with a price, `num_unpriced` the replies without."""

    num_requests: int = 0
    num_replies: int = 0
    num_unpriced: int = 0
    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    def add(self, entry: Entry, usage: Usage, usd: float | None) -> None:
        self.num_requests += 1
        self.num_replies += entry.raw is not None
        self.num_unpriced += usd is None
        self.input_tokens += usage.input_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.cache_read_tokens += usage.cache_read_tokens
        self.output_tokens += usage.output_tokens
        self.usd += usd or 0.0

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens


@dataclass(slots=True, kw_only=True)
class Account:
    """`questioned` are the documents with whole questions, however often asked. `states` counts requests by kind and state,
    `failures` replies that are no whole answer by reason.
    `num_answer_hits` of `num_answers` answers read some of their prompt from the provider's cache. `batches_gone` were paid
    for and not fetched in time, with what they cost, about, in dollars; `unheard` attempts may have been billed as well.
    `taken_over` is what other builds, by their names, had paid for."""

    num_selected: int | None
    questioned: set[str] = field(default_factory=set)
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    total: Line = field(default_factory=Line)
    by_source: dict[str, Line] = field(default_factory=dict)
    by_task: dict[str, Line] = field(default_factory=dict)
    by_model: dict[str, Line] = field(default_factory=dict)
    num_whole_answers: int = 0
    num_answers: int = 0
    num_answer_hits: int = 0
    num_asked_again: int = 0
    taken_over: dict[str, Line] = field(default_factory=dict)
    batches_out: list[Submission] = field(default_factory=list)
    batches_gone: list[tuple[Submission, float | None]] = field(default_factory=list)
    unheard: Unheard


def account(
    ledger: Ledger,
    prices: Prices,
    *,
    templates: Templates,
    sources: Mapping[str, str],
    tasks: Mapping[str, str],
    num_selected: int | None,
    is_at_work: bool = False,
) -> Account:
    """Reads every reply again. While a build `is_at_work`, what it has under way is not among the `unheard`. `sources` is the
    source of each document, `tasks` the task of each that became a sample; an instruction that is none of `templates` and led to
    no sample (an edited prompt) is of the task `(unknown)`."""
    asked = ledger.asked()
    known = {asked[document_id]: task for document_id, task in tasks.items() if document_id in asked}
    known |= {text: name for name, template in templates.by_task.items() for text in template.instructions.values()}
    submissions = Submissions(ledger)
    result = Account(
        num_selected=num_selected,
        batches_out=submissions.unfinished(),
        batches_gone=[(batch, gone_cost(batch, prices)) for batch in submissions.gone()],
        unheard=unheard(ledger, prices, is_at_work=is_at_work),
    )
    for entry in ledger.entries():
        if entry.kind == "trial":
            _enter(result, entry, prices, TINY, TINY)
            continue
        instruction = entry.instruction if entry.kind == "question" else asked.get(entry.document_id, "")
        task = known.get(instruction, UNKNOWN)
        _enter(result, entry, prices, sources.get(entry.document_id, UNKNOWN), task)
    return result


def _enter(result: Account, entry: Entry, prices: Prices, source: str, task: str) -> None:
    result.states[(entry.kind, entry.state)] += 1
    result.num_asked_again += entry.times_sent > 1
    reply = _reply(entry)
    failure = entry.failure or _failure(entry, reply)
    if failure is not None:
        if entry.kind != "trial":  # which is about no document
            result.failures[failure] += 1
    elif reply is not None:
        if entry.kind == "question":
            result.questioned.add(entry.document_id)
        result.num_whole_answers += entry.kind == "answer"
    usage = reply.usage if reply is not None else Usage()
    usd = None
    if entry.raw is not None:
        usd = entry_cost(entry, prices)
    if reply is not None and entry.kind == "answer":
        result.num_answers += 1
        result.num_answer_hits += usage.cache_read_tokens > 0
    for line in (
        *([result.taken_over.setdefault(entry.taken_from, Line())] if entry.taken_from is not None else []),
        result.total,
        result.by_source.setdefault(source, Line()),
        result.by_task.setdefault(task, Line()),
        result.by_model.setdefault(f"{entry.provider} {entry.model}", Line()),
    ):
        line.add(entry, usage, usd if entry.raw is not None else 0.0)


def _reply(entry: Entry) -> TeacherReply | None:
    provider = PROVIDERS.get(entry.provider)
    if entry.raw is None or entry.failure is not None or provider is None:
        return None
    try:
        return provider.read(entry.raw)
    except ValueError:
        return None


def _failure(entry: Entry, reply: TeacherReply | None) -> str | None:
    if entry.raw is None:
        return None
    if reply is None:
        return "teacher-error"
    if reply.stop_reason != "end_turn":
        return REASONS[reply.stop_reason]
    if entry.kind == "question":
        return None if parse_questions(reply.text) else "no-questions"
    return None if reply.text.strip() else "empty-answer"


def sources_of(build: BuildFolder) -> Mapping[str, str]:
    """The source of each document that the build's tables know; the samples tell where documents are not kept."""
    found: dict[str, str] = {}
    for batch in iter_batches(build.shards("samples"), columns=["doc_ids", "source"]):
        for row in batch.to_pylist():
            found.update(dict.fromkeys(row["doc_ids"], row["source"]))
    for batch in iter_batches(build.shards("documents"), columns=["doc_id", "source"]):
        for row in batch.to_pylist():
            found[row["doc_id"]] = row["source"]
    return found


def tasks_of(build: BuildFolder) -> Mapping[str, str]:
    """The task of each document that became a sample."""
    found: dict[str, str] = {}
    for batch in iter_batches(build.shards("samples"), columns=["doc_ids", "task"]):
        for row in batch.to_pylist():
            found.update(dict.fromkeys(row["doc_ids"], row["task"]))
    return found
