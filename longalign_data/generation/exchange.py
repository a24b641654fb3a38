"""The way of one document: ask for questions, draw one, have it answered.

In: a document and the ledger. Out: what comes next. `follow` is the whole state machine, without memory and without side
effects, so that any scheduler that sends what it returns and stores what comes back ends at the same data:

    Call(kind="question")  ->  Call(kind="answer")  ->  Finished        or, from anywhere,  Rejected

Task and question are draws keyed by the document's id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from longalign_data.generation.ledger import Call, Ledger, Stored, request_id
from longalign_data.identity import digest, draw_index, draw_weighted
from longalign_data.recipe import Recipe
from longalign_data.records import Document
from longalign_data.tasks.questions import parse_questions
from longalign_data.tasks.templates import Templates
from longalign_data.teachers.base import Raw, StopReason, TeacherReply, TeacherRequest

REASONS: dict[StopReason, str] = {
    "max_tokens": "max-tokens",
    "refusal": "refusal",
    "context_exceeded": "context-exceeded",
    "stop_sequence": "stopped-early",
    "tool_use": "stopped-early",
    "pause_turn": "stopped-early",
    "unknown": "stopped-early",
}
"""The reject of every stop reason but `end_turn`. The other rejects of this stage are `no-questions`, `empty-answer`,
`teacher-error` (a reply that is not in the provider's format) and what a provider refused a request for:
`context-exceeded` and `bad-request`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all documents have in common: the recipe, the templates of its tasks, and how the provider's replies are read."""

    recipe: Recipe
    templates: Templates
    read: Callable[[Raw], TeacherReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Both replies are there and whole. `replies` and `request_ids` are of the question call and of the answer call."""

    task: str
    questions: Sequence[str]
    question_index: int
    answer: str
    replies: tuple[TeacherReply, TeacherReply]
    request_ids: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The document ends here; `reason` as in `REASONS`."""

    reason: str
    detail: str


def follow(document: Document, plan: Plan, ledger: Ledger) -> Call | Finished | Rejected:
    """What comes next for a document: the call whose reply is missing, or how it ended. Depends on nothing but its arguments."""
    recipe = plan.recipe
    limits = recipe.generate.teacher
    document_hash = digest(document.text)
    task = draw_weighted(recipe.seed, "task", document.doc_id, sorted(recipe.generate.tasks.items()))

    instruction = plan.templates.instruction(task, document.lang)
    asking = _call(document, document_hash, plan, "question", instruction, limits.max_question_tokens)
    asked = _ending(asking, ledger.reply(asking.request_id), plan)
    if not isinstance(asked, TeacherReply):
        return asked
    questions = parse_questions(asked.text)
    if not questions:
        return Rejected(reason="no-questions", detail=f"no question in the reply: {_shortened(asked.text)}")

    index = draw_index(recipe.seed, "question", document.doc_id, len(questions))
    answering = _call(document, document_hash, plan, "answer", questions[index], limits.max_answer_tokens)
    answered = _ending(answering, ledger.reply(answering.request_id), plan)
    if not isinstance(answered, TeacherReply):
        return answered
    if not answered.text:
        return Rejected(reason="empty-answer", detail=f"to the question: {_shortened(questions[index])}")
    return Finished(
        task=task,
        questions=questions,
        question_index=index,
        answer=answered.text,
        replies=(asked, answered),
        request_ids=(asking.request_id, answering.request_id),
    )


def _call(
    document: Document,
    document_hash: str,
    plan: Plan,
    kind: Literal["question", "answer"],
    instruction: str,
    max_tokens: int,
) -> Call:
    choice = plan.recipe.generate.teacher
    request = TeacherRequest(
        model=choice.model,
        document=document.text,
        instruction=instruction,
        max_tokens=max_tokens,
        parameters=choice.parameters,
    )
    identity = request_id(choice.provider, request, document_hash=document_hash)
    return Call(request_id=identity, document_id=document.doc_id, kind=kind, provider=choice.provider, request=request)


def _ending(call: Call, stored: Stored | None, plan: Plan) -> TeacherReply | Call | Rejected:
    """The finished reply to a call, the call itself while it has none, or what is wrong with the reply."""
    if stored is None:
        return call
    if stored.failure is not None:
        return Rejected(reason=stored.failure, detail=f"{call.kind} call: {stored.raw.get('message', '')}")
    try:
        reply = plan.read(stored.raw)
    except ValueError as error:
        return Rejected(reason="teacher-error", detail=f"{call.kind} call: {error}")
    if reply.stop_reason != "end_turn":
        return Rejected(reason=REASONS[reply.stop_reason], detail=f"{call.kind} call: {reply.detail}".rstrip(": "))
    return TeacherReply(
        text=_storable(reply.text).strip(),
        stop_reason=reply.stop_reason,
        usage=reply.usage,
        evidence=reply.evidence,
        detail=reply.detail,
    )


def _storable(text: str) -> str:
    """JSON can spell halves of surrogate pairs, UTF-8 cannot; each becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _shortened(text: str, limit: int = 120) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")
