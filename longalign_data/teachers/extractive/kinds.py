"""Kinds of question whose answer can be read off a document, each with its wording, its candidates and its answer.

A kind proposes questions about places of a document and answers any question in its own wording, from the document
alone. Wordings are in English and Chinese; the slots {a}, {b}, {c} stand between quote marks that the words in them must
not contain. An example:

    Which sentence comes directly after the one that begins with “The council met in”?
    It is followed by the sentence “No decision was taken.”
"""

import re
from functools import lru_cache

from longalign_data.teachers.extractive import code, following, mentions, shape
from longalign_data.teachers.extractive.kind import Candidate, Kind, Slots

LANGUAGES = ("en", "zh")

KINDS: dict[str, Kind] = following.KINDS | mentions.KINDS | shape.KINDS | code.KINDS
"""Every kind of question, by name."""


def ask(kind: Kind, candidate: Candidate, lang: str) -> str | None:
    """The question, or None when the words of a slot contain the marks that would enclose them."""
    wording = kind.wording(lang)
    if any(not slot or set(slot) & set(_marks(wording)) for slot in candidate.slots):
        return None
    return wording.format(**dict(zip("abc", candidate.slots, strict=False)))


def recognise(question: str) -> tuple[str, str, Slots] | None:
    """Kind, language and slots of a question that `ask` wrote, or None."""
    for name, kind in KINDS.items():
        for lang in LANGUAGES:
            match = _pattern(kind.wording(lang)).fullmatch(question)
            if match:
                return name, lang, match.groups()
    return None


def _marks(wording: str) -> str:
    return "`\n" if "`" in wording else "“”\n" if "“" in wording else "「」\n"


@lru_cache(maxsize=128)
def _pattern(wording: str) -> re.Pattern[str]:
    slot = f"([^{_marks(wording)}]+)"
    return re.compile(re.sub(r"\\\{[abc]\\\}", lambda _: slot, re.escape(wording)))
