"""HTML as text: paragraphs, lists, tables and preformatted blocks keep a plain form; scripts and styles go.

In: HTML of any quality, as text. Out: text; nothing is fetched, and no entity beyond HTML's own is known.
"""

import re
from collections import Counter, defaultdict
from html import unescape
from typing import Any

from longalign_data.sources.extras import extra as _extra

MAX_HTML_CHARS = 8 << 20
MAX_DEPTH = 1_000
"""A page with more characters, or with elements nested deeper, is not read: the parser's time grows with the square of
the depth, and a page of a megabyte of opening tags would hold it for minutes."""

MAX_REOPENED = 1_000_000
"""A parser closes the open formatting elements with each block and opens them again in the next one. Where they are never
closed, a page of 70 kB becomes millions of elements, of 400 bytes each; this bounds their number."""

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
# The formatting elements of which several of one name can stand open.
_FORMATTING = re.compile(r"<(/?)(b|big|code|em|font|i|s|small|strike|strong|tt|u)(?![a-zA-Z0-9])([^>]*)", re.IGNORECASE)
_ALIKE = 3
"""Of elements of one name and with the same attributes, a parser keeps so many open."""


_POWER = re.compile(
    r"(<(?<=[^\s<>(\[{/\u2044]<)(?<!sp;<)(?<!#160;<)"
    r"(?:/?(?:a|abbr|b|big|cite|code|em|font|i|kbd|q|samp|small|span|strong|su[bp]|tt|u|var)(?:\s[^<>]{0,300})?><)*+"
    r"sup(?:\s[^<>]{0,300})?>)"
    r"(?=\s*[-+\u2212\u2013]?(?:\d{1,4}|n)\s*</sup(\s*>\s*(?:\u2044|&frasl;|&#8260;|/\s*<sub))?)",
    re.IGNORECASE,
)
"""Where a number stands high behind a word or another number: `10<sup>6</sup>` without a sign would be another number. What
stands high behind nothing is a note's own mark; the group behind the number says that it is the upper half of a fraction."""


def _with_sign(match: re.Match[str]) -> str:
    mixed = match[2] is not None and match.string[match.start() - 1].isdigit()
    return f"{match[1]}{' ' if mixed else '^'}"


MAX_HEAD_CHARS = 1 << 16
"""Characters of a page in which its head is looked for."""

_UNSEEN = re.compile(r"<!--(?:-?>|.*?(?:-->|\Z))|<(script|style)[\s/>].*?(?:</\1|\Z)", re.IGNORECASE | re.DOTALL)
"""Comments and programs: what looks like an element in them is none. One that does not end hides all that follows."""

_BEHIND_HEAD = re.compile(r"</head|<body[\s>]|<svg[\s>]", re.IGNORECASE)
_TITLE = re.compile(r"<title(?:\s[^>]{0,300})?>([^<]{0,1000})</title", re.IGNORECASE)

MAX_HEADING_CHARS = 2000
"""Characters of a heading, with what stands in it, that can be a page's title."""

_HEADING = re.compile(r"<h1(?:\s[^<>]{0,300})?>", re.IGNORECASE)
_HEADING_END = re.compile("</h1", re.IGNORECASE)
_TAG = re.compile("<[^<>]*>")
_CLOSED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)(?![A-Za-z0-9:-]))([A-Za-z][A-Za-z0-9:-]*)"
    r"(\s[^<>]*)?/>",
    re.IGNORECASE,
)


class MarkupError(Exception):
    """A page from which no text can be taken."""


def html_library(extra: str) -> Any:
    """The module that turns HTML into text. Raises MissingExtraError, naming `extra`."""
    return _extra("resiliparse.extract.html2text", package="resiliparse", extra=extra, purpose="reading HTML")


def html_of_xhtml(page: str) -> str:
    """XHTML in the words of HTML, where `<title/>` opens an element that goes on to the end of the page."""
    return _CLOSED.sub(lambda match: f"<{match[1]}{match[2] or ''}></{match[1]}>", page)


def html_text(html: str, library: Any, *, main_content: bool = False) -> str:
    """The text of a page, or of a fragment, that holds no NUL; with `main_content`, without menus, side bars and footers.
    Raises MarkupError."""
    if len(html) > MAX_HTML_CHARS:
        raise MarkupError(f"{len(html)} characters of HTML; expected at most {MAX_HTML_CHARS}")
    if _too_deep(html):
        raise MarkupError(f"elements nested more than {MAX_DEPTH} deep; expected a page")
    if _too_often_reopened(html):
        detail = f"formatting that is never closed, and opens again more than {MAX_REOPENED} times; expected a page"
        raise MarkupError(detail)
    try:
        text: str = library.extract_plain_text(_POWER.sub(_with_sign, html), main_content=main_content, alt_texts=False)
    except (ValueError, TypeError, RuntimeError) as error:
        raise MarkupError(f"{type(error).__name__}: {error}") from None
    return text.strip()


def html_title(html: str) -> str:
    """The words of a page's `<title>`, in its head; none where it has none. A drawing's `<title>` is another."""
    title = _TITLE.search(_BEHIND_HEAD.split(_UNSEEN.sub("", html[:MAX_HEAD_CHARS]), maxsplit=1)[0])
    return " ".join(unescape(title[1]).split()) if title else ""


def first_heading(html: str) -> str:
    """The words of a page's first `<h1>`; none where it has none, or it ends beyond MAX_HEADING_CHARS."""
    html = _UNSEEN.sub("", html)
    begin = _HEADING.search(html)
    inside = html[begin.end() : begin.end() + MAX_HEADING_CHARS] if begin else ""
    end = _HEADING_END.search(inside)
    return " ".join(unescape(_TAG.sub("", inside[: end.start()])).split()) if end else ""


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


def _too_often_reopened(html: str) -> bool:
    """Whether the formatting elements open at each tag come to more than MAX_REOPENED together (HTML, "Reconstruct the
    active formatting elements")."""
    num_tags = html.count("<")
    if num_tags * num_tags <= MAX_REOPENED or num_tags * len(_FORMATTING.findall(html)) <= MAX_REOPENED:
        return False
    opened: defaultdict[str, list[str]] = defaultdict(list)
    alike = Counter[str]()
    num_open = reopened = position = 0
    for match in _FORMATTING.finditer(html):
        if num_open:
            reopened += num_open * html.count("<", position, match.start())
        position = match.end()
        name = match[2].lower()
        if not match[1]:
            start = f"{name} {match[3]}"
            if alike[start] < _ALIKE:
                opened[name].append(start)
                alike[start] += 1
                num_open += 1
        else:
            if opened[name]:
                alike[opened[name].pop()] -= 1
                num_open -= 1
            reopened += num_open
        if reopened > MAX_REOPENED:
            return True
    return reopened + num_open * html.count("<", position) > MAX_REOPENED
