"""What tells text that was extracted badly from text that was written: garbled characters, repetition, boilerplate.

    measure("Home\\nAbout\\nLogin\\n...") -> Quality(garbled=0.0, repeated_lines=0.1, repeated_ngrams=0.0, boilerplate=0.97)

Every figure is a share of the text, from 0 to 1, and cheap against tokenizing it.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from longalign_data.curation.shingles import ngram_hashes, token_hashes

REPEATED_NGRAM = 10
"""Tokens of an n-gram that counts as repeated when it stands in the text more than once."""

SHORT_LINE = 40
"""Characters below which a line without the end of a sentence counts as boilerplate (menus, labels, link lists)."""

_GARBLED = re.compile(
    # The replacement character; UTF-8 read as Latin-1 or Windows-1252; GBK read as UTF-8 and back; control characters.
    "\ufffd|[\u00c2\u00c3][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019"
    "\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]|\u00e2\u20ac[\u0080-\u00bf\u2018-\u201e\u2020-\u2026"
    "\u2122\u0153\u02dc\u00a6]|\u951f\u65a4\u62f7|\u70eb\u70eb\u70eb|\u5c6f\u5c6f\u5c6f|[\u0001-\u0008\u000e-\u001f\u007f-\u009f]"
)
_SENTENCE_END = tuple(".!?:;,\"')]}。！？：；，、”’）》…")
_STOCK = re.compile(
    r"(?i)accept (?:all )?cookies|cookie policy|privacy policy|terms of (?:use|service)|all rights reserved|subscribe to our|"
    r"sign up for|log ?in to|share (?:this|on)|click here|read more|skip to (?:main )?content|enable javascript|"
    r"版权所有|未经许可|点击这里|阅读更多|登录|注册|上一篇|下一篇|返回顶部|分享到"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Shares of a text: characters that are garbled; characters in lines that stand more than once; n-grams of tokens that
    stand more than once; characters in short lines without the end of a sentence or with a stock phrase of web pages."""

    garbled: float
    repeated_lines: float
    repeated_ngrams: float
    boilerplate: float


def measure(text: str) -> Quality:
    """The figures of a text; all 0 for an empty one."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    total = sum(map(len, lines))
    if not total:
        return Quality(garbled=0.0, repeated_lines=0.0, repeated_ngrams=0.0, boilerplate=0.0)
    counts = Counter(lines)
    repeated = sum((number - 1) * len(line) for line, number in counts.items())
    plain = sum(number * len(line) for line, number in counts.items() if _is_boilerplate(line))
    garbled = sum(len(match[0]) for match in _GARBLED.finditer(text))
    grams = ngram_hashes(token_hashes(text), REPEATED_NGRAM)
    return Quality(
        garbled=min(1.0, garbled / total),
        repeated_lines=repeated / total,
        repeated_ngrams=1 - len(np.unique(grams)) / len(grams) if len(grams) else 0.0,
        boilerplate=plain / total,
    )


def _is_boilerplate(line: str) -> bool:
    if len(line) < SHORT_LINE and not line.endswith(_SENTENCE_END):
        return True
    return len(line) < 4 * SHORT_LINE and _STOCK.search(line) is not None
