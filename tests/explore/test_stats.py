import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from longalign_data.errors import BuildError
from longalign_data.explore import figures, stats
from longalign_data.shards.folder import BuildFolder


def lengths_of(build: BuildFolder, table: str, column: str = "num_tokens") -> list[int]:
    return sorted(n for path in build.shards(table) for n in pq.read_table(path, columns=[column])[column].to_pylist())


def said(found: figures.Stats, *, width: int = 80) -> str:
    out = io.StringIO()
    stats.print_stats(found, Console(file=out, width=width))
    return out.getvalue()


def test_lengths_agree_with_the_rows_as_they_stand(build: BuildFolder) -> None:
    found = {row.of: row for row in figures.collect(build).lengths if not row.by}
    assert list(found) == ["documents", "selected", "samples", "answers", "chats", "sequences", "packs"]
    columns = [
        ("documents", "num_tokens"),
        ("samples", "num_tokens"),
        ("sequences", "num_tokens"),
        ("packs", "num_tokens"),
    ]
    for table, column in columns:
        stored, row = lengths_of(build, table, column), found[table]
        assert (row.count, row.tokens, row.max) == (len(stored), sum(stored), stored[-1])
        assert row.mean == pytest.approx(sum(stored) / len(stored))
        # The smallest stored length that at least half of all lengths do not exceed.
        assert row.p50 == stored[(len(stored) + 1) // 2 - 1]
        assert row.p1 == stored[0]
        assert row.p99 == stored[-1]
    assert found["answers"].tokens == sum(lengths_of(build, "samples", "num_answer_tokens"))
    assert found["selected"].count == 20


def test_groups_add_up_to_the_whole(build: BuildFolder) -> None:
    rows = figures.collect(build).lengths
    whole = {row.of: row for row in rows if not row.by}
    for of, by in [(o, b) for o in ("samples", "answers", "sequences") for b in ("source", "language", "task")] + [
        ("documents", "source"),
        ("selected", "language"),
    ]:
        parts = [row for row in rows if (row.of, row.by) == (of, by)]
        assert len(parts) > 1
        assert sum(row.count for row in parts) == whole[of].count
        assert sum(row.tokens for row in parts) == whole[of].tokens
    assert not [row for row in rows if (row.of, row.by) == ("documents", "task")]


def test_histograms_hold_every_row_once_in_the_sampling_buckets(build: BuildFolder) -> None:
    found = figures.collect(build)
    counts = {row.of: row.count for row in found.lengths if not row.by}
    for histogram in found.histograms:
        assert sum(bar.count for bar in histogram.bars) == counts[histogram.of]
    documents = next(h for h in found.histograms if h.of == "documents")
    stored = lengths_of(build, "documents")
    assert [(bar.low, bar.high, bar.count) for bar in documents.bars] == [
        (low, high, sum(low <= length < high for length in stored))
        for low, high in ((256, 1024), (1024, 4096), (4096, 16384))
    ]
    answers = next(h for h in found.histograms if h.of == "answers")
    assert [bar.low for bar in answers.bars] == [2, 4, 8, 16, 32]


def test_the_last_bucket_includes_its_upper_edge(build: BuildFolder, tmp_path: Path) -> None:
    longest = lengths_of(build, "documents")[-1]
    for name in ("documents", "state"):
        shutil.copytree(build.root / name, tmp_path / name)
    report = tmp_path / "state" / "sample.json"
    data = json.loads(report.read_text())
    for edges, ends in (([1000, 5000, longest], None), ([1000, 5000, longest - 1], longest - 1)):
        data["details"]["edges"] = edges
        report.write_text(json.dumps(data))
        histogram = figures.collect(BuildFolder(tmp_path)).histograms[0]
        assert histogram.bars[0].low is None
        assert histogram.bars[-1].low == (5000 if ends is None else ends)
        assert (histogram.bars[-1].high is None) is (ends is not None)


def test_rejects_and_what_was_left_out_are_counted_by_stage_and_reason(build: BuildFolder) -> None:
    rows = [(row.stage, row.kind, row.reason, row.count) for row in figures.collect(build).set_aside]
    assert rows == [
        ("ingest", "rejected", "broken-json", 1),
        ("ingest", "rejected", "duplicate", 1),
        ("ingest", "left out", "too-short", 3),
        ("sample", "left out", "not-drawn", 4),
        ("generate", "rejected", "refused", 2),
    ]


def test_targets_packs_truncation_and_spending(build: BuildFolder) -> None:
    found = figures.collect(build)
    assert [(cell.lang, cell.target, cell.achieved, cell.available) for cell in found.cells] == [
        ("en", 10, 9, 9),
        ("zh", 2, 2, 3),
        ("", None, 10, 12),
    ]
    packs = lengths_of(build, "packs")
    assert found.packing is not None
    assert found.packing.capacity == 10_000
    assert found.packing.mean_fill == pytest.approx(sum(packs) / len(packs) / 10_000)
    assert (found.packing.packs, found.packing.steps, found.packing.step_variation) == (9, 3, 0)
    lost = lengths_of(build, "sequences", "truncated_tokens")
    assert found.truncation == figures.Truncation(sequences=sum(n > 0 for n in lost), tokens=sum(lost))
    (spent,) = found.spending
    assert (spent.samples, spent.cost_usd) == (18, pytest.approx(9 * 0.25))


def test_the_command_prints_all_figures_as_json(build: BuildFolder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "longalign_data", "stats", str(build.root), "--json"],
        capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == figures.collect(build).to_json()


def test_statistics_need_no_more_than_what_stands(build: BuildFolder, tmp_path: Path) -> None:
    nothing = figures.collect(BuildFolder(tmp_path))
    assert (nothing.lengths, nothing.packing, nothing.truncation) == ([], None, None)
    assert "no rows yet" in said(nothing)
    shutil.copytree(build.root / "sequences", tmp_path / "sequences")
    alone = figures.collect(BuildFolder(tmp_path))
    assert {row.of for row in alone.lengths} == {"sequences"}
    assert "sequences" in said(alone)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"cells": None},
        {"cells": [1, {}, {"target": "x", "achieved": "y"}], "edges": "no"},
        {"edges": [5], "cells": {"a": 1}},
    ],
)
def test_a_sampler_that_noted_something_else_is_passed_over(
    build: BuildFolder, tmp_path: Path, details: object
) -> None:
    for name in ("documents", "state"):
        shutil.copytree(build.root / name, tmp_path / name)
    report = tmp_path / "state" / "sample.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"details": details}))
    found = figures.collect(BuildFolder(tmp_path))
    assert found.cells == []
    assert found.histograms[0].bars[0].low == 256  # doubling edges: the shortest document has 492 tokens


def test_a_torn_report_is_a_clear_error(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root / "state", tmp_path / "state")
    (tmp_path / "state" / "sample.json").write_text('{"stage": "sam')
    with pytest.raises(BuildError, match=r"sample\.json: not a stage report"):
        figures.collect(BuildFolder(tmp_path))


def test_what_is_printed_fits_80_columns_and_needs_no_colour(build: BuildFolder) -> None:
    text = said(figures.collect(build))
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text  # no figure was cut
    for word in ("Lengths in tokens by task", "rivers-zh", "4,096 - 16,384", "broken-json", "asked for and had", "█"):
        assert word in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (9_999, "9,999"), (10_000, "10k"), (12_345, "12.3k"), (99_950, "100k"), (999_499, "999k"),
        (999_600, "1M"), (1_234_567, "1.23M"), (2_500_000_000, "2.5G"), (7 * 10**14, "700T"),
    ],
)  # fmt: skip
def test_figures_take_at_most_five_characters(number: int, text: str) -> None:
    assert stats._short(number) == text
    assert len(text) <= 5


def test_the_funnel_and_the_crossings_account_for_every_row(build: BuildFolder) -> None:
    found = figures.collect(build)
    assert [(row.stage, row.num_in, row.num_out) for row in found.stages][:2] == [
        ("ingest", 29, 24),
        ("sample", 24, 20),
    ]
    for row in found.stages:
        if row.stage != "pack":
            assert row.num_in == row.num_out + row.num_rejected + row.num_left_out
    assert sum(row.samples for row in found.crossings) == 18
    assert sum(row.tokens for row in found.crossings) == sum(lengths_of(build, "samples"))
    assert len({(row.source, row.language, row.task) for row in found.crossings}) == len(found.crossings) == 6
    assert {histogram.of: len(histogram.bars) for histogram in found.fine} == dict.fromkeys(
        ("documents", "selected", "samples"), figures.FINE_BINS
    )


def test_evidence_is_counted_by_its_depth(build: BuildFolder) -> None:
    found = figures.collect(build).depths
    assert {row.task: sum(row.tenths) for row in found} == {"extraction": 4, "general": 5, "reasoning": 4, "summary": 5}
    # The evidence of each document was looked for from its middle on.
    assert sum(sum(row.tenths[:5]) for row in found) == 0


def test_bands_of_steps_say_how_full_and_how_uneven_they_are(build: BuildFolder) -> None:
    bands = figures.collect(build).steps
    assert [(band.first, band.last) for band in bands] == [(0, 0), (1, 1), (2, 2)]
    packs = [
        row for path in build.shards("packs") for row in pq.read_table(path, columns=["num_tokens", "work"]).to_pylist()
    ]
    for band, of_step in zip(bands, (packs[:3], packs[3:6], packs[6:]), strict=True):
        assert band.fill == pytest.approx(sum(pack["num_tokens"] for pack in of_step) / 30_000)
        work = [pack["work"] for pack in of_step]
        assert band.idle == pytest.approx(1 - sum(work) / (3 * max(work)))
        assert (band.least_sequences, band.most_sequences) == (6, 6)


def test_the_figures_of_a_published_build_come_from_its_manifest(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root, tmp_path / "published")
    published = BuildFolder(tmp_path / "published")
    reports = [json.loads(build.report(row.stage).read_text()) for row in figures.collect(build).stages]
    stages = [{name: value for name, value in report.items() if name != "shards"} for report in reports]
    published.manifest.write_text(json.dumps({"stages": stages}))
    shutil.rmtree(published.root / "state")
    assert figures.collect(published) == figures.collect(build)
