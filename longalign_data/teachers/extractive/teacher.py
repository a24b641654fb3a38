"""An offline teacher: a program that asks what can be read off a document, and reads it off.

It sees what every teacher sees, the document and the instruction, and nothing else. An instruction that wants numbered
questions (it names the lines `1:` and `2:`) gets up to five, of kinds that suit its task, spread over the document; a
question in the wording of `kinds` gets its true answer, with the characters that it quotes; anything else is refused.
The same request always gets the same reply.
"""

import re
from collections.abc import Iterator, Sequence

from longalign_data.identity import draw_index
from longalign_data.recipe import TeacherChoice
from longalign_data.records import Usage
from longalign_data.teachers.base import UNWATCHED, Connection, Raw, TeacherReply, TeacherRequest, Watch
from longalign_data.teachers.extractive.kind import Candidate, Saying, View
from longalign_data.teachers.extractive.kinds import KINDS, ask, recognise

TERMS = (
    "Questions and answers were made by a program that reads them off the document; no model wrote any of them. Nothing "
    "but the licence of the documents governs their use."
)

NUM_QUESTIONS = 5

PROSE_KINDS: dict[str, Sequence[str]] = {
    "general": ("next-sentence", "paragraph-end", "mention", "section-of", "trace", "previous-sentence"),
    "summary": ("outline", "overview", "trace", "section-opening", "ends", "paragraph-end", "compare"),
    "reasoning": ("first-of-two", "order", "compare", "between"),
    "extraction": ("mention", "count", "between", "section-opening", "previous-sentence"),
}
CODE_KINDS: dict[str, Sequence[str]] = {
    "general": ("docstring", "next-definition", "defined-in", "signature"),
    "summary": ("definitions", "methods", "files", "imports"),
    "reasoning": ("first-defined", "more-methods", "most-definitions", "identifier"),
    "extraction": ("signature", "imports", "docstring", "identifier", "defined-in"),
}
LAST_RESORTS = ("mention", "next-sentence", "next-line")
LAST_RESORTS_IN_CODE = ("signature", "docstring", "next-definition", "next-line")

_TASK_WORDS = {
    "summary": re.compile(r"summar|overview|condens|概括|总结|摘要|综述", re.IGNORECASE),
    "reasoning": re.compile(r"reasoning|infer|multi-?hop|several steps|推理|推断|多步", re.IGNORECASE),
    "extraction": re.compile(r"extract|precise|facts?\b|提取|抽取|准确的信息", re.IGNORECASE),
}
_NUMBERED_LINES = (re.compile(r"^\s*1\s*[:：.、)]", re.MULTILINE), re.compile(r"^\s*2\s*[:：.、)]", re.MULTILINE))
_HAN = re.compile(r"[\u4e00-\u9fff]")


class ExtractiveTeacher:
    """The offline teacher. It needs no connection."""

    def __init__(self, choice: TeacherChoice, connection: Connection) -> None:
        del choice, connection

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        await watch.sending()
        return respond(request.document, request.instruction)

    async def close(self) -> None:
        return None

    def status(self) -> str:
        return ""


def respond(document: str, instruction: str) -> Raw:
    """The reply to an instruction about a document."""
    wanted = instruction.strip()
    known = recognise(wanted)
    if known is not None:
        name, lang, slots = known
        view = View(document)
        saying = Saying(lang, document)
        answer = KINDS[name].answer(view, slots, saying)
        if answer is None:
            return _raw("", "refusal", detail="the document does not hold what the question names")
        return _raw(answer, "end_turn", evidence=list(dict.fromkeys(saying.evidence)))
    if all(pattern.search(wanted) for pattern in _NUMBERED_LINES):
        questions = make_questions(document, task_of(wanted), "zh" if _HAN.search(wanted) else "en")
        return _raw(numbered(questions), "end_turn")
    return _raw("", "refusal", detail="not a question of this teacher's own")


def numbered(questions: Sequence[str]) -> str:
    """The reply that the instructions ask for: `1: `, `2: ` and so on, one a line."""
    return "\n".join(f"{number}: {question}" for number, question in enumerate(questions, 1))


def task_of(instruction: str) -> str:
    """The kind of task that an instruction asks questions for: the one whose words it uses first, else `general`."""
    found = {task: match.start() for task, pattern in _TASK_WORDS.items() if (match := pattern.search(instruction))}
    return min(found, key=lambda task: found[task]) if found else "general"


def make_questions(document: str, task: str, lang: str) -> list[str]:
    """Up to five questions about a document, from its beginning to its end, of as many kinds as it yields."""
    view = View(document)
    suited = (CODE_KINDS if view.source.is_code else PROSE_KINDS)[task]
    last_resorts = LAST_RESORTS_IN_CODE if view.source.is_code else LAST_RESORTS
    offers = {name: list(KINDS[name].propose(view)) for name in suited}
    turn = draw_index(0, "first kind", document[:4000], len(offers))
    names = [*offers][turn:] + [*offers][:turn]
    chosen: dict[str, int] = {}
    taken: set[str] = set()
    used = dict.fromkeys(names, 0)
    for number in range(NUM_QUESTIONS):
        target = int(len(document) * (number + 0.5) / NUM_QUESTIONS)
        order = sorted(names, key=lambda name: used[name]) + [name for name in last_resorts if name not in names]
        for name in order:
            if name not in offers:
                offers[name] = list(KINDS[name].propose(view))
            question = _nearest(name, offers[name], target, lang, taken, chosen)
            if question is not None:
                used[name] = used.get(name, 0) + 1
                break
    return sorted(chosen, key=lambda question: chosen[question])


def _nearest(
    name: str, offers: Sequence[Candidate], target: int, lang: str, taken: set[str], chosen: dict[str, int]
) -> str | None:
    """Takes the candidate whose place is nearest to `target` and whose words no other question uses."""
    for candidate in _by_distance(offers, target):
        question = ask(KINDS[name], candidate, lang)
        if question is None or question in chosen or taken & set(candidate.slots):
            continue
        taken.update(candidate.slots)
        chosen[question] = candidate.position if candidate.position is not None else target
        return question
    return None


def _by_distance(offers: Sequence[Candidate], target: int) -> Iterator[Candidate]:
    def distance(candidate: Candidate) -> int:
        return abs(candidate.position - target) if candidate.position is not None else 0

    yield from sorted(offers, key=distance)


def _raw(text: str, stop_reason: str, *, evidence: Sequence[tuple[int, int]] = (), detail: str = "") -> Raw:
    return {"text": text, "stop_reason": stop_reason, "evidence": [list(span) for span in evidence], "detail": detail}


def read(raw: Raw) -> TeacherReply:
    """A reply of this teacher. Raises ValueError for another format."""
    text, evidence = raw.get("text"), raw.get("evidence")
    if not isinstance(text, str) or not isinstance(evidence, list):
        raise ValueError("a reply of the extractive teacher has a string `text` and a list `evidence`")
    return TeacherReply(
        text=text,
        stop_reason="end_turn" if raw.get("stop_reason") == "end_turn" else "refusal",
        usage=Usage(),
        evidence=[(int(start), int(end)) for start, end in evidence],
        detail=str(raw.get("detail", "")),
    )
