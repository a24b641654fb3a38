import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from longalign_data.engine import RunOptions
from longalign_data.explore import diff
from longalign_data.records import Sample
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import from_row, iter_batches
from longalign_data.shards.stage import StageWriter


@pytest.fixture
def changed(build: BuildFolder, tmp_path: Path) -> BuildFolder:
    """The build with two samples gone, and one whose document was asked anew."""
    copy = BuildFolder(tmp_path / "1.1.0")
    shutil.copytree(build.root, copy.root)
    samples = [from_row(Sample, row) for batch in iter_batches(build.shards("samples")) for row in batch.to_pylist()]
    samples = [dataclasses.replace(samples[0], sample_id="f" * 32, task="reasoning"), *samples[1:-2]]
    with StageWriter(copy, "generate", fingerprint="other", run=RunOptions()) as writer:
        for sample in samples:
            writer.write("samples", sample)
            writer.next_input()
        writer.finish()
    copy.manifest.write_text(json.dumps({"recipe": "name: rivers\nversion: 1.1.0\n"}))
    return copy


def said(found: diff.Diff) -> str:
    out = io.StringIO()
    diff.print_diff(found, Console(file=out, width=100))
    return out.getvalue()


def test_a_build_does_not_differ_from_itself(build: BuildFolder) -> None:
    found = diff.compare(build, build)
    assert not found.figures
    assert not found.anew
    assert {(row.gone, row.came) for row in found.rows} == {(0, 0)}
    assert said(found) == "The two builds hold the same.\n"


def test_rows_that_went_came_and_stayed_are_counted(build: BuildFolder, changed: BuildFolder) -> None:
    found = diff.compare(build, changed)
    whole = {row.table: (row.gone, row.came, row.stayed) for row in found.rows if not row.source}
    assert whole["documents"] == (0, 0, 24)
    assert whole["samples"] == (3, 1, 15)
    by_source = [row for row in found.rows if row.table == "samples" and row.source]
    assert sum(row.stayed for row in by_source) == 15
    assert {row.source for row in by_source} == {"hills", "rivers", "rivers-zh"}
    assert found.asked_anew == 1
    assert found.anew == ["generate"]
    figures = {figure.name: (figure.before, figure.after) for figure in found.figures}
    assert figures["samples count"] == (18, 16)
    assert figures["samples of task general"] == (5, 3)
    assert figures["generate rejected refused"] == (2, None)
    assert "documents count" not in figures


def test_the_printed_difference_shows_the_recipe_and_hides_nothing(build: BuildFolder, changed: BuildFolder) -> None:
    words = said(diff.compare(build, changed))
    assert "+version: 1.1.0" in words
    assert "stages made anew: generate" in words
    assert "1 documents are in both and have other samples now" in words
    assert json.loads(json.dumps(diff.compare(build, changed).to_json()))["anew"] == ["generate"]
