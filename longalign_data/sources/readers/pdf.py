"""PDF: the text of the pages, with what stands at the head or foot of page after page given once.

    "ACME Corp\\n1 Safety ... wear\\n1" / "ACME Corp\\ngloves. ...\\n2" / ...  ->  "ACME Corp\\n1 Safety ... wear\\ngloves. ..."

A PDF does not say which of its lines are running heads (ISO 32000-2, 14.8.2.2, leaves it to tags that few files have), so
they are known by their return.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice, takewhile
from typing import Any

from longalign_data.sources.reading import MAX_RECORD_BYTES
from longalign_data.sources.unpacking import UnpackError

MAX_PAGES = 20_000

EDGE_LINES = 3
"""How many lines at the head and at the foot of a page may be running ones."""

LONGEST = 200
"""Characters of a running line at most."""

IN_A_ROW = 5
"""On so many pages next to each other, or on every other page, a line returns before it is a running one. Fewer are as often
words of the document: the head of a table that goes on, a result that three pages share."""

_NUMBER = re.compile(r"(?<![\d.,])\d{1,6}(?![\d.,]*\d)")
"""A number as pages are numbered."""

_PAGE = "\0"
"""Stands for the number of the page."""

_PAGE_WORD = re.compile(
    r"(?<!\w)(?:page|pg|p|seite|página|pagina|strona|sida|side|blad|sivu|страница|стр)(?!\w)|第\0|\0 ?[页頁]",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

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
    """The pages without running heads and feet; of each the first in a row stays, if it holds a letter.

    Of the EDGE_LINES lines at the head or foot of a page those are running ones that return IN_A_ROW times at the same edge,
    word for word or with the number of the page in them; and the number of the page by itself. They are taken from the edge
    inwards, up to the first that is none.
    """
    split: list[list[str | None]] = [list(page.split("\n")) for page in pages]
    edges = {inwards: [_edge(lines, inwards) for lines in split] for inwards in (1, -1)}
    offset = _offset([[line for _, line in [*head, *foot]] for head, foot in zip(edges[1], edges[-1], strict=True)])
    for lines_of in edges.values():
        forms = [
            {form for _, line in edge for form in _forms(line, page, offset)} for page, edge in enumerate(lines_of)
        ]
        last: dict[str, int] = {}
        for page, edge in enumerate(lines_of):
            for place, line in edge:
                running = [form for form in _forms(line, page, offset) if form == _PAGE or _in_a_row(form, page, forms)]
                if not running:
                    break
                goes_on = any(page - last.get(form, -page - 3) <= 2 for form in running)
                if goes_on or not any(letter.isalpha() for letter in line):
                    split[page][place] = None
                last.update(dict.fromkeys(running, page))
    return ["\n".join(line for line in lines if line is not None).strip() for lines in split]


def _edge(lines: Sequence[str | None], inwards: int) -> list[tuple[int, str]]:
    """The EDGE_LINES outermost lines that are not blank, with their places, the outermost first."""
    places = range(len(lines))[::inwards]
    spaced = ((place, " ".join((lines[place] or "").split())) for place in places)
    outermost = islice(((place, line) for place, line in spaced if line), EDGE_LINES)
    return list(takewhile(lambda entry: len(entry[1]) <= LONGEST, outermost))


def _offset(edges: Sequence[Sequence[str]]) -> int | None:
    """By how much the printed numbers of the pages are ahead of their places: what holds most often, and at the edges of more
    than half of the pages that have text; None where nothing does."""
    counts = Counter(
        offset
        for page, lines in enumerate(edges)
        for offset in {int(number[0]) - page for line in lines for number in _NUMBER.finditer(line)}
    )
    best = min(counts, key=lambda offset: (-counts[offset], abs(offset)), default=0)
    return best if counts[best] > max(2, sum(map(bool, edges)) // 2) else None


def _forms(line: str, page: int, offset: int | None) -> Iterator[str]:
    """The line, unless it is without letters (a brace, a number), and the line with _PAGE for the number in it that is the
    page's by all the rest: alone, beside a word for pages, or at the end of a title. `Step 4` and `4 May` tell of no page."""
    if any(letter.isalpha() for letter in line):
        yield line
    for number in _NUMBER.finditer(line):
        if offset is not None and int(number[0]) - page == offset:
            form = line[: number.start()] + _PAGE + line[number.end() :]
            is_at_end = form.startswith(_PAGE) or form.endswith(_PAGE)
            is_title = len(_WORD.findall(form)) >= 3 or len(_CJK.findall(form)) >= 5
            if not any(letter.isalpha() for letter in form) or _PAGE_WORD.search(form) or (is_at_end and is_title):
                yield form


def _in_a_row(form: str, page: int, forms: Sequence[set[str]]) -> bool:
    """Whether a form stands IN_A_ROW times at the same edge of pages next to each other, or of every other page."""
    return any(_reach(form, page, step, forms) + _reach(form, page, -step, forms) + 1 >= IN_A_ROW for step in (1, 2))


def _reach(form: str, page: int, step: int, forms: Sequence[set[str]]) -> int:
    """On how many pages from this one on, up to what is asked for, a form stands."""
    pages = takewhile(lambda near: 0 <= near < len(forms) and form in forms[near], count(page + step, step))
    return len(list(islice(pages, IN_A_ROW)))
