"""The language of a text, read at several places.

    text -> five windows spread over it -> a language each -> Languages(main="zh", share=0.8)

The head alone misleads: books begin with a licence, pages with a menu, and translations with the original. The model comes
inside the package py3langid (97 languages and more, ISO 639-1 where there is a code of two letters); nothing is fetched.
"""

import functools
import importlib.metadata
from collections import Counter
from dataclasses import dataclass
from typing import Any

WINDOWS = 5
WINDOW_CHARS = 512

_MACRO = {"wuu": "zh", "yue": "zh", "gan": "zh", "hak": "zh", "cmn": "zh", "nan": "zh", "nb": "no", "nn": "no"}
"""Codes that count as another: Chinese text is written alike in them, and the model tells them apart at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """The language of most windows, and the share of windows that have it."""

    main: str
    share: float


def identify(text: str) -> Languages:
    """The languages of a text's windows. Of languages with equally many windows the one that comes first is the main one."""
    model = _model()
    found = [language_code(str(model.classify(window)[0])) for window in windows(text)]
    (main, number), *_ = Counter(found).most_common(1)
    return Languages(main=main, share=number / len(found))


def windows(text: str) -> list[str]:
    """At most WINDOWS stretches of WINDOW_CHARS characters, from the first to the last, evenly spread; a short text is one."""
    count = max(1, min(WINDOWS, len(text) // WINDOW_CHARS))
    room = max(0, len(text) - WINDOW_CHARS)
    starts = [room * index // max(1, count - 1) for index in range(count)]
    return [text[start : start + WINDOW_CHARS] for start in starts]


def language_code(tag: str) -> str:
    """The language of a BCP 47 tag without script and region, as `identify` names it: zh for zh-Hans and for yue."""
    code = tag.partition("-")[0].partition("_")[0].lower()
    return _MACRO.get(code, code)


def model_identity() -> str:
    """What decides about the answers besides the text."""
    return f"py3langid {importlib.metadata.version('py3langid')}, {WINDOWS} x {WINDOW_CHARS}"


@functools.lru_cache(maxsize=1)
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
