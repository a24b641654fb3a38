"""Office files: DOCX (headings, paragraphs, lists, tables in their order) and PPTX (slides with their notes).

    manual.docx  ->  ("Pump manual", "# Safety\n\nWear gloves.\n\n- first\n\nPart | Weight\nrotor | 3 kg")

Their libraries hold the whole file as trees, so what the trees will take is reckoned before they are built. Format: ECMA-376.
"""

import io
import re
from collections.abc import Collection, Iterator
from typing import Any

from longalign_data.sources.readers.archives import checked_zip, member_bytes
from longalign_data.sources.unpacking import FREE_BYTES, UnpackError

MAX_TREE_BYTES = 512 << 20
"""What the trees of one file may take in memory, by `tree_bytes`. A thousand pages take a tenth of it."""

NODE_BYTES = 240
"""What libxml2 takes for an element with the white space behind it, or for an attribute with its value, at most; measured
90 to 220."""

XML = (".xml", ".rels")
_HEADING = re.compile(r"Heading ([1-9])")
_AROUND = frozenset(("sdt", "sdtContent", "customXml", "ins", "moveTo"))
_UNREAD = frozenset(("del", "moveFrom", "txbxContent", "Fallback"))
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def tree_bytes(xml: bytes) -> int:
    """An upper bound for the memory of an XML document's tree: its characters, and NODE_BYTES for each tag and each
    attribute."""
    return len(xml) + NODE_BYTES * (xml.count(b"<") + xml.count(b"="))


def check_office_file(data: bytes) -> None:
    """Raises UnpackError for what is no zip file, or unpacks to more than memory should hold."""
    size = 0
    with checked_zip(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.filename.lower().endswith(XML):
                size += tree_bytes(member_bytes(archive, member.filename, FREE_BYTES))
                if size > MAX_TREE_BYTES:
                    detail = f"its XML takes more than {MAX_TREE_BYTES} bytes of memory; expected a file of the size of a book"
                    raise UnpackError("unpacks-too-large", detail)


def docx_text(data: bytes, docx: Any) -> tuple[str, str]:
    """(title, text) of a DOCX that has been checked; the title may be empty. Raises what python-docx raises."""
    document = docx.Document(io.BytesIO(data))
    # Asked for its style, a paragraph without one looks through all styles of the file: seconds for a thousand.
    names = {style.style_id: style.name or "" for style in document.styles}
    parts = []
    for block in _within(document.element.body, ("p", "tbl")):
        if block.tag.endswith("}tbl"):
            rows = (_within(row, ("tc",)) for row in _within(block, ("tr",)))
            parts.append("\n".join(" | ".join(map(_cell, row)) for row in rows))
            continue
        style = names.get(block.style, "")
        heading = _HEADING.fullmatch(style)
        level = int(heading[1]) if heading else 0
        bullet = "- " if style.startswith("List") else ""
        text = _words(block).strip()
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


def _words(paragraph: Any) -> str:
    """The text of a `w:p` as it stands once its tracked changes are accepted. What the library gives leaves out
    insertions and content controls."""
    pieces: list[str] = []
    pending = [paragraph]
    while pending:
        node = pending.pop()
        name = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
        if name == "t":
            pieces.append(node.text or "")
        elif name in _SIGNS:
            pieces.append(_SIGNS[name])
        elif name not in _UNREAD and name != "pPr":
            pending += reversed(node)
    return "".join(pieces)


def _cell(cell: Any) -> str:
    """The text of a `w:tc`, tables within it included. A cell that spans others stands once: the library gives it once for
    each column that its file claims, of which there may be billions, and climbs merged rows by recursion."""
    return _one_line(" ".join(_words(part) for part in cell.iter(cell.tag.removesuffix("tc") + "p")))


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
