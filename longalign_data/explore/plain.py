"""Text from documents, made fit for a terminal.

A document may hold anything: escape sequences that clear a screen, marks that turn the writing direction around, markup
of the library that draws the tables. What comes out of here is only ever letters on the screen.
"""

import re

# C0 but tab and line feed, DEL, C1; then what is invisible or changes the order of what is read: soft hyphen, bidirectional
# marks, embeddings and isolates, line and paragraph separators, BOM, interlinear marks, tag characters, lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with control and direction-changing characters made visible: C0 as their pictures (U+2400 and on), the
    rest as `<U+202E>`. Tab and line feed stay; a carriage return before a line feed goes."""
    return _HIDDEN.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"<U+{code:04X}>"


def one_line(text: str) -> str:
    """The text visible and on one line: each run of white space is one space."""
    return " ".join(visible(text).split())


def shorten(text: str, width: int) -> str:
    """At most `width` characters; what was cut off the end is marked by an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…"
