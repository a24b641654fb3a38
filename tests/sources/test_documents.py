"""Files of offices and folders: DOCX, PDF, HTML and what stands beside them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from longalign_data.sources.readers import (
    partitions,
    skipped,
)
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


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


def test_a_reject_says_what_the_file_is(tmp_path: Path) -> None:
    container = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 2000
    whole = corpora.pdf_bytes("T", ["words"] * 99)
    files = {
        "cut.pdf": whole[: len(whole) // 2],
        "locked.docx": container + "EncryptedPackage".encode("utf-16-le") + b"\0" * 500,
        "nothing.docx": b"",
        "nothing.pdf": b"",
        "nothing.txt": b"",
        "old.pptx": container,
        "page.pdf": b"<!DOCTYPE html><html><body><p>words</p></body></html>",
        "text.docx": b"words",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = {raw.source_ref: raw for raw in everything(placed(tmp_path, "files")) if isinstance(raw, RawReject)}
    assert {name: raw.reason for name, raw in found.items()} == {
        **dict.fromkeys(("cut.pdf", "locked.docx", "old.pptx", "page.pdf"), "unreadable-file"),
        **dict.fromkeys(("nothing.docx", "nothing.pdf", "nothing.txt"), "empty"),
        "text.docx": "damaged-file",
    }
    assert "locked with a password" in found["locked.docx"].detail
    assert "Office 97 to 2003" in found["old.pptx"].detail
    assert "does not begin as a PDF does (%PDF-)" in found["page.pdf"].detail
    assert "no PDF that can be read" in found["cut.pdf"].detail


def test_the_files_by_which_office_locks_others_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "manual.docx").write_bytes(corpora.docx_bytes("T", "words"))
    (tmp_path / "~$manual.docx").write_bytes(b"\x05Anna" + b"\0" * 157)
    source = placed(tmp_path, "files")
    assert [raw.source_ref for raw in everything(source)] == ["manual.docx"]
    assert skipped(source, partitions(source)) == {}


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
