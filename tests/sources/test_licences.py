"""Licences of repositories and of files in them, told by files, texts and marks."""

import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_data.catalog import load_card
from longalign_data.recipe import PlacedSource
from longalign_data.sources.readers.licences import detect_licence, is_allowed
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import APACHE, docs, everything, placed, reasons

GPL = "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007"


BSD_2 = "Redistribution and use in source and binary forms, with or without modification, are permitted provided that:"


BSD_3 = BSD_2 + "\n3. Neither the name of A nor B may be used to endorse or promote products derived from it."


BUSL = (
    "Business Source License 1.1\nLicensed Work: A\nAdditional Use Grant: none\nChange Date: four years from release\n"
    "Change License: Apache License, Version 2.0"
)


OPEN_CORE = "Portions of this software are licensed as follows:\n* All under ee/ as ee/LICENSE says.\n* All else:\n"


EITHER = "This software is made available under the terms of *either* of the licenses\nfound in "


UNLICENSE = (
    "This is free and unencumbered software released into the public domain.\nAnyone is free to copy it for any purpose, "
    "commercial or non-commercial, and by any means."
)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": corpora.MIT}, "MIT"),
        ({"COPYING": "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007"}, "GPL-3.0-only"),
        ({"LICENSE.txt": "Apache License\n Version 2.0, January 2004"}, "Apache-2.0"),
        ({"pyproject.toml": '[project]\nlicense = "BSD-3-Clause"\n'}, "BSD-3-Clause"),
        ({"pyproject.toml": "[project]\nname = 'p'\nlicense = 'ISC' # ours\n"}, "ISC"),
        ({"pyproject.toml": '[project.license]\ntext = "MIT"\n'}, "MIT"),
        ({"pyproject.toml": '[tool.poetry]\nlicense = "MIT"\n'}, "MIT"),
        ({"pyproject.toml": '[tool.other]\nlicense = "MIT"\n[project]\nlicense = {file = "LICENSE.rst"}\n'}, None),
        ({"pyproject.toml": "[project\n", "setup.cfg": "[metadata]\nname = p\nlicense = MIT\r\n"}, "MIT"),
        ({"setup.cfg": "[metadata]\nlicense_files = COPYING\nLicense-Expression: MIT OR ISC\n"}, "MIT OR ISC"),
        ({"setup.cfg": "[other]\nlicense = MIT\n[metadata]\nname = p\n"}, None),
        ({"setup.cfg": "[metadata]\nlicense =\n    MIT\n    # ours\n\nname = p\n"}, "MIT"),
        ({"setup.cfg": "[metadata]\nlicense = MIT\n    AND GPL-3.0-only\n"}, "MIT AND GPL-3.0-only"),
        ({"setup.cfg": "[metadata]\nlicense = MIT\n# and more\n\n\tAND GPL-3.0-only\n"}, "MIT AND GPL-3.0-only"),
        ({"setup.cfg": "[metadata]\nlicense = MIT\nlicense_expression = GPL-3.0-only\n"}, None),
        ({"setup.cfg": "[metadata]\nlicense = MIT\nlicense_expression = MIT\n"}, "MIT"),
        ({"setup.cfg": "[metadata]\nlicense = MIT/GPL-3.0-only\n"}, None),
        ({"pyproject.toml": '[tool.flit.metadata]\nmodule = "p"\nlicense = "MIT"\n'}, "MIT"),
        ({"pyproject.toml": '[project]\nlicense = {text = ""}\n[tool.poetry]\nlicense = "MIT"\n'}, "MIT"),
        ({"pyproject.toml": '[project]\nlicense = {file = "TERMS"}\n[tool.poetry]\nlicense = "MIT"\n'}, None),
        ({"package.json": '{"name":"x","license":"MIT"}'}, "MIT"),
        ({"package.json": '{"license": {"type": "MIT", "url": "https://example.org/"}}'}, "MIT"),
        ({"package.json": '{"license": ["MIT"], "x": ' + "[" * 100_000}, None),
        ({"package.json": '["license"]'}, None),
        ({"package.json": '{"license":"MIT/GPL-3.0-only"}', "setup.cfg": "[metadata]\nlicense = MIT\n"}, None),
        ({"pyproject.toml": '[project]\nlicense = {text = "MIT/GPL-3.0-only"}\n'}, None),
        ({"Cargo.toml": "a = " + "[" * 100_000}, None),
        ({"pyproject.toml": '[project]\nlicense = "MIT"\ndependencies = [' + '"a>=1.2.3", ' * 90 + "]\n"}, "MIT"),
        ({"Cargo.toml": "[package]\nlicense = 'MIT'\ndescription = '" + "..." * 90 + "'\n"}, "MIT"),
        ({"Cargo.toml": '[package]\nlicense = "MIT"\n' + "a." * 100_000 + "a = 1"}, None),
        ({"Cargo.toml": '[package]\nlicense = "MIT"\nx = {y = """ " """, ' + "a." * 100_000 + 'a = "z"}'}, None),
        ({"Cargo.toml": '[package]\nlicense = "MIT"\n"a".' + "b." * 100_000 + '"c" = 1'}, None),
        ({"a.c": "/* SPDX-License-Identifier: GPL-2.0-only */\nint x;"}, "GPL-2.0-only"),
        ({"a.c": "// SPDX-License-Identifier: MIT\n", "b.c": "// SPDX-License-Identifier: ISC\n"}, None),
        ({"LICENSE": "You may not use this."}, None),
        ({"LICENSE-MIT": corpora.MIT, "LICENSE-APACHE": APACHE}, "Apache-2.0 OR MIT"),
        ({"LICENSE": corpora.MIT, "COPYING": APACHE}, "Apache-2.0 AND MIT"),
        ({"LICENSE-MIT": corpora.MIT, "LICENSE-APACHE": APACHE, "LICENSE": GPL}, "(Apache-2.0 OR MIT) AND GPL-3.0-only"),
        ({"LICENSE-MIT": corpora.MIT, "LICENSE-THIRD-PARTY": GPL}, "GPL-3.0-only AND MIT"),
        ({"LICENSES/MIT.txt": corpora.MIT}, "MIT"),
        ({"LICENSES/MIT.txt": corpora.MIT, "LICENSES/CC-BY-4.0.txt": "Attribution 4.0"}, "CC-BY-4.0 AND MIT"),
        ({"src/LICENSES/MIT.txt": corpora.MIT}, None),
        ({"Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"\n'}, "MIT OR Apache-2.0"),
        ({"Cargo.toml": '[package]\nlicense = "MIT/Apache-2.0"\n'}, "MIT/Apache-2.0"),
        ({"Cargo.toml": '[workspace]\nmembers = ["a"]\n[workspace.package]\nlicense = "MIT"\n'}, "MIT"),
        ({"Cargo.toml": '[workspace.package]\nlicense = "MIT"\n[package]\nlicense.workspace = true\n'}, "MIT"),
        ({"Cargo.toml": '[workspace.package]\nlicense = "MIT"\n[package]\nlicense = "GPL-3.0-only"\n'}, "GPL-3.0-only"),
        ({"COPYING": GPL, "LICENSE.docs": "SPDX-License-Identifier: MIT\n"}, "GPL-3.0-only AND MIT"),
        ({"LICENSE": "SPDX-License-Identifier: ISC\n" + corpora.MIT}, "ISC"),
        ({"a.c": "// SPDX-License-Identifier: MIT, GPL-3.0-only\n"}, "MIT, GPL-3.0-only"),
        ({"a.html": "<!-- SPDX-License-Identifier: MIT OR ISC -->\n"}, "MIT OR ISC"),
        ({"a.c": "// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: ISC\n"}, "ISC AND MIT"),
        ({"a.c": "/*" + " " * 2000 + "SPDX-License-Identifier: MIT */\n"}, None),
        ({"a.py": '"""`SPDX-License-Identifier:` lines are read."""\n'}, None),
    ],
)  # fmt: skip
def test_licences_are_told_by_file_text_and_header(files: dict[str, str], licence: str | None) -> None:
    assert detect_licence(files) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Copyright 2020 Bob. All rights reserved. Licensed under the MIT License.", "MIT"),
        ("Copyright 2020 Bob. All rights reserved. MIT is used in parts.", None),
        ("All rights reserved. Proprietary. Parts are licensed under the MIT License.", None),
    ],
)
def test_a_short_notice_may_reserve_rights_and_name_the_licence(text: str, licence: str | None) -> None:
    assert detect_licence({"LICENSE": text, "package.json": '{"license":"MIT"}'}) == licence


def test_commercial_use_and_non_commercial_use_is_any_use() -> None:
    assert detect_licence({"LICENSE": corpora.MIT + "For commercial use and non-commercial use."}) == "MIT"


@pytest.mark.parametrize(
    "text",
    [
        BUSL,
        "# Functional Source License, Version 1.1, Apache 2.0 Future License\n... under the Apache License, Version 2.0",
        "Source code here is variously licensed under the Apache License\nVersion 2.0 or the Other License.",
        "Outside of x-pack the Apache License\nVersion 2.0, within it the Elastic\nLicense.",
        "“Commons Clause” License Condition v1.0\nLicense: Apache 2.0\n" + APACHE,
        corpora.MIT + "\n" * 5000 + "Commons Clause: the right to Sell is not granted.",
        corpora.MIT + "The Software shall be used for Good, not Evil.",
        "MIT License (modified): non-commercial use only\n" + corpora.MIT,
        "Attribution-NonCommercial 4.0 International\n" + corpora.MIT,
        OPEN_CORE + corpora.MIT,
        BSD_3 + "\nIt is not licensed for use in the operation of any nuclear facility.",
        BSD_3.replace("3.", "3. All advertising materials must display the following acknowledgement: made by A.\n4."),
        "The Apache Software License, Version 1.1\n" + BSD_3,
        BSD_2 + "\nRedistributions must tell how to obtain complete source code for the software that uses it.",
        "University of Illinois/NCSA Open Source License\n" + corpora.MIT + "Redistributions of source code must retain ...",
        "SIL OPEN FONT LICENSE\n" + corpora.MIT.replace("this software", "the Font Software"),
    ],
)  # fmt: skip
def test_a_licence_that_quotes_another_or_asks_for_more_is_not_taken_for_it(text: str) -> None:
    assert detect_licence({"LICENSE": text}) is None
    # Neither by what the package says of itself.
    assert detect_licence({"LICENSE": text, "package.json": '{"license":"ISC"}'}) is None
    assert detect_licence({"LICENSE": "SPDX-License-Identifier: ISC\n" + text}) == "ISC"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (APACHE + "\n" * 4000 + "APPENDIX: How to apply the Apache License to your work.\nNOTICE: made at A", "Apache-2.0"),
        (BSD_2, "BSD-2-Clause"),
        ("Copyright (c) 2001 A. All rights reserved.\n" + BSD_3, "BSD-3-Clause"),
        # The GPL and the Unlicense name non-commercial uses, and a whole GPL stands in licences of what bundles libgcc.
        (GPL + " ... (This alternative is\nallowed only for noncommercial distribution) ... occasionally and noncommercially",
         "GPL-3.0-only"),
        (UNLICENSE, "Unlicense"),
        (BSD_3 + "\n---- libgcc: " + GPL + "only occasionally and noncommercially", "GPL-3.0-only"),
        (BSD_3 + "\n" * 4000 + "---- libgcc: " + GPL + "only occasionally and noncommercially", "BSD-3-Clause"),
        (APACHE + "\n" * 4000 + BSD_2 + "All advertising materials must display the following acknowledgement", "Apache-2.0"),
        (APACHE + "\nOpenSSL: free for commercial and\nnon-commercial use", "Apache-2.0"),
        ("Mozilla Public License Version 2.0\n1.1. \"Contributor\" means each individual or legal entity that creates "
         "it.\nSecondary: the GNU General Public License, Version 2.0, or the GNU Affero General Public License, Version 3.0",
         "MPL-2.0"),
        ("Eclipse Public License - v 2.0\nTHE ACCOMPANYING PROGRAM IS PROVIDED UNDER THE TERMS OF THIS ECLIPSE PUBLIC LICENSE"
         "\nSecondary License: GNU General Public License, Version 2.0", "EPL-2.0"),
    ],
)  # fmt: skip
def test_a_licence_is_told_though_words_of_others_stand_in_it(text: str, licence: str) -> None:
    assert detect_licence({"LICENSE": text}) == licence


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": "All rights reserved. Proprietary.", "package.json": '{"license":"ISC"}'}, None),
        ({"LICENSE": "All rights reserved.", "a.py": "# SPDX-License-Identifier: MIT\n"}, None),
        ({"LICENSE": "All rights reserved.", "LICENSE-THIRD-PARTY": corpora.MIT}, None),
        ({"LICENSE": "All rights reserved.", "LICENSES/MIT.txt": corpora.MIT}, None),
        ({"LICENSE": "Attribution-NonCommercial 4.0 International\n", "LICENSE-CODE": corpora.MIT}, None),
        ({"LICENSE": "Creative Commons\nAttribution 4.0 International\n", "LICENSE-CODE": corpora.MIT},
         "CC-BY-4.0 AND MIT"),
        ({"LICENSE": corpora.MIT, "LICENSE.EE": "What is under ee/ needs a subscription."}, None),
        ({"LICENSE": "AGPL, and some files MIT: see LICENSE-MIT", "LICENSE-MIT": corpora.MIT}, None),
        ({"LICENSE": BUSL, "package.json": '{"license":"BUSL-1.1"}'}, "BUSL-1.1"),
        # A text that is not known may well be what the description names, where that is not known either.
        ({"LICENSE": "Blue Oak Model License\n", "package.json": '{"license":"BlueOak-1.0.0"}'}, "BlueOak-1.0.0"),
        # What only points to others, what is empty, and what is not about the repository, speaks against nothing.
        ({"LICENSE": EITHER + "LICENSE.APACHE or LICENSE.BSD.", "LICENSE.APACHE": APACHE, "LICENSE.BSD": BSD_3},
         "Apache-2.0 OR BSD-3-Clause"),
        ({"LICENSE": EITHER + "LICENSE.APACHE2 or LICENSE.MIT.", "LICENSE.APACHE2": APACHE, "LICENSE.MIT": corpora.MIT},
         "Apache-2.0 OR MIT"),
        ({"COPYING": "This is dual-licensed under the Unlicense and MIT licenses.", "LICENSE-MIT": corpora.MIT,
          "UNLICENSE": UNLICENSE}, "MIT AND Unlicense"),
        ({"COPYING": "See LICENSE.\n", "LICENSE": corpora.MIT}, "MIT"),
        ({"COPYING": "LICENSE", "LICENSE": corpora.MIT}, "MIT"),
        ({"LICENSE": "MIT\n", "package.json": '{"license":"MIT"}'}, "MIT"),
        ({"LICENSE": "AGPL\n", "package.json": '{"license":"MIT"}'}, None),
        ({"LICENSE": "", "package.json": '{"license":"MIT"}'}, "MIT"),
        ({"LICENSE": corpora.MIT, "license.py": "print(1)\n", "LICENSE-3rdparty.csv": "name,licence\n"}, "MIT"),
    ],
)  # fmt: skip
def test_a_licence_file_that_is_not_known_speaks_against_what_else_is_told(
    files: dict[str, str], licence: str | None
) -> None:
    assert detect_licence(files) == licence


@pytest.mark.parametrize("name", ["package.json", "pyproject.toml", "Cargo.toml", "setup.cfg"])
@pytest.mark.parametrize(
    "inside",
    [
        "\n" * 400_000,
        " " * 400_000,
        "license" + " " * 400_000,
        "a." * 100_000 + "a=1\n",
        "." * 200 + '"' + '\\"' * 100_000,
        "".join(f"k{n}.{'a.' * 90}a=1\n" for n in range(200)),
    ],
)
def test_a_description_made_to_take_time_takes_none(name: str, inside: str) -> None:
    began = time.thread_time()
    assert detect_licence({name: f"{{{inside}" if name == "package.json" else f"[metadata]\n{inside}"}) is None
    # Without a bound on the parts of a key they take minutes.
    assert time.thread_time() - began < 30


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("mit", True), ("GPL-3.0-only", False), ("NOASSERTION", False), ("", False),
        ("Apache-2.0 OR MIT", True), ("GPL-3.0-only OR MIT", True), ("GPL-3.0-only OR MPL-2.0", False),
        ("MIT AND Apache-2.0", True), ("MIT AND GPL-3.0-only", False), ("MIT/Apache-2.0", True),
        ("GPL-3.0-only AND MIT OR MIT", True), ("GPL-3.0-only AND (MIT OR Apache-2.0)", False),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0", True), ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT WITH LLVM-exception", False), ("MIT OR", False), ("MIT licence", False), ("(MIT", False), ("MIT)", False),
        ("(" * 5000 + "MIT" + ")" * 5000, False),
    ],
)  # fmt: skip
def test_a_licence_expression_is_allowed_as_its_words_say(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]) is allowed


@pytest.mark.parametrize("kind", ["choice", "reuse", "cargo"])
def test_repositories_under_several_licences_are_taken_by_the_card_of_the_catalog(kind: str, tmp_path: Path) -> None:
    files = {
        "choice": {"LICENSE-MIT": corpora.MIT, "LICENSE-APACHE": APACHE},
        "reuse": {"LICENSES/MIT.txt": corpora.MIT, "LICENSES/CC0-1.0.txt": "CC0 1.0 Universal"},
        "cargo": {"Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"\n'},
    }[kind]
    for name, text in {**files, "src/lib.rs": "fn a() {}"}.items():
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_text(text)
    card, _ = load_card("github", relative_to=Path())
    found = everything(PlacedSource(card=card, path=str(tmp_path)))
    assert reasons(found) == []
    assert {raw.license for raw in docs(found)} == {
        {"choice": "Apache-2.0 OR MIT", "reuse": "CC0-1.0 AND MIT", "cargo": "MIT OR Apache-2.0"}[kind]
    }


@pytest.mark.parametrize("kind", ["folders", "zip", "parquet", "parquet with a column of licences"])
def test_a_file_under_a_licence_of_its_own_is_left_out_or_named_in_its_document(kind: str, tmp_path: Path) -> None:
    files = {
        "LICENSE": corpora.MIT,
        "src/a.c": "int a;\n",
        "src/b.c": "// SPDX-License-Identifier: GPL-3.0-only\nint b;\n",
        "src/c.c": "/* SPDX-License-Identifier: ISC */\nint c;\n",
        "src/d.c": "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\nint d;\n",
    }
    if kind.startswith("parquet"):
        table = {"repo_name": ["o/r"] * len(files), "path": list(files), "content": list(files.values())}
        if "column" in kind:
            table["license"] = ["MIT"] * len(files)
        pq.write_table(pa.table(table), tmp_path / "s.parquet")
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            for path, text in files.items():
                archive.writestr(f"r-main/{path}", text)
    else:
        for path, text in files.items():
            (tmp_path / "r" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "r" / path).write_text(text)
    named = {} if "column" in kind else {"license": None}
    found = everything(placed(tmp_path, "github", licenses=["MIT", "ISC"], **named))
    (document,) = docs(found)
    assert "int b" not in document.text
    assert all(f"int {name}" in document.text for name in "acd")
    assert document.license == "(GPL-2.0-only OR MIT) AND ISC AND MIT"
    (reject,) = [raw for raw in found if isinstance(raw, RawReject)]
    assert reject.reason == "licence-not-allowed"
    assert "src/b.c: GPL-3.0-only; the card takes MIT, ISC; the file is left out" in reject.detail
    (whole,) = docs(everything(placed(tmp_path, "github", **named)))
    assert "int b" in whole.text
    assert whole.license == "(GPL-2.0-only OR MIT) AND GPL-3.0-only AND ISC AND MIT"


def test_of_several_licences_in_a_column_every_one_must_be_allowed(tmp_path: Path) -> None:
    table = {"repo_name": ["o/r"], "path": ["a.py"], "content": ["A = 1\n"], "license": [["MIT", "GPL-3.0-only"]]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert reasons(everything(placed(tmp_path, "github", licenses=["MIT"]))) == ["licence-not-allowed"]
    assert len(docs(everything(placed(tmp_path, "github", licenses=["MIT", "GPL-3.0-only"])))) == 1


def test_a_licence_that_a_column_writes_in_small_letters_is_stored_as_spdx_spells_it(tmp_path: Path) -> None:
    table = {
        "repo_name": ["o/r"] * 2,
        "path": ["a.py", "b.py"],
        "content": ["A = 1\n"] * 2,
        "license": ["mit", "apache-2.0"],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (document,) = docs(everything(placed(tmp_path, "github")))
    assert document.license == "Apache-2.0 AND MIT"
