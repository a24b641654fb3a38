"""Kinds of question whose answer can be read off a document, each with its wording, its candidates and its answer.

A kind proposes questions about places of a document and answers any question in its own wording, from the document
alone. Wordings are in English and Chinese; the slots {a}, {b}, {c} stand between quote marks that the words in them must
not contain. An example:

    Which sentence comes directly after the one that begins with “The council met in”?
    It is followed by the sentence “No decision was taken.”
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

from longalign_data.identity import draw_index
from longalign_data.teachers.extractive.prose import Prose, Sentence, Span, Term, flat
from longalign_data.teachers.extractive.source import Definition, Source

LANGUAGES = ("en", "zh")


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


# What follows what.


def _neighbours(view: View, distance: int) -> Iterator[tuple[int, Sentence]]:
    """Clean sentences with the number of the clean one `distance` further on in the same paragraph."""
    sentences = view.prose.sentences
    for number, sentence in enumerate(sentences):
        other = number + distance
        if sentence.is_clean and 0 <= other < len(sentences):
            between = sentences[min(number, other) : max(number, other) + 1]
            if all(each.is_clean and each.paragraph == sentence.paragraph for each in between):
                yield number, sentence


def _propose_neighbour(distance: int) -> Callable[[View], Iterator[Candidate]]:
    def propose(view: View) -> Iterator[Candidate]:
        for number, sentence in _neighbours(view, distance):
            opening = view.prose.opening(number)
            if opening:
                yield Candidate((opening,), sentence.start)

    return propose


def _answer_next(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.prose.sentence_beginning(slots[0])
    if number is None or number + 1 >= len(view.prose.sentences):
        return None
    following = say.quote(view.prose.sentences[number + 1])
    return say.either(f"It is followed by the sentence {following}", f"紧接着的下一句是{following}")


def _answer_previous(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.prose.sentence_beginning(slots[0])
    if not number:
        return None
    before = say.quote(view.prose.sentences[number - 1])
    return say.either(f"The sentence before it is {before}", f"它的前一句是{before}")


def _propose_between(view: View) -> Iterator[Candidate]:
    for number, sentence in _neighbours(view, 3):
        first, last = view.prose.opening(number), view.prose.opening(number + 3)
        if first and last:
            yield Candidate((first, last), sentence.start)


def _answer_between(view: View, slots: Slots, say: Saying) -> str | None:
    first, last = (view.prose.sentence_beginning(slot) for slot in slots)
    if first is None or last is None or last - first < 2:
        return None
    between = [say.quote(sentence) for sentence in view.prose.sentences[first + 1 : last]]
    if len(between) == 1:
        return say.either(f"One sentence stands between them: {between[0]}", f"两者之间只有一句：{between[0]}")
    return say.either(
        f"{len(between)} sentences stand between them: {' '.join(between)}",
        f"两者之间有 {len(between)} 句：{''.join(between)}",
    )


def _propose_paragraph_end(view: View) -> Iterator[Candidate]:
    for first, last in _paragraph_bounds(view):
        opening = view.prose.opening(first)
        if (
            opening
            and last - first >= 2
            and view.prose.sentences[first].is_clean
            and view.prose.sentences[last].is_clean
        ):
            yield Candidate((opening,), view.prose.sentences[first].start)


def _paragraph_bounds(view: View) -> Iterator[tuple[int, int]]:
    """The numbers of the first and the last sentence of each paragraph."""
    sentences = view.prose.sentences
    first = 0
    for number, sentence in enumerate(sentences):
        if number + 1 == len(sentences) or sentences[number + 1].paragraph != sentence.paragraph:
            yield first, number
            first = number + 1


def _answer_paragraph_end(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.prose.sentence_beginning(slots[0])
    bounds = next((last for first, last in _paragraph_bounds(view) if first == number), None)
    if bounds is None:
        return None
    ending = say.quote(view.prose.sentences[bounds])
    return say.either(f"The paragraph ends with the sentence {ending}", f"这一段以{ending}结尾。")


def _propose_next_line(view: View) -> Iterator[Candidate]:
    lines = view.prose.lines
    texts = [view.text[line.start : line.end] for line in lines]
    once = {text for text in texts if 8 <= len(text) <= 120 and sum(map(str.isalpha, text)) >= 4}
    seen: set[str] = set()
    twice = {text for text in texts if text in seen or seen.add(text)}  # type: ignore[func-returns-value]  # `add` gives None on purpose
    for line, text, following in zip(lines, texts, texts[1:], strict=False):
        if text in once and text not in twice and any(map(str.isalnum, following)):
            yield Candidate((text,), line.start)


def _answer_next_line(view: View, slots: Slots, say: Saying) -> str | None:
    lines = view.prose.lines
    numbers = [number for number, line in enumerate(lines) if view.text[line.start : line.end] == slots[0]]
    if len(numbers) != 1 or numbers[0] + 1 >= len(lines):
        return None
    following = say.quote(lines[numbers[0] + 1])
    return say.either(f"The next line reads {following}", f"下一行是{following}")


# Who and what is mentioned, how often, and in which order.


def _sentence_of(view: View, position: int) -> Sentence | None:
    """The clean sentence around a character."""
    number = view.prose.sentence_at(position)
    sentence = view.prose.sentences[number] if number is not None else None
    return sentence if sentence and sentence.is_clean else None


def _terms(view: View, low: int, high: int) -> list[Term]:
    """Terms with so many occurrences, the first of them in a clean sentence."""
    return [
        term
        for term in view.prose.terms
        if low <= len(term.positions) <= high and _sentence_of(view, term.positions[0])
    ]


def _propose_mention(view: View) -> Iterator[Candidate]:
    for term in _terms(view, 1, 1):
        yield Candidate((term.text,), term.positions[0])


def _answer_mention(view: View, slots: Slots, say: Saying) -> str | None:
    places = view.prose.occurrences(slots[0])
    number = view.prose.sentence_at(places[0]) if len(places) == 1 else None
    if number is None:
        return None
    found = say.quote(view.prose.sentences[number])
    return say.either(f"It says: {found}", f"原文是：{found}")


def _propose_count(view: View) -> Iterator[Candidate]:
    for term in _terms(view, 3, 60):
        yield Candidate((term.text,), term.positions[len(term.positions) // 2])


def _answer_count(view: View, slots: Slots, say: Saying) -> str | None:
    places = view.prose.occurrences(slots[0])
    number = view.prose.sentence_at(places[0]) if places else None
    if number is None:
        return None
    first = say.quote(view.prose.sentences[number])
    return say.either(
        f"“{slots[0]}” occurs {say.times(len(places))}. The first time is in the sentence {first}",
        f"「{slots[0]}」一共出现了 {say.times(len(places))}。第一次出现在这句话里：{first}",
    )


def _propose_trace(view: View) -> Iterator[Candidate]:
    for term in _terms(view, 3, 60):
        last = _sentence_of(view, term.positions[-1])
        if last and last != _sentence_of(view, term.positions[0]):
            yield Candidate((term.text,), term.positions[len(term.positions) // 2])


def _answer_trace(view: View, slots: Slots, say: Saying) -> str | None:
    places = view.prose.occurrences(slots[0])
    numbers = [view.prose.sentence_at(place) for place in (places[0], places[-1])] if places else []
    if not numbers or numbers[0] is None or numbers[1] is None:
        return None
    first, last = (say.quote(view.prose.sentences[number]) for number in numbers if number is not None)
    return say.either(
        f"“{slots[0]}” is mentioned {say.times(len(places))}. The first time, the document says: {first} "
        f"The last time, it says: {last}",
        f"「{slots[0]}」一共被提到 {say.times(len(places))}。第一次提到时，原文是：{first}最后一次提到时，原文是：{last}",
    )


def _spread_pairs(terms: Sequence[Term], parts: int) -> Iterator[tuple[Term, ...]]:
    """Terms together with those one or more parts of the list further on."""
    step = len(terms) // parts
    if step:
        for first in range(len(terms) - (parts - 1) * step):
            chosen = tuple(terms[first + number * step] for number in range(parts))
            if len({term.positions[0] for term in chosen}) == parts:
                yield chosen


def _shuffled(words: Sequence[str]) -> tuple[str, ...]:
    """The words in an order that tells nothing of the document."""
    rest, order = sorted(words), []
    while rest:
        order.append(rest.pop(draw_index(0, "order in a question", "\x1f".join(rest), len(rest))))
    return tuple(order)


def _propose_first_of_two(view: View) -> Iterator[Candidate]:
    for pair in _spread_pairs(_terms(view, 1, 60), 2):
        yield Candidate(_shuffled([term.text for term in pair]), pair[0].positions[0])


def _answer_first_of_two(view: View, slots: Slots, say: Saying) -> str | None:
    places = {slot: view.prose.occurrences(slot) for slot in slots}
    if not all(places.values()):
        return None
    first, second = sorted(slots, key=lambda slot: places[slot][0])
    numbers = [view.prose.sentence_at(places[slot][0]) for slot in (first, second)]
    if numbers[0] is None or numbers[1] is None:
        return None
    early, late = (say.quote(view.prose.sentences[number]) for number in numbers if number is not None)
    return say.either(
        f"“{first}” is mentioned first, in the sentence {early} “{second}” comes later, for the first time in {late}",
        f"先提到的是「{first}」，原文是：{early}「{second}」在后面才第一次出现：{late}",
    )


def _propose_order(view: View) -> Iterator[Candidate]:
    for chosen in _spread_pairs(_terms(view, 1, 60), 3):
        yield Candidate(_shuffled([term.text for term in chosen]), chosen[0].positions[0])


def _answer_order(view: View, slots: Slots, say: Saying) -> str | None:
    places = {slot: view.prose.occurrences(slot) for slot in slots}
    if not all(places.values()):
        return None
    ordered = sorted(slots, key=lambda slot: places[slot][0])
    quoted = [say.quote(Span(places[slot][0], places[slot][0] + len(slot))) for slot in ordered]
    return say.either(
        f"{quoted[0]} comes first, then {quoted[1]}, and {quoted[2]} last.",
        f"最先出现的是{quoted[0]}，其次是{quoted[1]}，最后是{quoted[2]}。",
    )


def _propose_compare(view: View) -> Iterator[Candidate]:
    for pair in _spread_pairs(_terms(view, 3, 80), 2):
        if len(pair[0].positions) != len(pair[1].positions):
            yield Candidate(_shuffled([term.text for term in pair]), pair[0].positions[0])


def _answer_compare(view: View, slots: Slots, say: Saying) -> str | None:
    counts = {slot: view.prose.occurrences(slot) for slot in slots}
    if not all(counts.values()):
        return None
    often, seldom = sorted(slots, key=lambda slot: -len(counts[slot]))
    many, few = len(counts[often]), len(counts[seldom])
    for slot in (often, seldom):
        say.evidence.append((counts[slot][0], counts[slot][0] + len(slot)))
    if many == few:
        return say.either(f"Both occur {say.times(many)}.", f"两者都出现了 {say.times(many)}。")
    return say.either(
        f"“{often}” occurs more often: {say.times(many)}, against {say.times(few)} for “{seldom}”.",
        f"「{often}」出现得更多：{say.times(many)}，而「{seldom}」出现了 {say.times(few)}。",
    )


# The shape of the whole.


def _propose_outline(view: View) -> Iterator[Candidate]:
    headings = view.prose.headings
    titles = [heading.title for heading in headings]
    step = 5
    for first in range(len(headings) - 2):
        last = min(first + step, len(headings) - 1)
        if titles.count(titles[first]) == titles.count(titles[last]) == 1:
            yield Candidate((titles[first], titles[last]), headings[(first + last) // 2].start)


def _heading(view: View, title: str) -> int | None:
    numbers = [number for number, heading in enumerate(view.prose.headings) if heading.title == title]
    return numbers[0] if len(numbers) == 1 else None


def _answer_outline(view: View, slots: Slots, say: Saying) -> str | None:
    first, last = (_heading(view, slot) for slot in slots)
    if first is None or last is None or last <= first:
        return None
    titles = [say.quote(heading) for heading in view.prose.headings[first : last + 1]]
    return say.either(f"The headings are, in order: {say.listing(titles)}.", f"标题依次是：{say.listing(titles)}。")


def _propose_section_opening(view: View) -> Iterator[Candidate]:
    titles = [heading.title for heading in view.prose.headings]
    for number, heading in enumerate(view.prose.headings):
        opening = _section_opening(view, number)
        if opening and opening.is_clean and titles.count(heading.title) == 1:
            yield Candidate((heading.title,), heading.start)


def _section_opening(view: View, number: int) -> Sentence | None:
    """The sentence that begins the text right below a heading."""
    headings = view.prose.headings
    match = re.compile(r"\S").search(view.text, headings[number].body)
    is_empty = match and number + 1 < len(headings) and match.start() >= headings[number + 1].start
    sentence = view.prose.sentence_at(match.start()) if match and not is_empty else None
    if match is None or sentence is None or view.prose.sentences[sentence].start != match.start():
        return None
    return view.prose.sentences[sentence]


def _answer_section_opening(view: View, slots: Slots, say: Saying) -> str | None:
    number = _heading(view, slots[0])
    opening = _section_opening(view, number) if number is not None else None
    if opening is None:
        return None
    return say.either(
        f"The section begins with the sentence {say.quote(opening)}", f"这一节的第一句是{say.quote(opening)}"
    )


def _propose_section_of(view: View) -> Iterator[Candidate]:
    headings = view.prose.headings
    for number, sentence in enumerate(view.prose.sentences):
        if sentence.is_clean and len(headings) >= 3 and sentence.start > headings[0].body:
            opening = view.prose.opening(number)
            if opening:
                yield Candidate((opening,), sentence.start)


def _answer_section_of(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.prose.sentence_beginning(slots[0])
    if number is None:
        return None
    above = [heading for heading in view.prose.headings if heading.body <= view.prose.sentences[number].start]
    if not above:
        return None
    title = say.quote(above[-1])
    sentence = say.quote(view.prose.sentences[number])
    return say.either(
        f"The sentence {sentence} stands under the heading {title}.", f"{sentence}这句话位于标题{title}之下。"
    )


def _clean_from(view: View, position: float) -> Sentence | None:
    return next((each for each in view.prose.sentences if each.is_clean and each.start >= position), None)


def _quarters(view: View) -> list[Sentence] | None:
    openings = [_clean_from(view, len(view.text) * quarter / 4) for quarter in range(4)]
    found = [opening for opening in openings if opening is not None]
    return found if len(set(found)) == 4 else None


def _propose_overview(view: View) -> Iterator[Candidate]:
    if _quarters(view):
        yield Candidate((), None)


def _answer_overview(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    openings = _quarters(view)
    if openings is None:
        return None
    first, second, third, fourth = (say.quote(opening) for opening in openings)
    return say.either(
        f"The first quarter begins: {first} The second quarter: {second} The third: {third} The last: {fourth}",
        f"第一部分的开头是：{first}第二部分是：{second}第三部分是：{third}最后一部分是：{fourth}",
    )


def _ends(view: View) -> tuple[Sentence, Sentence] | None:
    clean = [sentence for sentence in view.prose.sentences if sentence.is_clean]
    return (clean[0], clean[-1]) if len(clean) >= 2 else None


def _propose_ends(view: View) -> Iterator[Candidate]:
    if _ends(view):
        yield Candidate((), None)


def _answer_ends(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    ends = _ends(view)
    if ends is None:
        return None
    first, last = (say.quote(sentence) for sentence in ends)
    return say.either(f"The first is {first} The last is {last}", f"第一句是{first}最后一句是{last}")


# Source code.


def _propose_files(view: View) -> Iterator[Candidate]:
    if 2 <= len(view.source.files) <= 60:
        yield Candidate((), None)


def _answer_files(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    files = view.source.files
    if not files[0].path:
        return None
    paths = [say.code(Span(file.path_start, file.path_start + len(file.path))) for file in files]
    return say.either(
        f"It consists of {len(paths)} files, in this order: {say.listing(paths)}.",
        f"一共有 {len(paths)} 个文件，依次是：{say.listing(paths)}。",
    )


def _propose_definitions(view: View) -> Iterator[Candidate]:
    for number, file in enumerate(view.source.files):
        if file.path and 2 <= len(view.source.top_level(number)) <= 40 and view.source.file_named(file.path) == number:
            yield Candidate((file.path,), file.start)


def _answer_definitions(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.file_named(slots[0])
    definitions = view.source.top_level(number) if number is not None else []
    if not definitions:
        return None
    names = [_named(definition, say) for definition in definitions]
    return say.either(
        f"`{slots[0]}` defines {len(names)} at its left margin: {say.listing(names)}.",
        f"`{slots[0]}` 在最外层定义了 {len(names)} 个，依次是：{say.listing(names)}。",
    )


def _named(definition: Definition, say: Saying) -> str:
    """`class Foo` or `bar`, with its place as evidence."""
    name_at = definition.start + say.text[definition.start : definition.end].index(definition.name, 2)
    quoted = say.code(Span(name_at, name_at + len(definition.name)))
    return say.either(f"the class {quoted}", f"类 {quoted}") if definition.is_class else quoted


def _propose_methods(view: View) -> Iterator[Candidate]:
    for number, methods in view.source.methods.items():
        definition = view.source.definitions[number]
        names = [method.name for method in methods]
        if 2 <= len(names) <= 40 and len(set(names)) == len(names) and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_methods(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    methods = view.source.methods.get(number) if number is not None else None
    if not methods:
        return None
    names = [_named(method, say) for method in methods]
    return say.either(
        f"`{slots[0]}` defines {len(names)}: {say.listing(names)}.",
        f"`{slots[0]}` 定义了 {len(names)} 个，依次是：{say.listing(names)}。",
    )


def _propose_next_definition(view: View) -> Iterator[Candidate]:
    definitions = view.source.definitions
    for number, (definition, following) in enumerate(pairwise(definitions)):
        if definition.file == following.file and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_next_definition(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    definitions = view.source.definitions
    if number is None or number + 1 >= len(definitions) or definitions[number + 1].file != definitions[number].file:
        return None
    following = say.code(definitions[number + 1])
    return say.either(f"The next definition is {following}", f"下一个定义是 {following}")


def _propose_only_definitions(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        if view.source.only(definition.name) == number and len(definition.name) >= 3:
            yield Candidate((definition.name,), definition.start)


def _propose_defined_in(view: View) -> Iterator[Candidate]:
    if len(view.source.files) >= 2:
        yield from _propose_only_definitions(view)


def _answer_defined_in(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    if number is None:
        return None
    definition = view.source.definitions[number]
    file = view.source.files[definition.file]
    if not file.path:
        return None
    path = say.code(Span(file.path_start, file.path_start + len(file.path)))
    header = say.code(definition)
    return say.either(f"It is defined in {path}, where it says {header}", f"它定义在 {path} 中，定义是 {header}")


def _answer_signature(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    if number is None:
        return None
    header = say.code(view.source.definitions[number])
    return say.either(f"It is declared as {header}", f"它的声明是 {header}")


def _propose_docstring(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        if view.source.only(definition.name) == number and view.source.docstring_line(definition):
            yield Candidate((definition.name,), definition.start)


def _answer_docstring(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    line = view.source.docstring_line(view.source.definitions[number]) if number is not None else None
    if line is None:
        return None
    return say.either(f"Its first line says: {say.quote(line)}", f"第一行写的是：{say.quote(line)}")


def _propose_first_defined(view: View) -> Iterator[Candidate]:
    chosen = [
        number
        for number, definition in enumerate(view.source.definitions)
        if view.source.only(definition.name) == number and len(definition.name) >= 3
    ]
    step = len(chosen) // 2
    for first, second in zip(chosen, chosen[step:], strict=False):
        one, other = view.source.definitions[first], view.source.definitions[second]
        following = view.source.definitions[first + 1] if first < second else one
        if first != second and following.file == one.file:
            yield Candidate(_shuffled([one.name, other.name]), one.start)


def _answer_first_defined(view: View, slots: Slots, say: Saying) -> str | None:
    one, other = (view.source.only(slot) for slot in slots)
    if one is None or other is None or one == other:
        return None
    definitions = view.source.definitions
    first = min(one, other)
    if definitions[first + 1].file != definitions[first].file:
        return None
    earlier, following, later = (say.code(definitions[number]) for number in (first, first + 1, max(one, other)))
    return say.either(
        f"`{definitions[first].name}` is defined first, as {earlier} The definition right after it is {following} "
        f"`{definitions[max(one, other)].name}` comes later, as {later}",
        f"先定义的是 `{definitions[first].name}`，即 {earlier} 紧接着的定义是 {following} "
        f"`{definitions[max(one, other)].name}` 在后面定义，即 {later}",
    )


def _propose_more_methods(view: View) -> Iterator[Candidate]:
    classes = [
        (view.source.definitions[number], len(methods))
        for number, methods in view.source.methods.items()
        if methods and view.source.only(view.source.definitions[number].name) == number
    ]
    step = len(classes) // 2
    for (one, count), (other, other_count) in zip(classes, classes[step:], strict=False):
        if count != other_count:
            yield Candidate(_shuffled([one.name, other.name]), one.start)


def _answer_more_methods(view: View, slots: Slots, say: Saying) -> str | None:
    numbers = [view.source.only(slot) for slot in slots]
    counts = {slot: view.source.methods.get(-1 if n is None else n) for slot, n in zip(slots, numbers, strict=True)}
    if not all(counts.values()):
        return None
    often, seldom = sorted(slots, key=lambda slot: -len(counts[slot] or ()))
    many, few = (len(counts[slot] or ()) for slot in (often, seldom))
    for number in numbers:
        if number is not None:
            _named(view.source.definitions[number], say)
    if many == few:
        return say.either(f"Both define {many}.", f"两者都定义了 {many} 个。")
    return say.either(
        f"`{often}` defines more: {many}, against {few} in `{seldom}`.",
        f"`{often}` 定义得更多：{many} 个，而 `{seldom}` 只有 {few} 个。",
    )


def _most_definitions(view: View) -> int | None:
    counts = [len(view.source.top_level(number)) for number in range(len(view.source.files))]
    return counts.index(max(counts)) if len(counts) >= 2 and counts.count(max(counts)) == 1 else None


def _propose_most_definitions(view: View) -> Iterator[Candidate]:
    if _most_definitions(view) is not None:
        yield Candidate((), None)


def _answer_most_definitions(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    number = _most_definitions(view)
    if number is None:
        return None
    file = view.source.files[number]
    count = len(view.source.top_level(number))
    path = say.code(Span(file.path_start, file.path_start + len(file.path)))
    return say.either(f"{path} defines the most: {count}.", f"{path} 定义得最多，共 {count} 个。")


def _propose_imports(view: View) -> Iterator[Candidate]:
    for number, file in enumerate(view.source.files):
        if file.path and 2 <= len(view.source.imports(number)) <= 30 and view.source.file_named(file.path) == number:
            yield Candidate((file.path,), file.start)


def _answer_imports(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.file_named(slots[0])
    imports = view.source.imports(number) if number is not None else []
    if not imports:
        return None
    lines = [say.code(line) for line in imports]
    return say.either(
        f"There are {len(lines)}: {say.listing(lines)}." if len(lines) > 1 else f"There is one: {lines[0]}.",
        f"一共有 {len(lines)} 行：{say.listing(lines)}。",
    )


def _propose_identifier(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        places = view.prose.occurrences(definition.name)
        if 3 <= len(places) <= 60 and len(definition.name) >= 4 and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_identifier(view: View, slots: Slots, say: Saying) -> str | None:
    places = view.prose.occurrences(slots[0])
    if not places:
        return None
    line = next(line for line in view.prose.lines if line.start <= places[0] < line.end)
    return say.either(
        f"`{slots[0]}` occurs {say.times(len(places))}. The first line with it is {say.code(line)}",
        f"`{slots[0]}` 一共出现了 {say.times(len(places))}。第一次出现在这一行：{say.code(line)}",
    )


KINDS: dict[str, Kind] = {
    "next-sentence": Kind(
        en="Which sentence comes directly after the one that begins with “{a}”?",
        zh="以「{a}」开头的那句话，紧接着的下一句是什么？",
        propose=_propose_neighbour(1),
        answer=_answer_next,
    ),
    "previous-sentence": Kind(
        en="Which sentence stands directly before the one that begins with “{a}”?",
        zh="以「{a}」开头的那句话，它的前一句是什么？",
        propose=_propose_neighbour(-1),
        answer=_answer_previous,
    ),
    "between": Kind(
        en="What stands between the sentence that begins with “{a}” and the one that begins with “{b}”?",
        zh="在以「{a}」开头的句子和以「{b}」开头的句子之间，写了什么？",
        propose=_propose_between,
        answer=_answer_between,
    ),
    "paragraph-end": Kind(
        en="How does the paragraph end that begins with “{a}”?",
        zh="以「{a}」开头的那一段，结尾的一句是什么？",
        propose=_propose_paragraph_end,
        answer=_answer_paragraph_end,
    ),
    "next-line": Kind(
        en="Which line comes after the line “{a}”, blank lines not counted?",
        zh="在「{a}」这一行之后，下一行（不计空行）是什么？",
        propose=_propose_next_line,
        answer=_answer_next_line,
    ),
    "mention": Kind(
        en="What does the document say in the one sentence that mentions “{a}”?",
        zh="文档中只有一句话提到「{a}」，这句话是怎么说的？",
        propose=_propose_mention,
        answer=_answer_mention,
    ),
    "count": Kind(
        en="How many times does the word “{a}” occur in the document, spelled exactly so, and in which sentence first?",
        zh="「{a}」这几个字在文档中一共出现了多少次？第一次出现在哪句话里？",
        propose=_propose_count,
        answer=_answer_count,
    ),
    "trace": Kind(
        en="Trace “{a}” through the document: how often is it mentioned, and what is said the first and the last time?",
        zh="请从头到尾梳理「{a}」：文档一共提到它多少次？第一次和最后一次提到时是怎么说的？",
        propose=_propose_trace,
        answer=_answer_trace,
    ),
    "first-of-two": Kind(
        en="Which is mentioned first, “{a}” or “{b}”, and in which sentences do the two first appear?",
        zh="「{a}」和「{b}」哪一个先被提到？两者第一次出现时分别在哪句话里？",
        propose=_propose_first_of_two,
        answer=_answer_first_of_two,
    ),
    "order": Kind(
        en="In which order do “{a}”, “{b}” and “{c}” first appear in the document?",
        zh="「{a}」、「{b}」和「{c}」在文档中首次出现的先后顺序是怎样的？",
        propose=_propose_order,
        answer=_answer_order,
    ),
    "compare": Kind(
        en="Which of the words “{a}” and “{b}” occurs more often in the document, and how often does each?",
        zh="「{a}」和「{b}」哪一个在文档中出现得更多？各出现了多少次？",
        propose=_propose_compare,
        answer=_answer_compare,
    ),
    "outline": Kind(
        en="List the headings of the document in order, from “{a}” up to “{b}”.",
        zh="请按顺序列出文档中从「{a}」到「{b}」的各个标题。",
        propose=_propose_outline,
        answer=_answer_outline,
    ),
    "section-opening": Kind(
        en="With which sentence does the section “{a}” begin?",
        zh="「{a}」这一节的第一句话是什么？",
        propose=_propose_section_opening,
        answer=_answer_section_opening,
    ),
    "section-of": Kind(
        en="Under which heading stands the sentence that begins with “{a}”?",
        zh="以「{a}」开头的那句话位于哪个标题之下？",
        propose=_propose_section_of,
        answer=_answer_section_of,
    ),
    "overview": Kind(
        en="Give a first overview: divide the document into four parts of equal length and quote the first full sentence of each.",
        zh="请粗略概览全文：把文档按长度平均分成四个部分，引用每个部分中第一个完整的句子。",
        propose=_propose_overview,
        answer=_answer_overview,
    ),
    "ends": Kind(
        en="What are the first and the last full sentence of the document?",
        zh="文档中第一个和最后一个完整的句子分别是什么？",
        propose=_propose_ends,
        answer=_answer_ends,
    ),
    "files": Kind(
        en="Which files does the source consist of, in order?",
        zh="这份源代码由哪些文件组成？请按顺序列出。",
        propose=_propose_files,
        answer=_answer_files,
    ),
    "definitions": Kind(
        en="Which functions and classes does `{a}` define at the left margin, in order?",
        zh="`{a}` 在最外层依次定义了哪些函数和类？",
        propose=_propose_definitions,
        answer=_answer_definitions,
    ),
    "methods": Kind(
        en="Which methods does the class `{a}` define directly in its body, and how many are they?",
        zh="类 `{a}` 在类体中直接定义了哪些方法？一共有几个？",
        propose=_propose_methods,
        answer=_answer_methods,
    ),
    "next-definition": Kind(
        en="Which function or class is the next to be defined after `{a}`?",
        zh="在 `{a}` 之后，下一个定义的函数或类是什么？",
        propose=_propose_next_definition,
        answer=_answer_next_definition,
    ),
    "defined-in": Kind(
        en="In which file is `{a}` defined, and how does its definition begin?",
        zh="`{a}` 定义在哪个文件中？它的定义是怎样开头的？",
        propose=_propose_defined_in,
        answer=_answer_defined_in,
    ),
    "signature": Kind(
        en="How is `{a}` declared? Quote the whole header of its definition.",
        zh="`{a}` 是如何声明的？请引用其定义的完整首部。",
        propose=_propose_only_definitions,
        answer=_answer_signature,
    ),
    "docstring": Kind(
        en="What does the first line of the docstring of `{a}` say?",
        zh="`{a}` 的文档字符串第一行写了什么？",
        propose=_propose_docstring,
        answer=_answer_docstring,
    ),
    "first-defined": Kind(
        en="Which is defined first, `{a}` or `{b}`, and what is the definition right after it?",
        zh="`{a}` 和 `{b}` 哪一个先定义？紧接在它之后的定义是什么？",
        propose=_propose_first_defined,
        answer=_answer_first_defined,
    ),
    "more-methods": Kind(
        en="Which class defines more methods directly in its body, `{a}` or `{b}`?",
        zh="类 `{a}` 和类 `{b}`，哪一个在类体中直接定义的方法更多？",
        propose=_propose_more_methods,
        answer=_answer_more_methods,
    ),
    "most-definitions": Kind(
        en="Which file defines the most functions and classes at the left margin, and how many?",
        zh="哪个文件在最外层定义的函数和类最多？有多少个？",
        propose=_propose_most_definitions,
        answer=_answer_most_definitions,
    ),
    "imports": Kind(
        en="Which import statements stand at the left margin of `{a}`? Quote the first line of each.",
        zh="`{a}` 的最外层有哪些 import 语句？请引用每条语句的第一行。",
        propose=_propose_imports,
        answer=_answer_imports,
    ),
    "identifier": Kind(
        en="How many times does `{a}` occur in the source as a whole word, and which line is the first with it?",
        zh="`{a}` 作为完整的词在源代码中一共出现了多少次？第一次出现在哪一行？",
        propose=_propose_identifier,
        answer=_answer_identifier,
    ),
}
"""Every kind of question, by name."""
