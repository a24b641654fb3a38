"""Looking up in the document what an answer states: its numbers, names and quotations.

In: document, question, answer. Out: `grounding`, the share of these claims that the document holds; the characters where
each was found; how deep in the document they lie. What the question already says is not counted as a claim. This needs
no model and is no proof: a number can be right and the sentence wrong. It finds figures and names that came from nowhere.
"""

import re
from collections.abc import Iterator, Sequence
from statistics import median

from longalign_data.checks.base import Finding

MAX_CLAIMS = 64
"""Claims looked up in one answer, the first ones; the rest say little more and cost a search each."""
_MAX_DIGITS = 30
"""Nobody sets commas into longer numbers."""

_QUOTE = re.compile(
    r"“([^”\n]{3,300})”|\"([^\"\n]{3,300})\"|「([^」\n]{2,200})」|『([^』\n]{2,200})』|《([^》\n]{2,80})》|`([^`\n]{3,120})`"
)
# Chinese sets no space between a number and a word, so only Latin letters join.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.,])\d+(?:[.,]\d+)*(?![A-Za-z0-9_])")
_NAME = re.compile(r"(?<![\w.])[A-Z][\w'’.-]*[\w](?:\s+(?:(?:of|the|and|de|van|von|du|la)\s+)?[A-Z][\w'’.-]*[\w])*")
_SENTENCE_START = re.compile(r"(?:^|[.!?。！？:：\n])[\s\"'“”‘’(*_#>-]*$")
_LIST_NUMBER = re.compile(r"(?:^|\n)[ \t]*[（(]?$")
_SPACE = re.compile(r"\s+")


def check(document: str, question: str, answer: str) -> Finding:
    """Scores `num_claims`, and where there are claims `grounding` in [0, 1]; where some were found also `evidence_depth`
    and `evidence_spread`, the middle and the reach of their places as parts of the document's length. No fault."""
    claims = [claim for claim in _claims(answer) if not _holds(question, claim)][:MAX_CLAIMS]
    places = [_places(document, claim) for claim in claims]
    found = [spans for spans in places if spans]
    scores = {"num_claims": float(len(claims))}
    if not claims:
        return Finding(scores=scores)
    scores["grounding"] = round(len(found) / len(claims), 4)
    if not found:
        return Finding(scores=scores)
    evidence = _chosen(found)
    starts = [start for start, _ in evidence]
    scores["evidence_depth"] = round(median(starts) / len(document), 4)
    scores["evidence_spread"] = round((max(starts) - min(starts)) / len(document), 4)
    return Finding(scores=scores, evidence=evidence)


def _claims(answer: str) -> Sequence[str]:
    """Quotations, numbers and names, each once, in the order in which they stand; a name inside a quotation is part of it."""
    taken: list[tuple[int, int]] = []
    found: list[tuple[int, str]] = []

    def free(start: int, end: int) -> bool:
        return all(end <= first or start >= last for first, last in taken)

    for match in _QUOTE.finditer(answer):
        text = next(group for group in match.groups() if group is not None)
        taken.append(match.span())
        found.append((match.start(), text.strip().strip(".,;:。，；：…").strip()))
    found += [
        (match.start(), match.group())
        for match in _NUMBER.finditer(answer)
        # One digit stands everywhere and says nothing.
        if len(match.group()) > 1 and free(*match.span()) and not _is_list_number(answer, match)
    ]
    found += [(start, answer[start:end]) for start, end in _names(answer) if free(start, end)]
    return list(dict.fromkeys(text for _, text in sorted(found) if text))


def _names(answer: str) -> Iterator[tuple[int, int]]:
    """Runs of capitalised words. The first word of a sentence is capitalised anyway, so alone it says nothing."""
    for match in _NAME.finditer(answer):
        start, end = match.span()
        if _SENTENCE_START.search(answer, max(0, start - 24), start):
            later = re.compile(r"\s+(?:(?:of|the|and|de|van|von|du|la)\s+)?").search(answer, start, end)
            if later is None:
                continue
            start = later.end()
        if end - start > 1:
            yield start, end


def _is_list_number(answer: str, match: "re.Match[str]") -> bool:
    before = _LIST_NUMBER.search(answer, max(0, match.start() - 40), match.start())
    return before is not None and answer[match.end() : match.end() + 1] in set(".):：、）")


def _holds(text: str, claim: str) -> bool:
    return next(_find(text, claim), None) is not None


def _places(document: str, claim: str, limit: int = 16) -> Sequence[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for span in _find(document, claim):
        spans.append(span)
        if len(spans) == limit:
            break
    return spans


def _find(text: str, claim: str) -> Iterator[tuple[int, int]]:
    """Where a claim stands: letter for letter, else with other white space, case, or commas in its numbers. A claim that
    begins or ends in a letter or digit is no part of a longer word there."""
    exact = False
    start = text.find(claim)
    while start >= 0:
        if _is_whole(text, start, start + len(claim), claim):
            exact = True
            yield start, start + len(claim)
        start = text.find(claim, start + 1)
    if exact:
        return
    variants = [claim.replace(",", "")] if _NUMBER.fullmatch(claim) and "," in claim else []
    # Of ①②③ and of very long numbers Python makes no integer.
    if claim.isdecimal() and 3 < len(claim) <= _MAX_DIGITS:
        variants.append(f"{int(claim):,}")
    for variant in variants:
        start = text.find(variant)
        if start >= 0 and _is_whole(text, start, start + len(variant), variant):
            yield start, start + len(variant)
            return
    if not _NUMBER.fullmatch(claim) and _may_stand(text, claim):
        pattern = re.compile(r"\s+".join(map(re.escape, _SPACE.split(claim))), re.IGNORECASE)
        for match in pattern.finditer(text):
            if _is_whole(text, *match.span(), claim):
                yield match.span()


def _may_stand(text: str, claim: str) -> bool:
    """Whether all words of a claim are in the text in any case; a search for them costs far less than making a pattern."""
    lowered = text.casefold()
    return all(word in lowered for word in claim.casefold().split())


def _is_whole(text: str, start: int, end: int, claim: str) -> bool:
    def joined(inner: str, outer: str) -> bool:
        return inner.isascii() and inner.isalnum() and outer.isascii() and outer.isalnum()

    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if _NUMBER.fullmatch(claim):
        more = text[end : end + 2]
        if len(more) == 2 and more[0] in ".," and more[1].isdigit():
            return False
        before_two = text[max(0, start - 2) : start]
        if len(before_two) == 2 and before_two[1] in ".," and before_two[0].isdigit():
            return False
    return not joined(claim[0], before) and not joined(claim[-1], after)


def _chosen(found: Sequence[Sequence[tuple[int, int]]]) -> Sequence[tuple[int, int]]:
    """One place a claim: of those that stand in several, the one nearest to the middle of those that stand in one only."""
    certain = [spans[0][0] for spans in found if len(spans) == 1]
    centre = median(certain) if certain else found[0][0][0]
    chosen = {min(spans, key=lambda span: abs(span[0] - centre)) for spans in found}
    return sorted(chosen)
