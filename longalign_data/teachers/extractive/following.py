"""Questions about what follows what: sentences, paragraphs and lines."""

from collections.abc import Callable, Iterator

from longalign_data.teachers.extractive.kind import Candidate, Kind, Saying, Slots, View
from longalign_data.teachers.extractive.prose import Sentence


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


KINDS = {
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
}
