"""Reading the questions out of a teacher's reply.

In: the reply to an instruction of `templates`, for instance

    Here are five questions:
    1: Who signs the report?
    2: ...

Out: ["Who signs the report?", ...]. Teachers number in many ways and add what nobody asked for; everything that can be
told apart from a question is dropped, and nothing raises.
"""

import re

MAX_QUESTIONS = 5

_NUMBERED = re.compile(
    r"""
    ^\s*
    (?:[-*+•>]\s+|\#{1,6}\s+)?                  # a bullet, a quote mark or a heading before the number
    (?P<bold>\*\*|__)?\s*
    (?:Q|Question|问题|問題|第)?\s*
    [（(\[【]?\s*
    (?:(?P<digits>\d{1,2})|[①-⑳])
    \s*
    (?:(?<=[①-⑳])|[题題]?\s*[)）\]】]\s*[:：.．、]?|(?:[题題]|个问题|個問題)?\s*[:：.．、](?!\d))
    \s*(?(bold)(?P<unbold>\*\*|__)?)\s*
    (?P<text>.*)$
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*(?:```|~~~)[\w-]*\s*$")
_BULLET = re.compile(r"^\s*(?:[-*+•]\s+)?(?P<text>.*[?？])\s*$")


def parse_questions(reply: str) -> list[str]:
    """The questions of a reply in the order in which they stand: at most five, none empty, none twice.

    A question may run over several lines; a blank line ends it, unless it has no text yet or ends in a colon. Lines
    before the first number are dropped. Where nothing is numbered, every line that ends in a question mark is one.
    """
    lines = [line for line in reply.replace("\r\n", "\n").replace("\r", "\n").split("\n") if not _FENCE.match(line)]
    found: list[list[str]] = []
    is_open = False
    for line in lines:
        match = _NUMBERED.match(line)
        if match:
            text = match["text"].strip()
            found.append([_without_mark(text, match["bold"]) if match["bold"] and not match["unbold"] else text])
            is_open = True
        elif is_open and line.strip():
            found[-1].append(line.strip())
        elif is_open and not line.strip():
            so_far = "".join(found[-1])
            is_open = not so_far or so_far.endswith((":", "："))
    questions = ["\n".join(part for part in parts if part) for parts in found]
    if not found:
        questions = [match["text"].strip() for match in map(_BULLET.match, lines) if match]
    cleaned = (_unwrapped(question) for question in questions)
    return list(dict.fromkeys(question for question in cleaned if question))[:MAX_QUESTIONS]


def _without_mark(text: str, mark: str) -> str:
    """`**1. Who?**` opens its emphasis before the number; what is left of it at the end goes."""
    return text.removesuffix(mark).strip()


def _unwrapped(question: str) -> str:
    """A question without the emphasis around the whole of it."""
    text = question.strip()
    for mark in ("**", "__"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and text.count(mark) == 2:
            text = text[len(mark) : -len(mark)].strip()
    return text
