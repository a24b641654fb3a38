"""Questions about who and what is mentioned, how often, and in which order."""

from collections.abc import Iterator, Sequence

from longalign_data.teachers.extractive.kind import Candidate, Kind, Saying, Slots, View, shuffled
from longalign_data.teachers.extractive.prose import Sentence, Span, Term


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


def _propose_first_of_two(view: View) -> Iterator[Candidate]:
    for pair in _spread_pairs(_terms(view, 1, 60), 2):
        yield Candidate(shuffled([term.text for term in pair]), pair[0].positions[0])


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
        yield Candidate(shuffled([term.text for term in chosen]), chosen[0].positions[0])


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
            yield Candidate(shuffled([term.text for term in pair]), pair[0].positions[0])


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


KINDS = {
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
}
