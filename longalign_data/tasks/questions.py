"""Reading the questions out of a teacher's reply.

In: the reply to an instruction of `templates`, for instance

    Here are five questions:
    1: Who signs the report?
    2: ...

Out: ["Who signs the report?", ...]. Teachers number in many ways and add what nobody asked for; everything that can be
told apart from a question is dropped, and nothing raises.
"""

import json
import re
import unicodedata
from collections.abc import Sequence

MAX_QUESTIONS = 5

# Possessive: with blanks that are given back, the time of a line of n blanks grew as n^4 (200: 7 s).
_NUMBER_LINE = r"""
    ^\s*+
    (?:[-*+•>]\s++|\#{1,6}\s++)?                  # a bullet, a quote mark or a heading before the number
    (?P<bold>\*\*|__)?\s*+
    (?:Q|Question|问题|問題|第)?\s*+
    [（(\[【]?\s*+
    (?P<number>NUMBER)
    (?:\s*+(?:[题題]?\s*+[)）\]】]\s*+[:：.．、]?|(?:[题題]|个问题|個問題)?\s*+[:：.．、](?!\d))|(?<=[①-⑳\u20E3]))
    \s*+(?(bold)(?P<unbold>\*\*|__)?)\s*+
    (?P<text>.*)$
    """
_NUMBERED, _NUMBERED_IN_CHINESE = (
    re.compile(_NUMBER_LINE.replace("NUMBER", number), re.VERBOSE | re.IGNORECASE)
    for number in (r"(?:\d\uFE0F?\u20E3|\d{1,2}|[①-⑳])", "[一二三四五六七八九十]{1,2}")
)
_KEY = re.compile(r"question|(?:q|question|问题|問題)?[ _-]?\d{1,2}", re.IGNORECASE)
"""Names of questions in a JSON object, which may hold answers, thoughts and a language too."""
_FENCE = re.compile(r"^\s*(?:```|~~~)[\w-]*\s*$")
_BULLET = re.compile(r"^\s*+(?:[-*+•]\s++)?(?P<text>.*[?？])\s*$")


def parse_questions(reply: str) -> list[str]:
    """The questions of a reply in the order in which they stand: at most five, none empty, none twice.

    A question may run over several lines; a blank line ends it, unless it has no text yet or ends in a colon. Lines
    before the first number are dropped. Where nothing is numbered, every line that ends in a question mark is one. JSON is read
    as a list of questions, alone or under the key `questions`, or as questions under numbered keys.
    """
    lines = [line for line in reply.replace("\r\n", "\n").replace("\r", "\n").split("\n") if not _FENCE.match(line)]
    questions = _of_json("\n".join(lines)) or _of_lines(lines)
    cleaned = (_unwrapped(question) for question in questions)
    return list(dict.fromkeys(question for question in cleaned if question))[:MAX_QUESTIONS]


def _of_json(text: str) -> list[str]:
    if not text.lstrip().startswith(("[", "{")):
        return []
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if isinstance(data, dict):
        data = data.get("questions", data)
    if isinstance(data, dict):
        data = [value for key, value in data.items() if _KEY.fullmatch(key)]
    if not isinstance(data, list):
        return []
    texts = (item.get("question") if isinstance(item, dict) else item for item in data)
    return _without_numbers([text for text in texts if isinstance(text, str)])


def _without_numbers(texts: list[str]) -> list[str]:
    """The texts without numbers that count them; other numbers belong to the questions."""
    split = [text.partition("\n") for text in texts]
    matches = [match for first, _, _ in split if (match := _NUMBERED.match(first))]
    if [_value(match["number"]) for match in matches] != list(range(1, len(texts) + 1)):
        return texts
    return [match["text"] + line_break + rest for match, (_, line_break, rest) in zip(matches, split, strict=True)]


def _value(number: str) -> int:
    """Of digits, circled or as a keycap too."""
    return int(unicodedata.normalize("NFKC", number).rstrip("\ufe0f\u20e3"))


def _of_lines(lines: Sequence[str]) -> list[str]:
    found: list[list[str]] = []
    labels: list[tuple[str, str]] = []
    is_open = False
    # Within questions that are numbered in digits, Chinese numerals are parts of a question.
    matches = [_NUMBERED.match(line) for line in lines]
    if not any(matches):
        matches = _numbered_in_chinese(lines)
    for line, match in zip(lines, matches, strict=True):
        if match:
            text = match["text"].strip()
            found.append([_without_mark(text, match["bold"]) if match["bold"] and not match["unbold"] else text])
            labels.append((line[: match.start("text")].strip(), match["number"]))
            is_open = True
        elif is_open and line.strip():
            found[-1].append(line.strip())
        elif is_open and not line.strip():
            so_far = "".join(found[-1])
            is_open = not so_far or so_far.endswith((":", "："))
    questions = ["\n".join(part for part in parts if part) for parts in found]
    if len(questions) == 1:
        return _of_one_line(questions[0], *labels[0])
    return questions or [match["text"].strip() for match in map(_BULLET.match, lines) if match]


def _numbered_in_chinese(lines: Sequence[str]) -> list[re.Match[str] | None]:
    """A match for each line that is numbered, where these are the lines that ask, counted from one; else they are headings."""
    matches = [_NUMBERED_IN_CHINESE.match(line) for line in lines]
    counted = "".join(match["number"] for match in matches if match)
    asks = all(
        bool(match) == bool(_BULLET.match(line.rstrip("*_ "))) for line, match in zip(lines, matches, strict=True)
    )
    return matches if asks and "一二三四五六七八九十".startswith(counted) else [None] * len(lines)


def _of_one_line(text: str, label: str, number: str) -> list[str]:
    """`Who? 2: What? 3: Where?`, as it stands behind the label `1:`, where labels of the same form run on behind question marks."""
    if unicodedata.normalize("NFKC", number[0]) != "1" or number[1:].isdecimal():
        return [text]
    questions = [text]
    for more in range(1, 9):
        label_here = re.escape(label.replace(number, chr(ord(number[0]) + more) + number[1:]))
        parts = re.split(rf"(?<=\S[?？])\s*{label_here}(?!\d)\s*", questions[-1], maxsplit=1)
        if len(parts) < 2:
            break
        questions[-1:] = parts
    # A number in code or in the middle of a sentence is a part of the question.
    are_whole = all(
        question.endswith(("?", "？")) and question.count("`") % 2 == 0 for question in filter(None, questions)
    )
    return questions if are_whole else [text]


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
