"""Texts that stop in the middle, and texts that go round in circles.

`truncated` is 1 for an answer of some length that ends inside a sentence or a code block. It is a mark and no fault:
lists, code and quotations end without a full stop too, and a reply that hit its token limit is rejected before.
`repeated-text` is the fault of an answer whose end repeats one piece over and over, or most of whose lines are the same few.
"""

import re
from collections import Counter

from longalign_data.checks.base import Finding

TRUNCATED_FROM_CHARS = 200
LONGEST_UNIT = 300
REPEATS = 8
REPEATED_CHARS = 160
REPEATED_LINES = 10
REPEATED_SHARE = 0.6
_LINE_CHARS = 20

_OPEN_END = re.compile(r"[\w,;:，；：、(\[{（「“-]$")


def check(document: str, question: str, answer: str) -> Finding:
    """Score `truncated` (0 or 1); fault `repeated-text`."""
    del question
    text = answer.rstrip()
    is_long = len(text) >= TRUNCATED_FROM_CHARS
    scores = {"truncated": float(is_long and (bool(_OPEN_END.search(text)) or text.count("```") % 2 == 1))}
    if text in document:
        return Finding(scores=scores)
    unit = _loop_at_end(text)
    if unit is not None:
        return Finding(scores=scores, fault="repeated-text", detail=f"the answer ends in repetitions of {unit[:60]!r}")
    line = _line_over_and_over(text, document)
    if line is not None:
        return Finding(
            scores=scores, fault="repeated-text", detail=f"the answer keeps repeating the line {line[:60]!r}"
        )
    return Finding(scores=scores)


def _loop_at_end(text: str) -> str | None:
    for length in range(1, min(LONGEST_UNIT, len(text) // REPEATS) + 1):
        unit = text[-length:]
        times = max(REPEATS, -(-REPEATED_CHARS // length))
        # Rulers and rows of dots are ornaments.
        if text.endswith(unit * times) and any(character.isalnum() for character in unit):
            return unit
    return None


def _line_over_and_over(text: str, document: str) -> str | None:
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if len(line) >= _LINE_CHARS]
    if not lines:
        return None
    line, _ = Counter(lines).most_common(1)[0]
    again = len(lines) - len(set(lines))
    if again < REPEATED_LINES or again < REPEATED_SHARE * len(lines) or document.count(line) > 1:
        return None
    return line
