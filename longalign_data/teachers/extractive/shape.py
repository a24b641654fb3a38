"""Questions about the shape of the whole: headings, sections, beginning and end."""

import re
from collections.abc import Iterator

from longalign_data.teachers.extractive.kind import Candidate, Kind, Saying, Slots, View
from longalign_data.teachers.extractive.prose import Sentence


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


KINDS = {
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
}
