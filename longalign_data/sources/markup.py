"""HTML as text: paragraphs, lists, tables and preformatted blocks keep a plain form; scripts and styles go.

In: HTML of any quality, as text. Out: text; nothing is fetched, and no entity beyond HTML's own is known.
"""

import re
from typing import Any

from longalign_data.sources.extras import extra as _extra

MAX_HTML_CHARS = 8 << 20
MAX_DEPTH = 1_000
"""A page with more characters, or with elements nested deeper, is not read: the parser's time grows with the square of
the depth, and a page of a megabyte of opening tags would hold it for minutes."""

# Elements without an end tag, and those whose end tag may be left out: they do not nest.
_FLAT = frozenset(
    (
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
        "param",
        "p",
        "li",
        "dt",
        "dd",
        "option",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "tfoot",
        "html",
        "head",
        "body",
    )
)


_NESTING = re.compile(rf"<(/?)(?!(?:{'|'.join(sorted(_FLAT))})(?![a-zA-Z0-9]))[a-zA-Z]", re.IGNORECASE)


class MarkupError(Exception):
    """A page from which no text can be taken."""


def html_library(extra: str) -> Any:
    """The module that turns HTML into text. Raises MissingExtraError, naming `extra`."""
    return _extra("resiliparse.extract.html2text", package="resiliparse", extra=extra, purpose="reading HTML")


def html_text(html: str, library: Any, *, main_content: bool = False) -> str:
    """The text of a page, or of a fragment, that holds no NUL; with `main_content`, without menus, side bars and footers.
    Raises MarkupError."""
    if len(html) > MAX_HTML_CHARS:
        raise MarkupError(f"{len(html)} characters of HTML; expected at most {MAX_HTML_CHARS}")
    if _too_deep(html):
        raise MarkupError(f"elements nested more than {MAX_DEPTH} deep; expected a page")
    try:
        text: str = library.extract_plain_text(html, main_content=main_content, alt_texts=False)
    except (ValueError, TypeError, RuntimeError) as error:
        raise MarkupError(f"{type(error).__name__}: {error}") from None
    return text.strip()


def _too_deep(html: str) -> bool:
    num_tags = html.count("<")
    if num_tags <= MAX_DEPTH or num_tags - html.count("</") <= MAX_DEPTH:
        return False
    depth = 0
    for closing in _NESTING.findall(html):
        depth = max(0, depth - 1) if closing else depth + 1
        if depth > MAX_DEPTH:
            return True
    return False
