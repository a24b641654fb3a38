"""The generate stage: selection and documents to samples.

First the ledger takes over what trials of the recipe have paid for (`trials`), then it is filled with the replies that are
missing, live (`asking`) or through a batch API (`batching`); then
the table is a pure function of the selection, the documents and the ledger, so its rows and their order do not depend on
how, or in how many runs, the ledger was filled. Documents are used in the order of their rank.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from longalign_data.checks.duplicates import SeenQuestions
from longalign_data.checks.table import run_checks
from longalign_data.engine import Progress, RunOptions
from longalign_data.generation.asking import ask_missing
from longalign_data.generation.batching import ask_in_batches
from longalign_data.generation.budget import (
    Spending,
    batch_budget,
    budgeted,
    default_spending,
    gone_cost,
    rate_of,
    reply_cost,
    spent,
    unheard,
)
from longalign_data.generation.documents import SelectedDocuments
from longalign_data.generation.exchange import Answered, Finished, Plan, Rejected, follow, shortened
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.generation.paid import fault, score
from longalign_data.generation.submissions import Submissions
from longalign_data.generation.trials import take_over, taken
from longalign_data.identity import digest
from longalign_data.recipe import LoadedRecipe
from longalign_data.records import (
    Checks,
    Document,
    DocumentSpan,
    Evidence,
    Message,
    Reject,
    Sample,
    Score,
    Usage,
)
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.shards.stage import StageReport, StageWriter
from longalign_data.tasks.templates import Templates
from longalign_data.teachers.base import SEPARATOR, Teacher
from longalign_data.teachers.table import PROVIDERS, teacher_record
from longalign_data.tokenizers import Tokenizer, count_tokens, load_tokenizer

STAGE = "generate"

MARKS: dict[str, Callable[[Score], bool]] = {
    "meta-phrases": lambda score: score.name == "meta_phrases" and score.value > 0,
    "unanswered": lambda score: score.name == "unanswered" and score.value > 0,
    "truncated": lambda score: score.name == "truncated" and score.value > 0,
    "half-grounded": lambda score: score.name == "grounding" and score.value < 0.5,
    "duplicate-question": lambda score: score.name == "duplicate_question" and score.value > 0,
    "known-without-document": lambda score: score.name == "closed_book" and score.value > 0.5,
    "judged-low": lambda score: score.name == "judge" and score.value < 3,
    "unchecked": lambda score: score.name == "unchecked",
}
"""What is counted of the scores that the checks leave in the samples."""

_CHUNK = 16
"""Documents in memory at a time while the table is written."""


def generate(
    loaded: LoadedRecipe,
    build: BuildFolder,
    *,
    fingerprint: str,
    run: RunOptions,
    progress: Progress,
    teacher: Teacher,
    templates: Templates,
    spending: Spending | None = None,
) -> StageReport:
    """Writes one sample, or one reject, for each answer that each selected document was to get (for the document, when it
    came to no answers), in the order of their ranks; the report's `num_in` counts these.

    The report's details hold the samples by task, the tokens that the provider billed for them, their cost and that of
    the whole ledger, what the checks marked, and the selected documents by language that had no instruction of their own
    (they got the one that `TaskTemplate.language_for` says); `rehearsed`, how many replies are the fake provider's.
    Raises RecipeError for a task without a template, BuildError
    for a selected document that is not in the build, UserError for a live run while a batch is out and for any run while a batch of
    a trial is out that holds requests of this build, BudgetError when the
    money is used up, and TeacherError when documents could not be asked; the same call then goes on where it stopped.
    """
    began = time.monotonic()
    recipe = loaded.recipe
    choice = recipe.generate.teacher
    provider = PROVIDERS[choice.provider]
    spending = spending or default_spending()
    tasks = [task for task, share in recipe.generate.tasks.items() if share > 0]
    plan = Plan(recipe=recipe, templates=templates.only(tasks), read=provider.read)
    source = SelectedDocuments(build)
    tokenizer = load_tokenizer(recipe.tokenizer)
    with Ledger(build.ledger, durable=not provider.is_free) as ledger:
        if run.schedule != "batch":
            Submissions(ledger).require_none_out(recipe)
        take_over(build, source, plan, ledger, prices=spending.prices, progress=progress)
        progress.start(STAGE, len(source), "documents")
        if run.schedule == "batch":
            asking = ask_in_batches(
                source,
                plan=plan,
                ledger=ledger,
                teacher=teacher,
                progress=progress,
                budget=batch_budget(choice, spending, ledger),
            )
        else:
            left = source.left(plan, ledger)
            progress.advance(len(source) - len(left), source.num_tokens(source.measures.keys() - set(left)))
            asking = ask_missing(
                source.documents(left),
                len(left),
                plan=plan,
                ledger=ledger,
                teacher=budgeted(teacher, choice, spending, ledger),
                concurrency=run.concurrency,
                progress=progress,
            )
        asyncio.run(asking)
        with StageWriter(build, STAGE, fingerprint=fingerprint, run=run, began=began) as writer:
            figures = _Figures()
            figures.resume(build)
            for chunk in _chunks(source.in_order(writer.cursor)):
                outcomes = _outcomes(chunk, plan, ledger, tokenizer, run, spending)
                for document, of_document in zip(chunk, outcomes, strict=True):
                    for outcome in of_document:
                        if isinstance(outcome, Sample) and outcome.sample_id in recipe.exclude.samples:
                            detail = f"sample {outcome.sample_id}: named in the recipe's exclude.samples"
                            writer.reject(Reject(id=document.doc_id, stage=STAGE, reason="withdrawn", detail=detail))
                        elif isinstance(outcome, Sample):
                            writer.write("samples", figures.add(outcome, recipe.generate.checks.run))
                        else:
                            writer.reject(
                                Reject(id=document.doc_id, stage=STAGE, reason=outcome.reason, detail=outcome.detail)
                            )
                    writer.next_input(len(of_document))
            cost = figures.cost() | {
                "ledger_usd": round(spent(ledger, spending.prices), 6)
                if rate_of(choice, spending.prices) is not None
                else None,
                "prices": spending.prices.dated.isoformat(),
            }
            if others := taken(ledger, spending.prices):
                cost["taken_over"] = [
                    {"build": name, "replies": count, "usd": round(usd, 6)} for name, (count, usd) in others.items()
                ]
            gone = Submissions(ledger).gone()
            if gone:
                cost["not_fetched"] = {
                    "requests": sum(batch.num_requests for batch in gone),
                    "usd": sum(gone_cost(batch, spending.prices) or 0.0 for batch in gone),
                }
            silent = unheard(ledger, spending.prices)
            if silent.num_attempts:
                cost["unheard"] = {"attempts": silent.num_attempts, "most_usd": round(silent.most_usd, 6)}
                if silent.num_unnamed:
                    cost["unheard"]["replies_without_usage"] = silent.num_unnamed
            rehearsed = ledger.rehearsed(choice.provider, choice.model)
            fake = {"rehearsed": len(rehearsed)} if rehearsed else {}
            other = source.without_instruction(plan.templates)
            return writer.finish(figures.details() | {"cost": cost, "other_languages": other} | fake)


def recounted(build: BuildFolder) -> dict[str, Any]:
    """The stage's figures of the samples that stand in the build now, as in the report's details: by task, usage, marks and
    cost (without what only the ledger and the prices know)."""
    figures = _Figures()
    figures.resume(build)
    return figures.details() | {"cost": figures.cost()}


class _Figures:
    """The stage's own figures; of a stage that was cut off they are read back from its closed shards."""

    def __init__(self) -> None:
        self._tasks: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._dollars: dict[str, dict[str, float]] = {"by_source": {}, "by_task": {}, "by_model": {}}
        self._num_samples = 0
        self._num_unpriced = 0
        self._seen = SeenQuestions()

    def resume(self, build: BuildFolder) -> None:
        columns = ["source", "task", "teacher", "usage", "cost_usd", "questions", "question_index", "checks"]
        for batch in iter_batches(build.shards("samples"), columns=columns):
            for row in batch.to_pylist():
                scores = [Score(**score) for score in row["checks"]["scores"]]
                self._count(row["task"], Usage(**row["usage"]), scores)
                self._charge((row["source"], row["task"], row["teacher"]["model"]), row["cost_usd"])
                self._seen.add(row["questions"][row["question_index"]])

    def add(self, sample: Sample, checks: Collection[str]) -> Sample:
        """Counts a sample; it comes back with the likeness of its question to those before it."""
        if "duplicates" in checks:
            likeness = self._seen.add(sample.questions[sample.question_index])
            scores = [*sample.checks.scores, Score(name="duplicate_question", value=round(likeness, 4))]
            sample = dataclasses.replace(sample, checks=dataclasses.replace(sample.checks, scores=scores))
        self._count(sample.task, sample.usage, sample.checks.scores)
        self._charge((sample.source, sample.task, sample.teacher.model), sample.cost_usd)
        return sample

    def _count(self, task: str, usage: Usage, scores: Sequence[Score]) -> None:
        self._num_samples += 1
        self._tasks[task] += 1
        self._usage.update(dataclasses.asdict(usage))
        self._marks.update(name for name, is_marked in MARKS.items() if any(map(is_marked, scores)))

    def _charge(self, names: tuple[str, str, str], cost_usd: float | None) -> None:
        if cost_usd is None:
            self._num_unpriced += 1
            return
        for dollars, name in zip(self._dollars.values(), names, strict=True):
            dollars[name] = dollars.get(name, 0.0) + cost_usd

    def details(self) -> dict[str, Any]:
        fields = (field.name for field in dataclasses.fields(Usage))
        return {
            "tasks": dict(sorted(self._tasks.items())),
            "usage": {name: self._usage[name] for name in fields},
            "marked": dict(sorted(self._marks.items())),
        }

    def cost(self) -> dict[str, Any]:
        """Dollars that the samples cost, all None where a price is missing."""
        if self._num_unpriced:
            return {"usd": None, "usd_per_sample": None} | dict.fromkeys(self._dollars)
        total = sum(self._dollars["by_model"].values())
        parts = {
            name: {key: round(value, 6) for key, value in sorted(dollars.items())}
            for name, dollars in self._dollars.items()
        }
        return {
            "usd": round(total, 6),
            "usd_per_sample": round(total / self._num_samples, 6) if self._num_samples else None,
        } | parts


def _chunks(documents: Iterator[Document]) -> Iterator[Sequence[Document]]:
    while chunk := list(itertools.islice(documents, _CHUNK)):
        yield chunk


def _outcomes(
    documents: Sequence[Document],
    plan: Plan,
    ledger: Ledger,
    tokenizer: Tokenizer,
    run: RunOptions,
    spending: Spending,
) -> Sequence[Sequence[Sample | Rejected]]:
    """For each document what became of its answers, or of itself."""
    ended: list[tuple[Document, Finished | None, Answered | Rejected]] = []
    for document in documents:
        step = _ended(document, plan, ledger)
        if isinstance(step, Rejected):
            ended.append((document, None, step))
        else:
            ended += [(document, step, _checked(document, step, answer, plan)) for answer in step.answers]
    texts = [
        text
        for document, step, answer in ended
        if step is not None and isinstance(answer, Answered)
        for text in (_user_content(document, step, answer), answer.answer)
    ]
    counts = count_tokens(tokenizer, texts, threads=run.workers)
    lengths = iter(zip(counts[::2], counts[1::2], strict=True))
    batched = ledger.in_batches()
    outcomes: dict[str, list[Sample | Rejected]] = {document.doc_id: [] for document in documents}
    paid: set[str] = set()
    for document, finished, answer in ended:
        if finished is None or isinstance(answer, Rejected):
            assert isinstance(answer, Rejected)
            outcomes[document.doc_id].append(answer)
            continue
        # What the questions cost is the first sample's, so that the samples' sums are the bill.
        asked = [finished.asked_id] if document.doc_id not in paid else []
        paid.add(document.doc_id)
        checks = [check.request_id for check in answer.paid]
        bill = _Bill.of([*asked, answer.request_id, *checks], plan, ledger, spending, batched)
        outcomes[document.doc_id].append(_sample(document, finished, answer, plan, next(lengths), bill))
    return [outcomes[document.doc_id] for document in documents]


def _ended(document: Document, plan: Plan, ledger: Ledger) -> Finished | Rejected:
    step = follow(document, plan, ledger)
    assert not isinstance(step, Call), "the ledger was filled before"
    return step


def _checked(document: Document, step: Finished, answer: Answered | Rejected, plan: Plan) -> Answered | Rejected:
    if isinstance(answer, Rejected):
        return answer
    checks = plan.recipe.generate.checks
    question = step.questions[answer.question_index]
    verdict = run_checks(
        document.text,
        question,
        answer.answer,
        run=checks.run,
        reject=checks.reject,
        min_grounding=checks.min_grounding,
    )
    paid = [score(check, question, answer.answer) for check in answer.paid]
    verdict = verdict._replace(scores=[*verdict.scores, *paid])
    faults = [(verdict.fault, verdict.detail)] if verdict.fault else []
    if found := fault(paid, plan.recipe.generate.paid_checks):
        faults.append(found)
    if faults:
        reason, detail = faults[0]
        return Rejected(reason=reason, detail=f"{detail}; to the question: {shortened(question)}")
    return dataclasses.replace(answer, verdict=verdict)


def _user_content(document: Document, step: Finished, answer: Answered) -> str:
    return document.text + SEPARATOR + step.questions[answer.question_index]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Bill:
    usage: Usage
    cost_usd: float | None

    @staticmethod
    def of(
        request_ids: Sequence[str],
        plan: Plan,
        ledger: Ledger,
        spending: Spending,
        batched: Collection[str],
    ) -> "_Bill":
        """The sum of what several replies used and cost; no price where one of them has none."""
        choice = plan.recipe.generate.teacher
        costs: list[float] = []
        usages: list[Usage] = []
        for request_id in request_ids:
            stored = ledger.reply(request_id)
            assert stored is not None
            raw = stored.raw if stored.failure is None else None
            cost = reply_cost(choice.provider, choice.model, raw, spending.prices, was_in_batch=request_id in batched)
            if cost is not None:
                costs.append(cost)
            with contextlib.suppress(ValueError):
                usages.append(plan.read(raw).usage if raw is not None else Usage())
        usage = Usage(
            **{field.name: sum(getattr(one, field.name) for one in usages) for field in dataclasses.fields(Usage)}
        )
        return _Bill(usage=usage, cost_usd=sum(costs) if len(costs) == len(request_ids) else None)


def _sample(
    document: Document, step: Finished, answer: Answered, plan: Plan, lengths: tuple[int, int], bill: _Bill
) -> Sample:
    num_user_tokens, num_answer_tokens = lengths
    # A teacher that says what it quotes knows best.
    spans = answer.reply.evidence or answer.verdict.evidence
    request_ids = (step.asked_id, answer.request_id)
    return Sample(
        sample_id=digest({"document": document.doc_id, "requests": request_ids}),
        doc_ids=[document.doc_id],
        source=document.source,
        lang=document.lang,
        task=step.task,
        messages=[
            Message(role="user", content=_user_content(document, step, answer)),
            Message(role="assistant", content=answer.answer),
        ],
        document_spans=[DocumentSpan(message_index=0, start=0, end=len(document.text))],
        questions=step.questions,
        question_index=answer.question_index,
        teacher=teacher_record(plan.recipe.generate.teacher),
        usage=bill.usage,
        cost_usd=bill.cost_usd,
        stop_reason=answer.reply.stop_reason,
        request_ids=(*request_ids, *(check.request_id for check in answer.paid)),
        num_tokens=num_user_tokens + num_answer_tokens,
        num_answer_tokens=num_answer_tokens,
        checks=Checks(
            evidence=[Evidence(doc_id=document.doc_id, start=start, end=end) for start, end in spans],
            scores=answer.verdict.scores,
        ),
        license=document.license,
    )
