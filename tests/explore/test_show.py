import io
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from longalign_data.errors import BuildError, UserError
from longalign_data.explore.plain import one_line, shorten, visible
from longalign_data.explore.show import excerpt, show
from longalign_data.shards.folder import BuildFolder


def said(build: BuildFolder, prefix: str | None, *, terminal: bool = False) -> str:
    out = io.StringIO()
    show(build, prefix, Console(file=out, width=100, force_terminal=terminal, color_system=None))
    return out.getvalue()


def samples(build: BuildFolder) -> list[dict[str, object]]:
    rows = [row for path in build.shards("samples") for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: row["sample_id"])


def longest(build: BuildFolder) -> dict[str, object]:
    return max(samples(build), key=lambda row: row["num_tokens"])  # type: ignore[arg-type,return-value] # an int


def test_a_sample_is_shown_with_everything_that_is_known_of_it(build: BuildFolder) -> None:
    row = longest(build)
    text = said(build, str(row["sample_id"]))
    for part in (
        f"sample {row['sample_id']}", "general, en", "CC0-1.0", "hills: notes/16.jsonl:0-", "Document 16", "8,305 tokens",
        "Line 0 tells", "Line 679 tells", "left out …]", "% deep, characters 1", "“7 tells of r”",
        "  1: What is told?", "> 3: Which line comes after line 1?", "Line 17. Line 17.", "extractive extractive-1",
        "0.250000 USD", "end_turn", "grounding: 0.75", "5,000, 38 of them targets, 3,363 cut out of the document",
        "2 sequences, 7,915 tokens", "2, position 2 (6 sequences in the step)",
    ):  # fmt: skip
        assert part in text


def test_the_beginning_of_an_id_is_enough_in_either_case(build: BuildFolder) -> None:
    sample_id = str(samples(build)[5]["sample_id"])
    assert f"sample {sample_id}" in said(build, sample_id[:12])
    assert f"sample {sample_id}" in said(build, f" {sample_id[:12].upper()} ")


def test_without_an_id_it_is_always_the_same_sample(build: BuildFolder) -> None:
    assert f"sample {samples(build)[0]['sample_id']}" in said(build, None)


def test_a_beginning_of_several_ids_lists_them(build: BuildFolder) -> None:
    ids = [str(row["sample_id"]) for row in samples(build)]
    first = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    text = said(build, first)
    same = [i for i in ids if i.startswith(first)]
    assert text.startswith(f"{len(same)} samples begin with {first}:")
    assert all(i in text for i in same[:8])
    assert "-- sample" not in text


def test_an_id_that_nothing_has_is_answered_with_near_ones(build: BuildFolder) -> None:
    sample_id = str(samples(build)[3]["sample_id"])
    with pytest.raises(UserError, match=sample_id):
        said(build, sample_id[:8] + "zz")


def test_a_hostile_document_is_only_text(build: BuildFolder) -> None:
    hostile = next(row for row in samples(build) if "[bold red]" in str(row["messages"]))
    for terminal in (False, True):
        text = said(build, str(hostile["sample_id"]), terminal=terminal)
        assert text.count("[bold red]A title[/bold red]␛[2J␇ with <U+202E>orders") == 2  # title and first line
        assert not any(mark in text for mark in ("\x1b[2J", "\x07", "\u202e"))


def test_a_build_that_kept_only_samples_shows_what_it_can(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root / "samples", tmp_path / "samples")
    text = said(BuildFolder(tmp_path), str(longest(build)["sample_id"]))
    assert "the table documents does not hold it" in text
    assert "Line 679 tells" in text
    assert "“7 tells of r”" in text
    assert "in training" not in text


@pytest.mark.parametrize("column", ["sample_id", "stop_reason"])
def test_a_damaged_shard_is_named_with_what_to_remove(build: BuildFolder, tmp_path: Path, column: str) -> None:
    shutil.copytree(build.root / "samples", tmp_path / "samples")
    (shard,) = BuildFolder(tmp_path).shards("samples")
    metadata, data = pq.read_metadata(shard), bytearray(shard.read_bytes())
    index = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(index)
        end = chunk.data_page_offset + chunk.total_compressed_size
        data[end - 20 : end] = b"\xa5" * 20
    shard.write_bytes(data)
    with pytest.raises(BuildError, match=rf"^{shard}: .*remove {shard.parent} and run `longalign build` again"):
        said(BuildFolder(tmp_path), None)


def test_a_build_without_samples_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="longalign build RECIPE"):
        said(BuildFolder(tmp_path), None)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=60), max_size=60),
    st.integers(1, 300),
    st.integers(1, 300),
)
def test_every_excerpt_is_the_two_ends_of_the_text_and_counts_what_is_missing(
    lines: list[str], head: int, tail: int
) -> None:
    text = "\n".join(lines)
    start, words, end = excerpt(text, head=head, tail=tail)
    bare = text.strip("\n")
    assert bare.startswith(start)
    assert bare.endswith(end)
    if words:
        assert len(start) <= head
        assert len(end) <= tail
        assert words.startswith(f"{len(bare) - len(start) - len(end):,} characters in ")
        if "middle of a line" not in words:
            assert set(start.split("\n")) | set(end.split("\n")) <= set(bare.split("\n"))
    else:
        assert start == bare


@given(st.text(st.characters()))
def test_every_text_made_visible_holds_no_control_character(text: str) -> None:
    shown = visible(text)
    assert not any(
        (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown
    )
    assert "\n" not in one_line(text)
    assert len(shorten(one_line(text), 10)) <= 10


@pytest.mark.parametrize("text", ["plain", "中文，标点", "tab\there\nand there", "é ß 🙂 e\u0301"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert visible(text) == text
