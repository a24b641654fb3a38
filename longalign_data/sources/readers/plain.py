"""Text files in the encodings that people's folders hold, without a word on which.

b"\\xff\\xfeP\\0u\\0m\\0p\\0"  ->  "Pump"        a byte order mark leaves nothing to guess
"水泵".encode("gb18030")    ->  "水泵"        not UTF-8: what its bytes look like, where that is sure
"""

import codecs
import re

from longalign_data.sources.extras import extra
from longalign_data.sources.readers.epub import looked_like
from longalign_data.sources.reading import decoded_in_order, in_order
from longalign_data.sources.unpacking import UnpackError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""In this order: the mark of UTF-32 begins as that of UTF-16 does, which no text follows with a NUL."""

_WIDE = frozenset(("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949"))
"""Encodings of several bytes a character: hardly any other text is valid in them."""

_FEW = 200
"""Where fewer than one in so many characters is outside ASCII, the text is most likely English, whose quotes, signs and
foreign names are in Windows-1252; the detector, which goes by the letters of languages, has nothing to go by."""

_PROBE = 1 << 20
"""Characters in which words are looked at."""

_CONTROL = re.compile("[\0-\x08\x0e-\x19\x1c-\x1f\x7f-\x9f]")
_BEHIND_LETTER = re.compile(r"(?<=[^\W\d_])[^\0-\x7f]")
_IN_WORDS = frozenset(
    "\u2018\u2019\u201b\xad\xb7\u2013\u2014\u2026\u20ac\xa0\xae\u2122\xb4\xaa\xba\xb2\xb3\xb9\xa9\xb0\xab\xbb/"
)
"""What stands between letters though it is none: apostrophes, hyphens, dashes, the space that does not break, quotes
without spaces, and signs that names carry."""

_BEFORE_WORDS = frozenset("\u201a\u201e\xa1\xbf")
"""What opens a quote, a cry or a question, and stands behind no letter."""


def plain_text(data: bytes, extra_name: str) -> tuple[str, int]:
    """As `decoded_in_order`, of a text in an encoding that has a mark or can be told. Raises UnpackError `bad-utf8`, which
    names the encodings that were tried, and MissingExtraError where one has to be told and the package for it is absent."""
    for mark, codec in _MARKS:
        if data.startswith(mark):
            try:
                return in_order(data.decode(codec))
            except UnicodeDecodeError as error:
                name = codec.upper()
                detail = f"has the byte order mark of {name}, but is not {name} at byte {error.start}; save the file as UTF-8"
                raise UnpackError("bad-utf8", detail) from None
    try:
        return decoded_in_order(data)
    except UnicodeDecodeError as error:
        where = error.start
    extra("resiliparse.parse.encoding", package="resiliparse", extra=extra_name, purpose="text that is not UTF-8")
    codec = _guessed(data)
    if codec == "utf-8":
        tried = "it is UTF-8 with damage in it, or in no encoding that can be told"
    else:
        try:
            text = data.decode(codec).removesuffix("\x1a")
            if _likely(text, codec):
                return in_order(text)
        except UnicodeDecodeError:
            pass
        tried = f"it was tried as {codec}, and does not read as text"
    advice = "save the file as UTF-8, for instance by: iconv -f ITS-ENCODING -t UTF-8"
    raise UnpackError("bad-utf8", f"not UTF-8 at byte {where}; {tried}; {advice}")


def _guessed(data: bytes) -> str:
    """Python's name of the encoding that bytes outside UTF-8 look like; `utf-8` where that cannot be told."""
    codec = looked_like(data)
    few = _FEW * len(data.translate(None, bytes(range(128)))) < len(data)
    if codec.startswith("utf-"):
        return "utf-8"
    return "cp1252" if few and codec not in _WIDE else codec


def _likely(text: str, codec: str) -> bool:
    """Whether a text that was decoded reads as one: it has no control characters, and its words hold no signs and no capital
    behind a small letter, as Windows-1252 makes of the `é` of DOS (`r\u201aglez`) and of old Macintoshes (`r\u017dglez`)."""
    if _CONTROL.search(text):
        return False
    if codec in _WIDE:
        return True
    head = text[:_PROBE]
    found = [match.start() for match in _BEHIND_LETTER.finditer(head)]
    odd = sum(
        head[at].isupper() and head[at - 1].islower()
        if head[at].isalpha()
        else head[at] in _BEFORE_WORDS or (head[at] not in _IN_WORDS and head[at + 1 : at + 2].isalpha())
        for at in found
    )
    return 20 * odd <= len(found)
