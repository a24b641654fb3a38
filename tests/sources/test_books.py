"""Books: text, EPUB, tars, and those that need an acknowledgement."""

import zipfile
from pathlib import Path

import pytest

from longalign_data.errors import RecipeError
from longalign_data.recipe import load_recipe
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


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
