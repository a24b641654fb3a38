import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from longalign_data.engine import RunOptions
from longalign_data.errors import BuildError
from longalign_data.identity import digest, file_sha256
from longalign_data.records import Document, Reject
from longalign_data.shards.folder import BuildFolder, open_build
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageReport, StageWriter, read_report, require

RUN = RunOptions(shard_bytes=1_000, row_group_bytes=800)
NUM_INPUTS = 40


def document(number: int) -> Document:
    text = f"Document {number}. " * (5 + number % 7)
    return Document(
        doc_id=digest(number), source="s", source_ref=str(number), lang="en", license="CC0-1.0", title="", text=text,
        num_chars=len(text), num_bytes=len(text), num_tokens=len(text) // 4,
    )  # fmt: skip


def write_inputs(writer: StageWriter, *, stop_before: int = NUM_INPUTS) -> None:
    """Every input is a document, but each fifth is a reject and each seventh is left out."""
    for number in range(writer.cursor, stop_before):
        if number % 5 == 4:
            writer.reject(Reject(id=str(number), stage="ingest", reason=f"reason-{number % 2}", detail="x" * 300))
        elif number % 7 == 6:
            writer.leave_out("too-short")
        else:
            writer.write("documents", document(number))
        writer.next_input()


def run_whole(root: Path, fingerprint: str = "f") -> StageReport:
    with StageWriter(BuildFolder(root), "ingest", fingerprint=fingerprint, run=RUN) as writer:
        write_inputs(writer)
        return writer.finish({"note": 1})


def files(root: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def same(one: StageReport, other: StageReport) -> bool:
    def without_time(report: StageReport) -> object:
        return (report.num_in, report.num_out, report.num_rejected, report.num_left_out, report.num_tokens,
                report.rejected, report.left_out, report.details, report.shards)  # fmt: skip

    return without_time(one) == without_time(other)


def test_every_input_is_accounted_for(tmp_path: Path) -> None:
    report = run_whole(tmp_path)
    assert report.num_in == NUM_INPUTS == report.num_out + report.num_rejected + report.num_left_out
    assert report.rejected == {"reason-0": 4, "reason-1": 4}
    assert report.num_left_out == report.left_out["too-short"]
    for table, shards in report.shards.items():
        for shard in shards:
            path = tmp_path / shard.path
            assert (path.stat().st_size, file_sha256(path)) == (shard.bytes, shard.sha256)
        assert len(shards) > 1, table
    build = open_build(tmp_path)
    rows = list(iter_records(build.shards("documents"), Document))
    assert [int(row.source_ref) for row in rows] == [n for n in range(NUM_INPUTS) if n % 5 != 4 and n % 7 != 6]
    assert sum(row.num_tokens for row in rows) == report.num_tokens
    assert read_report(build, "ingest") == report
    assert require(build, "ingest") == report


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 17, 25, 39])
def test_a_stage_that_was_cut_off_goes_on_to_the_same_bytes(tmp_path: Path, cut: int) -> None:
    whole = run_whole(tmp_path / "whole")
    root = tmp_path / "cut"
    # What a killed process leaves: closed shards, the last note, and unfinished files.
    writer = StageWriter(BuildFolder(root), "ingest", fingerprint="f", run=RUN)
    write_inputs(writer, stop_before=cut)
    del writer
    with StageWriter(BuildFolder(root), "ingest", fingerprint="f", run=RUN) as writer:
        assert writer.cursor <= cut
        assert (writer.cursor > 0) is (cut >= 8)
        write_inputs(writer)
        resumed = writer.finish({"note": 1})
    assert files(root) == files(tmp_path / "whole")
    assert same(resumed, whole)
    assert not list(root.rglob(".*tmp"))
    assert not BuildFolder(root).progress("ingest").exists()


def test_a_killed_process_leaves_a_stage_that_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = run_whole(tmp_path / "whole")
    program = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import test_stage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter
writer = StageWriter(BuildFolder(Path(sys.argv[1])), "ingest", fingerprint="f", run=test_stage.RUN)
test_stage.write_inputs(writer, stop_before=int(sys.argv[3]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    here = Path(__file__).parent
    for stop in ("20", "36"):
        arguments = [sys.executable, "-c", program, str(tmp_path / "cut"), str(here), stop]
        environment = os.environ | {"PYTHONPATH": str(here.parents[1])}
        assert subprocess.run(arguments, timeout=300, env=environment, check=False).returncode == -9
    resumed = run_whole(tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert same(resumed, whole)


def test_another_fingerprint_starts_over(tmp_path: Path) -> None:
    with StageWriter(BuildFolder(tmp_path), "ingest", fingerprint="old", run=RUN) as writer:
        write_inputs(writer, stop_before=30)
        assert writer.counts.num_in == 30
    with StageWriter(BuildFolder(tmp_path), "ingest", fingerprint="new", run=RUN) as writer:
        assert (writer.cursor, writer.counts.num_in) == (0, 0)
        assert files(tmp_path) == {}


def test_a_stage_that_is_run_again_forgets_its_old_report_first(tmp_path: Path) -> None:
    run_whole(tmp_path)
    build = BuildFolder(tmp_path)
    build.manifest.write_text("{}")
    with StageWriter(build, "ingest", fingerprint="new", run=RUN):
        assert read_report(build, "ingest") is None
        assert not build.manifest.exists()


@pytest.mark.parametrize("damage", ["torn", "gone", "note"])
def test_a_damaged_shard_or_note_starts_over(tmp_path: Path, damage: str) -> None:
    with StageWriter(BuildFolder(tmp_path), "ingest", fingerprint="f", run=RUN) as writer:
        write_inputs(writer, stop_before=30)
    shard = BuildFolder(tmp_path).shards("documents")[0]
    note = BuildFolder(tmp_path).progress("ingest")
    if damage == "torn":
        shard.write_bytes(shard.read_bytes()[:-7])
    elif damage == "gone":
        shard.unlink()
    else:
        note.write_text(note.read_text()[:40])
    with StageWriter(BuildFolder(tmp_path), "ingest", fingerprint="f", run=RUN) as writer:
        assert writer.cursor == 0
        write_inputs(writer)
        writer.finish()
    run_whole(tmp_path / "whole")
    assert {k: v for k, v in files(tmp_path).items() if "whole" not in k} == files(tmp_path / "whole")


def test_another_stages_rejects_are_left_alone(tmp_path: Path) -> None:
    run_whole(tmp_path)
    with StageWriter(BuildFolder(tmp_path), "sample", fingerprint="f", run=RUN) as writer:
        writer.finish()
    rejects = [path.name for path in BuildFolder(tmp_path).shards("rejects")]
    assert rejects[:1] == ["ingest-00000.parquet"]
    assert rejects[-1:] == ["sample-00000.parquet"]


def test_an_error_drops_unfinished_files_and_keeps_closed_ones(tmp_path: Path) -> None:
    def fail() -> None:
        with StageWriter(BuildFolder(tmp_path), "ingest", fingerprint="f", run=RUN) as writer:
            write_inputs(writer, stop_before=30)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.rglob(".*tmp"))
    assert BuildFolder(tmp_path).shards("documents")


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"shards": 5}', '{"shards": {"a": [{"path": 1}]}}', "\x00", "5"]
)
def test_a_torn_report_says_what_to_do(tmp_path: Path, content: str) -> None:
    build = BuildFolder(tmp_path)
    build.report("ingest").parent.mkdir()
    build.report("ingest").write_text(content)
    with pytest.raises(BuildError, match=r"ingest\.json: not a stage report.*remove it"):
        read_report(build, "ingest")


def test_a_stage_that_is_missing_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'ingest' is not complete; run: longalign ingest RECIPE"):
        require(BuildFolder(tmp_path), "ingest")


def test_a_report_holds_plain_json(tmp_path: Path) -> None:
    run_whole(tmp_path)
    data = json.loads(BuildFolder(tmp_path).report("ingest").read_text())
    assert data["rejected"] == {"reason-0": 4, "reason-1": 4}
    assert data["shards"]["documents"][0]["path"] == "documents/00000.parquet"
