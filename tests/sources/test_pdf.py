"""PDF: pages as one text, without what returns at their heads and feet."""

from pathlib import Path

import pytest

from longalign_data.sources.readers.pdf import joined, without_running_lines
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed

WORDS = ["otter", "heron", "maple", "granite", "lantern", "velvet", "copper", "meadow"]
BODIES = [f"The {word} comes first.\nThen more of the {word}\nand the end of the {word}." for word in WORDS]


def test_running_heads_and_feet_are_given_once_and_page_numbers_not_at_all() -> None:
    pages = [
        f"ACME Corp  Report 2026/17\nPage {number} of 8\n\n{body}\nConfidential\n- {number} -"
        for number, body in enumerate(BODIES, start=1)
    ]
    first, *others = without_running_lines(pages)
    assert first == f"ACME Corp  Report 2026/17\nPage 1 of 8\n\n{BODIES[0]}\nConfidential"
    assert others == BODIES[1:]


def test_heads_of_left_and_right_pages_and_of_chapters_are_known() -> None:
    pages = [
        (
            f"{number} The Book of Places\n"
            if number % 2 == 0
            else f"{'Of Small Rivers' if number < 61 else 'Hills'} · page {number}\n"
        )
        + body
        for number, body in enumerate(BODIES * 10, start=31)
    ]
    text = joined(without_running_lines(pages))
    assert [text.count(name) for name in ("The Book", "Of Small Rivers", "Hills")] == [1, 1, 1]
    assert text.count("comes first.") == text.count("and the end of") == 80


def test_what_changes_from_page_to_page_stays() -> None:
    pages = [
        f"Statement {number * 3}\nEUR {number * 371}.50\n{body}\nTotal {number * 1000}\n{'yes' if number in (2, 3) else 'no, ' + body}"
        for number, body in enumerate(BODIES, start=1)
    ]
    assert without_running_lines(pages) == pages


def test_the_number_of_a_page_is_known_by_the_others() -> None:
    pages = [f"{body}\n{2019 + number}" for number, body in enumerate(BODIES)]
    assert without_running_lines(pages) == BODIES
    years = [f"{body}\n{2019 + number * number}" for number, body in enumerate(BODIES)]
    assert without_running_lines(years) == years
    code = [f"{body}\n}}" for body in BODIES]
    assert without_running_lines(code) == code
    few = [f"ACME Corp\n{body}" for body in BODIES[:4]]
    assert without_running_lines(few) == few


def test_a_sentence_goes_on_over_the_end_of_a_page() -> None:
    assert (
        joined(["It runs", "over. And", "Ends here.", "", "so it does"])
        == "It runs\nover. And\n\nEnds here.\n\nso it does"
    )


def test_a_scan_with_a_stamp_on_every_page_is_no_document_of_stamps(tmp_path: Path) -> None:
    lines = [line for page in range(60) for line in (f"Archive scan page {page + 1}, internal", *[""] * 49)]
    (tmp_path / "scan.pdf").write_bytes(corpora.pdf_bytes("Scan", lines))
    (document,) = docs(everything(placed(tmp_path, "files")))
    assert document.text == "Archive scan page 1, internal"


@pytest.mark.parametrize(
    ("given", "title"),
    [
        *(
            (given, "pump")
            for given in ("untitled", "Anonymous", "Microsoft Word - Dokument1", "a b.doc", "A.PPTX", " ")
        ),
        ("Untitled works of the century", "Untitled works of the century"),
        ("Microsoft Word for everybody", "Microsoft Word for everybody"),
    ],
)
def test_a_title_that_a_program_gave_a_pdf_gives_way_to_the_files_name(given: str, title: str, tmp_path: Path) -> None:
    (tmp_path / "pump.pdf").write_bytes(corpora.pdf_bytes(given, ["words"]))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.title == title


def test_what_counts_with_the_pages_and_is_no_number_of_a_page_stays() -> None:
    for head in (
        "Question {}",
        "Step {}",
        "Article {}.",
        "Site diary, {} May 2024",
        "Week {} 40 hours",
        "Test case {}",
    ):
        pages = [f"{head.format(number)}\n{body}" for number, body in enumerate(BODIES, start=1)]
        assert without_running_lines(pages) == pages
    invoices = [f"Invoice {4710 + n}\n{body}\nPage {n} of 8" for n, body in enumerate(BODIES, start=1)]
    left = without_running_lines(invoices)
    assert [page.split("\n")[0] for page in left] == [f"Invoice {4710 + n}" for n in range(1, 9)]
    assert sum("Page" in page for page in left) == 1
    months = [f"1 2 3 4 5 6 7 8 9 10 11 12\n{body}" for body in BODIES]
    assert without_running_lines(months) == months
    results = [f"{body}\nResult: {'FAIL' if n == 4 else 'PASS'}" for n, body in enumerate(BODIES)]
    assert without_running_lines(results) == results


def test_a_head_that_comes_back_stands_again() -> None:
    heads = ["Account A-17"] * 6 + ["Account B-18"] * 6 + ["Account A-17"] * 6
    pages = [f"{head}\n{body}" for head, body in zip(heads, BODIES * 3, strict=False)]
    kept = [page.split("\n")[0] for page in without_running_lines(pages) if page.startswith("Account")]
    assert kept == ["Account A-17", "Account B-18", "Account A-17"]


def test_lines_of_thousands_of_numbers_are_content() -> None:
    pages = [f"{' '.join(str(n + page) for n in range(3_000))}\n{BODIES[page % 8]}" for page in range(40)]
    assert without_running_lines(pages) == pages
