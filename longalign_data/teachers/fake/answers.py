"""What the fake provider says, and how many tokens it bills for.

Questions and answers are made by the code of the extractive teacher; an instruction that it does not know gets a
sentence of the text, drawn by seed, so that every kind of request has an answer.
"""

import re

from longalign_data.identity import draw_index
from longalign_data.teachers import doctor
from longalign_data.teachers.extractive.kinds import recognise
from longalign_data.teachers.extractive.teacher import respond

_BYTES_PER_TOKEN = 4
_PARTS_TRIED = 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_SCORE_ASKED = re.compile(r"\[\[\d\]\]")
_NUMBERED = (re.compile(r"^\s*1\s*[:：]", re.MULTILINE), re.compile(r"^\s*2\s*[:：]", re.MULTILINE))


def count_tokens(text: str) -> int:
    """The fake provider's tokens: one for every four UTF-8 bytes begun."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def split_prompt(prompt: str) -> tuple[str, str]:
    """Document and instruction of a prompt that is one text: they part at the last blank line before which something
    stands and after which an instruction is recognised, or else at the last one of all."""
    at = len(prompt)
    for _ in range(_PARTS_TRIED):
        at = prompt.rfind("\n\n", 0, at)
        if at <= 0:
            break
        instruction = prompt[at + 2 :]
        if recognise(instruction.strip()) or all(pattern.search(instruction) for pattern in _NUMBERED):
            return prompt[:at], instruction
    document, _, instruction = prompt.rpartition("\n\n")
    return document, instruction


def answer(document: str, instruction: str, *, seed: int) -> str:
    """The reply to an instruction about a document; the same for the same three. Whoever asks for a score in double square
    brackets gets one from 1 to 5."""
    if _SCORE_ASKED.search(instruction):
        return f"The answer was compared with the text. [[{1 + draw_index(seed, 'score', instruction, 5)}]]"
    if (document, instruction) == (doctor.DOCUMENT, doctor.INSTRUCTION):
        return doctor.ANSWER
    if not document:
        return "The text is not given."
    raw = respond(document, instruction)
    if raw["stop_reason"] == "end_turn" and raw["text"]:
        return str(raw["text"])
    sentences = [part.strip() for part in _SENTENCE_END.split(document[:20_000]) if len(part.strip()) > 20]
    if not sentences:
        return "The text does not say."
    return sentences[draw_index(seed, "sentence", instruction, len(sentences))]
