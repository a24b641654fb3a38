"""What a recipe's `curate` section does to one document.

    text --clean--> text without secrets and personal data, or a refusal      before it is measured
    text --judge--> its language, or a refusal                                once it is known to fit the window

Both are functions of the document and the recipe alone. What compares documents with each other stands in `near`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from longalign_data.curation.decontamination import load_index, overlap
from longalign_data.curation.language import identify, language_code, model_identity
from longalign_data.curation.personal import WORDS, find_personal
from longalign_data.curation.quality import measure
from longalign_data.curation.secrets import SECRET, Found, find_secrets, mask
from longalign_data.identity import Plain, file_sha256
from longalign_data.recipe import Curate

CURATION_VERSION = 5
"""Raised when a rule or a figure here gives another result for the same text."""

MASKING_PASSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The switches for one source. Code is not prose: its language and quality are not judged. `index` is the file of
    `decontaminate`."""

    wish: Curate
    is_code: bool
    index: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a document does not go on: a reason out of a small set, and what was found and expected."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A text after masking, never longer in UTF-8 than before, and what was masked, by rule."""

    text: str
    title: str
    masked: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The language that a document goes on with."""

    lang: str


def clean(text: str, title: str, curation: Curation) -> Cleaned | Refused:
    """Masks secrets and personal data in text and title, or refuses a document with a secret (`secret`)."""
    wish = curation.wish
    masked: Counter[str] = Counter()
    if wish.secrets.action != "keep" and (curation.is_code or wish.secrets.where == "all"):
        found = find_secrets(text)
        if found and wish.secrets.action == "reject":
            rules = ", ".join(sorted({item.rule for item in found}))
            return Refused(reason="secret", detail=f"{len(found)} secrets ({rules}); curate.secrets.action is reject")
        text, title = _masked(text, find_secrets, SECRET, masked, "secret"), _masked(title, find_secrets, SECRET)
    if wish.personal.action == "mask":
        find = functools.partial(find_personal, kinds=wish.personal.kinds)
        text, title = _masked(text, find, WORDS, masked, "personal"), _masked(title, find, WORDS)
    return Cleaned(text=text, title=title, masked=masked)


def _masked(
    text: str,
    find: Callable[[str], list[Found]],
    words: str | dict[str, str],
    masked: Counter[str] | None = None,
    kind: str = "",
) -> str:
    """The text after masking; counts in `masked` when it is given. What stood against a finding may become one itself when
    that is gone, hence the few passes."""
    found = find(text)
    if masked is not None and found:
        masked[f"documents-with-{kind}"] += 1
    for _ in range(MASKING_PASSES):
        if not found:
            break
        if masked is not None:
            masked.update(f"{kind}-{item.rule}" for item in found)
        text = mask(text, found, words)
        found = find(text)
    return text


def judge(text: str, lang: str, curation: Curation) -> Judged | Refused:
    """Judges language (`language`), quality (`garbled`, `repetition`, `boilerplate`) and overlap with benchmarks
    (`contaminated`), in this order; the first refusal counts."""
    wish = curation.wish
    if not curation.is_code:
        if wish.language.action != "keep":
            found = identify(text)
            if wish.language.action == "reject" and (
                found.main != language_code(lang) or found.share < wish.language.min_share
            ):
                detail = f"{found.share:.0%} of the windows are {found.main}; expected {lang} in {wish.language.min_share:.0%}"
                return Refused(reason="language", detail=detail)
            if wish.language.action == "relabel" and found.main != language_code(lang):
                lang = found.main
        if wish.quality.action == "reject" and (refused := _quality(text, curation)) is not None:
            return refused
    if curation.index is not None:
        shared = overlap(text, load_index(curation.index))
        limit = wish.decontaminate.overlap
        if max(shared.of_item, shared.of_document) >= limit:
            detail = (
                f"holds {shared.of_item:.0%} of {shared.place}; {shared.of_document:.0%} of it stands in benchmarks"
            )
            return Refused(reason="contaminated", detail=f"{detail}; curate.decontaminate.overlap is {limit:g}")
    return Judged(lang=lang)


def _quality(text: str, curation: Curation) -> Refused | None:
    wish, found = curation.wish.quality, measure(text)
    for reason, name, value, most in (
        ("garbled", "garbled characters", found.garbled, wish.max_garbled),
        ("repetition", "repeated lines", found.repeated_lines, wish.max_repeated_lines),
        ("repetition", "repeated n-grams", found.repeated_ngrams, wish.max_repeated_ngrams),
        ("boilerplate", "boilerplate lines", found.boilerplate, wish.max_boilerplate),
    ):
        if value > most:
            return Refused(
                reason=reason, detail=f"{value:.1%} of the text are {name}; curate.quality allows {most:.1%}"
            )
    return None


def curation_identity(wish: Curate, index: Path | None) -> Plain:
    """What decides about curation besides the text: the switches, the rules' version, model and index."""
    return {
        "version": CURATION_VERSION,
        "wish": wish.model_dump(mode="json", exclude={"decontaminate": {"index"}}),
        "model": model_identity() if wish.language.action != "keep" else None,
        "index": file_sha256(index) if index is not None else None,
    }
