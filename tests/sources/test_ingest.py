"""The stage as a whole: what comes out, what does not and why, and that nothing but the corpus decides."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.engine import RunOptions, Silent
from longalign_data.identity import document_id
from longalign_data.recipe import LoadedRecipe, load_recipe
from longalign_data.records import Document, Reject
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageReport, read_report
from longalign_data.sources import snapshot as snapshots
from longalign_data.sources.ingest import (
    MAX_WHITE_SPACE,
    PIECE_CHARS,
    ingest,
    longest_white_space,
    snapshot,
    surely_long,
    surely_short,
)
from longalign_data.sources.readers import jsonl
from longalign_data.tokenizers import load_tokenizer

WORDS = [
    "the",
    "long",
    "report",
    "of",
    "a",
    "small",
    "company",
    "that",
    "sells",
    "lamps",
    "in",
    "winter",
    "and",
    "boats",
]


def story(number: int, num_words: int) -> str:
    return f"Chapter {number}. " + " ".join(
        WORDS[(number * 7 + index * index) % len(WORDS)] for index in range(num_words)
    )


def recipe(folder: Path, *sources: dict[str, Any], window: tuple[int, int] = (50, 2000), **more: Any) -> LoadedRecipe:
    defaults = {"title": "S", "lang": "en", "license": "CC0-1.0"}
    content = {
        "name": "test",
        "version": "1.0.0",
        "sources": [source if "card" in source else defaults | source for source in sources],
        "ingest": {"min_tokens": window[0], "max_tokens": window[1]},
        "sample": {"count": 1},
        **more,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(path)


def run(loaded: LoadedRecipe, root: Path, **options: Any) -> StageReport:
    return ingest(loaded, BuildFolder(root), fingerprint="f", run=RunOptions(**options), progress=Silent())


def documents(root: Path) -> list[Document]:
    return list(iter_records(BuildFolder(root).shards("documents"), Document))


def rejected(root: Path) -> list[Reject]:
    return list(iter_records(BuildFolder(root).shards("rejects"), Reject))


def mixed_corpus(folder: Path) -> list[dict[str, Any]]:
    """Three sources with documents of all lengths, duplicates within and across, and broken records."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "a.jsonl").open("w", encoding="utf-8") as file:
        for number in range(60):
            file.write(json.dumps({"text": story(number % 50, 10 + 17 * (number % 50))}) + "\n")
        file.write("{broken\n" + json.dumps({"text": "word " * 5000}) + "\n")
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as packed:
        for number in range(30, 70):
            packed.write(json.dumps({"text": story(number, 200), "lang": "zh"}) + "\n")
    for number in range(40):
        place = folder / "notes" / f"{number % 4}" / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(story(number, 17 * number + 10 + number % 2) + ("\n" if number % 2 else "\r\n"), newline="")
    (folder / "notes/0/bad.txt").write_bytes(b"\xff")
    return [
        {"id": "lines", "path": str(folder / "*.json*"), "reader": {"kind": "jsonl", "lang": "lang"}},
        {"id": "notes", "path": str(folder / "notes"), "reader": {"kind": "text"}},
    ]


def balanced(report: StageReport) -> bool:
    return report.num_in == report.num_out + report.num_rejected + report.num_left_out


def test_every_text_is_a_document_or_a_reject_or_counted(tmp_path: Path) -> None:
    report = run(recipe(tmp_path, *mixed_corpus(tmp_path / "c")), tmp_path / "b")
    found, refused = documents(tmp_path / "b"), rejected(tmp_path / "b")
    assert balanced(report)
    assert report.num_in == 60 + 2 + 40 + 40 + 1
    assert report.num_out == len(found)
    assert dict(report.rejected) == Counter(reject.reason for reject in refused)
    assert dict(report.rejected) == {
        "bad-json": 1,
        "bad-utf8": 1,
        "duplicate": report.rejected["duplicate"],
        "too-long": 1,
    }
    assert report.rejected["duplicate"] > 20
    assert set(report.left_out) == {"too-short"}
    assert report.num_tokens == sum(document.num_tokens for document in found)
    tokenizer = load_tokenizer("qwen")
    for document in found:
        assert document.num_tokens == len(tokenizer.encode(document.text))
        assert 50 <= document.num_tokens <= 2000
        assert document.doc_id == document_id(document.text)
        assert (document.num_chars, document.num_bytes) == (len(document.text), len(document.text.encode()))
        assert "\r" not in document.text
    assert {document.lang for document in found} == {"en", "zh"}
    assert [document.source for document in found] == sorted(document.source for document in found)


def test_the_report_describes_each_source(tmp_path: Path) -> None:
    report = run(recipe(tmp_path, *mixed_corpus(tmp_path / "c")), tmp_path / "b")
    sources = report.details["sources"]
    for name, figures in sources.items():
        lengths = [document.num_tokens for document in documents(tmp_path / "b") if document.source == name]
        assert figures["in"] == figures["out"] + sum(figures["rejected"].values()) + figures["left_out"]
        assert (figures["out"], figures["tokens"]) == (len(lengths), sum(lengths))
        assert (figures["lengths"]["min"], figures["lengths"]["max"]) == (min(lengths), max(lengths))
    assert sum(figures["in"] for figures in sources.values()) == report.num_in
    stored = read_report(BuildFolder(tmp_path / "b"), "ingest")
    assert stored is not None
    assert stored.details == json.loads(json.dumps(report.details))


def test_files_that_no_reader_takes_are_told_at_the_end_of_a_run_and_by_stats(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text(story(1, 100))
    for name in ("b.doc", "c.doc", "d.odt"):
        (corpus / name).write_text(story(2, 100))
    loaded = recipe(tmp_path, {"id": "notes", "path": "corpus", "reader": {"kind": "text"}})
    ended = [
        subprocess.run(
            [sys.executable, "-m", "longalign_data", *command],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for command in (["ingest", str(loaded.path)], ["stats", f"builds/{loaded.recipe.name}/{loaded.recipe.version}"])
    ]
    assert "not read: notes has files that its reader does not take: .doc 2, .odt 1" in ended[0]
    rows = [line.split() for line in ended[1].splitlines() if "not read" in line]
    assert rows == [["ingest", "not", "read", "notes", ".doc", "2"], ["ingest", "not", "read", "notes", ".odt", "1"]]


def test_the_first_of_equal_texts_in_the_order_of_the_recipe_wins(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text(story(1, 100) + ("\n\n" if name == "x" else ""))
    x, y = ({"id": name, "path": name, "reader": {"kind": "text"}} for name in ("x", "y"))
    for order, winner in (((x, y), "x"), ((y, x), "y")):
        report = run(recipe(tmp_path, *order), tmp_path / f"b-{winner}")
        assert [document.source for document in documents(tmp_path / f"b-{winner}")] == [winner]
        (reject,) = rejected(tmp_path / f"b-{winner}")
        assert (reject.id, reject.reason) == (documents(tmp_path / f"b-{winner}")[0].doc_id, "duplicate")
        assert balanced(report)


def test_the_window_includes_both_ends(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("qwen")
    lengths = {}
    for name, num_words in (("a", 99), ("b", 100), ("c", 150), ("d", 151)):
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / f"{name}.txt").write_text(story(1, num_words))
        lengths[name] = len(tokenizer.encode(story(1, num_words)))
    source = {"id": "t", "path": "t", "reader": {"kind": "text"}}
    report = run(recipe(tmp_path, source, window=(lengths["b"], lengths["c"])), tmp_path / "b")
    assert [document.title for document in documents(tmp_path / "b")] == ["b", "c"]
    assert (report.left_out, report.rejected) == ({"too-short": 1}, {"too-long": 1})


def test_whatever_a_broken_record_holds_its_reject_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"\\ud800": 1, "%s": 2}\n' % ("k" * 5000))
    report = run(recipe(tmp_path, {"id": "t", "path": "a.jsonl", "reader": {"kind": "jsonl"}}), tmp_path / "b")
    assert report.rejected == {"missing-field": 1}
    (reject,) = rejected(tmp_path / "b")
    assert reject.id == f"t:a.jsonl:0-{(tmp_path / 'a.jsonl').stat().st_size}"
    assert len(reject.detail) <= 1000


def test_an_empty_result_is_still_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short")
    report = run(recipe(tmp_path, {"id": "t", "path": "a.txt", "reader": {"kind": "text"}}), tmp_path / "b")
    assert (report.num_in, report.num_out, report.left_out) == (1, 0, {"too-short": 1})
    assert documents(tmp_path / "b") == []
    assert len(BuildFolder(tmp_path / "b").shards("documents")) == 1


def test_the_work_folder_is_gone_afterwards(tmp_path: Path) -> None:
    run(recipe(tmp_path, *mixed_corpus(tmp_path / "c")), tmp_path / "b")
    assert not BuildFolder(tmp_path / "b").work("ingest").exists()


def test_workers_and_cuts_and_file_sizes_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = recipe(tmp_path, *mixed_corpus(tmp_path / "c"))
    run(loaded, tmp_path / "one", workers=1)
    run(loaded, tmp_path / "three", workers=3, row_group_bytes=2000, shard_bytes=20_000)
    monkeypatch.setattr(jsonl, "RANGE_BYTES", 1500)
    report = run(loaded, tmp_path / "cut", workers=1)
    assert report.details["sources"]["lines"]["partitions"] > 50
    assert documents(tmp_path / "one") == documents(tmp_path / "three") == documents(tmp_path / "cut")
    assert rejected(tmp_path / "one") == rejected(tmp_path / "three")
    assert len(BuildFolder(tmp_path / "three").shards("documents")) > 3


def test_neither_the_order_of_files_nor_their_place_changes_a_row(tmp_path: Path) -> None:
    mixed_corpus(tmp_path / "c")
    for path in sorted((tmp_path / "c").rglob("*"), reverse=True):
        if path.is_file():
            target = tmp_path / "elsewhere/deep" / path.relative_to(tmp_path / "c")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    results = []
    for name, folder in (("c", tmp_path / "c"), ("d", tmp_path / "elsewhere/deep")):
        sources = [
            {"id": "lines", "path": str(folder / "*.json*"), "reader": {"kind": "jsonl"}},
            {"id": "notes", "path": str(folder / "notes"), "reader": {"kind": "text"}},
        ]
        run(recipe(tmp_path, *sources), tmp_path / f"b-{name}")
        results.append((documents(tmp_path / f"b-{name}"), rejected(tmp_path / f"b-{name}")))
    assert results[0] == results[1]


CHILD = """
import sys, time
from pathlib import Path
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter
from longalign_data.sources.ingest import ingest
if __name__ == "__main__":
    build, stop_at = BuildFolder(Path(sys.argv[2])), sys.argv[4]
    reached = {
        "partitions": lambda: len(list(build.work("ingest").glob("*.json"))) >= 3,
        "note": lambda: build.progress("ingest").exists(),
        "shards": lambda: len(list((build.root / "documents").glob("0*.parquet"))) >= 4,
        "the end": lambda: False,
    }[stop_at]
    take = StageWriter.next_input
    def next_input(*given, **named):
        take(*given, **named)
        if reached():
            print(flush=True)
            time.sleep(600)
    StageWriter.next_input = next_input
    options = RunOptions(workers=int(sys.argv[3]), row_group_bytes=20_000, shard_bytes=60_000)
    ingest(load_recipe(Path(sys.argv[1])), build, fingerprint="f", run=options, progress=Silent())
"""
"""A run that waits where it shall be killed, until it is: a state that is only passed through may be over before it is seen."""


def large_corpus(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for part in range(30):
        with (folder / f"{part:02d}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(40):
                file.write(json.dumps({"text": story(part * 37 + number, 20 + 40 * number)}) + "\n")
            file.write("broken\n")
    return {"id": "s", "path": str(folder), "reader": {"kind": "jsonl"}}


def child(script: Path, loaded: LoadedRecipe, root: Path, workers: int, stop_at: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(loaded.path), str(root), str(workers), stop_at]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def test_a_run_killed_at_any_point_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, large_corpus(tmp_path / "c"))
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    build = BuildFolder(tmp_path / "killed")
    for workers, stop_at in ((2, "partitions"), (1, "note"), (2, "shards")):
        with child(script, loaded, build.root, workers, stop_at) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n", "the run ended before it was killed"
            process.kill()
        assert process.returncode == -9
        assert read_report(build, "ingest") is None
    finished = {path: path.stat().st_mtime_ns for path in build.work("ingest").glob("*.json")}
    assert finished
    with child(script, loaded, build.root, 1, "the end") as process:
        assert process.wait(timeout=600) == 0
    run(loaded, tmp_path / "whole", row_group_bytes=20_000, shard_bytes=60_000)
    assert documents(build.root) == documents(tmp_path / "whole")
    assert rejected(build.root) == rejected(tmp_path / "whole")
    again, whole = read_report(build, "ingest"), read_report(BuildFolder(tmp_path / "whole"), "ingest")
    assert again is not None
    assert whole is not None
    assert balanced(again)
    assert again.details == whole.details
    assert {s.path: s.sha256 for s in again.shards["documents"]} == {
        s.path: s.sha256 for s in whole.shards["documents"]
    }


def test_partitions_that_were_done_before_a_cut_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = recipe(tmp_path, large_corpus(tmp_path / "c"))
    build = BuildFolder(tmp_path / "b")
    real, served = jsonl.read, []

    def read(partition: Any) -> Any:
        served.append(partition.key)
        if len(served) == 5:
            raise KeyboardInterrupt
        return real(partition)

    monkeypatch.setattr(jsonl, "read", read)
    with pytest.raises(KeyboardInterrupt):
        run(loaded, build.root)
    first = served[:4]
    run(loaded, build.root)
    assert not set(first) & set(served[5:])
    assert len(served) == 31


def test_changed_settings_or_content_are_measured_anew(tmp_path: Path) -> None:
    source = large_corpus(tmp_path / "c")
    build = BuildFolder(tmp_path / "b")
    loaded = recipe(tmp_path, source)
    process_options = RunOptions()
    ingest(loaded, build, fingerprint="1", run=process_options, progress=Silent())
    before = len(documents(build.root))
    narrow = recipe(tmp_path, source, window=(500, 1000))
    report = ingest(narrow, build, fingerprint="2", run=process_options, progress=Silent())
    assert report.num_out == len(documents(build.root)) < before
    assert all(500 <= document.num_tokens <= 1000 for document in documents(build.root))


# measuring


@pytest.mark.parametrize(
    "line", ["a" * 5_000_000, "x" + " " * 5_000_000 + "y", "x" + "\t" * 5_000_000 + "y", "一" * 2_000_000]
)
@pytest.mark.parametrize("spec", ["qwen", "mistral-v1"])
def test_a_line_of_one_character_is_too_long_and_a_piece_of_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, spec: str
) -> None:
    """A tokenizer takes minutes for such a line as a whole, so what it is given of it is counted."""
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    source = {"id": "t", "path": "a.txt", "reader": {"kind": "text"}}
    loaded = recipe(tmp_path, source, window=(100, 8000), tokenizer=spec)
    kind, given = type(load_tokenizer(spec)), []
    encode = kind.encode

    def counted(self: Any, text: str) -> list[int]:
        given.append(len(text))
        return encode(self, text)

    monkeypatch.setattr(kind, "encode", counted)
    run(loaded, tmp_path / "b")
    (reject,) = rejected(tmp_path / "b")
    assert (reject.reason, "more than 16000 tokens" in reject.detail) == ("too-long", True)
    assert 0 < max(given) <= PIECE_CHARS
    assert sum(given) < len(line)


def test_white_space_that_overflows_a_tokenizer_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first words\n" + " " * 1_200_000 + "last words")
    (tmp_path / "b.txt").write_text("first words\n" + " " * (MAX_WHITE_SPACE - 1) + "last words")
    source = {"id": "t", "path": "*.txt", "reader": {"kind": "text"}}
    report = run(recipe(tmp_path, source, window=(100, 64_000)), tmp_path / "build")
    assert report.rejected == {"white-space-run": 1}
    (document,) = documents(tmp_path / "build")
    assert document.num_tokens == len(load_tokenizer("qwen").encode(document.text))


def test_a_compressible_text_larger_than_the_bound_is_still_measured_whole(tmp_path: Path) -> None:
    # More than 16 bytes a token: piecewise reading must not throw it out.
    text = ("word" + " " * 300) * 1000
    (tmp_path / "a.txt").write_text(text)
    exact = len(load_tokenizer("qwen").encode(text))
    assert len(text) > 16 * exact
    source = {"id": "t", "path": "a.txt", "reader": {"kind": "text"}}
    run(recipe(tmp_path, source, window=(10, exact)), tmp_path / "b")
    assert [document.num_tokens for document in documents(tmp_path / "b")] == [exact]


@pytest.mark.parametrize("run_length", [0, 3, MAX_WHITE_SPACE - 1, MAX_WHITE_SPACE, MAX_WHITE_SPACE + 1, 260_000])
@pytest.mark.parametrize("before", [0, 1, 49_999, 50_001, 123_456])
@pytest.mark.parametrize("after", [0, 77_777])
def test_the_longest_white_space_is_found_wherever_it_stands(run_length: int, before: int, after: int) -> None:
    text = "x" * before + " \n"[:1] * run_length + "y" * after
    assert longest_white_space(text) == (run_length if run_length >= MAX_WHITE_SPACE else 0)


def test_the_longer_of_two_runs_counts() -> None:
    text = "x" + " " * 110_000 + "x" + " " * 150_000 + "x" + " " * 120_000
    assert longest_white_space(text) == 150_000


anything = st.text(min_size=0, max_size=400) | st.text(alphabet="ab .\n\t一二é😀\x07\u200b\ufdfa", max_size=400)


@pytest.mark.parametrize("spec", ["qwen", "mistral-v1"])
@settings(max_examples=150)
@given(text=anything, min_tokens=st.integers(1, 500))
def test_every_text_that_is_left_out_unread_is_too_short(spec: str, text: str, min_tokens: int) -> None:
    tokenizer = load_tokenizer(spec)
    num_tokens = len(tokenizer.encode(text))
    if surely_short(tokenizer, len(text.encode()), min_tokens):
        assert num_tokens < min_tokens
    # The bound is used at its edge: a window that begins at the true count must keep the text.
    assert not surely_short(tokenizer, len(text.encode()), num_tokens)


@pytest.mark.parametrize("spec", ["qwen", "mistral-v1"])
@settings(max_examples=60)
@given(text=anything.map(lambda text: text * 300))
def test_no_text_within_the_window_is_ever_surely_long(spec: str, text: str) -> None:
    tokenizer = load_tokenizer(spec)
    assert not surely_long(tokenizer, text, max(1, len(tokenizer.encode(text))))


# inputs


def test_a_touched_corpus_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, *mixed_corpus(tmp_path / "c"))
    build = BuildFolder(tmp_path / "b")
    first = snapshot(loaded, build)
    path = tmp_path / "c/notes/1/1.txt"
    os.utime(path, ns=(1, 1))
    assert snapshot(loaded, build) == first
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Chapter", b"chapter"))
    assert snapshot(loaded, build) != first
    path.write_bytes(content)
    assert snapshot(loaded, build) == first


def test_a_copy_of_the_corpus_elsewhere_has_the_same_snapshot_without_its_place(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = snapshot(recipe(tmp_path / "one", *mixed_corpus(tmp_path / "one/c")), BuildFolder(tmp_path / "b1"))
    shutil.copytree(tmp_path / "one/c", tmp_path / "two/other")
    sources = [
        {"id": "lines", "path": "other/*.json*", "reader": {"kind": "jsonl", "lang": "lang"}},
        {"id": "notes", "path": "other/notes", "reader": {"kind": "text"}},
    ]
    second = snapshot(recipe(tmp_path / "two", *sources), BuildFolder(tmp_path / "b2"))
    assert first == second
    assert str(tmp_path) not in json.dumps(first)


def test_a_renamed_an_added_and_a_removed_file_change_the_snapshot(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, *mixed_corpus(tmp_path / "c"))
    seen = [json.dumps(snapshot(loaded, BuildFolder(tmp_path / "b")))]
    steps: list[Callable[[], object]] = [
        lambda: (tmp_path / "c/notes/1/1.txt").rename(tmp_path / "c/notes/1/one.txt"),
        lambda: (tmp_path / "c/notes/new.txt").write_text("new"),
        lambda: (tmp_path / "c/notes/2/2.txt").unlink(),
    ]
    for step in steps:
        step()
        seen.append(json.dumps(snapshot(loaded, BuildFolder(tmp_path / "b"))))
    assert len(set(seen)) == 4


def test_an_unchanged_corpus_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    path = tmp_path / "c/a.txt"
    path.write_text("one")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    loaded = recipe(tmp_path, {"id": "t", "path": "c", "reader": {"kind": "text"}})
    build = BuildFolder(tmp_path / "b")
    first = snapshot(loaded, build)
    # Size and time stay as they were: only reading the file would show the difference.
    path.write_text("two")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert snapshot(loaded, build) == first
    os.utime(path, (1_000_000_001, 1_000_000_001))
    assert snapshot(loaded, build) != first


def test_a_file_that_just_changed_is_read_again_whatever_its_time_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert snapshots.SETTLED_NS >= 2_000_000_000
    monkeypatch.setattr(snapshots, "SETTLED_NS", 3_600 * 10**9)  # "just" lasts as long as this machine needs
    path = tmp_path / "a.txt"
    path.write_text("one")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    loaded = recipe(tmp_path, {"id": "t", "path": "a.txt", "reader": {"kind": "text"}})
    build = BuildFolder(tmp_path / "b")
    first = snapshot(loaded, build)
    path.write_text("two")
    os.utime(path, ns=(now, now))
    assert snapshot(loaded, build) != first


def test_a_hub_dataset_is_its_id_and_commit(tmp_path: Path) -> None:
    def taken(revision: str) -> list[dict[str, Any]]:
        reader = {"kind": "hub", "dataset": "owner/name", "revision": revision * 40}
        return snapshot(recipe(tmp_path, {"id": "h", "reader": reader}), BuildFolder(tmp_path / "b"))

    (entry,) = taken("a")
    assert entry["inputs"] == []
    assert entry["source"]["reader"]["dataset"] == "owner/name"
    assert taken("a") != taken("b")


# the cards that come with the package


def test_the_standard_library_gives_documents_of_every_length(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, {"card": "python-stdlib"}, {"card": "python-topics"}, window=(2000, 64_000))
    report = run(loaded, tmp_path / "b", workers=2)
    found = documents(tmp_path / "b")
    edges = (4_000, 8_000, 16_000, 32_000, 64_000)
    buckets = Counter(next(edge for edge in edges if document.num_tokens <= edge) for document in found)
    assert len(found) >= 120
    assert all(buckets[edge] >= 5 for edge in edges), buckets
    assert balanced(report)
    refs = {document.source_ref for document in found if document.source == "python-stdlib"}
    assert {"argparse.py", "json", "logging"} <= refs
    assert not any("test" in ref.split("/") or "site-packages" in ref or "__pycache__" in ref for ref in refs)
    assert {document.license for document in found} == {"PSF-2.0"}
