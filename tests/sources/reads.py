"""What the tests of the readers have in common: a source of one format, and everything that its reader gives."""

from pathlib import Path
from typing import Any

from longalign_data.catalog import Card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers import (
    READERS,
    partitions,
    read,
)
from longalign_data.sources.reading import REASONS, RawDocument, RawReject

OPTIONS: dict[str, dict[str, str]] = {
    "json": {"text": "content", "title": "title"},
    "code": {"unit": "entry"},
    "parquet": {"title": "title"},
}


FORMATS = sorted(READERS)


def placed(path: Path, kind: str, lang: str = "en", **reader: Any) -> PlacedSource:
    options = {"kind": kind, **OPTIONS.get(kind, {}), **reader}
    card = Card.model_validate({"id": "s", "title": "S", "lang": lang, "license": "CC0-1.0", "reader": options})
    return PlacedSource(card=card, path=str(path))


def everything(source: PlacedSource) -> list[RawDocument | RawReject]:
    found = [raw for partition in partitions(source) for raw in read(partition)]
    assert {raw.reason for raw in found if isinstance(raw, RawReject)} <= set(REASONS)
    assert all(raw.num_bytes == len(raw.text.encode()) for raw in found if isinstance(raw, RawDocument))
    return found


def docs(found: list[RawDocument | RawReject]) -> list[RawDocument]:
    return [raw for raw in found if isinstance(raw, RawDocument)]


def reasons(found: list[RawDocument | RawReject]) -> list[str]:
    return [raw.reason for raw in found if isinstance(raw, RawReject)]


APACHE = "Apache License\n Version 2.0, January 2004"
