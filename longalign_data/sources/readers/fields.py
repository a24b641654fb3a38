"""One record of a table-like corpus (a JSON object, a row) as a document."""

import re
from collections.abc import Mapping
from typing import Any

from longalign_data.catalog import Card, RecordFields
from longalign_data.sources.reading import RawDocument, RawReject, in_order

LANGUAGES = {"eng": "en", "zho": "zh", "chi": "zh", "deu": "de", "fra": "fr", "spa": "es", "jpn": "ja", "rus": "ru",
             "kor": "ko"}  # fmt: skip
"""Some corpora name languages by ISO 639-3; these have a shorter code that cards and quotas use."""

_LANGUAGE = re.compile(r"\s*([A-Za-z]{2,3})(?:[-_][A-Za-z0-9_-]{1,40})?\s*")


MAX_JSON_SIGNS = 6 << 20
"""Brackets and commas of a record, in its strings or not. Each may stand for a value of a hundred bytes, and a book has one
for fifty characters."""


def check_json_signs(data: bytes) -> None:
    """Raises ValueError for a record that would take many times its size when it is parsed."""
    if len(data) > MAX_JSON_SIGNS and sum(data.count(sign) for sign in (b"[", b"{", b",")) > MAX_JSON_SIGNS:
        raise ValueError(f"more than {MAX_JSON_SIGNS} brackets and commas")


def language_of(tag: str) -> str | None:
    """The language of a tag such as `zh-CN`, `en_US` or `eng`, as cards name it; None for what is no tag."""
    match = _LANGUAGE.fullmatch(tag)
    return LANGUAGES.get(code := match[1].lower(), code) if match else None


def document_of(
    record: Mapping[str, Any], card: Card, *, source_ref: str, where: str, num_bytes: int = -1
) -> RawDocument | RawReject:
    """The document of a record by the card's field names; title, language and licence fall back to the card where the
    record has none. `where` names file and line or row for a person; `num_bytes` is as in RawDocument."""
    fields = card.reader
    assert isinstance(fields, RecordFields)
    text = record.get(fields.text)
    if text is None:
        what = "null" if fields.text in record else "missing"
        keys = ", ".join(sorted(map(str, record))[:12])
        detail = (
            f"{where}: field {fields.text!r} is {what}; expected the document's text. Fields here: {keys or 'none'}"
        )
        return RawReject(source_ref=source_ref, reason="missing-field", detail=detail)
    title = record.get(fields.title) if fields.title is not None else None
    if isinstance(title, (int, float)) and not isinstance(title, bool):
        title = str(title)  # as a spreadsheet wrote it: "1984" is a title
    lang = record.get(fields.lang) if fields.lang is not None else None
    licence = record.get(fields.license) if fields.license is not None else None
    found = ((fields.text, text), (fields.title, title), (fields.lang, lang), (fields.license, licence))
    for field, value in found:
        if value is not None and not isinstance(value, str):
            detail = f"{where}: field {field!r} is {type(value).__name__}; expected text"
            return RawReject(source_ref=source_ref, reason="wrong-type", detail=detail)
    code = language_of(lang) if lang else card.lang
    if code is None:
        assert lang
        detail = f"{where}: field {fields.lang!r} is {lang[:40]!r}; expected a language code, such as en or zh-CN"
        return RawReject(source_ref=source_ref, reason="bad-record", detail=detail)
    if num_bytes < 0:
        text, num_bytes = in_order(text)
    return RawDocument(
        text=text,
        title=str(title or ""),
        lang=code,
        license=licence or card.license,
        source_ref=source_ref,
        num_bytes=num_bytes,
    )
