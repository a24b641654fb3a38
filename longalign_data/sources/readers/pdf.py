"""PDF: the text of the pages, with what stands at the head or foot of page after page given once.

    "ACME Corp\\n1 Safety ... wear\\n1" / "ACME Corp\\ngloves. ...\\n2" / ...  ->  "ACME Corp\\n1 Safety ... wear\\ngloves. ..."

A PDF does not say which of its lines are running heads (ISO 32000-2, 14.8.2.2, leaves it to tags that few files have), so
they are known by their return.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from longalign_data.sources.reading import MAX_RECORD_BYTES
from longalign_data.sources.unpacking import UnpackError

MAX_PAGES = 20_000

EDGE_LINES = 3
"""How many lines at the head and at the foot of a page may be running ones."""

MIN_PAGES = 4
"""A PDF with fewer pages is left as it is: nothing returns often enough to be known."""

_NUMBER = re.compile(r"(?<![\d.,])\d{1,6}(?![\d.,]*\d)")
"""A number as pages are numbered."""

_PAGE = "\0"
"""Stands for the number of the page."""

_ENDED = tuple(".!?:;…。！？：；”\"')]）】》」』")
"""What a paragraph may end with; after anything else a small letter on the next page goes on with the sentence."""


_NO_TITLE = re.compile(
    r"\(?(?:untitled|anonymous|unspecified)\)?|Microsoft (?:Word|PowerPoint|Excel) - .*|.*\.(?:docx?|pptx?|xlsx?|odt|rtf)",
    re.IGNORECASE | re.DOTALL,
)
"""What programs write where nobody gave a title, and the names of the files that they print."""


def pdf_text(data: bytes, pypdf: Any) -> tuple[str, str]:
    """(title or nothing, text). A page without text, such as a scanned one, is left out. Raises UnpackError, and what pypdf
    raises on broken files."""
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnpackError("unreadable-file", "the PDF is locked with a password")
    if len(reader.pages) > MAX_PAGES:
        raise UnpackError("too-large", f"{len(reader.pages)} pages; expected at most {MAX_PAGES}")
    title = reader.metadata.title if reader.metadata is not None else None
    pages, size = [], 0
    for page in reader.pages:
        text = page.extract_text()
        size += len(text)
        if size > MAX_RECORD_BYTES:
            raise UnpackError("too-large", f"more than {MAX_RECORD_BYTES} characters of text")
        pages.append(text.strip())
    title = str(title or "").strip()
    return "" if _NO_TITLE.fullmatch(title) else title, joined(without_running_lines(pages))


def joined(pages: Sequence[str]) -> str:
    """The pages as one text: a paragraph each, but where a sentence runs over the end of a page."""
    parts: list[str] = []
    for page in filter(None, pages):
        if parts:
            parts.append("\n" if page[0].islower() and not parts[-1].endswith(_ENDED) else "\n\n")
        parts.append(page)
    return "".join(parts)


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """The pages without running heads and feet; of each the first stays, if it holds a letter.

    Of the EDGE_LINES lines at the head or foot of a page those are running ones that stand at the same edge of two more pages,
    all three next to each other or on every other page, word for word or with the number of the page in them; and the number
    of the page by itself. They are taken from the edge inwards, up to the first that is none.
    """
    if len(pages) < MIN_PAGES:
        return list(pages)
    split: list[list[str | None]] = [list(page.split("\n")) for page in pages]
    edges = {inwards: [_edge(lines, inwards) for lines in split] for inwards in (1, -1)}
    offsets = _offsets([[line for _, line in [*head, *foot]] for head, foot in zip(edges[1], edges[-1], strict=True)])
    for lines_of in edges.values():
        forms = [
            {form for _, line in edge for form in _forms(line, page, offsets)} for page, edge in enumerate(lines_of)
        ]
        seen: set[str] = set()
        for page, edge in enumerate(lines_of):
            for place, line in edge:
                running = [
                    form for form in _forms(line, page, offsets) if form == _PAGE or _in_a_row(form, page, forms)
                ]
                if not running:
                    break
                if not seen.isdisjoint(running) or not any(letter.isalpha() for letter in line):
                    split[page][place] = None
                seen.update(running)
    return ["\n".join(line for line in lines if line is not None).strip() for lines in split]


def _edge(lines: Sequence[str | None], inwards: int) -> list[tuple[int, str]]:
    """The EDGE_LINES outermost lines that are not blank, with their places, the outermost first."""
    places = range(len(lines))[::inwards]
    spaced = ((place, " ".join((lines[place] or "").split())) for place in places)
    return list(islice(((place, line) for place, line in spaced if line), EDGE_LINES))


def _offsets(edges: Sequence[Sequence[str]]) -> set[int]:
    """By how much the printed numbers of the pages are ahead of their places: what holds for a number at the edges of more
    than half of the pages that have text."""
    counts = Counter(
        offset
        for page, lines in enumerate(edges)
        for offset in {int(number[0]) - page for line in lines for number in _NUMBER.finditer(line)}
    )
    filled = sum(bool(lines) for lines in edges)
    return {offset for offset, count in counts.items() if 2 * count > filled}


def _forms(line: str, page: int, offsets: set[int]) -> Iterator[str]:
    """The line, unless it is without letters (a brace, a number), and the line with each number in it that can be the page's
    put as _PAGE."""
    if any(letter.isalpha() for letter in line):
        yield line
    for number in _NUMBER.finditer(line):
        if int(number[0]) - page in offsets:
            yield line[: number.start()] + _PAGE + line[number.end() :]


def _in_a_row(form: str, page: int, forms: Sequence[set[str]]) -> bool:
    """Whether a form is one of three at the same edge of pages next to each other, or of every other page."""
    there = [0 <= near < len(forms) and form in forms[near] for near in range(page - 4, page + 5)]
    rows = (there[start : start + 2 * step + 1 : step] for step in (1, 2) for start in range(4 - 2 * step, 5, step))
    return any(all(row) for row in rows)
