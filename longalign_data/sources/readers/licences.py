"""The licence of a repository, as an SPDX expression, from what its files say.

    LICENSE-MIT, LICENSE-APACHE -> "Apache-2.0 OR MIT";   LICENSE, LICENSES/CC0-1.0.txt -> "CC0-1.0 AND MIT"

LICENSE, COPYING and the folder LICENSES come first, each by its `SPDX-License-Identifier:` line, its name or its text, then
the package's own description, then the lines with that mark in the heads of files. Files named after their licences offer
a choice; of all others every one holds. Detection is by words of each text, those before it in the table set apart; what
forbids uses (`_FORBIDS`) is None whichever text stands beside it. Beside a licence file that is not known, a licence whose
text is known here counts for nothing, unless that file does no more than name it. Of a single file only the marked lines
are read, not notices in words.
"""

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping

NONE = "NOASSERTION"
"""SPDX's word for a licence that nobody could tell."""

_FILE = re.compile(r"^(?:licen[cs]e|copying|unlicense)(?:[.-][\w.-]+)?$", re.IGNORECASE)
_CHOICE = re.compile(r"^licen[cs]e[.-]([a-z]+)", re.IGNORECASE)
_FOLDER = re.compile(r"^LICENSES/([A-Za-z0-9.+-]+)\.txt$")
"""The folder of https://reuse.software/spec/, where a file is named by its SPDX id."""
_MARK = "SPDX-License-Identifier:"
_HEAD = 2000
"""Characters of a file in which such a line is looked for."""
_EXPRESSION = re.compile(r"[ \t]*([A-Za-z0-9(][A-Za-z0-9.+() ,;:/&_-]*)")
"""Wider than SPDX: of `MIT, GPL-3.0-only` all must be read, so that it is not taken for MIT."""
_DESCRIBED = re.compile(r"[A-Za-z0-9.+()/ -]{2,60}")
_SETUP = re.compile(r"license(?:[_-]expression)?[ \t]*[=:](.*)", re.IGNORECASE)
MAX_TOML = 256 << 10
MAX_DOTS = 100
"""Characters of a package's description in TOML, and dots outside of the strings in a line of it: the library's time grows
with more than the square of the parts of a dotted key (32,000 took 22 s)."""
# One that is never closed goes on to the end of its line, and is looked through once.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?|' + r"'[^']*+'?")

_JOINT = re.compile(r" (?:OR|AND) |/", re.IGNORECASE)
_TOKEN = re.compile(r"[()/]|[^\s()/]+")
MAX_TOKENS = 200
"""A longer expression is of nobody's writing, and its brackets could nest as deep."""

_NON_COMMERCIAL = (
    r"(?<!allowed only for )(?<!commercial or )(?<!commercial and )(?<!commercial as well as )"
    r"(?<!commercial use and )(?<!commercial use or )(?<!commercial/)non-? ?commercial(?!ly| (?:or|and) commercial)"
)
_FORBIDS = re.compile(
    r"(?:business|functional|fair) source license|source available license|sustainable use license|commons clause"
    r"|elastic license|server side public license|polyform|good, not evil|(?:nuclear|military) facility"
    r"|variously licensed|portions of this software are licensed as follows|" + _NON_COMMERCIAL
)
"""Words of licences that forbid uses, wherever they stand: the licences that they quote or follow (Apache-2.0 as what
comes some years later, MIT without sale) do not hold. The GPL and the Unlicense speak of non-commercial uses too."""

_ASIDE = re.compile(
    r"third|3rd|vendor|depend|bundle|header|template"
    r"|\.(?:py|rb|go|rs|java|kt|cs|php|c|cc|cpp|h|hpp|[cm]?[jt]sx?|sh|csv|json|toml|ya?ml|xml|svg|lock)$",
    re.IGNORECASE,
)
"""Of the names of licence files those that speak of something else than the repository's own licence."""

MAX_POINTER = 500
"""Characters of a licence file that does no more than name licences or the files that they stand in."""

_OWN_TERMS = re.compile(
    r"proprietary|commercial|confidential|enterprise|agreement|permission|\bnot\b|\bexcept",
    re.IGNORECASE,
)
_RESERVED, _GRANTED = re.compile("rights reserved", re.IGNORECASE), re.compile("licen[cs]ed under", re.IGNORECASE)

_TEXTS: tuple[tuple[str | None, tuple[str, ...]], ...] = (
    ("MPL-2.0", ("mozilla public license", "version 2.0", "each individual or legal entity that creates")),
    ("EPL-2.0", ("the accompanying program is provided under the terms of this eclipse public license", "v 2.0")),
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
    (None, ("illinois/ncsa open source license", "redistributions of source code must retain")),
    (None, ("permission is hereby granted, free of charge, to any person obtaining a copy of the font software",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy", "above copyright notice")),
    (None, ("redistribution and use in source and binary forms", "the following acknowledg")),
    (None, ("redistribution and use in source and binary forms", "apache software license, version 1")),
    (None, ("redistribution and use in source and binary forms", "how to obtain complete source code")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "to endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("CC-BY-4.0", ("attribution 4.0 international", "creative commons")),
)
"""Words of each text, in small letters with single spaces; the first that has all of its words in the file's beginning
decides, so what quotes another licence stands before it. None: what has words of a text below and asks for more (BSD with
an advertising clause, Apache-1.1, Sleepycat)."""

_SPELLINGS = {name.lower(): name for name, _ in _TEXTS if name is not None}
_WORDS = {name.split("-")[0] for name in _SPELLINGS}
"""`mit`, `apache`, `gpl`: what people write of each."""


def spelled(licence: str) -> str:
    """The SPDX id as SPDX spells it, of those known here: corpora write `mit` and `apache-2.0`."""
    return _SPELLINGS.get(licence.lower(), licence)


def is_licence_file(path: str) -> bool:
    """Whether a file is named and placed as a repository's licences are."""
    return ("/" not in path and bool(_FILE.match(path))) or bool(_FOLDER.match(path))


def is_description(path: str) -> bool:
    """Whether a file at the top of a repository describes a package and may name its licence."""
    return path in _DESCRIPTIONS


def detect_licence(files: Mapping[str, str]) -> str | None:
    """The SPDX expression of a repository with these texts by path (at least its licence files and descriptions), or None."""
    told = _told(files)
    if told is None or not is_allowed(told, _SPELLINGS.values()):
        return told
    # A text of what was told would have been known.
    unknown = [
        path
        for path, text in files.items()
        if "/" not in path and is_licence_file(path) and not _ASIDE.search(path) and text.strip()
        if marked_licence(text) is None and licence_of_text(text) is None
    ]
    return told if all(_points(path, told, files) for path in unknown) else None


def _told(files: Mapping[str, str]) -> str | None:
    choices: set[str] = set()
    found: set[str] = set()
    for path, text in files.items():
        if not is_licence_file(path):
            continue
        name = marked_licence(text)
        if name is None:
            name = folder[1] if (folder := _FOLDER.match(path)) is not None else licence_of_text(text)
        if name is not None:
            (choices if _is_choice(path, name) else found).add(name)
    if choices:
        found.add(" OR ".join(sorted(choices)))
    if found:
        return all_of(found)
    for path, described in _DESCRIPTIONS.items():
        value = described(files[path]) if path in files else None
        if isinstance(value, str) and _DESCRIBED.fullmatch(value.strip()):
            # `MIT/ISC` offers a choice in Cargo's; elsewhere nobody says what it means.
            return None if "/" in value and path != "Cargo.toml" else value.strip()
    named = {marked_licence(text) for text in files.values()} - {None}
    return named.pop() if len(named) == 1 else None


def _points(path: str, told: str, files: Mapping[str, str]) -> bool:
    """Whether a licence file that is not known does no more than name the licences told, or a file where one stands."""
    text = files[path]
    if len(text) > MAX_POINTER or _OWN_TERMS.search(text) or _FORBIDS.search(_plain(text)):
        return False
    if _RESERVED.search(text) and not _GRANTED.search(text):
        return False
    named = _WORDS & set(re.findall("[a-z]+[0-9]?", text.lower()))
    others = "|".join(re.escape(other) for other in files if other != path and is_licence_file(other))
    placed = others and re.search(rf"(?:^|\b(?i:in|see|the|file|to)\b)\W*(?:{others})(?!\w)", text)
    return bool(named or placed) and named <= set(re.findall("[a-z]+[0-9]?", told.lower()))


def marked_licence(text: str) -> str | None:
    """What the `SPDX-License-Identifier:` lines at the beginning of a file say, all of them together, or None."""
    found: list[str] = []
    at = text.find(_MARK, 0, _HEAD)
    while at >= 0:
        at += len(_MARK)
        if (match := _EXPRESSION.match(text, at)) is not None:
            # A sentence's or a comment's end may stand behind it: `-->`.
            found.append(match[1].rstrip(" -/.,;:"))
        at = text.find(_MARK, at, _HEAD)
    return all_of(found) if found else None


def _in_pyproject(text: str) -> object:
    tables = _toml(text)
    ours = _at(tables, "project", "license")
    if _at(ours, "file") is not None:
        return None
    tools = (_at(tables, "tool", "poetry", "license"), _at(tables, "tool", "flit", "metadata", "license"))
    return _first(ours, _at(ours, "text"), *tools)


def _in_cargo(text: str) -> object:
    tables = _toml(text)
    return _first(_at(tables, "package", "license"), _at(tables, "workspace", "package", "license"))


def _in_package_json(text: str) -> object:
    try:
        value = _at(json.loads(text), "license")
    except (ValueError, RecursionError):
        return None
    return _at(value, "type") or value  # {"type": "MIT", "url": ...} in packages before 2014


def _in_setup_cfg(text: str) -> object:
    # Line by line: configparser's time grows with the square of the blanks in a line.
    section, at_licence, values = "", False, list[list[str]]()
    for line in text.split("\n"):
        words = line.strip()
        if not words or words[0] in "#;":
            continue
        if line[0].isspace():
            # What is indented goes on with the value above it.
            if at_licence:
                values[-1].append(words)
            continue
        section = words if line.startswith("[") else section
        match = _SETUP.match(line) if section == "[metadata]" else None
        at_licence = match is not None
        if match is not None:
            values.append([match[1].strip()])
    said = {" ".join(filter(None, lines)) for lines in values}
    # Of two that differ neither is known to hold.
    return said.pop() if len(said) == 1 else None


def _toml(text: str) -> object:
    if len(text) > MAX_TOML or any(_num_dots(line) > MAX_DOTS for line in text.split("\n")):
        return None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _num_dots(line: str) -> int:
    """Dots of a line of TOML that can stand in its keys: of one that has a string of several lines, all."""
    plain = line.count(".") <= MAX_DOTS or '"""' in line or "'''" in line
    return (line if plain else _STRING.sub("", line)).count(".")


def _at(value: object, *names: str) -> object:
    """What stands in nested tables under these names; None where one of them is absent or no table."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _first(*values: object) -> object:
    """The first of these that is text, and not empty."""
    return next((value for value in values if isinstance(value, str) and value.strip()), None)


_DESCRIPTIONS: dict[str, Callable[[str], object]] = {
    "pyproject.toml": _in_pyproject,
    "Cargo.toml": _in_cargo,
    "package.json": _in_package_json,
    "setup.cfg": _in_setup_cfg,
}
"""The descriptions of packages, the first that names a licence deciding, and what each says, of any type."""


def _is_choice(path: str, name: str) -> bool:
    """Whether a file says in its name which of several licences it is (LICENSE-MIT), and not what it is for."""
    match = _CHOICE.match(path)
    first = re.split("[^a-z]", name.lower())[0]
    return match is not None and match[1].lower() in (first, "boost" if first == "bsl" else first)


def all_of(expressions: Iterable[str]) -> str:
    """The expression that says that all of these hold; what several of them say stands in it once."""
    terms: dict[frozenset[str], str] = {}
    for expression in sorted(set(expressions)):
        plain = "(" not in expression and " OR " not in expression
        for term in expression.split(" AND ") if plain else [expression]:
            # `MIT OR Apache-2.0` is `Apache-2.0 OR MIT`.
            flat = "(" not in term and " AND " not in term
            terms.setdefault(frozenset(term.split(" OR ") if flat else [term]), term)
    several = sorted(terms.values())
    return (
        several[0] if len(several) == 1 else " AND ".join(f"({one})" if _JOINT.search(one) else one for one in several)
    )


def is_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether a text under this SPDX expression may be taken by who accepts these ids: of OR one side must be among them,
    of AND both. `MIT/Apache-2.0` is Cargo's older form of OR. What is no expression is not allowed."""
    tokens = _TOKEN.findall(expression.lower())
    if expression in allowed or len(tokens) > MAX_TOKENS:
        return expression in allowed
    try:
        return _either(tokens, {name.lower() for name in allowed}) and not tokens
    except (IndexError, ValueError):
        return False


def _either(tokens: list[str], allowed: Collection[str]) -> bool:
    value = _both(tokens, allowed)
    while tokens and tokens[0] in ("or", "/"):
        tokens.pop(0)
        value |= _both(tokens, allowed)
    return value


def _both(tokens: list[str], allowed: Collection[str]) -> bool:
    value = _one(tokens, allowed)
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        value &= _one(tokens, allowed)
    return value


def _one(tokens: list[str], allowed: Collection[str]) -> bool:
    name = tokens.pop(0)
    if name == "(":
        value = _either(tokens, allowed)
        if tokens.pop(0) != ")":
            raise ValueError("expected )")
        return value
    if tokens and tokens[0] == "with":
        tokens.pop(0)
        name = f"{name} with {tokens.pop(0)}"
    return name in allowed


def licence_of_text(text: str) -> str | None:
    """The SPDX id of a licence's text, or None."""
    if _FORBIDS.search(_plain(text)):
        return None
    head = _plain(text[:4000])
    for name, words in _TEXTS:
        if all(word in head for word in words):
            return name
    return None


def _plain(text: str) -> str:
    """In small letters, with single spaces."""
    return " ".join(text.lower().replace("*", " ").split())
