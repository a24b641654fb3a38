"""Every source in the format in which it is distributed: what is read, what is left out, and what no fault can do."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longalign_data.catalog import Card, builtin_cards, load_card
from longalign_data.errors import RecipeError, SourceError
from longalign_data.recipe import PlacedSource, load_recipe
from longalign_data.sources import reading, unpacking
from longalign_data.sources.readers import (
    READERS,
    archives,
    arxiv,
    blocks,
    fields,
    json_array,
    jsonl,
    parquet,
    partitions,
    read,
    row_batches,
    skipped,
    stackexchange,
    wikipedia,
)
from longalign_data.sources.readers.licences import detect_licence, is_allowed
from longalign_data.sources.readers.tex import TexError, source_text
from longalign_data.sources.readers.wikitext import choose_variant, plain_text
from longalign_data.sources.reading import REASONS, RawDocument, RawReject
from tests.fixtures import corpora

OPTIONS: dict[str, dict[str, str]] = {
    "json": {"text": "content", "title": "title"},
    "code": {"unit": "entry"},
    "parquet": {"title": "title"},
}
FORMATS = sorted(READERS)
PLAIN = (".txt", ".py", ".html", ".md")
ARCHIVES = ("arxiv", "books", "github")


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


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus in each format, in folders named like the readers."""
    root = tmp_path_factory.mktemp("corpora")
    texts = [(title, text[:12_000]) for title, text in corpora.topics()[:6]]
    for kind in FORMATS:
        corpora.write_corpus(kind, root / kind, texts)
    return root


# Over the tables: every reader and every card


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_without_a_reject_and_keeps_its_words(corpus: Path, kind: str) -> None:
    found = everything(placed(corpus / kind, kind))
    assert reasons(found) == []
    assert len(docs(found)) >= 6
    assert len({raw.source_ref for raw in found}) == len(found)
    words = "".join("".join(raw.text.split()) for raw in docs(found))
    assert "specialmethodnames" in words.lower()


@pytest.mark.parametrize("kind", FORMATS)
def test_reading_again_or_elsewhere_gives_the_same_documents(corpus: Path, kind: str, tmp_path: Path) -> None:
    shutil.copytree(corpus / kind, tmp_path / "copy")
    assert everything(placed(tmp_path / "copy", kind)) == everything(placed(corpus / kind, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_damage_is_a_reject_or_a_clear_error(corpus: Path, kind: str, tmp_path: Path) -> None:
    """Each file of each corpus cut off, with bytes changed, emptied, and with bytes of no format, by a fixed seed."""
    draw = random.Random(f"damage {kind}")
    for source in sorted(path for path in (corpus / kind).rglob("*") if path.is_file()):
        data = source.read_bytes()
        spoiled = [b"", data[: len(data) // 3], data[:-20], draw.randbytes(3000), b"\xff\xfe" + data, b"[" * 9000]
        for _ in range(4):
            changed = bytearray(data)
            for _ in range(max(1, len(changed) // 4000)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            spoiled.append(bytes(changed))
        for bad in spoiled:
            folder = tmp_path / "bad"
            shutil.rmtree(folder, ignore_errors=True)
            in_repository = kind == "github" and source.parent != corpus / kind
            place = folder / "repo" / source.name if in_repository else folder / source.name
            place.parent.mkdir(parents=True)
            place.write_bytes(bad)
            try:
                everything(placed(folder, kind))
            except SourceError as error:
                assert source.name in str(error)  # noqa: PT017 - a reject is as good
                assert "make it readable" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", FORMATS)
def test_partitions_read_in_any_order_give_the_same_documents(
    corpus: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (blocks, jsonl, parquet, wikipedia):
        monkeypatch.setattr(module, "RANGE_BYTES", 5000)
    monkeypatch.setattr(reading, "GROUP_UNITS", 1)
    found = partitions(placed(corpus / kind, kind))
    assert len({partition.key for partition in found}) == len(found)
    forwards = [list(read(partition)) for partition in found]
    backwards = [list(read(pickle.loads(pickle.dumps(partition)))) for partition in reversed(found)]
    assert backwards[::-1] == forwards
    monkeypatch.undo()
    assert [raw for part in forwards for raw in part] == everything(placed(corpus / kind, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_that_is_cut_off_gives_what_came_before_and_nothing_else(
    corpus: Path, kind: str, tmp_path: Path
) -> None:
    """A cut is told of by a reject or an error, but for plain text, which has no end of its own: its document is shorter."""
    whole = {raw.source_ref: raw.text for raw in docs(everything(placed(corpus / kind, kind)))}
    for source in sorted(path for path in (corpus / kind).rglob("*") if path.is_file()):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(corpus / kind, tmp_path / "cut")
        cut = tmp_path / "cut" / source.relative_to(corpus / kind)
        cut.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5])
        try:
            found = everything(placed(tmp_path / "cut", kind))
        except SourceError as error:
            assert source.name in str(error)  # noqa: PT017 - a reject is as good
            continue
        for raw in docs(found):
            assert whole[raw.source_ref].startswith(raw.text[: len(raw.text) * 9 // 10 - 200])
        if source.suffix in PLAIN:
            assert sum(len(raw.text) for raw in docs(found)) < sum(map(len, whole.values())), source.name
        elif source.name != "LICENSE":
            assert reasons(found), source.name


@pytest.mark.parametrize("kind", FORMATS)
def test_links_that_lead_nowhere_in_a_circle_or_outside_stop_no_reader(corpus: Path, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus / kind, folder)
    place = folder / "repo0" if kind == "github" else folder
    suffix = next("".join(path.suffixes) for path in sorted(place.rglob("*")) if path.is_file())
    before = everything(placed(folder, kind))
    (tmp_path / f"secret{suffix}").write_bytes(b"secret")
    (place / f"zz-nowhere{suffix}").symlink_to(tmp_path / "nothing")
    (place / f"zz-self{suffix}").symlink_to(place / f"zz-self{suffix}")
    (place / "zz-circle").symlink_to(folder, target_is_directory=True)
    found = everything(placed(folder, kind))
    assert [raw for raw in found if isinstance(raw, RawDocument)] == before
    # Links inside source trees, and beside the one file of topics, are none of the source's files.
    told = [] if kind in ("code", "github", "pydoc-topics") else [f"zz-nowhere{suffix}", f"zz-self{suffix}"]
    if kind == "stackexchange":
        told = [name for name in told if name.endswith(".7z")]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [
        (name, "link-broken") for name in told
    ]
    if kind in ("text", "code", "files", "books", "github"):
        # Where a file is (part of) a document by its name alone, what it links to must not get into a data set.
        (place / f"zz-outside{suffix}").symlink_to(tmp_path / f"secret{suffix}")
        found = everything(placed(folder, kind))
        assert docs(found) == docs(before)
        assert set(reasons(found)) <= {"link-outside", "link-broken"}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_names_in_archives_reach_nothing_outside(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "corpus"
    folder.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../climb", "/etc/absolute", "a/../../b"):
            for suffix in (".txt", ".py", ".gz"):
                data = (
                    gzip.compress(b"\\documentclass{a}\\begin{document}x\\end{document}")
                    if suffix == ".gz"
                    else b"x = 1\n"
                )
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        for name, target in (("link.txt", "../secret.txt"), ("link.py", str(tmp_path / "secret.txt"))):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    (folder / "a.tar").write_bytes(buffer.getvalue())
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = everything(placed(folder, kind))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert docs(found) == []
    assert set(reasons(found)) <= {"bad-archive", "empty"}
    assert reasons(found).count("bad-archive") == 9


def test_every_card_says_how_its_corpus_is_had_and_under_which_terms() -> None:
    kinds = set()
    for name in builtin_cards():
        card, _ = load_card(name, relative_to=Path())
        kinds.add(card.reader.kind)
        assert card.obtain, name
        assert card.notes, name
    assert set(FORMATS) - kinds == {"text", "parquet", "hub"}, "the general formats alone have no corpus of their own"


# Wikipedia


def test_the_real_dump_gives_its_articles_and_nothing_else() -> None:
    source = placed(corpora.english_dump(), "wikipedia")
    (partition,) = partitions(source)
    found = []
    for raw in read(partition):
        found.append(raw)
        if len(found) == 12:
            break
    assert reasons(found) == []
    anarchism = docs(found)[0]
    assert anarchism.title == "Anarchism"
    assert anarchism.source_ref.split("#")[1].startswith("12@")
    assert anarchism.text.startswith("# Anarchism\n\nAnarchism is ")
    assert "\n## " in anarchism.text
    # Some articles hold markup that is broken, and is shown as it is by the wiki too.
    left = sum(raw.text.count(markup) for raw in docs(found) for markup in ("[[", "{{", "<ref", "{|"))
    assert left <= 3
    assert not any(raw.text.lower().startswith("#redirect") for raw in docs(found))


def test_only_articles_are_read(tmp_path: Path) -> None:
    page = corpora.mediawiki_page
    path = corpora.write_mediawiki(
        tmp_path / "wiki.xml",
        [
            page(1, "A", "An '''article'''."),
            page(2, "B", "#REDIRECT [[A]]", redirect="A"),
            page(3, "Talk:A", "talk", ns=1),
            page(4, "C", "C may be:\n* [[A]]\n{{disambiguation}}"),
            page(5, "D (disambiguation)", "x"),
            page(6, "丙", "丙可以指：\n{{消歧义}}"),
            page(7, "Z & <Q>", "last &nbsp; &amp; text"),
        ],
    )
    assert [raw.title for raw in docs(everything(placed(path, "wikipedia")))] == ["A", "Z & <Q>"]


@pytest.mark.parametrize(
    ("mark", "is_article"),
    [
        ("{{Disambiguation}}", False),
        ("{{disambig|geo}}", False),
        ("{{School disambiguation}}", False),
        ("{{ Letter–number combination disambiguation }}", False),
        ("{{disambiguation cleanup|date=May 2020}}", False),
        ("{{mathdab}}", False),
        ("{{人名消歧义}}", False),
        ("See [[A]]{{disambiguation needed|date=May 2020}}.", True),
        ("{{Disambig needed}}", True),
        ("{{For|the river|A (disambiguation)}}", True),
        ("{{cite web|title=On disambiguation}}", True),
    ],
)
def test_pages_that_only_tell_names_apart_are_left_out(mark: str, is_article: bool, tmp_path: Path) -> None:
    page = corpora.mediawiki_page(1, "A", f"A may be a river.\n\n{mark}")
    path = corpora.write_mediawiki(tmp_path / "wiki.xml", [page])
    assert [raw.title for raw in docs(everything(placed(path, "wikipedia")))] == ["A"] * is_article


@pytest.mark.parametrize("multistream", [0, 3])
def test_a_dump_cut_into_ranges_gives_each_page_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multistream: int
) -> None:
    pages = [corpora.mediawiki_page(n, f"Page {n}", f"Text of {n}. " * (n % 7 * 40 + 1)) for n in range(60)]
    name = "w.xml.bz2" if multistream else "w.xml"
    path = corpora.write_mediawiki(tmp_path / name, pages, multistream=multistream)
    whole = everything(placed(path, "wikipedia"))
    assert [raw.title for raw in docs(whole)] == [f"Page {n}" for n in range(60)]
    for size in (37, 500, 4001):
        monkeypatch.setattr(wikipedia, "RANGE_BYTES", size)
        assert len(partitions(placed(path, "wikipedia"))) > 2 or size > path.stat().st_size / 2
        assert everything(placed(path, "wikipedia")) == whole


@pytest.mark.parametrize("range_bytes", [37, 500, 64 << 20])
@pytest.mark.parametrize(("name", "multistream"), [("w.xml", 0), ("w.xml.bz2", 0), ("w.xml.bz2", 3), ("w.xml.gz", 0)])
def test_a_dump_that_is_cut_between_two_pages_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, multistream: int, range_bytes: int
) -> None:
    monkeypatch.setattr(wikipedia, "RANGE_BYTES", range_bytes)
    pages = [corpora.mediawiki_page(n, f"Page {n}", f"Text of {n}. " * 9) for n in range(9)]
    path = corpora.write_mediawiki(tmp_path / name, pages, multistream=multistream)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    whole = everything(placed(path, "wikipedia"))
    assert reasons(whole) == []
    data = path.read_bytes()
    if multistream:
        ends = data.rindex(b"BZh9")
        cuts = [data[:ends], data[: data.rindex(b"BZh9", 0, ends)]]
    else:
        packs: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress}
        pack = packs.get(path.suffix, bytes)
        xml = corpora.MEDIAWIKI_HEAD + "".join(pages)
        cuts = [pack(xml.encode()), pack(xml[: xml.rindex("  <page>")].encode()), pack(xml.encode() + b"\n\n</mediawi")]
    for cut in cuts:
        path.write_bytes(cut)
        found = everything(placed(path, "wikipedia"))
        assert docs(found) == docs(whole)[: len(docs(found))]
        assert len(docs(found)) >= 6
        assert reasons(found) == ["truncated-archive"]
        (reject,) = (raw for raw in found if isinstance(raw, RawReject))
        assert "the file ends before </mediawiki>" in reject.detail


def test_entities_are_not_expanded_and_a_bad_page_leaves_its_neighbours(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n'
    good = corpora.mediawiki_page(1, "Good", "fine")
    bad = corpora.mediawiki_page(2, "Bad", "x").replace(">x<", ">&b;<")
    broken = corpora.mediawiki_page(3, "Broken", "x").replace("</title>", "")
    path = tmp_path / "w.xml"
    path.write_bytes(
        f"{bomb}{corpora.MEDIAWIKI_HEAD}{good}{bad}{broken}{good.replace('Good', 'Last')}</mediawiki>".encode()
    )
    found = everything(placed(path, "wikipedia"))
    assert [raw.title for raw in docs(found)] == ["Good", "Last"]
    assert reasons(found) == ["bad-xml", "bad-xml"]


def test_another_xml_file_is_no_dump(tmp_path: Path) -> None:
    (tmp_path / "w.xml").write_text("<html></html>")
    with pytest.raises(SourceError, match="no MediaWiki dump"):
        partitions(placed(tmp_path, "wikipedia"))


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("詞{{tsl|en|Name|甲}}尾{{tsl|en|乙}}", "詞甲尾乙"),
        ("{{langx|fr|non}} {{lang|fr|oui}} {{lang-fr|si}}", "non oui si"),
        ("H{{sub|2}}O, 10{{sup|6}}, {{val|5.3}}, {{US$|5 million}}", "H_2O, 10^6, 5.3, US$5 million"),
        ("{{USS|Enterprise}} of {{flag|United States}} in {{nihongo|Tokyo|東京}}", "USS Enterprise of United States in Tokyo"),
        ("A\n{{poemquote|line}}\nB {{internal link helper/en|甲|A}}", "A\n\nline\n\nB 甲"),
        ("{{link-ja|甲|A}}與{{Link-de|乙|B}}{{translink|en|C|丙}}", "甲與乙丙"),
        ("{{nowrap|1=a = b}} {{lang|1=fr|2=oui}} {{quote|1=said}}", "a = b oui\nsaid"),
        ("{{val|300|0.5|ul=m/s}}, {{val|5.3|u=km}}, {{€|5}}, {{ship|HMS|Victory|1765}}, {{nobr|{{chem2|H2O}}}}",
         "300±0.5 m/s, 5.3 km, €5, HMS Victory, H2O"),
        ("{{convert|400|to|670|mm|1|abbr=on}}, {{cvt|20|-|25|cm|in}}, {{convert|60|and(-)|80|kg}}, {{convert|-19|–|22|C|F}}",
         "400 to 670 mm, 20–25 cm, 60 and 80 kg, -19–22 C"),
        ("{{convert|6|ft|4|in|cm|0}}, {{convert|2|x|3|×|4|m|ft}}, {{convert|11|st|6|lb}}, {{convert|5|km|0}}, {{convert|3|ft|2|m}}",
         "6 ft 4 in, 2 by 3 × 4 m, 11 st 6 lb, 5 km, 3 ft"),
        ("1.5{{e|6}} kg, {{10^|-3}}, {{val|e=6}}, {{gaps|1|234|567}}, {{frac|3}}, ''Titanic''{{'}}s, the [[ship]]{{'s}}",
         "1.5×10^6 kg, 10^-3, 10^6, 1234567, 1/3, Titanic's, the ship's"),
        ("{{gaps|3.1|41|59|26|53|58|97|93|23|84|62|64|33|83|27|95|02|88|41|97}}, {{gaps|lhs=''c''|299|792|458|u=m/s}}",
         "3.141592653589793238462643383279502884197, c = 299792458 m/s"),
        ("{{gaps|1.602|176|487(40)|e=-19|u=C}}, {{gaps|64|base=2|e=20}} bytes, {{linktext|" + "|".join("abcdefghijklmno") + "}}",
         "1.602176487(40)×10^-19 C, 64×2^20 bytes, abcdefghijklmno"),
        ("{{convert|5|, and|10|km}}, {{convert|1|,|2|, or|3|m}}, {{convert|4|or(-)|6|ft|m}}, {{convert|4|to(–)|6|ft|m}}",
         "5, and 10 km, 1, 2, or 3 m, 4 or 6 ft, 4 to 6 ft"),
        ("{{chem|C|H|4}}, {{chem|SO|4|2-}}, {{chem|C|''n''|H|2''n''+2}}, <chem>H2O</chem>, <ce>CO2</ce>, {{SimpleNuclide2|lithium|7}}",
         "CH4, SO4^2-, CnH2n+2, H2O, CO2, lithium-7"),
        ("{{nts| 1000}} {{dts|1777|12|6}} {{dts|format=dmy|6 May 1777}} {{sort|2|two}} {{sort|3}} {{sortname|John|Smith|John S.}}",
         "1000 1777-12-06 6 May 1777 two 3 John Smith"),
        ("{{vanchor|here|h}} {{keypress|[[Control key|Ctrl]]|C}} {{ruby|漢|かん}} {{lang|ja|{{linktext|兄|弟}}}} {{RailGauge|1435mm}}",
         "here Ctrl+C 漢 兄弟 1435mm"),
        ("A\n{{columns-list|2|\n* [[B]]\n* C}}\n{{columns-list|colwidth=9em|\n* D\n}}", "A\n- B\n- C\n- D"),
        ("{|\n|-\n| {{yes}} || {{no|Never}} || {{won}}\n|}", "Yes | Never | Won"),
        ("{{val|6.674|e=-11|u=m3}}, {{val|5|u=km|up=s}}, {{val|1.5|0.2|0.3}}, {{val|5|s=%}}, {{frac|3|1|2}}, {{frac|1|2}}",
         "6.674×10^-11 m3, 5 km/s, 1.5+0.2−0.3, 5%, 3 1/2, 1/2"),
    ],
)  # fmt: skip
def test_templates_that_stand_for_words_give_them(wikitext: str, text: str) -> None:
    import mwparserfromhell

    assert plain_text(wikitext, mwparserfromhell.parse) == text


def test_links_that_a_sentence_shows_are_kept_and_links_to_the_other_languages_go() -> None:
    import mwparserfromhell

    text = plain_text(
        "In ''[[CSI: Miami]]'', [[UFC:1]], [[It: Chapter Two]] and [[Oz: The Great|Oz]] a [[wikt:foo|foo]] of [[s:Odes|the Odes]]"
        ": [[Re:Zero]], [[CSI:NY]].\n"
        "[[File:x.png|thumb|never]][[Category:Foo|never]][[wikt:never]]\n[[fr:Jamais]] [[zh-min-nan:Bô]]\n[[be-x-old:Ніколі]]"
        "[[Fr:Jamais]] [[FR:Jamais]]",
        mwparserfromhell.parse,
    )
    assert text == "In CSI: Miami, UFC:1, It: Chapter Two and Oz a foo of the Odes: Re:Zero, CSI:NY."


def test_lists_tables_and_templates_keep_a_readable_form() -> None:
    import mwparserfromhell

    text = plain_text(
        "Lead{{ref|x}} of {{convert|5|km|mi}}, {{lang|fr|oui}} ({{IPA|x}}).<ref name=a>cite {{x}}</ref>\n"
        "* one [[b|two]]\n** deep\n# first\n{| class=w\n! A !! B\n|-\n| 1 || [[C]]\n|}\n"
        "== Empty ==\n{{reflist}}\n== Code ==\n<syntaxhighlight lang=c>\nint x;\n</syntaxhighlight>\n[[File:x.png|thumb|cap [[y]]]][[fr:Z]]\n",
        mwparserfromhell.parse,
    )
    assert text == "Lead of 5 km, oui.\n- one two\n  - deep\n- first\n\nA | B\n1 | C\n\n## Code\n\nint x;"


@pytest.mark.parametrize(
    "markup",
    [
        "{|\n|-\n|a\n",
        "[[a|",
        "{{a|b=",
        "<b>",
        "<div class=x>",
        "<ref name=a ",
        "[http://a ",
        "<!--",
        "{{{a|",
        "{{[[",
        "<nowiki>",
    ],
)
def test_a_page_of_markup_that_nothing_closes_is_a_reject(tmp_path: Path, markup: str) -> None:
    pages = [
        corpora.mediawiki_page(1, "A", "word " + markup * 4000),
        corpora.mediawiki_page(2, "B", "word " + markup * 3),
    ]
    corpora.write_mediawiki(tmp_path / "w.xml", pages)
    found = everything(placed(tmp_path, "wikipedia"))
    assert reasons(found) == ["bad-wikitext"]
    assert [raw.title for raw in docs(found)] == ["B"]


@pytest.mark.parametrize("blanks", [" " * 1_000_000, "\n" * 1_000_000, " \t\n" * 300_000])
def test_white_space_of_a_page_takes_time_by_its_number_alone(blanks: str) -> None:
    import mwparserfromhell

    assert plain_text(f"a{blanks}b", mwparserfromhell.parse).split() == ["a", "b"]


@pytest.mark.parametrize("name", ["val", "nowrap", "convert|1|m", "ubl", "quote", "chem", "gaps", "frac"])
def test_templates_in_one_another_take_time_by_their_number_alone(name: str) -> None:
    import mwparserfromhell

    text = plain_text(f"a {f'{{{{{name}|' * 36}5{'}}' * 36} b", mwparserfromhell.parse)
    assert (text[0], text[-1]) == ("a", "b")


def test_markup_in_comments_and_programs_counts_for_nothing_and_deep_lists_are_read() -> None:
    import mwparserfromhell

    shown = "{{a|" * 4000
    text = f"word <!-- {shown} --><syntaxhighlight>{shown}</syntaxhighlight><br>\n{':' * 5000}deep"
    found = plain_text(text, mwparserfromhell.parse)
    assert found.count("{{a|") == 4000
    assert found.endswith("deep")


def test_chinese_variants_are_chosen() -> None:
    text = "-{zh-hans:计算机;zh-hant:電腦}-与-{A|zh-cn:软件;zh-tw:軟體;}-。-{H|zh-cn:隐藏}--{原样}-"
    assert choose_variant(text, "zh-cn") == "计算机与软件。原样"
    assert choose_variant(text, "zh-tw") == "電腦与軟體。原样"


@pytest.mark.parametrize(
    ("variant", "words"),
    [("zh-cn", "电脑里的软件，头发与皇后，乾坤与干净"), ("zh-tw", "電腦裡的軟體，頭髮與皇后，乾坤與乾淨")],
)
def test_chinese_pages_are_converted_where_their_authors_set_no_marker(
    tmp_path: Path, variant: str, words: str
) -> None:
    text = "電腦裡的-{zh-cn:软件; zh-tw:軟體}-，頭髮與皇后，乾坤與乾淨"
    path = corpora.write_mediawiki(tmp_path / "w.xml", [corpora.mediawiki_page(1, "電腦", text)])
    (page,) = docs(everything(placed(path, "wikipedia", "zh", variant=variant, convert=True)))
    assert page.text == f"# {words[:2]}\n\n{words}"
    (typed,) = docs(everything(placed(path, "wikipedia", "zh", variant=variant)))
    assert typed.title == "電腦"


# Stack Exchange


def test_a_thread_is_its_question_and_the_answers_by_score(tmp_path: Path) -> None:
    row = corpora.post_row
    rows = [
        row(1, 1, "<p>How &amp; why?</p><pre><code>if a &lt; b:\n    pass</code></pre>", Title="T", Score=4, AcceptedAnswerId=5, Tags="<c++><a>"),
        row(2, 2, "<p>low</p>", ParentId=1, Score=-3),
        row(3, 4, "<p>a tag wiki</p>", Score=0),
        row(4, 2, "<p>high</p>", ParentId=1, Score=9),
        row(5, 2, "<p>mine</p>", ParentId=1, Score=1),
        row(6, 2, "<p>orphan</p>", ParentId=77, Score=1),
    ]  # fmt: skip
    (tmp_path / "Posts.xml").write_bytes(corpora.posts_xml(rows))
    (thread,) = docs(everything(placed(tmp_path, "stackexchange", min_score=0)))
    assert thread.text == (
        "# T\n\nTags: c++, a\n\nHow & why?\n\nif a < b:\n    pass\n\n## Answer (score 9)\n\nhigh\n\n## Answer (score 1, accepted)\n\nmine"
    )
    assert thread.source_ref == "Posts.xml#1"


def test_bad_rows_are_rejects_and_the_rest_stands(tmp_path: Path) -> None:
    good = corpora.post_row(1, 1, "<p>q</p>", Title="T", Score=1)
    rows = [
        good,
        '  <row Id="2" PostTypeId="1" Body="&lol;" />\n',
        '  <row Id="x" PostTypeId="1" Body="b" />\n',
        '  <row Id="3"\n',
    ]
    (tmp_path / "Posts.xml").write_bytes(corpora.posts_xml(rows))
    found = everything(placed(tmp_path, "stackexchange"))
    assert [raw.title for raw in docs(found)] == ["T"]
    assert sorted(reasons(found)) == ["bad-record", "bad-xml", "bad-xml"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_posts_cut_off_between_two_rows_are_told_of(tmp_path: Path, kept: int, packed: bool) -> None:
    rows = [corpora.post_row(number, 1, "<p>q</p>", Title=f"T{number}", Score=1) for number in (1, 2)]
    whole = corpora.posts_xml(rows)
    data = (
        whole[: whole.index(b"</posts>")] if kept == 2 else corpora.posts_xml(rows[:kept]).removesuffix(b"</posts>\n")
    )
    (tmp_path / ("Posts.xml.gz" if packed else "Posts.xml")).write_bytes(gzip.compress(data) if packed else data)
    found = everything(placed(tmp_path, "stackexchange"))
    assert [raw.title for raw in docs(found)] == ["T1", "T2"][:kept]
    assert reasons(found) == ["truncated-archive"]
    assert "</posts>" in "".join(raw.detail for raw in found if isinstance(raw, RawReject))


@pytest.mark.parametrize("end", ["</posts>", "</posts>\n", "  </posts>\r\n"])
def test_posts_that_are_whole_are_not_called_cut_off(tmp_path: Path, end: str) -> None:
    (tmp_path / "Posts.xml").write_bytes(corpora.posts_xml([]).replace(b"</posts>\n", end.encode()))
    assert everything(placed(tmp_path, "stackexchange")) == []


def test_a_great_many_bad_rows_are_not_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "Posts.xml").write_bytes(corpora.posts_xml(['  <row Id="2" Body="&lol;" />\n'] * 12_000))
    (partition,) = partitions(placed(tmp_path, "stackexchange"))
    tracemalloc.start()
    count = sum(isinstance(raw, RawReject) for raw in read(partition))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 12_000
    # 3.5 MB, of which 1 MB is held rejects; 5.7 MB when all are held.
    assert peak < 4_500_000


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_packed_file_of_no_bytes_is_a_reject(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert reasons(everything(placed(tmp_path, "jsonl"))) == ["truncated-archive"]


# GitHub


def test_repositories_are_read_from_folders_archives_and_parquet_alike(tmp_path: Path) -> None:
    files = {
        "src/a.py": b"print('a')\n",
        "LICENSE": corpora.MIT.encode(),
        "vendor/v.py": b"print('v')\n",
        "gen.py": b"# @generated by a tool\n",
        "app.min.js": b"x" * 2000,
        "bin.py": b"a\0b",
    }
    for name, data in files.items():
        path = tmp_path / "folder" / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for kind in ("tar", "zip", "parquet"):
        (tmp_path / kind).mkdir()
    members = [(f"repo-main/{name}", data) for name, data in files.items()]
    (tmp_path / "tar" / "repo.tar.gz").write_bytes(corpora.tar_bytes(members, "w:gz"))
    with zipfile.ZipFile(tmp_path / "zip" / "repo.zip", "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    rows = [(name, data.decode()) for name, data in files.items() if b"\0" not in data]
    table = {
        "repo_name": ["o/repo"] * len(rows),
        "path": [r[0] for r in rows],
        "content": [r[1] for r in rows],
        "license": [["MIT"]] * len(rows),
    }
    pq.write_table(pa.table(table), tmp_path / "parquet" / "a.parquet")
    for kind in ("folder", "tar", "zip", "parquet"):
        (document,) = docs(everything(placed(tmp_path / kind, "github", licenses=["MIT"])))
        assert document.text == "==> src/a.py <==\nprint('a')\n", kind
        assert document.license == "MIT"
        assert reasons(everything(placed(tmp_path / kind, "github", licenses=["ISC"]))) == ["licence-not-allowed"]


def test_a_source_file_beyond_the_cards_size_is_a_reject_wherever_it_stands(tmp_path: Path) -> None:
    files = {"a.py": b"A = 1\n", "LICENSE": corpora.MIT.encode(), "big.py": b"#" * 5000, "big.bin": b"#" * 5000}
    for name, data in files.items():
        (tmp_path / "folder" / "repo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "repo" / name).write_bytes(data)
    for kind in ("tar", "zip", "parquet"):
        (tmp_path / kind).mkdir()
    members = [(f"repo-main/{name}", data) for name, data in files.items()]
    (tmp_path / "tar" / "repo.tar.gz").write_bytes(corpora.tar_bytes(members, "w:gz"))
    with zipfile.ZipFile(tmp_path / "zip" / "repo.zip", "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    columns = {"repo_name": ["o/r"] * 4, "path": list(files), "content": [data.decode() for data in files.values()]}
    pq.write_table(pa.table(columns), tmp_path / "parquet" / "a.parquet")
    for kind in ("folder", "tar", "zip", "parquet"):
        found = everything(placed(tmp_path / kind, "github", max_file_bytes=4000, license=None))
        assert [raw.text for raw in docs(found)] == ["==> a.py <==\nA = 1\n"], kind
        (reject,) = (raw for raw in found if isinstance(raw, RawReject))
        assert reject.reason == "too-large"
        assert "big.py" in reject.detail


def test_archives_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("secret")
    folder = tmp_path / "corpus"
    folder.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("../../climb.py", "/etc/absolute.py", "repo/good.py"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"x=1\n"))
        link = tarfile.TarInfo("repo/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "../../secret.py"
        archive.addfile(link)
    (folder / "a.tar.gz").write_bytes(buffer.getvalue())
    (folder / "repo").mkdir()
    (folder / "repo" / "link.py").symlink_to(tmp_path / "secret.py")
    (folder / "repo" / "own.py").write_text("own")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = everything(placed(folder, "github"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert reasons(found) == ["bad-archive", "bad-archive"]
    assert "secret" not in "".join(raw.text for raw in docs(found))
    assert [raw.title for raw in docs(found)] == ["a.tar.gz", "repo"]


def test_names_in_a_zip_reach_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for name in ("../climb.py", "/etc/absolute.py", "repo/../../b.py", "C:\\windows.py", "repo/good.py"):
            archive.writestr(name, "x = 1\n")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = everything(placed(folder, "github", license=None))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert set(reasons(found)) == {"bad-archive"}
    (repository,) = docs(found)
    assert "good.py" in repository.text
    assert repository.text.count("x = 1") == 1


def repacked(data: bytes, method: int) -> bytes:
    """A zip file with its members packed by another method."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def member_spoiled(data: bytes, name: str) -> bytes:
    """A zip file with bytes in the middle of a member inverted."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(name)
    at = member.header_offset + 30 + len(name) + member.compress_size // 3
    return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 16]) + data[at + 16 :]


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_of_a_zip_is_a_reject_however_it_is_packed(method: int, tmp_path: Path) -> None:
    code = "".join(f"x{n} = {n}\n" for n in range(300))
    good = repacked(corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", code.encode())]), method)
    (tmp_path / "github").mkdir()
    (tmp_path / "github" / "bad.zip").write_bytes(member_spoiled(good, "repo/a.py"))
    (tmp_path / "github" / "good.zip").write_bytes(good)
    book = repacked(corpora.epub_bytes("T", [code]), method)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "bad.epub").write_bytes(member_spoiled(book, "OEBPS/c0.xhtml"))
    (tmp_path / "files" / "good.epub").write_bytes(book)
    for kind, reader in (("github", "github"), ("files", "files"), ("files", "books")):
        found = everything(placed(tmp_path / kind, reader))
        assert len(docs(found)) == 1
        assert reasons(found) == ["damaged-file"]
        assert found[0].source_ref.startswith("bad.")


@pytest.mark.parametrize("method", METHODS)
def test_a_zip_whose_members_are_said_to_begin_before_the_file_is_a_reject(method: int, tmp_path: Path) -> None:
    good = repacked(corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", b"x = 1\n")]), method)
    at = good.rindex(b"PK\5\6") + 16
    (tmp_path / "bad.zip").write_bytes(good[:at] + (1 << 20).to_bytes(4, "little") + good[at + 4 :])
    (tmp_path / "good.zip").write_bytes(good)
    found = everything(placed(tmp_path, "github"))
    assert [raw.source_ref for raw in docs(found)] == ["good.zip"]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [
        ("bad.zip", "damaged-file")
    ]


def test_a_zip_with_a_member_without_a_name_is_a_reject(tmp_path: Path) -> None:
    good = corpora.zip_bytes([("repo/LICENSE", corpora.MIT.encode()), ("repo/a.py", b"x = 1\n")])
    at = good.rindex(b"repo/a.py")
    (tmp_path / "a.zip").write_bytes(good[:at] + b"\0" + good[at + 1 :])
    (tmp_path / "good.zip").write_bytes(good)
    found = everything(placed(tmp_path, "github"))
    assert [raw.source_ref for raw in docs(found)] == ["good.zip"]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [("a.zip", "damaged-file")]


def test_entities_of_a_docx_are_not_expanded(tmp_path: Path) -> None:
    lol = (
        '<!DOCTYPE d [<!ENTITY a "'
        + "a" * 100
        + '">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 100}">' for n in range(6))
        + f'<!ENTITY file SYSTEM "file://{tmp_path}/secret.txt">]>'
    )
    (tmp_path / "secret.txt").write_text("secret")
    whole, made = io.BytesIO(corpora.docx_bytes("T", "words")), io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/document.xml":
                head, mark, rest = data.partition(b"<w:document")
                data = head + lol.encode() + mark + rest.replace(b"<w:t>words<", b"<w:t>words &g;&file;<")
            new.writestr(name, data)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.docx").write_bytes(made.getvalue())
    found = everything(placed(tmp_path / "corpus", "files"))
    assert len(found) == 1
    assert all(len(raw.text) < 1000 and "secret" not in raw.text for raw in docs(found))


APACHE = "Apache License\n Version 2.0, January 2004"
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


def test_the_length_of_a_repository_in_parquet_is_that_of_its_text(tmp_path: Path) -> None:
    """`everything` compares them: files with other line ends, white space behind them and marks before them among plain ones."""
    contents = [
        "é = 1\n",
        "ü = 1",
        "A = 'é'\r\nB = 1\r\n",
        "\ufeffC = 'é'\n",
        "D = 1\u3000",
        "E = 1\n\n\n",
        "\n",
        "é\0",
    ]
    rows = [
        (repository, f"{number}é.py", text)
        for number, text in enumerate(contents)
        for repository in ("all", str(number))
    ]
    rows += [("names", "a\rb.py", "é\n"), ("names", "é/c.py", "é\n")]
    columns = dict(zip(("repo_name", "path", "content"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = docs(everything(placed(tmp_path, "github", license=None)))
    assert {raw.title for raw in found} == {"all", "0", "1", "2", "3", "4", "5", "names"}
    (whole,) = (raw for raw in found if raw.title == "all")
    assert whole.text.endswith(
        "==> 2é.py <==\nA = 'é'\nB = 1\n\n==> 3é.py <==\nC = 'é'\n\n==> 4é.py <==\nD = 1\n\n==> 5é.py <==\nE = 1\n"
    )


def test_repositories_without_a_file_that_is_read_are_told(tmp_path: Path) -> None:
    for name in ("read/a.cs", "read/b.tsx", "none/a.xyz", "readme/README", "readme/LICENSE", "notes.odt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(corpora.MIT if "LICENSE" in name else "x = 1")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a-main/a.xyz", "x = 1")
    source = placed(tmp_path, "github")
    found = everything(source)
    (document,) = docs(found)
    assert re.findall("==> (.*) <==", document.text) == ["a.cs", "b.tsx"]
    assert sorted((raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)) == [
        ("a.zip", "empty"),
        ("readme", "empty"),
    ]
    assert skipped(source, partitions(source)) == {".odt": 1, "folder without sources": 1}


def test_a_path_that_is_itself_a_repository_is_said_to_be_one(tmp_path: Path) -> None:
    for name in (".git/HEAD", "src/a.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    with pytest.raises(SourceError, match=r"this is a repository itself.*the folder that it stands in"):
        partitions(placed(tmp_path, "github"))


@pytest.mark.parametrize("packed", ["tar.gz", "zip"])
@pytest.mark.parametrize("top", ["", "r-main/"])
def test_an_archive_gives_the_same_files_with_and_without_a_folder_around_them(
    top: str, packed: str, tmp_path: Path
) -> None:
    members = [
        ("LICENSE", corpora.MIT),
        ("a/__init__.py", "A = 1\n"),
        ("b/__init__.py", "B = 1\n"),
        ("vendor/c.py", "C = 1\n"),
        ("src/LICENSE", APACHE),
        ("a/__init__.py", "AGAIN = 1\n"),
    ]
    named = [(top + name, text.encode()) for name, text in members]
    if packed == "zip":
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            for name, data in [*named[:-1], ("__MACOSX/._a", b"x")]:
                archive.writestr(name, data)
    else:
        (tmp_path / "r.tar.gz").write_bytes(corpora.tar_bytes([*named, (top + "._a.py", b"A\0")], "w:gz"))
    found = everything(placed(tmp_path, "github"))
    (document,) = docs(found)
    assert re.findall("==> (.*) <==", document.text) == ["a/__init__.py", "b/__init__.py"]
    assert document.license == "MIT"
    assert "AGAIN" not in document.text
    assert reasons(found) == ([] if packed == "zip" else ["bad-archive"])


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


def test_a_number_is_a_title(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "title": 1984}\n{"content": "y", "title": 7.5}\n')
    found = docs(everything(placed(tmp_path, "jsonl", text="content", title="title")))
    assert [raw.title for raw in found] == ["1984", "7.5"]


# arXiv


def same(paragraph: str) -> str:
    return paragraph


def test_files_are_merged_and_macros_and_comments_resolved() -> None:
    files = {
        "main.tex": "\\documentclass{a}\\newcommand{\\R}{\\mathbb{R}}\\newcommand{\\n}[2][d]{#1-#2}\\def\\p#1{(#1)}\\title{T}\n"
        "\\begin{document}\\input{a}\\include{sub/b}\nSee~\\cite{x, y}. 5\\% % gone\n\\end{document}",
        "a.tex": "\\section{One} $x \\in \\R$ and \\n{q} \\n[w]{q}",
        "sub/b.tex": "\\p{z} \\input{a}",
        "other.tex": "\\documentclass{a} not main",
    }
    title, text, missing = source_text(files, same)
    assert missing == ()
    assert title == "T"
    assert "## One" in text
    assert "$x \\in \\mathbb{R}$" in text
    assert "d-q w-q" in text
    assert "(z)" in text
    assert "[x, y]" in text
    assert "gone" not in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"See \url{http://a/b%20c}, \href{x%20y}{words} and \verb|5%^{\$_|: 3\% % gone", r"See <http://a/b%20c>, words and 5%^{\$_: 3%"),
        ("\\begin{lstlisting}\nx = 5 % 3\n\\end{lstlisting}", "x = 5 % 3"),
        ("one % gone\n\ntwo % gone\n  three %\n% gone\n\nfour", "one\n\ntwo three\n\nfour"),
        (r"a \bibliographystyle{plain}\bibliography{refs}\includeonly{chap}\includegraphics[width=1]{f}b", "a b"),
        ("\\begin{tabular}{l}a & b \\\\& c\\end{tabular}\n\n\\begin{lstlisting}\nif (a && b) c;\n\\end{lstlisting}", "a | b \n | c\n\nif (a && b) c;"),
        (r"\subimport{sec/}{b} \import{other/}{q}", "B \nC\n\nD \nE\n\nQ"),
        (r"\texttt{train.py}, \mbox{GPT-4} and \textsf{a}\textup{b}\textmd{c} (p \textless{} 0.05, \S{} 3, \LaTeX)", "train.py, GPT-4 and abc (p < 0.05, § 3, LaTeX)"),
        (r"On \iffalse off \ifx a b \else c \fi d \newif\ifdraft $\iff$ \fi on \iffalse no \else yes\fi. \ifx{x}on \fi", "On on yes. xon"),
        (r"on \iffalse that nothing ends", "on that nothing ends"),
        ("\\begin{tabular}{lc}\n\\multicolumn{2}{c|}{both} & \\multirow{2}{*}{Model} \\\\\\cline{2-3}\\cmidrule(lr){2-4}(a) & \\multicolumn{1}{p{3cm}}{b}\n\\end{tabular}", "both | Model \n(a) | b"),
        (r"\begin{CJK}{UTF8}{gbsn}in\end{CJK} \begin{minipage}[t]{0.48\textwidth}{\bf small}\end{minipage}", "in\n\nsmall"),
        (r"\resizebox{1cm}{!}{x} \parbox{3cm}{par} \makebox[2cm][l]{box} \scalebox{0.8}{s}", "x par box s"),
        (r"\usepackage{my}\method{} \two{q} \three{a}{b} \robust \page", "LongAlign (q) a-b Strong"),
    ],
)  # fmt: skip
def test_what_looks_like_comments_cells_and_commands_keeps_its_words(source: str, text: str) -> None:
    files = {
        "main.tex": "\\documentclass{a}\\begin{document}\n" + source + "\n\\end{document}",
        "sec/b.tex": r"B \input{c} \subimport{deep}{d}",
        "sec/c.tex": "C",
        "sec/deep/d.tex": r"D \input{e}",
        "sec/deep/e.tex": "E",
        "other/q.tex": "Q",
        "c.tex": "not this one",
        "my.sty": r"\RequirePackage{x,deep}\newcommand{\method}{LongAlign}\def\two#1{(#1)}\newcommand{\page}{\vskip 3cm}",
        "deep.cls": r"\RequirePackage{my}\NewDocumentCommand\three{m +m}{#1-#2}\DeclareRobustCommand{\robust}{Strong}",
    }
    assert source_text(files, arxiv._inline())[1] == text


def test_a_file_that_a_submission_lacks_is_named_beside_its_document(tmp_path: Path) -> None:
    main = (
        "\\documentclass{a}\\input{macros}\\input glyphtounicode\\newcommand{\\where}{sec}\n\\begin{document}\nHere.\n"
        "% \\input{gone}\n\\input{intro} \\include{tables/results.tex} \\input{\\where/proof} \\input{intro}\n"
        "\\input{main.bbl} \\input{x.sty} \\begin{figure}\\input{plot}\\caption{A plot.}\\end{figure}\nThere.\n"
        "\\end{document}\\input{after}"
    )
    submission = corpora.tar_bytes([("main.tex", main.encode()), ("here.tex", b"never asked for")], "w:gz")
    (tmp_path / "a.tar").write_bytes(corpora.tar_bytes([("2301.00001.gz", submission)], "w"))
    document, reject = everything(placed(tmp_path, "arxiv"))
    assert isinstance(document, RawDocument)
    assert document.text.split() == ["Here.", "Figure:", "A", "plot.", "There."]
    assert isinstance(reject, RawReject)
    assert reject.reason == "missing-part"
    assert "\\input of 'intro', 'tables/results.tex', 'sec/proof' was not resolved" in reject.detail


@pytest.mark.parametrize(
    "source",
    [
        r"\def\a{\b\b\b\b}\def\b{\c\c\c\c}\def\c{\d\d\d\d}\def\d{\e\e\e\e}\def\e{\f\f\f\f}\def\f{\g\g\g\g}\def\g{\h\h\h\h}"
        r"\def\h{\i\i\i\i}\def\i{\j\j\j\j}\def\j{\k\k\k\k}\def\k{xxxxxxxxx}\a",
        r"\def\a{\a\a\a\a\a\a\a\a}\a",
        r"\input{main}\input{main}",
        "$" * 200_000,
        r"\begin{figure}" * 30_000,
        r"\section{" * 5_000,
        r"\newcommand{\x}[9]{" * 3_000,
        r"\iffalse" * 50_000,
        r"\iffalse\else" * 50_000 + r"\fi" * 50_000,
        r"\multicolumn{" * 20_000,
        r"\multirow[[[{" * 20_000,
    ],
)
def test_tex_that_grows_or_nests_without_end_is_bounded(source: str) -> None:
    files = {"main.tex": "\\documentclass{a}\\begin{document}" + source + "\\end{document}"}
    with suppress(TexError):
        assert len(source_text(files, same)[1]) < 17 << 20


# WARC, files, books, blocks, JSON


def test_pages_that_are_no_html_or_errors_are_left_out_and_languages_kept(tmp_path: Path) -> None:
    record, response = corpora.warc_record, corpora.html_response
    corpora.write_warc(
        tmp_path / "a.warc.gz",
        [
            record("request", "https://e.org/", b"GET / HTTP/1.1\r\n\r\n"),
            record("response", "https://e.org/404", response("No", "gone", status="404 Not Found")),
            record("response", "https://e.org/png", response("No", "x", kind="image/png")),
            record("response", "https://e.org/latin", b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n<p>caf\xe9</p>"),
            record("response", "https://e.org/chunks", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
                   b"7\r\n<p>ab</\r\n2\r\np>\r\n0\r\n\r\n"),
            record("response", "https://e.org/lf", b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<p>lf\r\n\r\nonly</p>"),
            record("response", "https://e.org/mixed", b"HTTP/1.1 200 OK\r\nA: b\nContent-Type: text/html\r\n\n<p>mixed</p>"),
            record("response", "https://e.org/deep", response("D", "").replace(b"<main>", b"<div>" * 5000)),
        ],
    )  # fmt: skip
    corpora.write_warc(
        tmp_path / "a.warc.wet",
        [record("conversion", "u", "正文".encode(), WARC_Identified_Content_Language="zho,eng")],
    )
    found = everything(placed(tmp_path, "warc", main_content=False))
    assert [(raw.text, raw.lang) for raw in docs(found)] == [
        ("café", "en"),
        ("ab", "en"),
        ("lf only", "en"),
        ("mixed", "en"),
        ("正文", "zh"),
    ]
    assert reasons(found) == ["bad-html"]


SMART = "“Smart” – it’s 5 €, naïve and très cher."
ZHONG = "朱镕基和喆在这里，测试一下编码是否正确。这里还有更多的文字，用来检测。"
JA = "①から始まる日本語のテスト。今日はとても良い天気ですね。"
WEST = "één keer per dag een reünie met coöperatie"
HANGUL = (
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았다."
)
FAN = "繁體中文內容，測試一下編碼是否正確。今天天氣很好。"


@pytest.mark.parametrize(
    ("label", "codec", "words"),
    [
        ("ISO-8859-1", "cp1252", SMART),
        ("us-ascii", "cp1252", SMART),
        ("gb2312", "gbk", ZHONG),
        ("GBK", "gb18030", ZHONG),
        ("shift_jis", "cp932", JA),
        ("Big5", "big5hkscs", FAN),
        ("ks_c_5601-1987", "cp949", "똠방각하와 한국어 문장입니다."),
        ("ms949", "cp949", HANGUL),
        ("uhc", "cp949", HANGUL),
        ("cp949", "cp949", HANGUL),
        ("latin-1", "cp1252", WEST),
        ("ISO_8859_1", "cp1252", WEST),
        ("windows_1252", "cp1252", WEST),
        ("cp850", "cp850", WEST),
        ("punycode", "utf-8", ZHONG),
        ("iso-8859-9", "cp1254", "“Türkçe ığüşöç”"),
        ("utf-8", "utf-8", ZHONG),
        ("x-unheard-of", "utf-8", ZHONG),
        ("utf-8", "gbk", ZHONG),
        ("", "gbk", ZHONG),
        ("", "cp949", HANGUL),
        ("utf-8", "cp949", HANGUL * 30),
        ("", "cp1252", SMART),
        ("", "cp932", JA),
        ("", "cp1251", "Это русский текст для проверки кодировки."),
        ("", "utf-8", ZHONG),
        ("", "utf-16", ZHONG),
    ],
)
def test_a_page_is_read_in_the_encoding_that_the_web_means_by_its_label_or_that_it_looks_like(
    label: str, codec: str, words: str, tmp_path: Path
) -> None:
    meta, page = (f"<meta charset={label}>" if label else ""), f"<p>{words}</p>"
    labelled = f"<html><head>{meta}<title>T</title></head><body>{page}</body></html>".encode(codec)
    kind = f"text/html; charset={label}" if label else "text/html"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode()
    records = [
        ("header", head + page.encode(codec)),
        ("meta", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + labelled),
    ]
    corpora.write_warc(tmp_path / "a.warc", [corpora.warc_record("response", *record) for record in records])
    (tmp_path / "a.html").write_bytes(labelled)
    book = tmp_path / "a.epub"
    with zipfile.ZipFile(io.BytesIO(corpora.epub_bytes("T", ["x"]))) as old, zipfile.ZipFile(book, "w") as new:
        for name in old.namelist():
            new.writestr(name, labelled if name.endswith("c0.xhtml") else old.read(name))
    found = everything(placed(tmp_path, "warc", main_content=False)) + everything(placed(tmp_path, "files"))
    assert [raw.text for raw in docs(found)] == [words] * 4
    assert reasons(found) == []


@pytest.mark.parametrize(
    ("label", "codec"), [("iso-2022-kr", "iso2022_kr"), ("hz-gb-2312", "hz"), ("iso-2022-jp", "iso2022_jp")]
)
def test_a_header_may_name_an_encoding_of_seven_bits(label: str, codec: str, tmp_path: Path) -> None:
    words = {"iso2022_kr": HANGUL, "hz": "人人生而自由", "iso2022_jp": "日本語のテスト"}[codec]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset={label}\r\n\r\n".encode()
    record = corpora.warc_record("response", "u", head + f"<p>{words}</p>".encode(codec))
    corpora.write_warc(tmp_path / "a.warc", [record])
    (found,) = docs(everything(placed(tmp_path, "warc", main_content=False)))
    assert found.text == words


@pytest.mark.parametrize("label", ["", "iso-8859-1", "gbk", "windows-1251", "utf-16le", "utf-8"])
def test_a_byte_order_mark_says_more_than_any_label_and_is_no_text(label: str, tmp_path: Path) -> None:
    page = '<?xml version="1.0"?><html><head><title/></head><body><p>' + f"naïve {ZHONG}</p></body></html>"
    data = page.encode("utf-8-sig")
    (tmp_path / "a.html").write_bytes(data)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset={label}\r\n\r\n".encode()
    damaged = data.replace(b"na\xc3\xaf", b"na\xef")
    records = [corpora.warc_record("response", "u", head + body) for body in (data, damaged)]
    corpora.write_warc(tmp_path / "a.warc", records)
    found = everything(placed(tmp_path, "warc", main_content=False)) + everything(placed(tmp_path, "files"))
    assert [raw.text for raw in docs(found)] == [f"naïve {ZHONG}", f"na\ufffdve {ZHONG}", f"naïve {ZHONG}"]


def test_one_damaged_byte_does_not_send_a_page_in_utf8_into_another_encoding(tmp_path: Path) -> None:
    data = f"<p>{ZHONG} {SMART}".encode()
    (tmp_path / "a.html").write_bytes(data[:60] + b"\xff" + data[60:])
    (document,) = docs(everything(placed(tmp_path, "files")))
    assert SMART in document.text
    assert "\ufffd" in document.text


@pytest.mark.parametrize("tag", ["b", "FONT", "a"])
def test_formatting_that_is_never_closed_does_not_multiply(tmp_path: Path, tag: str) -> None:
    opened = "".join(f"<{tag} id={number}>" for number in range(900))
    (tmp_path / "unclosed.html").write_text(f"<p>{opened}words</p>" + "<p>more</p>" * 8000)
    (tmp_path / "closed.html").write_text(f"<p>{opened}words{f'</{tag}>' * 900}</p>" + "<p>more</p>" * 8000)
    (tmp_path / "typing-slip.html").write_text("<p><b>words<b></p>" * 400 + "<p>more</p>" * 8000)
    found = everything(placed(tmp_path, "files"))
    kept = [raw.source_ref for raw in docs(found)]
    assert kept == ["closed.html", "typing-slip.html", *(["unclosed.html"] if tag == "a" else [])]
    assert reasons(found) == ([] if tag == "a" else ["bad-html"])


@pytest.mark.parametrize("length", ["²", "٣", "+3", "3_0", "1" * 16, ""])
def test_a_length_that_is_no_number_ends_a_warc_file_with_a_reject(tmp_path: Path, length: str) -> None:
    first = corpora.warc_record("conversion", "u", b"one")
    data = first + f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {length}\r\n\r\ntwo".encode()
    (tmp_path / "a.wet").write_bytes(data)
    found = everything(placed(tmp_path, "warc"))
    assert [raw.text for raw in docs(found)] == ["one"]
    assert reasons(found) == ["bad-record"]


def test_bombs_are_rejects(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(b"\0" * (1 << 20))
    lol = '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><package>&b;</package>'
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as archive:
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="p.opf"/></container>')
        archive.writestr("p.opf", lol)
    found = everything(placed(tmp_path, "files"))
    assert reasons(found) == ["unpacks-too-large", "bad-xml"]
    papers = corpora.tar_bytes([("2301/2301.00001.gz", gzip.compress(b"\0" * (80 << 20)))])
    (tmp_path / "x.tar").write_bytes(papers)
    assert reasons(everything(placed(tmp_path / "x.tar", "arxiv"))) == ["unpacks-too-large"]


def bomb(name: str, size: int) -> bytes:
    """A file of few bytes that unpacks to `size` and more, behind what its format begins with."""
    zeros = b"\0" * size
    if name.endswith(".zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("repo/a.py", zeros)
        return buffer.getvalue()
    if ".tar" in name:
        whole = corpora.tar_bytes([("repo/a.py", zeros), ("repo/b.txt", zeros)])
    else:
        heads = {
            "warc": b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 999999999\r\n\r\n",
            "xml": b"",
            "json": b'[{"content": "',
        }
        heads["xml"] = corpora.MEDIAWIKI_HEAD.encode() if name.startswith("w") else b"<posts>\n<row "
        whole = next((head for part, head in heads.items() if part in name.split(".")), b"") + zeros
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    return pack[Path(name).suffix](whole)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("jsonl", "a.jsonl.gz"), ("jsonl", "a.jsonl.zst"), ("json", "a.json.gz"), ("blocks", "a.txt.gz"), ("warc", "a.warc.gz"),
        ("wikipedia", "w-pages-articles.xml.bz2"), ("stackexchange", "Posts.xml.bz2"), ("stackexchange", "Posts.xml.xz"),
        ("books", "a.tar.gz"), ("books", "a.jsonl.gz"), ("github", "a.tar.bz2"), ("github", "a.zip"), ("arxiv", "a.tar.gz"),
    ],
)  # fmt: skip
def test_a_bomb_in_any_packed_format_is_a_reject_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 4 << 20)
    monkeypatch.setattr(archives, "FREE_BYTES", 4 << 20)
    (tmp_path / name).write_bytes(bomb(name, 68 << 20))
    assert (tmp_path / name).stat().st_size < 150_000
    found = partitions(placed(tmp_path / name, kind))
    tracemalloc.start()
    rejects = [raw for partition in found for raw in read(partition)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "unpacks-too-large" in reasons(rejects)
    assert docs(rejects) == []
    # What was meant to be a single document is given up at its bound, whatever the rest would be.
    assert peak < reading.MAX_RECORD_BYTES * 2


def long_name_tar(kind: bytes) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 80 << 20
    return header.tobuf(tarfile.GNU_FORMAT) + b"a" * (80 << 20) + corpora.tar_bytes([("repo/a.py", b"x = 1")])


def sparse_tar() -> bytes:
    header = tarfile.TarInfo("repo/holes")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block) + (b"\0" * 504 + b"\1" + b"\0" * 7) * 100_000


@pytest.mark.parametrize(
    ("kind", "name", "made", "reason"),
    [
        ("github", "a.tar.gz", lambda: gzip.compress(long_name_tar(b"L")), "bad-archive"),
        ("books", "a.tar.gz", lambda: gzip.compress(long_name_tar(b"K")), "bad-archive"),
        ("arxiv", "a.tar", lambda: long_name_tar(b"x"), "bad-archive"),
        ("github", "a.tar", lambda: sparse_tar(), "bad-archive"),
        ("jsonl", "a.jsonl", lambda: b'{"text": "x", "t": [' + b"[]," * (1 << 13) + b"[]]}\n", "bad-json"),
        ("json", "a.json", lambda: b'[{"content": "x", "t": [' + b"[]," * (1 << 13) + b"[]]}]\n", "bad-json"),
        ("wikipedia", "w.xml", lambda: corpora.MEDIAWIKI_HEAD.encode() + b"<page><ns>0</ns>" + b"<a/>" * (2 << 20) + b"</page></mediawiki>", "bad-xml"),
        ("wikipedia", "w.xml", lambda: corpora.MEDIAWIKI_HEAD.encode() + b"<page><ns>0</ns><a" + b' a=""' * (2 << 20) + b"/></page></mediawiki>", "bad-xml"),
    ],
)  # fmt: skip
def test_what_would_grow_in_memory_is_a_reject_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, made: Callable[[], bytes], reason: str
) -> None:
    monkeypatch.setattr(fields, "MAX_JSON_SIGNS", 1 << 13)
    (tmp_path / name).write_bytes(made())
    found = partitions(placed(tmp_path / name, kind))
    tracemalloc.start()
    rejects = [raw for partition in found for raw in read(partition)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons(rejects) == [reason]
    assert docs(rejects) == []
    assert peak < 64 << 20


@pytest.mark.parametrize("kind", ["text/html", "application/xhtml+xml"])
def test_the_content_encodings_of_a_page_are_undone_or_said_to_be_none_that_can_be_read(
    kind: str, tmp_path: Path
) -> None:
    page = b"<html><head><title/></head><body><p>" + b"Words of the page. " * 50 + b"</p></body></html>"
    page = page if "xhtml" in kind else page.replace(b"<title/>", b"")
    raw = zlib.compressobj(wbits=-15)
    bodies = [
        ("gzip", gzip.compress(page)),
        ("deflate", zlib.compress(page)),
        ("deflate", raw.compress(page) + raw.flush()),
        ("deflate", page),
        ("br", page),
        ("br", bytes(range(128, 255)) * 3),
        ("deflate", zlib.compress(random.Random(1).randbytes(9000))[:5000]),
        ("deflate", zlib.compress(b" " * (9 << 20))),
        ("deflate", b"\xff" * 90),
    ]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: "
    records = [f"{head}{encoding}\r\n\r\n".encode() + body for encoding, body in bodies]
    corpora.write_warc(
        tmp_path / "a.warc.gz", [corpora.warc_record("response", "https://e.org", record) for record in records]
    )
    found = everything(placed(tmp_path, "warc"))
    assert [raw.text.count("Words of the page.") for raw in docs(found)] == [50] * 5
    assert reasons(found) == ["bad-record", "truncated-archive", "unpacks-too-large", "damaged-file"]


WORDPROCESSING = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
FOOTNOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"


def with_docx_body(body: bytes, notes: bytes | None = None, at: str = "footnotes.xml", relations: int = 1) -> bytes:
    """A DOCX of this body, with footnotes in a part of that name, to which so many relationships lead."""
    whole, made = io.BytesIO(corpora.docx_bytes("T", "x")), io.BytesIO()
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    override = f'<Override PartName="/word/{at}" ContentType="{kind}"/></Types>'
    relation = "".join(f'<Relationship Id="n{n}" Type="{FOOTNOTES}" Target="{at}"/>' for n in range(relations))
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/document.xml":
                data = data.partition(b"<w:body>")[0] + b"<w:body>" + body + b"</w:body></w:document>"
            if notes is not None and name == "[Content_Types].xml":
                data = data.replace(b"</Types>", override.encode())
            if notes is not None and name == "word/_rels/document.xml.rels":
                data = data.replace(b"</Relationships>", f"{relation}</Relationships>".encode())
            new.writestr(name, data)
        if notes is not None:
            new.writestr(f"word/{at}", notes)
    return made.getvalue()


def footnotes(inner: str) -> bytes:
    return f'<w:footnotes xmlns:w="{WORDPROCESSING}">{inner}</w:footnotes>'.encode()


def test_a_docx_whose_tags_would_fill_memory_is_a_reject_before_they_are_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(with_docx_body(b'<w:p w:a="" w:b="" w:c=""/>' * 800_000))
    assert reasons(everything(placed(tmp_path, "files"))) == ["unpacks-too-large"]


def test_words_in_paragraphs_within_one_another_stand_once(tmp_path: Path) -> None:
    names = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
    drawn = f"<w:r><w:drawing><a:txBody {names}><a:p><a:r><a:t> drawn</a:t></a:r></a:p></a:txBody></w:drawing></w:r>"
    body = (
        "<w:p>" * 50
        + f"<w:r><w:t>within</w:t></w:r>{drawn}"
        + "</w:p><w:p><w:r><w:t>behind</w:t></w:r></w:p>"
        + "</w:p>" * 49
    )
    (tmp_path / "a.docx").write_bytes(with_docx_body(body.encode()))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "within drawn\n\nbehind"


def test_notes_to_which_many_relationships_lead_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import docx

    notes = '<w:footnote w:id="2"><w:p><w:r><w:t>small</w:t></w:r></w:p></w:footnote>' * 2000
    body = b'<w:p><w:r><w:t>words</w:t><w:footnoteReference w:id="2"/></w:r></w:p>'
    (tmp_path / "a.docx").write_bytes(with_docx_body(body, footnotes(notes), relations=4000))
    parse, begun = docx.oxml.parse_xml, []

    def counted(blob: bytes) -> object:
        begun.append(blob[:12])
        return parse(blob)

    monkeypatch.setattr(docx.oxml, "parse_xml", counted)
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "words[small]"
    assert begun == [b"<w:footnotes"]


@pytest.mark.parametrize("at", ["footnotes.xml", "footnotes.bin"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf \n"])
def test_notes_whose_tags_would_fill_memory_are_a_reject_whatever_their_part_is_called(
    tmp_path: Path, at: str, before: bytes
) -> None:
    notes = before + footnotes("<a/>" * 2_500_000)
    (tmp_path / "a.docx").write_bytes(with_docx_body(b"<w:p/>", notes, at))
    assert reasons(everything(placed(tmp_path, "files"))) == ["unpacks-too-large"]


@pytest.mark.parametrize("encoding", ["UTF-7", "utf-8", "US-ASCII", "ISO-8859-1"])
def test_tags_that_their_encoding_hides_are_reckoned_as_many_as_there_may_be(tmp_path: Path, encoding: str) -> None:
    def notes(inner: str) -> bytes:
        data, head = footnotes(inner), f"<?xml version='1.0' encoding='{encoding}'?>".encode()
        return head + (data.replace(b"<", b"+ADw-").replace(b">", b"+AD4-") if encoding == "UTF-7" else data)

    body = b'<w:p><w:r><w:t>words</w:t><w:footnoteReference w:id="2"/></w:r></w:p>'
    few = '<w:footnote w:id="2"><w:p><w:r><w:t>small</w:t></w:r></w:p></w:footnote>'
    (tmp_path / "a.docx").write_bytes(with_docx_body(body, notes(few)))
    (tmp_path / "b.docx").write_bytes(with_docx_body(body, notes(few + "<a/>" * 2_500_000)))
    found = everything(placed(tmp_path, "files"))
    assert [raw.text for raw in docs(found)] == ["words[small]"]
    assert reasons(found) == ["unpacks-too-large"]


@pytest.mark.parametrize("notes", [b"", footnotes("")[:-9], b"\xff\xfe\0"])
def test_a_docx_whose_notes_cannot_be_read_is_a_reject_that_names_them(tmp_path: Path, notes: bytes) -> None:
    (tmp_path / "a.docx").write_bytes(with_docx_body(b"<w:p><w:r><w:t>words</w:t></w:r></w:p>", notes))
    (reject,) = everything(placed(tmp_path, "files"))
    assert isinstance(reject, RawReject)
    assert reject.reason == "unreadable-file"
    assert "'/word/footnotes.xml'" in reject.detail


def test_a_cell_that_claims_many_columns_or_rows_stands_once(tmp_path: Path) -> None:
    def cell(properties: str, words: str) -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p><w:r><w:t>{words}</w:t></w:r></w:p></w:tc>"

    wide = cell('<w:gridSpan w:val="2000000000"/>', "wide") + cell("", "b")
    rows = [wide, cell('<w:vMerge w:val="restart"/>', "tall") + cell("", "0")]
    rows += [cell("<w:vMerge/>", "") + cell("", str(number)) for number in range(1, 2000)]
    table = "".join(f"<w:tr>{row}</w:tr>" for row in rows)
    (tmp_path / "a.docx").write_bytes(with_docx_body(f"<w:tbl>{table}</w:tbl>".encode()))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text.splitlines()[:4] == ["wide | b", "tall | 0", " | 1", " | 2"]
    assert len(found.text.splitlines()) == 2001


XHTML = [
    "<head><title/></head><body><p>one</p><p>and on</p></body>",
    '<head><title>x</title><script src="a.js"/><style type="text/css" /></head><body><p>two</p><p>and on</p></body>',
    '<head><title>x</title></head><body><p>three<br/></p><iframe src="x"/><textarea/><p>and on</p></body>',
    "<head><title>x</title></head><body><p>four</p>" + '<a id="p"/><i/>' * 1200 + "<p>and on</p></body>",
]


def test_a_tar_of_books_reads_both_kinds_and_says_when_it_holds_neither(tmp_path: Path) -> None:
    epub = corpora.epub_bytes("A Study", ["First words.", "Last words."])
    members = [
        ("b/One.txt", b"One text."),
        ("b/two.epub", epub),
        ("b/bad.epub", b"PK no zip"),
        ("b/cover.jpg", b"\xff"),
    ]
    (tmp_path / "a.tar").write_bytes(corpora.tar_bytes(members))
    (tmp_path / "b.tar.gz").write_bytes(corpora.tar_bytes([("a.html", b"<p>x"), ("b.html", b"<p>y")], "w:gz"))
    found = everything(placed(tmp_path, "books"))
    assert [raw.title for raw in docs(found)] == ["One", "A Study"]
    assert docs(found)[1].text.endswith("Last words.")
    assert reasons(found) == ["damaged-file", "empty"]
    assert isinstance(found[-1], RawReject)
    assert "no .txt or .epub in it; it holds .html 2" in found[-1].detail


@pytest.mark.parametrize("kind", ["books", "files"])
def test_a_book_whose_pages_are_encrypted_is_a_reject_and_one_with_encrypted_fonts_is_read(
    kind: str, tmp_path: Path
) -> None:
    listed = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<e:EncryptedData xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherData>'
        '<e:CipherReference URI="%s"/></e:CipherData></e:EncryptedData></encryption>'
    )
    for name, member in (("sold", "OEBPS/c1.xhtml"), ("fonts", "OEBPS/fonts/a%20b.otf")):
        (tmp_path / f"{name}.epub").write_bytes(corpora.epub_bytes(name, ["One.", "Two."]))
        with zipfile.ZipFile(tmp_path / f"{name}.epub", "a") as archive:
            archive.writestr("META-INF/encryption.xml", listed % member)
    found = everything(placed(tmp_path, kind))
    assert [raw.title for raw in docs(found)] == ["fonts"]
    (locked,) = (raw for raw in found if isinstance(raw, RawReject))
    assert locked.reason == "unreadable-file"
    assert "sold.epub" in locked.detail
    assert "DRM" in locked.detail


@pytest.mark.parametrize("mark", ["THE", "THIS"])
def test_project_gutenbergs_header_and_licence_are_no_part_of_a_book(mark: str, tmp_path: Path) -> None:
    own = "CHAPTER I\n\n*** A star, and more. ***\n\nThe end."
    book = (
        f"\ufeffThe Project Gutenberg eBook of Emma\r\n\r\n*** START OF {mark} PROJECT GUTENBERG EBOOK EMMA,\r\nBY J. AUSTEN ***\r\n\r\n"
        + own.replace("\n", "\r\n")
        + f"\r\n\r\n*** END OF {mark} PROJECT GUTENBERG EBOOK EMMA ***\r\n\r\nSTART: FULL LICENSE\r\n"
    )
    (tmp_path / "Emma.txt").write_bytes(book.encode())
    (tmp_path / "a.tar").write_bytes(corpora.tar_bytes([("b/Emma.txt", book.encode()), ("b/Own.txt", own.encode())]))
    assert [raw.text for raw in docs(everything(placed(tmp_path, "books")))] == [own, own, own]


def test_a_book_that_only_speaks_of_project_gutenbergs_lines_is_whole(tmp_path: Path) -> None:
    text = "It begins with *** START OF THE PROJECT GUTENBERG EBOOK, they said.\n\n" + "Words.\n" * 9000
    (tmp_path / "a.txt").write_text(text + "*** END OF THE BOOK ***")
    (raw,) = docs(everything(placed(tmp_path, "books")))
    assert raw.text == text + "*** END OF THE BOOK ***"


def test_documents_between_blank_lines_are_the_same_whatever_ends_their_lines(tmp_path: Path) -> None:
    text = "\n第一行。\n第二行。\n\n\n另一篇。\n末行。\n"
    for name, ends in (("unix", "\n"), ("dos", "\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(text.replace("\n", ends).encode())
    unix, dos = (docs(everything(placed(tmp_path / name, "blocks", lang="zh"))) for name in ("unix", "dos"))
    assert [raw.text for raw in unix] == [raw.text for raw in dos] == ["第一行。\n第二行。", "另一篇。\n末行。"]


def test_what_a_library_logs_about_a_broken_pdf_stays_out_of_the_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = corpora.pdf_bytes("T", ["words"] * 50)
    (tmp_path / "a.pdf").write_bytes(whole[: len(whole) // 2])
    everything(placed(tmp_path, "files"))
    assert caplog.records == []


def test_what_xhtml_closes_in_one_tag_swallows_no_page(tmp_path: Path) -> None:
    pages = [f'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml">{page}</html>' for page in XHTML]
    book = io.BytesIO(corpora.epub_bytes("T", ["x"] * len(pages)))
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(tmp_path / "a.epub", "w") as new:
        for name in old.namelist():
            number = name.removeprefix("OEBPS/c").removesuffix(".xhtml")
            new.writestr(name, pages[int(number)] if number.isdigit() else old.read(name))
    for number, page in enumerate(pages):
        (tmp_path / f"{number}.{'xhtml' if number % 2 else 'html'}").write_text(page)
    first, second, third, fourth, whole = (raw.text.split() for raw in docs(everything(placed(tmp_path, "files"))))
    assert [first, second, third, fourth] == [[word, "and", "on"] for word in ("one", "two", "three", "four")]
    assert whole == [*first, *second, *third, *fourth]


def test_files_of_other_kinds_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.txt", "b.doc", "c.DOC", "sub/d.odt", "README", ".hidden.doc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    for kind in ("files", "text"):
        source = placed(tmp_path, kind)
        assert skipped(source, partitions(source)) == {".doc": 2, ".odt": 1, "no suffix": 1}
    named = placed(tmp_path / "a.txt", "files")
    assert skipped(named, partitions(named)) == {}


def test_of_many_kinds_of_other_files_the_rarest_are_counted_together(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"a.{number:03d}").touch()
    for name in ("a.txt", "b.doc", "c.doc"):
        (tmp_path / name).write_text("words")
    source = placed(tmp_path, "text")
    found = skipped(source, partitions(source))
    assert list(found.items())[:2] == [(".doc", 2), (".000", 1)]
    assert (len(found), found["others"]) == (21, 11)


def test_insertions_and_content_controls_of_a_docx_are_text_and_deletions_are_none(tmp_path: Path) -> None:
    def run(words: str) -> str:
        return f"<w:r><w:t>{words}</w:t></w:r>"

    def control(inner: str) -> str:
        return f"<w:sdt><w:sdtPr/><w:sdtContent>{inner}</w:sdtContent></w:sdt>"

    inline = f"{run('one ')}<w:ins>{run('two')}</w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
    inline += (
        control(run(" three"))
        + "<w:r><w:tab/><w:t>four</w:t><w:br/></w:r>"
        + f"<w:hyperlink>{run('five')}</w:hyperlink>"
    )
    table = f"<w:tbl><w:tr><w:tc><w:p>{run('a')}</w:p></w:tc><w:tc><w:p><w:ins>{run('b')}</w:ins></w:p></w:tc></w:tr></w:tbl>"
    body = f"<w:p>{inline}</w:p>" + control(f"<w:p>{run('six')}</w:p>{control(table)}")
    (tmp_path / "a.docx").write_bytes(with_docx_body(body.encode()))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "one two three\tfour\nfive\n\nsix\n\na | b"


def test_notes_and_text_boxes_of_a_docx_stand_once_and_where_they_belong(tmp_path: Path) -> None:
    import docx
    from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part
    from docx.oxml import parse_xml

    names = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml" '
        'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    )

    def reference(kind: str, number: int) -> str:
        return f'<w:r><w:{kind}Reference w:id="{number}"/></w:r>'

    def box(words: str) -> str:
        content = f"<w:txbxContent><w:p><w:r><w:t>{words}</w:t></w:r></w:p></w:txbxContent>"
        return (
            f'<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:wsp><wps:txbx>{content}</wps:txbx></wps:wsp>'
            f"</w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox>{content}</v:textbox></w:pict></mc:Fallback>"
            "</mc:AlternateContent></w:r>"
        )

    document = docx.Document()
    inside = f"<w:r><w:t>Held</w:t></w:r>{reference('footnote', 2)}{box('Beside.')}<w:r><w:t> so.</w:t></w:r>{reference('endnote', 2)}"
    document.element.body.insert(0, parse_xml(f"<w:p {names}>{inside}{reference('footnote', 2)}</w:p>"))
    cell = document.add_table(rows=1, cols=2).rows[0].cells[1]
    cell.text = "in a cell"
    for inner in parse_xml(f"<w:p {names}>{reference('footnote', 3)}{box('boxed')}</w:p>"):
        cell.paragraphs[0]._p.append(inner)
    for kind, relation, content in (
        ("footnote", RELATIONSHIP_TYPE.FOOTNOTES, CONTENT_TYPE.WML_FOOTNOTES),
        ("endnote", RELATIONSHIP_TYPE.ENDNOTES, CONTENT_TYPE.WML_ENDNOTES),
    ):
        notes = "".join(
            f'<w:{kind} w:id="{n}"><w:p><w:r><w:t>{kind} {n}</w:t></w:r></w:p><w:p><w:r><w:t>on</w:t></w:r></w:p></w:{kind}>'
            for n in (2, 3)
        )
        separator = f'<w:{kind} w:type="separator" w:id="0"><w:p><w:r><w:separator/></w:r></w:p></w:{kind}>'
        data = f"<w:{kind}s {names}>{separator}{notes}</w:{kind}s>".encode()
        document.part.relate_to(Part(PackURI(f"/word/{kind}s.xml"), content, data, document.part.package), relation)
    document.save(str(tmp_path / "a.docx"))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "Held[footnote 2 on] so.[endnote 2 on]\n\nBeside.\n\n | in a cell[footnote 3 on] boxed"


def test_rows_and_cells_of_a_docx_in_content_controls_are_text(tmp_path: Path) -> None:
    import docx
    from docx.oxml import OxmlElement

    def control(*elements: Any) -> None:
        """A content control around them, as Word has them for repeated rows and for cells of a form."""
        outer, content = OxmlElement("w:sdt"), OxmlElement("w:sdtContent")
        outer.append(OxmlElement("w:sdtPr"))
        elements[0].addprevious(outer)
        outer.append(content)
        for element in elements:
            content.append(element)

    document = docx.Document()
    table = document.add_table(rows=4, cols=2)
    for row, words in zip(table.rows, ("Part Weight", "rotor 3kg", "pump 5kg", "Sum 8kg"), strict=True):
        for cell, word in zip(row.cells, words.split(), strict=True):
            cell.text = word
    rows = [row._tr for row in table.rows]
    control(rows[0].tc_lst[1])
    control(rows[1], rows[2])
    control(rows[2])
    control(rows[3].tc_lst[0])
    document.save(str(tmp_path / "a.docx"))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "Part | Weight\nrotor | 3kg\npump | 5kg\nSum | 8kg"


def test_headings_and_lists_of_a_docx_keep_their_marks(tmp_path: Path) -> None:
    import docx

    document = docx.Document()
    document.add_heading("Part", level=2)
    document.add_paragraph("plain")
    document.add_paragraph("item", style="List Bullet")
    document.styles.add_style("Heading ²", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    document.add_paragraph("squared", style="Heading ²")
    document.save(str(tmp_path / "a.docx"))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "## Part\n\nplain\n\n- item\n\nsquared"


@pytest.mark.parametrize("method", ["FILTER_DEFLATE", "FILTER_BZIP2", "FILTER_LZMA2"])
def test_a_7z_that_unpacks_without_end_is_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import py7zr

    preset = {"preset": 0} if method == "FILTER_LZMA2" else {}
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w", filters=[{"id": getattr(py7zr, method), **preset}]) as archive:
        archive.writestr(b"x" * (64 << 20), "Posts.xml")
    monkeypatch.setattr(stackexchange, "FREE_BYTES", 8 << 20)
    assert reasons(everything(placed(tmp_path, "stackexchange"))) == ["unpacks-too-large"]


@pytest.mark.parametrize(("window", "expected"), [(b"\x1c", []), (b"\x24", ["unpacks-too-large"])])
def test_a_7z_that_asks_for_a_window_of_a_gigabyte_is_a_reject(
    tmp_path: Path, window: bytes, expected: list[str]
) -> None:
    """Made with 64 MiB and changed in the header alone: to pack with a gigabyte would take eleven."""
    import py7zr

    packed = io.BytesIO()
    filters = [{"id": py7zr.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
    with py7zr.SevenZipFile(packed, "w", filters=filters) as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(corpora.posts_xml(corpora.thread_rows([("T", "x")])), "Posts.xml")
    data = packed.getvalue()
    at = 32 + int.from_bytes(data[12:20], "little")
    header = data[at:].replace(b"\x21\x21\x01\x1c", b"\x21\x21\x01" + window)
    start = data[12:28] + zlib.crc32(header).to_bytes(4, "little")
    (tmp_path / "a.7z").write_bytes(data[:8] + zlib.crc32(start).to_bytes(4, "little") + start + data[32:at] + header)
    assert reasons(everything(placed(tmp_path, "stackexchange"))) == expected


def test_rows_that_share_a_large_text_are_not_all_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text stands once in the dictionary of a Parquet file, however many rows name it."""
    texts = [f"{number % 3} " + "word " * 20_000 for number in range(300)]
    columns = {"text": texts, "repo_name": ["o/r"] * 300, "path": [f"{number}.py" for number in range(300)]}
    pq.write_table(pa.table(columns | {"content": texts}), tmp_path / "a.parquet", row_group_size=100)
    expected = everything(placed(tmp_path, "parquet", title=None))
    assert len(docs(expected)) == 300
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        (first,) = row_batches.footer(tmp_path / "a.parquet", file, [0], ["text"])
        assert row_batches.rows_at_once(tmp_path / "a.parquet", file, first, ["text"]) == row_batches.BATCH_ROWS
        monkeypatch.setattr(row_batches, "BATCH_BYTES", 1 << 20)
        assert row_batches.rows_at_once(tmp_path / "a.parquet", file, first, ["text"]) == 3
        sizes = [len(batch) for batch in row_batches.row_batches(tmp_path / "a.parquet", file, [0, 2], ["text"])]
    assert sum(sizes) == 200
    assert max(sizes) == 3
    assert everything(placed(tmp_path, "parquet", title=None)) == expected
    (repository,) = docs(everything(placed(tmp_path, "github", license=None)))
    assert repository.text.count("==> ") == 300


def test_texts_beyond_all_sizes_in_parquet_are_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 1 << 20)
    monkeypatch.setattr(row_batches, "FREE_BYTES", 1 << 20)
    columns = {"title": ["a", "b"], "text": ["x" * ((1 << 20) + 1), "fits"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="none")
    found = everything(placed(tmp_path, "parquet"))
    assert reasons(found) == ["too-large"]
    assert [raw.text for raw in docs(found)] == ["fits"]
    columns["text"] = ["x" * (4 << 20), "y" * (4 << 20)]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    (bomb,) = everything(placed(tmp_path, "parquet"))
    assert isinstance(bomb, RawReject)
    assert bomb.reason == "damaged-file"
    assert "expected text" in bomb.detail


def test_gated_books_need_the_acknowledgement(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("text")
    recipe = "name: b\nversion: 1.0.0\nsources:\n  - {card: books, path: books%s}\nsample: {count: 1}\n"
    path = tmp_path / "r.yaml"
    for given_ in ("", ", acknowledge: yes please"):
        path.write_text(recipe % given_)
        with pytest.raises(RecipeError, match=r"r\.yaml:4: .*gated.*acknowledge: LicenseRef-Books-all-rights-reserved"):
            load_recipe(path)
    path.write_text(recipe % ", acknowledge: LicenseRef-Books-all-rights-reserved")
    assert load_recipe(path).sources[0].card.id == "books"


@settings(max_examples=60)
@given(lines=st.lists(st.sampled_from(["", " ", "ab", "€uro", "x\r", "字"]), max_size=24), size=st.integers(1, 30))
def test_every_block_is_read_once_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], size: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    monkeypatch.setattr(blocks, "RANGE_BYTES", 1 << 30)
    whole = everything(placed(path, "blocks"))
    monkeypatch.setattr(blocks, "RANGE_BYTES", size)
    monkeypatch.setattr(blocks, "PIECE_BYTES", 1 + size // 2)
    assert everything(placed(path, "blocks")) == whole
    monkeypatch.undo()
    kept = "".join(line.strip() for line in lines)
    assert "".join("".join(raw.text.split()) for raw in docs(whole)) == kept


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_packed_blocks_are_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    data = "一\n行\n\n二\n\n\n三".encode()
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(data))
    (tmp_path / "b.txt").write_bytes(data)
    packed, plain = (docs(everything(placed(tmp_path / name, "blocks"))) for name in (f"a.txt{suffix}", "b.txt"))
    assert [raw.text for raw in packed] == [raw.text for raw in plain] == ["一\n行", "二", "三"]


@pytest.mark.parametrize("blank", [b"\n", b" ", b" \n", b"\r\n"])
def test_white_space_without_end_between_blocks_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: bytes
) -> None:
    monkeypatch.setattr(blocks, "PIECE_BYTES", 5000)
    path = tmp_path / "a.txt"
    path.write_bytes(blank * 100_000 + b"\n\none\n\n" + blank * 900_000 + b"\n\ntwo\n")
    (partition,) = partitions(placed(path, "blocks"))
    tracemalloc.start()
    found = list(read(partition))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [raw.text for raw in docs(found)] == ["one", "two"]
    for raw in docs(found):
        begin = int(raw.source_ref.split("@")[1])
        assert path.read_bytes()[begin:].lstrip().startswith(raw.text.encode())
    assert peak < (1 << 20) * 3.5


@settings(max_examples=80)
@given(
    values=st.lists(
        st.dictionaries(st.sampled_from(["content", "title", 'k"\\']), st.text(alphabet='ab"\\{}[],é字\n', max_size=9)),
        max_size=9,
    ),
    size=st.integers(1, 60),
    indent=st.sampled_from([None, 1]),
)
def test_every_object_of_an_array_is_read_once_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[dict[str, str]], size: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", size)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values, ensure_ascii=False, indent=indent), encoding="utf-8")
    found = everything(placed(path, "json"))
    assert len(found) == len(values)
    assert [raw.text for raw in docs(found)] == [text for value in values if (text := value.get("content", "")).strip()]


def test_what_stands_between_the_objects_of_an_array_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"content": "one"}, "two", 3, {"content": "four"}, [5], null]')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "four"]
    assert reasons(found) == ["not-an-object"] * 3
    assert len({raw.source_ref for raw in found}) == 5


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_arrays_that_follow_each_other_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", size)
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n[{"content": "two"}, {"content": "three"}]\n\n[]\n')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "two", "three"]
    assert reasons(found) == []
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n{"content": "two"}\n[{"content": "three"}]')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one"]
    assert reasons(found) == ["bad-json"]
    (tmp_path / "a.json").write_text('[{"content": "one"}]\n[{"content": "two"}')
    found = everything(placed(tmp_path / "a.json", "json"))
    assert [raw.text for raw in docs(found)] == ["one", "two"]
    assert reasons(found) == ["damaged-file"]


def test_many_broken_objects_are_not_parsed_again_behind_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To parse what is left anew behind each would take the square of their number."""
    count = 40_000
    (tmp_path / "a.json").write_text("[" + ",".join(["{x}"] * count) + ', {"content": "last"}]')
    parsed, begun = json_array._parsed, []

    def counted(piece: bytes, at: int, base: int) -> Generator[tuple[int, object], None, int]:
        begun.append(base + at)
        return parsed(piece, at, base)

    monkeypatch.setattr(json_array, "_parsed", counted)
    found = everything(placed(tmp_path / "a.json", "json"))
    assert len(begun) == 1
    assert len(found) == count + 1
    assert [raw.text for raw in docs(found)] == ["last"]


@settings(max_examples=80)
@given(
    data=st.binary(max_size=400) | st.text(alphabet='[]{}",:a\\ ', max_size=40).map(str.encode),
    where=st.integers(0, 300),
)
@example(data=b"} ", where=38)
def test_no_bytes_inside_a_json_array_stop_the_reader(tmp_path: Path, data: bytes, where: int) -> None:
    whole = b'[{"content": "one [x] \\" {", "title": "a"}, {"content": "two"}]'
    path = tmp_path / "a.json"
    path.write_bytes(whole[:where] + data + whole[where:])
    everything(placed(path, "json"))


def test_a_giant_line_and_a_giant_book_stay_below_a_gigabyte(tmp_path: Path) -> None:
    """A one-line JSON array of 300 MB and a book of 200 MB, in a process of their own."""
    with (tmp_path / "a.json").open("wb") as file:
        file.write(b'[{"content": "')
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b'"}]')
    with (tmp_path / "b.txt").open("wb") as file:
        for _ in range(200):
            file.write(b"word " * (1 << 18))
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from longalign_data.catalog import Card\nfrom longalign_data.recipe import PlacedSource\n"
        "from longalign_data.sources.readers import partitions, read\n"
        "for kind, name in (('json', 'a.json'), ('books', 'b.txt')):\n"
        "    card = Card.model_validate({'id': 's', 'title': 'S', 'lang': 'en', 'license': 'x', 'reader': {'kind': kind}})\n"
        "    placed = PlacedSource(card=card, path=str(Path(sys.argv[1]) / name))\n"
        "    print([raw.reason for p in partitions(placed) for raw in read(p)])\n"
        # ru_maxrss would begin with what the process had resident that started this one.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=600, check=True
    )
    first, second, peak = done.stdout.splitlines()
    assert (first, second) == ("['too-large']", "['too-large']")
    assert int(peak) < 1 << 20


def test_rows_of_a_repository_in_several_files_come_together_as_the_page_on_scale_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    (tmp_path / "data").mkdir()
    for part in range(3):
        rows = {"repo_name": ["a", "b", "c"], "path": [f"{part}.py"] * 3, "content": ["x = 1\n"] * 3}
        pq.write_table(pa.table(rows), tmp_path / "data" / f"{part}.parquet")
    assert len(docs(everything(placed(tmp_path / "data", "github", license=None)))) == 9
    page = (Path(__file__).parent.parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    command = page.split("```sql\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(command)
    found = docs(everything(placed(tmp_path / "grouped" / "*" / "*.parquet", "github", license=None)))
    assert sorted((raw.title, raw.text.count("==> ")) for raw in found) == [("a", 3), ("b", 3), ("c", 3)]
