"""A folder of files as people keep them: PDF, DOCX, PPTX, HTML, EPUB, Markdown, text; one file a document.

    manuals/pump.pdf  ->  RawDocument(text="1 Safety ...", title="Pump manual", source_ref="manuals/pump.pdf")

Scanned pages hold no text; a file without any is a reject, never an empty document.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from longalign_data.catalog import FilesReader
from longalign_data.recipe import PlacedSource
from longalign_data.sources.extras import extra
from longalign_data.sources.markup import MarkupError, first_heading, html_library, html_of_xhtml, html_text, html_title
from longalign_data.sources.places import leads_outside, listed
from longalign_data.sources.readers.epub import decoded, epub_text
from longalign_data.sources.readers.office import check_office_file, docx_text, pptx_text
from longalign_data.sources.readers.pdf import pdf_text
from longalign_data.sources.readers.plain import plain_text
from longalign_data.sources.reading import (
    MAX_RECORD_BYTES,
    Partition,
    RawDocument,
    RawReject,
    Unit,
    decoded_in_order,
    grouped,
)
from longalign_data.sources.unpacking import UnpackError, beginning

TextOf = Callable[[bytes, Any], tuple[str, str]]
"""(bytes, library) -> (title or nothing, text). Raises UnpackError."""


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """Groups of files. Raises MissingExtraError when a file there needs a package that is absent."""
    options = placed.card.reader
    assert isinstance(options, FilesReader)
    root, units = listed(placed, options.extensions)
    for suffix in sorted({PurePosixPath(unit.name).suffix.lower() for unit in units}):
        library_for(suffix, "files")
    return grouped(placed.card, root, units)


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """Each file as a document."""
    for unit in partition.units:
        yield document_of_file(partition, unit, "files")


def document_of_file(partition: Partition, unit: Unit, extra_name: str) -> RawDocument | RawReject:
    """One file as a document, by its suffix."""
    (file,) = unit.files
    name = unit.name
    if leads_outside(partition.root, file):
        detail = f"{name}: a link that leads out of the folder; put the file itself there"
        return RawReject(source_ref=name, reason="link-outside", detail=detail)
    data = beginning(partition.path_of(file), MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        detail = f"{name}: more than {MAX_RECORD_BYTES} bytes; expected a file of the size of a document"
        return RawReject(source_ref=name, reason="too-large", detail=detail)
    if not data:
        return RawReject(source_ref=name, reason="empty", detail=f"{name}: 0 bytes; expected a document")
    suffix = PurePosixPath(name).suffix.lower()
    title, num_bytes = "", -1
    try:
        if suffix in TEXT_OF:
            title, text = TEXT_OF[suffix](data, library_for(suffix, extra_name))
        else:
            guess = isinstance(partition.card.reader, FilesReader)
            text, num_bytes = plain_text(data, extra_name) if guess else _utf8(data)
    except UnpackError as error:
        return RawReject(source_ref=name, reason=error.reason, detail=f"{name}: {error}")
    return RawDocument(
        text=text,
        title=title.strip() or str(PurePosixPath(name).with_suffix("")),
        lang=partition.card.lang,
        license=partition.card.license,
        source_ref=name,
        num_bytes=num_bytes,
    )


def library_for(suffix: str, extra_name: str) -> Any:
    """The library that reads files with this suffix, None where none is needed. Raises MissingExtraError."""
    if suffix == ".pdf":
        return extra("pypdf", package="pypdf", extra=extra_name, purpose="reading PDF files")
    if suffix == ".docx":
        return extra("docx", package="python-docx", extra=extra_name, purpose="reading DOCX files")
    if suffix == ".pptx":
        return extra("pptx", package="python-pptx", extra=extra_name, purpose="reading PPTX files")
    if suffix in (".html", ".htm", ".xhtml", ".epub"):
        return html_library(extra_name)
    return None


def _utf8(data: bytes) -> tuple[str, int]:
    try:
        return decoded_in_order(data)
    except UnicodeDecodeError as error:
        raise UnpackError("bad-utf8", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from None


def _html(data: bytes, library: Any) -> tuple[str, str]:
    page = decoded(data)
    return _page(html_of_xhtml(page) if page.lstrip().startswith("<?xml") else page, library)


def _xhtml(data: bytes, library: Any) -> tuple[str, str]:
    return _page(html_of_xhtml(decoded(data)), library)


def _page(page: str, library: Any) -> tuple[str, str]:
    try:
        return html_title(page) or first_heading(page), html_text(page, library)
    except MarkupError as error:
        raise UnpackError("bad-html", str(error)) from None


def _epub(data: bytes, library: Any) -> tuple[str, str]:
    return epub_text(io.BytesIO(data), library)


def _pdf(data: bytes, pypdf: Any) -> tuple[str, str]:
    begun = b"%PDF-" in data[:1024]
    what = "no PDF that can be read" if begun else "it does not begin as a PDF does (%PDF-), and may have a wrong name"
    return _guarded(lambda: pdf_text(data, pypdf), what)


def _docx(data: bytes, docx: Any) -> tuple[str, str]:
    check_office_file(data)
    return _guarded(lambda: docx_text(data, docx), "no DOCX that can be read")


def _pptx(data: bytes, pptx: Any) -> tuple[str, str]:
    check_office_file(data)
    return _guarded(lambda: pptx_text(data, pptx), "no PPTX that can be read")


def _guarded(extract: Callable[[], tuple[str, str]], what: str) -> tuple[str, str]:
    """The result of a library that reads files from outside; whatever else it raises says that this file is not one it
    can read."""
    import logging
    import warnings

    # pypdf logs what it meets, without the file's name; what matters of it stands in the reject.
    log = logging.getLogger("pypdf")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return extract()
    except UnpackError:
        raise
    except Exception as error:  # noqa: BLE001 - these libraries raise KeyError, TypeError and more on broken files
        raise UnpackError("unreadable-file", f"{what}: {type(error).__name__}: {error}") from None
    finally:
        log.setLevel(level)


TEXT_OF: dict[str, TextOf] = {
    ".pdf": _pdf,
    ".docx": _docx,
    ".pptx": _pptx,
    ".html": _html,
    ".htm": _html,
    ".xhtml": _xhtml,
    ".epub": _epub,
}
"""How text is taken from a file, by suffix; every other is text as it is."""
