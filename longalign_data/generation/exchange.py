"""The way of one document: ask for questions, draw one or more, have them answered.

In: a document and the ledger. Out: what comes next. `follow` is the whole state machine, without memory and without side
effects, so that any scheduler that sends what it returns and stores what comes back ends at the same data:

    Call(kind="question")  ->  Call(kind="answer") for each drawn question  ->  Finished        or  Rejected
                               (and the paid checks of each answer)

`waiting` is the same for those who can send several requests at once. Task and questions are draws keyed by the document's
id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from longalign_data.checks.judge import JudgePrompt, load_prompt
from longalign_data.checks.table import NO_VERDICT, Verdict
from longalign_data.generation.ledger import Call, Kind, Ledger, Stored, request_id
from longalign_data.generation.paid import Checked, check_request, kinds_of
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
"""The reject of every stop reason but `end_turn`. The other rejects of this stage are `no-questions`, `too-few-questions` (one
for each answer that the recipe wants and nothing was left to ask for), `empty-answer`,
`teacher-error` (a reply that is not in the provider's format), `document-cut` (the server read a part of the document) and
what a provider refused a request for: `context-exceeded` and `bad-request`."""

AGAIN = ("context-exceeded", "bad-request", "document-cut", "teacher-error")
"""The rejects that a changed server or provider may mend: `forgetting.forget` takes them back."""

LEAST_SHARE = 1 / 3
"""So much of what `_fewest_tokens` expects of a document a prompt has at least, by anybody's count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all documents have in common: the recipe, the templates of its tasks, and how the provider's replies are read."""

    recipe: Recipe
    templates: Templates
    read: Callable[[Raw], TeacherReply]
    judge: JudgePrompt = field(default_factory=load_prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The document, or one of its answers, ends here; `reason` as in `REASONS`, `request_id` that of the reply that says so,
    where one alone does."""

    reason: str
    detail: str
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question and its whole answer, with what became of its paid checks, and what the free ones found once they have
    run."""

    question_index: int
    answer: str
    reply: TeacherReply
    request_id: str
    verdict: Verdict = NO_VERDICT
    paid: Sequence[Checked] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All replies are there. `asked` and `asked_id` are of the question call; `answers` are in the order of the draw, one for
    each that the recipe wants."""

    task: str
    questions: Sequence[str]
    asked: TeacherReply
    asked_id: str
    answers: Sequence[Answered | Rejected]


def follow(document: Document, plan: Plan, ledger: Ledger) -> Call | Finished | Rejected:
    """What comes next for a document: a call whose reply is missing, or how it ended. Depends on nothing but its arguments."""
    step = _step(document, digest(document.text), plan, ledger)
    return step if isinstance(step, Finished | Rejected) else step[0]


def ending(document: Document, document_hash: str, plan: Plan, ledger: Ledger) -> Finished | Rejected | None:
    """How a document ended, None while a call is missing. Of its text nothing is read but the hash."""
    step = _step(document, document_hash, plan, ledger)
    return step if isinstance(step, Finished | Rejected) else None


def waiting(document: Document, plan: Plan, ledger: Ledger) -> Sequence[Call]:
    """Every call of a document that can be sent now: the one for its questions, or all that its answers still need."""
    step = _step(document, digest(document.text), plan, ledger)
    return () if isinstance(step, Finished | Rejected) else step


def can_be_mended(call: Call, raw: Raw, document: Document, plan: Plan) -> bool:
    """Whether a reply is the end of its call for one of the reasons in `AGAIN`."""
    end = _ending(call, Stored(raw=raw, failure=None), plan)
    if isinstance(end, TeacherReply) and call.kind == "question":
        end = _cut_document(document, end, call.request_id) or end
    return isinstance(end, Rejected) and end.reason in AGAIN


def task_of(document_id: str, recipe: Recipe) -> str:
    """The kind of task that a document is drawn for."""
    return draw_weighted(recipe.seed, "task", document_id, sorted(recipe.generate.tasks.items()))


def draw_questions(document_id: str, num_questions: int, recipe: Recipe) -> Sequence[int]:
    """The indices of the questions that are answered, drawn one after the other without replacement."""
    left = list(range(num_questions))
    drawn: list[int] = []
    while left and len(drawn) < recipe.generate.answers_per_document:
        purpose = f"question {len(drawn) + 1}" if drawn else "question"
        drawn.append(left.pop(draw_index(recipe.seed, purpose, document_id, len(left))))
    return drawn


def _step(document: Document, document_hash: str, plan: Plan, ledger: Ledger) -> Sequence[Call] | Finished | Rejected:
    recipe = plan.recipe
    limits = recipe.generate.teacher
    task = task_of(document.doc_id, recipe)

    instruction = plan.templates.instruction(task, document.lang)
    asking = _call(document, document_hash, plan, "question", instruction, limits.max_question_tokens)
    asked = _ending(asking, ledger.reply(asking.request_id), plan)
    if isinstance(asked, Call):
        return [asked]
    if isinstance(asked, Rejected):
        return asked
    if cut := _cut_document(document, asked, asking.request_id):
        return cut
    questions = parse_questions(asked.text)
    if not questions:
        return Rejected(reason="no-questions", detail=f"no question in the reply: {shortened(asked.text)}")

    missing: list[Call] = []
    answers: list[Answered | Rejected] = []
    for index in draw_questions(document.doc_id, len(questions), recipe):
        answering = _call(document, document_hash, plan, "answer", questions[index], limits.max_answer_tokens)
        answered = _ending(answering, ledger.reply(answering.request_id), plan)
        if isinstance(answered, Call):
            missing.append(answered)
        elif isinstance(answered, Rejected):
            answers.append(answered)
        elif not answered.text:
            answers.append(Rejected(reason="empty-answer", detail=f"to the question: {shortened(questions[index])}"))
        else:
            checked = _checks(document, document_hash, plan, ledger, questions[index], answered.text)
            missing += [check for check in checked if isinstance(check, Call)]
            answers.append(
                Answered(
                    question_index=index,
                    answer=answered.text,
                    reply=answered,
                    request_id=answering.request_id,
                    paid=[check for check in checked if isinstance(check, Checked)],
                )
            )
    if missing:
        return missing
    wanted = recipe.generate.answers_per_document
    detail = f"answers_per_document is {wanted}; questions in the reply: {len(questions)}"
    answers += [Rejected(reason="too-few-questions", detail=detail)] * (wanted - len(answers))
    return Finished(task=task, questions=questions, asked=asked, asked_id=asking.request_id, answers=answers)


def _cut_document(document: Document, asked: TeacherReply, request_id: str) -> Rejected | None:
    """Some servers cut a prompt that is too long for them without a word. It shows in the usage of the first call, before any
    of the document can stand in a cache that the usage leaves out."""
    usage = asked.usage
    num_read = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
    if not 0 < num_read < LEAST_SHARE * _fewest_tokens(document):
        return None
    return Rejected(
        reason="document-cut",
        detail=f"the server read {num_read:,} tokens of a document of about {document.num_tokens:,}; give it a longer context"
        + _again("document-cut"),
        request_id=request_id,
    )


def _fewest_tokens(document: Document) -> float:
    """The recipe's tokens of a document, or one for two characters where that is less: a tokenizer that hardly knows a script, or
    takes digits one by one, makes four times the tokens that another one makes. Of Hindi, Tamil, Malayalam, Gujarati, Georgian,
    Chinese and digits `o200k` makes 0.58 to 1.3 of this number, and 0.17 to 0.8 of what `mistral-v1` makes."""
    return min(float(document.num_tokens), document.num_chars / 2)


def _again(reason: str) -> str:
    return f"; to ask again: longalign ledger RECIPE --forget {reason}" if reason in AGAIN else ""


def _checks(
    document: Document, document_hash: str, plan: Plan, ledger: Ledger, question: str, answer: str
) -> Sequence[Checked | Call]:
    """What became of the paid checks of an answer; a call for each that has not been made."""
    found: list[Checked | Call] = []
    for kind in kinds_of(plan.recipe.generate.paid_checks):
        request = check_request(kind, document, question, answer, plan.recipe, plan.judge)
        # Two documents may share a question; each pays for its own check.
        hashed = digest([kind, document_hash]) if kind == "closed-book" else document_hash
        call = _as_call(request, document, hashed, plan, kind)
        reply = _ending(call, ledger.reply(call.request_id), plan)
        if isinstance(reply, Call):
            found.append(reply)
        elif isinstance(reply, Rejected):
            found.append(Checked(kind=kind, request_id=call.request_id, text=None, problem=reply.detail))
        else:
            found.append(Checked(kind=kind, request_id=call.request_id, text=reply.text))
    return found


def _call(document: Document, document_hash: str, plan: Plan, kind: Kind, instruction: str, max_tokens: int) -> Call:
    choice = plan.recipe.generate.teacher
    request = TeacherRequest(
        model=choice.model,
        document=document.text,
        instruction=instruction,
        max_tokens=max_tokens,
        parameters=choice.parameters,
    )
    return _as_call(request, document, document_hash, plan, kind)


def _as_call(request: TeacherRequest, document: Document, document_hash: str, plan: Plan, kind: Kind) -> Call:
    provider = plan.recipe.generate.teacher.provider
    identity = request_id(provider, request, document_hash=document_hash)
    return Call(request_id=identity, document_id=document.doc_id, kind=kind, provider=provider, request=request)


def _ending(call: Call, stored: Stored | None, plan: Plan) -> TeacherReply | Call | Rejected:
    """The finished reply to a call, the call itself while it has none, or what is wrong with the reply."""
    if stored is None:
        return call
    if stored.failure is not None:
        detail = f"{call.kind} call: {stored.raw.get('message', '')}{_again(stored.failure)}"
        return Rejected(reason=stored.failure, detail=detail, request_id=call.request_id)
    try:
        reply = plan.read(stored.raw)
    except ValueError as error:
        detail = f"{call.kind} call: {error}{_again('teacher-error')}"
        return Rejected(reason="teacher-error", detail=detail, request_id=call.request_id)
    if reply.stop_reason != "end_turn":
        reason = REASONS[reply.stop_reason]
        detail = f"{call.kind} call: {reply.detail}".rstrip(": ") + _again(reason)
        return Rejected(reason=reason, detail=detail, request_id=call.request_id)
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


def shortened(text: str, limit: int = 120) -> str:
    """A text on one line for a message, quoted, at most `limit` characters of it."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")
