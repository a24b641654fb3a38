from hypothesis import given
from hypothesis import strategies as st

from longalign_data.explore.pages.text import BLOCK_CHARS, LINE_CHARS, Gap, around, blocks
from longalign_data.explore.plain import visible

TEXTS = st.text(alphabet="ab \n\u202e江", max_size=400).map(lambda text: text * 20)
SPANS = st.lists(st.tuples(st.integers(-5, 9_000), st.integers(-5, 9_000)), max_size=6)


@given(text=TEXTS, spans=SPANS)
def test_blocks_hold_every_character_once_and_mark_the_evidence(text: str, spans: list[tuple[int, int]]) -> None:
    found = [piece for block in blocks(text, spans) for piece in block]
    assert "".join(piece.text for piece in found) == visible(text)
    inside = {at for start, end in spans if 0 <= start < end <= len(text) for at in range(start, end)}
    marked = "".join(piece.text for piece in found if piece.evidence)
    assert marked == visible("".join(text[at] for at in sorted(inside)))
    numbers = [piece.number for piece in found if piece.number]
    assert numbers == list(range(1, len(numbers) + 1))


@given(text=TEXTS, spans=SPANS, chars=st.integers(40, 9_000))
def test_an_excerpt_and_its_gaps_are_as_long_as_the_text(text: str, spans: list[tuple[int, int]], chars: int) -> None:
    found = around(text, spans, chars=chars, context=30)
    gaps = sum(part.chars for part in found if isinstance(part, Gap))
    pieces = [piece for part in found if not isinstance(part, Gap) for piece in part]
    shown = "".join(piece.text.replace("<U+202E>", "\u202e") for piece in pieces)
    assert len(shown) + gaps == len(text)
    # One place of evidence may end the room, with what stands around it.
    assert len(shown) <= max(len(text) if len(text) <= chars else 0, chars + 60)


def test_blocks_end_with_lines() -> None:
    text = "\n".join("x" * 900 for _ in range(20))
    found = blocks(text, [(0, len(text))])
    assert len(found) > 3
    assert all(block[-1].text.endswith("\n") for block in found[:-1])
    assert [block[0].number for block in found] == [1, *[0] * (len(found) - 1)]
    assert max(len(block[0].text) for block in blocks("x" * 100_000, [])) <= BLOCK_CHARS + LINE_CHARS
