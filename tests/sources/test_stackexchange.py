"""Posts.xml: threads out of rows, plain and packed."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from longalign_data.sources.readers import (
    partitions,
    read,
)
from longalign_data.sources.reading import RawReject
from tests.fixtures import corpora
from tests.sources.reads import docs, everything, placed, reasons


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
