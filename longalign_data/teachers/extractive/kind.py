"""What a kind of question is: its wording, what it proposes about a document, and its answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from longalign_data.identity import draw_index
from longalign_data.teachers.extractive.prose import Prose, Span, flat
from longalign_data.teachers.extractive.source import Source


class View:
    """A document seen both ways."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.source = Source(text)

    @cached_property
    def prose(self) -> Prose:
        return Prose(self.text, hash_headings=not self.source.is_code)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible question: the words of its slots, and the character of the document that it is about (None when it is
    about the whole)."""

    slots: tuple[str, ...]
    position: int | None


@dataclass(slots=True)
class Saying:
    """An answer being written in one language; keeps what it quotes."""

    lang: str
    text: str
    evidence: list[tuple[int, int]] = field(default_factory=list)

    def quote(self, span: Span) -> str:
        """The characters of a span on one line between quote marks."""
        return self._quoted(span, "“”" if self.lang == "en" else "「」")

    def code(self, span: Span) -> str:
        """The characters of a span on one line between backticks."""
        return self._quoted(span, "``")

    def _quoted(self, span: Span, marks: str) -> str:
        self.evidence.append((span.start, span.end))
        return f"{marks[0]}{flat(self.text[span.start : span.end])}{marks[1]}"

    def either(self, en: str, zh: str) -> str:
        return en if self.lang == "en" else zh

    def listing(self, items: Sequence[str]) -> str:
        """Items in a row, as the language lists them."""
        if self.lang == "zh":
            return "、".join(items)
        return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"

    def times(self, count: int) -> str:
        if self.lang == "zh":
            return f"{count} 次"
        return {1: "once", 2: "twice"}.get(count, f"{count} times")


Slots = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of question. `answer` gives None for slots that do not fit the document."""

    en: str
    zh: str
    propose: Callable[[View], Iterator[Candidate]]
    answer: Callable[[View, Slots, Saying], str | None]

    def wording(self, lang: str) -> str:
        return self.en if lang == "en" else self.zh


def shuffled(words: Sequence[str]) -> tuple[str, ...]:
    """The words in an order that tells nothing of the document."""
    rest, order = sorted(words), []
    while rest:
        order.append(rest.pop(draw_index(0, "order in a question", "\x1f".join(rest), len(rest))))
    return tuple(order)
