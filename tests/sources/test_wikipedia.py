"""Dumps of MediaWiki: which pages are read, in which ranges, and what their markup becomes."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from longalign_data.errors import SourceError
from longalign_data.sources.readers import (
    partitions,
    read,
    wikipedia,
)
from longalign_data.sources.readers.wikitext import choose_variant, plain_text
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


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
        ("It holds{{NumBlk|:|<math>a=b</math>|1}}for {{tmath|x^2}}, B{{music|flat}} major, F{{Music|sharp}} in {{music|time|3|4}}, {{sqrt|2}}.",
         "It holds\n$a=b$\nfor $x^2$, B♭ major, F♯ in 3/4, √2."),
        ("{{poem quote|Shall I}} {{pull quote|compare}} {{block indent|thee}}{{center|to}} a {{sclass|Essex|aircraft carrier}}",
         "Shall I\n\ncompare\n\nthee\nto a Essex-class aircraft carrier"),
        ("{{birth date|1815|12|10}}, {{death date and age|1852|11|27|1815|12|10}}, {{start date|2001}}", "1815-12-10, 1852-11-27, 2001"),
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
    ("wikitext", "text"),
    [
        ("{|\n|+ A table\n! Year !! Pop\n|-\n| 1900 || + 5\n|}", "A table\nYear | Pop\n1900 | + 5"),
        ("{|\n|+style=x | A table\n|-\n! Year\n|-\n| 1900\n|}", "A table\nYear\n1900"),
        ("{|\n|+Near\n| a || b\n|-\n| c\n|}", "Near\na | b\nc"),
        ("; term : what it is\n; next\n: and this\n:: deep", "term\n   what it is\n next\n   and this\n     deep"),
        ("Call malloc() or <code>free( )</code>. ({{x}}; born 1900) a ({{x}}) b北京({{x}}),（{{x}}）.",
         "Call malloc() or free( ). (born 1900) a b北京,."),
        ("<syntaxhighlight lang=c>\nint main() {\n  f(\n    a);\n}\n</syntaxhighlight>", "int main() {\n  f(\n    a);\n}"),
        ("<pre>f(\n  x)</pre> <nowiki>( ; )</nowiki>", "f(\n  x)\n ( ; )"),
        ("\ue000\ue863 &#xE000; <code>f(\ue000)</code>", "\ue000\ue863 \ue000 f(\ue000)"),
        ("a\uffff b&#xFFFF; <code>f(\uffff&#65535;)</code>", "a b f()"),
    ],
)  # fmt: skip
def test_captions_terms_and_brackets_of_programs_stand_as_a_reader_sees_them(wikitext: str, text: str) -> None:
    import mwparserfromhell

    assert plain_text(wikitext, mwparserfromhell.parse) == text


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
