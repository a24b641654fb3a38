"""A teacher's own mark for an answer, from 1 to 5, with its reasons.

In: the question and the answer, beside the document that the teacher is given again. Out: the instruction, and from the
reply a score and the words before it, for instance

    The page and the name are right; the date is of the second visit. [[4]]   ->   (4, "The page and the name are right; ...")

The prompt stands in `prompts/judge.yaml`; a changed text means a raised version.
"""

import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from longalign_data import yamlfile
from longalign_data.identity import digest
from longalign_data.yamlfile import Strict

PROMPT = Path(__file__).parent / "prompts" / "judge.yaml"
LOWEST, HIGHEST = 1, 5
MAX_REASON_CHARS = 1_000

_SCORE = re.compile(r"\[\[\s*(\d{1,9})(?:\s*/\s*5)?\s*\]\]")
_BLANK = re.compile(r"\{(question|answer)\}")


class JudgePrompt(Strict):
    """The instruction by language, with the blanks `{question}` and `{answer}`."""

    version: Annotated[int, Field(gt=0)]
    instructions: dict[str, str]

    def instruction(self, question: str, answer: str, lang: str) -> str:
        """What the teacher is told after the document; English for a language without an instruction of its own."""
        given = {"question": question, "answer": answer}
        text = self.instructions.get(lang, self.instructions["en"]).strip()
        return _BLANK.sub(lambda blank: given[blank[1]], text)


class Judgement(NamedTuple):
    """`score` is None where the reply names none from 1 to 5."""

    score: int | None
    reasons: str


def load_prompt() -> JudgePrompt:
    """The prompt of this release."""
    return yamlfile.load(PROMPT, JudgePrompt)


def judge_identity() -> str:
    """A hash of the prompt; part of the generate stage's fingerprint where answers are judged."""
    return digest(load_prompt().model_dump())


def read_judgement(reply: str) -> Judgement:
    """The last number in double square brackets, and what stands before it, on one line."""
    found = list(_SCORE.finditer(reply))
    end = found[-1].start() if found else len(reply)
    score = int(found[-1][1]) if found else None
    reasons = " ".join(reply[:end].split())
    if len(reasons) > MAX_REASON_CHARS:
        reasons = reasons[: MAX_REASON_CHARS - 1] + "…"
    return Judgement(score if score is not None and LOWEST <= score <= HIGHEST else None, reasons)
