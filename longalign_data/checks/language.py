"""Whether the answer is in the language of the question, as far as scripts tell.

Scripts are counted, not words: Chinese against English is told apart with certainty, English against French not at all.
`wrong-language` is the fault of an answer whose script is neither the question's nor the document's: quotations are
rightly in the document's.
"""

import re
from collections.abc import Mapping

from longalign_data.checks.base import Finding

SCRIPTS: Mapping[str, re.Pattern[str]] = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]+"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]+"),
    "greek": re.compile(r"[\u0370-\u03ff]+"),
    "arabic": re.compile(r"[\u0600-\u06ff]+"),
    "hebrew": re.compile(r"[\u0590-\u05ff]+"),
    "devanagari": re.compile(r"[\u0900-\u097f]+"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
}
"""A match is about one word: a run of letters, or one character where words are not set apart."""

MIN_WORDS = 20
CLEAR_SHARE = 0.7
DOCUMENT_CHARS = 20_000


def check(document: str, question: str, answer: str) -> Finding:
    """Score `same_script`: the share of the answer's words in the question's script. Fault `wrong-language`."""
    asked, answered = _words(question), _words(answer)
    num_words = sum(answered.values())
    if not num_words or not asked:
        return Finding()
    wanted = _first(asked)
    scores = {"same_script": round(answered.get(wanted, 0) / num_words, 4)}
    found = _first(answered)
    if found == wanted or num_words < MIN_WORDS or answered[found] < CLEAR_SHARE * num_words:
        return Finding(scores=scores)
    middle = max(0, len(document) // 2 - DOCUMENT_CHARS // 2)
    of_document = _words(document[middle : middle + DOCUMENT_CHARS])
    if of_document.get(found, 0) > 0.1 * sum(of_document.values()):
        return Finding(scores=scores)
    return Finding(
        scores=scores,
        fault="wrong-language",
        detail=f"the question is in {wanted} letters, the answer in {found} letters",
    )


def _words(text: str) -> dict[str, int]:
    counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    # Japanese is written with Han characters and kana together.
    if counts["kana"]:
        counts["kana"] += counts["han"]
        counts["han"] = 0
    return {name: count for name, count in counts.items() if count}


def _first(words: Mapping[str, int]) -> str:
    return max(words, key=lambda name: words[name])
