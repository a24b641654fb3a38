"""Office files: DOCX (headings, paragraphs, lists, tables and text boxes in their order, each note where it is referred
to) and PPTX (slides with their notes).

    manual.docx  ->  ("Pump manual", "# Safety\n\nWear gloves.[Size 9.]\n\n- first\n\nPart | Weight\nrotor | 3 kg")

Their libraries hold the whole file as trees, so what the trees will take is reckoned before they are built. Format: ECMA-376.
"""

import io
import re
from collections.abc import Collection, Iterator
from itertools import takewhile
from typing import Any

from longalign_data.sources.readers.archives import checked_zip, member_bytes
from longalign_data.sources.unpacking import FREE_BYTES, UnpackError

MAX_TREE_BYTES = 512 << 20
"""What the trees of one file may take in memory, by `tree_bytes`. A thousand pages take a tenth of it."""

NODE_BYTES = 240
"""What libxml2 takes for an element with the white space behind it, or for an attribute with its value, at most; measured
90 to 220."""

_XML = re.compile(rb"[\s\0\xef\xbb\xbf\xfe\xff]*<")
"""How XML begins, in UTF-8, UTF-16 or UTF-32: what a part is called does not say whether it is parsed."""

_HIDING = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?encoding\s*=\s*[\"'](?!utf-?8|utf-?16|(?:us-)?ascii|iso-8859-|windows-125)",
    re.IGNORECASE,
)
"""An encoding in which `<` may be other bytes, as UTF-7's is `+ADw-`; libxml2 asks iconv for whatever a part names."""

_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_LOCKED = "EncryptedPackage".encode("utf-16-le")
"""How the container of the older Office begins, and what it holds where it is put around a locked file (MS-CFB, 2.2;
MS-OFFCRYPTO, 2.3.4.4)."""

_HEADING = re.compile(r"Heading ([1-9])")
_AROUND = frozenset(("sdt", "sdtContent", "customXml", "ins", "moveTo"))
_UNREAD = frozenset(("del", "moveFrom", "Fallback"))
_NOTES = ("footnote", "endnote")
_PARAGRAPH = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}p"
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def tree_bytes(xml: bytes) -> int:
    """An upper bound for the memory of an XML document's tree: its characters, and NODE_BYTES for each tag and each
    attribute, or for every four bytes (`<a/>`) where its encoding hides them."""
    nodes = len(xml) // 4 if _HIDING.match(xml) else xml.count(b"<") + xml.count(b"=")
    return len(xml) + NODE_BYTES * nodes


def check_office_file(data: bytes) -> None:
    """Raises UnpackError for what is no zip file, or unpacks to more than memory should hold."""
    if data.startswith(_COMPOUND):
        locked = _LOCKED in data
        what = "locked with a password" if locked else "a file of Office 97 to 2003 under another name"
        raise UnpackError("unreadable-file", f"{what}; save it as DOCX or PPTX{' without one' if locked else ''}")
    size = 0
    with checked_zip(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            part = member_bytes(archive, member.filename, FREE_BYTES)
            size += tree_bytes(part) if _XML.match(part) else 0
            if size > MAX_TREE_BYTES:
                detail = (
                    f"its XML takes more than {MAX_TREE_BYTES} bytes of memory; expected a file of the size of a book"
                )
                raise UnpackError("unpacks-too-large", detail)


def docx_text(data: bytes, docx: Any) -> tuple[str, str]:
    """(title, text) of a DOCX that has been checked; the title may be empty. Raises what python-docx raises, and UnpackError
    where its notes cannot be read: the text without them would be short of them without a word."""
    document = docx.Document(io.BytesIO(data))
    # Asked for its style, a paragraph without one looks through all styles of the file: seconds for a thousand.
    names = {style.style_id: style.name or "" for style in document.styles}
    notes = _notes(document.part, docx)
    parts = []
    for block in _within(document.element.body, ("p", "tbl")):
        if block.tag.endswith("}tbl"):
            rows = (_within(row, ("tc",)) for row in _within(block, ("tr",)))
            parts.append("\n".join(" | ".join(_cell(cell, notes) for cell in row) for row in rows))
            continue
        for paragraph in _paragraphs(block):
            style = names.get(paragraph.style, "")
            heading = _HEADING.fullmatch(style)
            level = int(heading[1]) if heading else 0
            bullet = "- " if style.startswith("List") else ""
            text = _words(paragraph, notes).strip()
            if text:
                parts.append(f"{'#' * min(level, 6)} {text}" if level else f"{bullet}{text}")
    return document.core_properties.title or "", "\n\n".join(parts)


def pptx_text(data: bytes, pptx: Any) -> tuple[str, str]:
    """(title, text) of a PPTX that has been checked; the title may be empty. Raises what python-pptx raises."""
    deck = pptx.Presentation(io.BytesIO(data))
    parts = []
    for slide in deck.slides:
        lines = [line for shape in slide.shapes for line in _shape(shape, 0)]
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            lines.append(slide.notes_slide.notes_text_frame.text)
        parts.append("\n".join(line for line in lines if line.strip()))
    return deck.core_properties.title or "", "\n\n".join(part for part in parts if part)


def _within(parent: Any, wanted: Collection[str]) -> Iterator[Any]:
    """The children of these names in their order, those in content controls and tracked insertions included: such a control
    stands around blocks of the body, rows of a table and cells of a row alike."""
    for child in parent.iterchildren("{*}*"):
        name = child.tag.rpartition("}")[2]
        if name in wanted:
            yield child
        elif name in _AROUND:
            yield from _within(child, wanted)


def _notes(part: Any, docx: Any) -> dict[tuple[str, str], str]:
    """The text of each footnote and endnote, by its kind and number. Raises UnpackError."""
    found: dict[tuple[str, str], str] = {}
    for kind in _NOTES:
        # A file may have any number of relationships to one part.
        related = (relation for relation in part.rels.values() if relation.reltype.endswith(f"/{kind}s"))
        parts = {
            relation.target_part.partname: relation.target_part for relation in related if not relation.is_external
        }
        for name, notes in parts.items():
            try:
                root = docx.oxml.parse_xml(notes.blob)
            except SyntaxError as error:  # as the library's parser calls what it cannot read
                raise UnpackError(
                    "unreadable-file", f"the notes in {str(name)!r}: {error}; save the file anew"
                ) from None
            for note in root.iterchildren(f"{{*}}{kind}"):
                text = _one_line(" ".join(_words(paragraph, {}) for paragraph in _paragraphs(note)))
                found.setdefault((kind, _number(note)), text)
    return found


def _number(element: Any) -> str:
    return next((str(value) for name, value in element.attrib.items() if name.endswith("}id")), "")


def _paragraphs(block: Any) -> Iterator[Any]:
    """Each `w:p` in a block, itself included: those of a text box behind the one that it hangs on. Word writes a box twice,
    the second time as a Fallback."""
    for paragraph in block.iter(_PARAGRAPH):
        around = takewhile(lambda node: node is not block, paragraph.iterancestors())
        if paragraph is block or not any(node.tag.rpartition("}")[2] in _UNREAD for node in around):
            yield paragraph


def _words(paragraph: Any, notes: dict[tuple[str, str], str]) -> str:
    """The text of a `w:p` as it stands once its tracked changes are accepted, without its text boxes and other `w:p` in
    it; the notes that it refers to are taken out of `notes`. What the library gives leaves out insertions and content
    controls."""
    pieces: list[str] = []
    pending = list(reversed(paragraph))
    while pending:
        node = pending.pop()
        name = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
        if name == "t":
            pieces.append(node.text or "")
        elif name in _SIGNS:
            pieces.append(_SIGNS[name])
        elif name.removesuffix("Reference") in _NOTES:
            note = notes.pop((name.removesuffix("Reference"), _number(node)), "")
            pieces.append(f"[{note}]" if note else "")
        elif node.tag != _PARAGRAPH and name not in _UNREAD and name not in ("pPr", "txbxContent"):
            pending += reversed(node)
    return "".join(pieces)


def _cell(cell: Any, notes: dict[tuple[str, str], str]) -> str:
    """The text of a `w:tc`, tables within it included. A cell that spans others stands once: the library gives it once for
    each column that its file claims, of which there may be billions, and climbs merged rows by recursion."""
    return _one_line(" ".join(_words(paragraph, notes) for paragraph in _paragraphs(cell)))


def _shape(shape: Any, depth: int) -> list[str]:
    if shape.has_text_frame:
        return [shape.text_frame.text]
    if getattr(shape, "has_table", False):
        return [" | ".join(_one_line(cell.text) for cell in row.cells) for row in shape.table.rows]
    if depth < 8 and hasattr(shape, "shapes"):
        return [line for inner in shape.shapes for line in _shape(inner, depth + 1)]
    return []


def _one_line(text: str) -> str:
    return " ".join(text.split())
