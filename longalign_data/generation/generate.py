"""The generate stage: selection and documents to samples.

First the ledger is filled with the replies that are missing, live (`asking`) or through a batch API (`batching`); then
the table is a pure function of the selection, the documents and the ledger, so its rows and their order do not depend on
how, or in how many runs, the ledger was filled. Documents are used in the order of their rank.
"""

import asyncio
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError
from longalign_data.generation.asking import ask_missing
from longalign_data.generation.batching import ask_in_batches
from longalign_data.generation.exchange import Finished, Plan, Rejected, follow
from longalign_data.generation.ledger import Call, Ledger
from longalign_data.identity import digest
from longalign_data.recipe import LoadedRecipe
from longalign_data.records import Checks, Document, DocumentSpan, Evidence, Message, Reject, Sample, Selected, Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import KeyedRows, from_row, iter_batches, iter_records
from longalign_data.shards.stage import StageReport, StageWriter
from longalign_data.tasks.templates import Templates
from longalign_data.teachers.base import SEPARATOR, Teacher
from longalign_data.teachers.table import PROVIDERS, teacher_record
from longalign_data.tokenizers import Tokenizer, count_tokens, load_tokenizer

STAGE = "generate"

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
) -> StageReport:
    """Writes one sample, or one reject, for each selected document, in the order of their ranks.

    The report's details hold the samples by task, the tokens that the provider billed for them, and the selected
    documents by language that had no instruction of their own (they got the one that `TaskTemplate.language_for` says).
    Raises RecipeError for a task without a template, BuildError for a selected document that is not in the build, and
    TeacherError when documents could not be asked; the same call then goes on where it stopped.
    """
    recipe = loaded.recipe
    choice = recipe.generate.teacher
    provider = PROVIDERS[choice.provider]
    tasks = [task for task, share in recipe.generate.tasks.items() if share > 0]
    plan = Plan(recipe=recipe, templates=templates.only(tasks), read=provider.read)
    source = _Documents(build)
    tokenizer = load_tokenizer(recipe.tokenizer)
    with Ledger(build.ledger, durable=not provider.is_free) as ledger:
        progress.start(STAGE, len(source), "documents")
        if run.schedule == "batch":
            asking = ask_in_batches(
                source.in_order, len(source), plan=plan, ledger=ledger, teacher=teacher, progress=progress
            )
        else:
            asking = ask_missing(
                source.in_order(),
                len(source),
                plan=plan,
                ledger=ledger,
                teacher=teacher,
                concurrency=run.concurrency,
                progress=progress,
            )
        asyncio.run(asking)
        with StageWriter(build, STAGE, fingerprint=fingerprint, run=run) as writer:
            figures = _Figures()
            figures.resume(build)
            for chunk in _chunks(source.in_order(writer.cursor)):
                for document, outcome in zip(chunk, _outcomes(chunk, plan, ledger, tokenizer, run), strict=True):
                    if isinstance(outcome, Sample):
                        figures.add(outcome.task, outcome.usage)
                        writer.write("samples", outcome)
                    else:
                        writer.reject(
                            Reject(id=document.doc_id, stage=STAGE, reason=outcome.reason, detail=outcome.detail)
                        )
                    writer.next_input()
            return writer.finish(figures.details() | {"other_languages": source.without_instruction(plan.templates)})


class _Documents:
    """The selected documents in the order of their ranks."""

    def __init__(self, build: BuildFolder) -> None:
        chosen = sorted(iter_records(build.shards("selection"), Selected), key=lambda selected: selected.rank)
        self._ids = [selected.doc_id for selected in chosen]
        shards = build.shards("documents")
        self._rows = KeyedRows(shards, "doc_id")
        missing = [doc_id for doc_id in self._ids if doc_id not in self._rows]
        if missing:
            raise BuildError(
                f"{build.root}: {len(missing)} selected documents are not in the documents table (first: {missing[0]}); "
                "run: longalign ingest RECIPE, then longalign sample RECIPE"
            )
        self._languages = {
            row["doc_id"]: row["lang"]
            for batch in iter_batches(shards, columns=["doc_id", "lang"])
            for row in batch.to_pylist()
        }

    def __len__(self) -> int:
        return len(self._ids)

    def in_order(self, start: int = 0) -> Iterator[Document]:
        for doc_id in self._ids[start:]:
            yield from_row(Document, self._rows.row(doc_id))

    def without_instruction(self, templates: Templates) -> dict[str, int]:
        """How many selected documents are in a language that some task has no instruction for, by language."""
        languages = Counter(self._languages[doc_id] for doc_id in self._ids)
        known = [set(template.instructions) for template in templates.by_task.values()]
        return {lang: languages[lang] for lang in sorted(languages) if any(lang not in langs for langs in known)}


class _Figures:
    """The stage's own figures; of a stage that was cut off they are read back from its closed shards."""

    def __init__(self) -> None:
        self._tasks: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()

    def resume(self, build: BuildFolder) -> None:
        for batch in iter_batches(build.shards("samples"), columns=["task", "usage"]):
            for row in batch.to_pylist():
                self.add(row["task"], Usage(**row["usage"]))

    def add(self, task: str, usage: Usage) -> None:
        self._tasks[task] += 1
        self._usage.update(dataclasses.asdict(usage))

    def details(self) -> dict[str, Any]:
        fields = (field.name for field in dataclasses.fields(Usage))
        return {"tasks": dict(sorted(self._tasks.items())), "usage": {name: self._usage[name] for name in fields}}


def _chunks(documents: Iterator[Document]) -> Iterator[Sequence[Document]]:
    while chunk := list(itertools.islice(documents, _CHUNK)):
        yield chunk


def _outcomes(
    documents: Sequence[Document], plan: Plan, ledger: Ledger, tokenizer: Tokenizer, run: RunOptions
) -> Sequence[Sample | Rejected]:
    steps = [_ended(document, plan, ledger) for document in documents]
    finished = [(document, step) for document, step in zip(documents, steps, strict=True) if isinstance(step, Finished)]
    texts = [text for document, step in finished for text in (_user_content(document, step), step.answer)]
    counts = count_tokens(tokenizer, texts, threads=run.workers)
    lengths = iter(zip(counts[::2], counts[1::2], strict=True))
    return [
        step if isinstance(step, Rejected) else _sample(document, step, plan, next(lengths))
        for document, step in zip(documents, steps, strict=True)
    ]


def _ended(document: Document, plan: Plan, ledger: Ledger) -> Finished | Rejected:
    step = follow(document, plan, ledger)
    assert not isinstance(step, Call), "the ledger was filled before"
    return step


def _user_content(document: Document, step: Finished) -> str:
    return document.text + SEPARATOR + step.questions[step.question_index]


def _sample(document: Document, step: Finished, plan: Plan, lengths: tuple[int, int]) -> Sample:
    choice = plan.recipe.generate.teacher
    num_user_tokens, num_answer_tokens = lengths
    answered = step.replies[1]
    evidence = [Evidence(doc_id=document.doc_id, start=start, end=end) for start, end in answered.evidence]
    return Sample(
        sample_id=digest({"document": document.doc_id, "requests": step.request_ids}),
        doc_ids=[document.doc_id],
        source=document.source,
        lang=document.lang,
        task=step.task,
        messages=[
            Message(role="user", content=_user_content(document, step)),
            Message(role="assistant", content=step.answer),
        ],
        document_spans=[DocumentSpan(message_index=0, start=0, end=len(document.text))],
        questions=step.questions,
        question_index=step.question_index,
        teacher=teacher_record(choice),
        usage=_sum(step.replies[0].usage, answered.usage),
        cost_usd=0.0 if PROVIDERS[choice.provider].is_free else None,
        stop_reason=answered.stop_reason,
        request_ids=step.request_ids,
        num_tokens=num_user_tokens + num_answer_tokens,
        num_answer_tokens=num_answer_tokens,
        checks=Checks(evidence=evidence),
        license=document.license,
    )


def _sum(first: Usage, second: Usage) -> Usage:
    return Usage(
        **{field.name: getattr(first, field.name) + getattr(second, field.name) for field in dataclasses.fields(Usage)}
    )
