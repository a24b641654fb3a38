"""Checks of an answer that ask the teacher once more, on the same ledger and budget; a recipe chooses them.

    closed-book   the question without the document: what the teacher knows anyway needs no long context
    judge         document, question and answer: a mark from 1 to 5, with reasons

In: a document, one of its questions and its answer. Out: the request, and from what became of it a score. A check whose call
came to nothing (refused, cut off, unreadable) marks the sample and does not cost it its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from longalign_data.checks import grounding
from longalign_data.checks.judge import JudgePrompt, read_judgement
from longalign_data.recipe import PaidChecks, Recipe
from longalign_data.records import Document, Score
from longalign_data.teachers.base import TeacherRequest

CheckKind = Literal["closed-book", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one check's call: the text of its reply, or, with `text` None, why there is none."""

    kind: CheckKind
    request_id: str
    text: str | None
    problem: str = ""


def kinds_of(checks: PaidChecks) -> Sequence[CheckKind]:
    """The checks that a recipe chose, in the order in which they are asked."""
    chosen: Mapping[CheckKind, bool] = {
        "closed-book": checks.closed_book is not None,
        "judge": checks.judge is not None,
    }
    return [kind for kind, is_chosen in chosen.items() if is_chosen]


def check_request(
    kind: CheckKind, document: Document, question: str, answer: str, recipe: Recipe, judge: JudgePrompt
) -> TeacherRequest:
    """The call of one check. Without its document the question stands alone; the judge sees the document first, as it stands
    in the provider's cache."""
    choice = recipe.generate.teacher
    is_closed = kind == "closed-book"
    return TeacherRequest(
        model=choice.model,
        document="" if is_closed else document.text,
        instruction=question if is_closed else judge.instruction(question, answer, document.lang),
        max_tokens=choice.max_answer_tokens if is_closed else choice.max_question_tokens,
        parameters=choice.parameters,
    )


def score(checked: Checked, question: str, answer: str) -> Score:
    """`closed_book`: the share of the answer's numbers, names and quotations that the reply without the document states too
    (0 where the answer has none); `judge`: 1 to 5. `unchecked` stands for either where the call came to nothing; `detail`
    says why, or holds the judge's reasons."""
    if checked.text is None:
        return Score(name="unchecked", value=1.0, detail=f"{checked.kind}: {checked.problem}")
    if checked.kind == "closed-book":
        found = grounding.check(checked.text, question, answer).scores
        return Score(name="closed_book", value=found.get("grounding", 0.0))
    judged = read_judgement(checked.text)
    if judged.score is None:
        return Score(name="unchecked", value=1.0, detail=f"judge: the reply names no score: {judged.reasons}")
    return Score(name="judge", value=float(judged.score), detail=judged.reasons)


def fault(scores: Sequence[Score], checks: PaidChecks) -> tuple[str, str] | None:
    """The reason for which a recipe rejects an answer with these scores, and a detail; None where it stands."""
    for found in scores:
        if (
            found.name == "closed_book"
            and checks.closed_book is not None
            and found.value > checks.closed_book.max_known
        ):
            return "known-without-document", f"{found.value:.2f} of what it states is known without the document"
        if found.name == "judge" and checks.judge is not None and found.value < checks.judge.min_score:
            return "judged-low", f"{found.value:.0f} of 5: {found.detail}"
    return None
