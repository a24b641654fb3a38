"""The licence of a repository, as an SPDX id, from what its files say.

`SPDX-License-Identifier:` lines come first, then the text of LICENSE and COPYING, then the package's own description.
Detection is by sentences that stand in one licence's text and in no other's; what is not known for sure is None.
"""

import re
from collections.abc import Mapping

NONE = "NOASSERTION"
"""SPDX's word for a licence that nobody could tell."""

_FILE = re.compile(r"^(?:licen[cs]e|copying|unlicense)(?:[.-][\w.-]+)?$", re.IGNORECASE)
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]{2,80}?)\s*(?:\*/|-->|$)", re.MULTILINE)
_DESCRIBED = re.compile(r"""^\s*"?license"?\s*[=:]\s*(?:\{\s*text\s*=\s*)?"([A-Za-z0-9.+() -]{2,60})\"""", re.MULTILINE)
_DESCRIPTIONS = ("pyproject.toml", "Cargo.toml", "package.json", "setup.cfg")

_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1")),
    ("LGPL-2.0-only", ("gnu library general public license", "version 2")),
    ("GPL-3.0-only", ("gnu general public license", "version 3")),
    ("GPL-2.0-only", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "version 2.0")),
    ("EPL-2.0", ("eclipse public license", "v 2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("Zlib", ("this software is provided 'as-is'", "altered source versions must be plainly marked")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy", "above copyright notice")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "to endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
)
"""Words of each text, in small letters with single spaces; the first that has all of its words in the file's beginning
decides, so what quotes another licence stands before it."""


def is_licence_file(path: str) -> bool:
    """Whether a file at the top of a repository is named as licences are."""
    return "/" not in path and bool(_FILE.match(path))


def is_description(path: str) -> bool:
    """Whether a file at the top of a repository describes a package and may name its licence."""
    return path in _DESCRIPTIONS


def detect_licence(files: Mapping[str, str]) -> str | None:
    """The SPDX id of a repository with these texts by path (at least its licence files and descriptions), or None."""
    texts = [text for path, text in sorted(files.items()) if is_licence_file(path)]
    for text in texts:
        if (match := _SPDX.search(text[:4000])) is not None:
            return match[1].strip()
    found = sorted({name for text in texts if (name := licence_of_text(text)) is not None})
    if found:
        return " OR ".join(found)
    for path in _DESCRIPTIONS:
        if (match := _DESCRIBED.search(files.get(path, ""))) is not None:
            return match[1].strip()
    named = {match[1].strip() for text in files.values() if (match := _SPDX.search(text[:2000])) is not None}
    return named.pop() if len(named) == 1 else None


def licence_of_text(text: str) -> str | None:
    """The SPDX id of a licence's text, or None."""
    head = " ".join(text[:4000].lower().replace("*", " ").split())
    for name, words in _TEXTS:
        if all(word in head for word in words):
            return name
    return None
