"""Pages of the web, in WARC files and by themselves: what is a page, and in which encoding."""

import gzip
import io
import random
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


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


@pytest.mark.parametrize("before", ["<script charset=utf-8></script>", f"<style>{'x' * 5000}</style>"])
@pytest.mark.parametrize(
    "meta", ["<META CHARSET={}>", "<meta http-equiv=content-type content='text/html; charset={}'>"]
)
def test_scripts_and_styles_before_it_do_not_hide_what_a_page_says_of_its_encoding(
    before: str, meta: str, tmp_path: Path
) -> None:
    # Too few letters outside ASCII for a guess.
    page = f"<html><head>{before}{meta.format('windows-1257')}</head><body>Ąžuolas žaliuoja</body></html>"
    (tmp_path / "a.html").write_bytes(page.encode("cp1257"))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "Ąžuolas žaliuoja"


@pytest.mark.parametrize(
    ("declared", "meta"),
    [
        (" encoding='windows-1257'", "utf-8"),
        (' encoding = "windows-1257" standalone="yes"', "iso-8859-1"),
        ("", "windows-1257"),
    ],
)
def test_what_xml_declares_of_its_encoding_stands_above_what_its_head_says(
    declared: str, meta: str, tmp_path: Path
) -> None:
    head = f"<head><meta http-equiv='Content-Type' content='text/html; charset={meta}'/></head>"
    page = f"<?xml version='1.0'{declared}?>\n<html>{head}<body><p>Ąžuolas žaliuoja</p></body></html>"
    for suffix in ("html", "xhtml"):
        (tmp_path / f"a.{suffix}").write_bytes(page.encode("cp1257"))
    found = docs(everything(placed(tmp_path, "files")))
    assert [raw.text for raw in found] == ["Ąžuolas žaliuoja"] * 2


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


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<html><head><TITLE lang=en>\n  Pumps &amp; valves &#8211;\n the manual </TITLE></head><body>", "Pumps & valves \u2013 the manual"),
        ('<?xml version="1.0"?><html><head><title>Pumps</title><link href="a"/></head><body>', "Pumps"),
        ("<title>Pumps</title>", "Pumps"),
        ('<?xml version="1.0"?><html><head><title/></head><body>', "a"),
        ("<html><head></head><body><svg><title>an icon</title></svg>", "a"),
        ("<html><body><title>no title</title>", "a"),
        ("<title> </title>", "a"),
        ("<body><h2>Menu</h2><h1 id=x><a href='#x'>Pumps</a> &amp;\n<em>valves</em></h1><h1>More</h1>", "Pumps & valves"),
        ("<html><head><title>Pumps</title></head><body><h1>Chapter 1</h1>", "Pumps"),
        (f"<body><h1>{'Pumps ' * 500}</h1>", "a"),
        ("<head><!-- <title>Old</title><body> --><!--><title>Pumps</title><!---->", "Pumps"),
        ("<head><SCRIPT src=a>'<title>No</title>'</script ><title>Pumps</title>", "Pumps"),
        ("<head><style>a { background: url('data:image/svg+xml,<svg />') }</style><title>Pumps</title>", "Pumps"),
        ("<body><!-- <h1>Old</h1> --><script>'<h1>No</h1>'</script><h1>Pumps</h1>", "Pumps"),
        ("<body><h1><img src=logo></h1>", "a"),
        ("<body><h1>Pumps", "a"),
    ],
)  # fmt: skip
def test_a_page_among_files_has_its_own_title_or_its_files_name(head: str, title: str, tmp_path: Path) -> None:
    for suffix in ("html", "htm", "xhtml"):
        (tmp_path / f"a.{suffix}").write_text(f"{head}<p>Words.</p>")
    found = docs(everything(placed(tmp_path, "files")))
    assert {raw.title for raw in found} == {title}


def test_a_number_that_stands_high_is_told_from_the_one_before_it(tmp_path: Path) -> None:
    body = "10<sup>6</sup> m<SUP class=x> −2 </SUP> 2<sup>n</sup> H<sub>2</sub>O the 1<sup>st</sup>, &lt;sup>3&lt;/sup>"
    (tmp_path / "a.html").write_text(f"<p>{body}</p>")
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == "10^6 m^ −2 2^n H2O the 1st, <sup>3</sup>"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "Add 2 <sup>1</sup>/<sub>2</sub> cups, 1<sup>3</sup>&frasl;<sub>4</sub> of it",
            "Add 2 1/2 cups, 1 3\u20444 of it",
        ),
        ("x<sup>1</sup>/<sub>2</sub>, 3 m<sup>2</sup>/s, 10<sup>6</sup> / 5", "x^1/2, 3 m^2/s, 10^6 / 5"),
        ("<sup>1</sup> See Jones.", "1 See Jones."),
        ("<a id=n1><sup>1</sup></a> See Jones.<br><sup>2</sup> And Doe.", "1 See Jones.\n2 And Doe."),
        ("Jones<a href='#n1'><sup>1</sup></a> says so.<sup>2</sup>", "Jones^1 says so.^2"),
        ("<i>m</i><sup>2</sup>, (a+b)<sup>2</sup>, |x|<sup>2</sup>, &pi;<sup>2</sup>", "m^2, (a+b)^2, |x|^2, \u03c0^2"),
        ("the <sup>14</sup>C of&nbsp;<sup>2</sup>H", "the 14C of\xa02H"),
    ],
)
def test_a_number_that_stands_high_behind_nothing_or_in_a_fraction_has_no_sign_of_a_power(
    body: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "a.html").write_text(f"<p>{body}</p>", encoding="utf-8")
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == text
