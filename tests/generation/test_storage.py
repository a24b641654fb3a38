"""Where nothing can be written: a clear word, nothing torn, and the same command goes on once there is room."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from longalign_data.teachers.fake import FakeServer
from tests.asked import KEY, ROOT, Asked, texts


def limited(
    asked: Asked, url: str, output: Path, num_bytes: int, stage: str = "generate"
) -> "subprocess.CompletedProcess[str]":
    """A build in which no file may grow beyond so many bytes, as on a disk that is full."""
    command = [sys.executable, "-m", "longalign_data", stage, str(asked.recipe), "--output", str(output)]
    return subprocess.run(
        [*command, "--teacher-url", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": KEY},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)),
    )


@pytest.mark.parametrize("num_bytes", [40_000, 90_000])
def test_a_full_disk_is_said_and_nothing_that_was_paid_is_lost(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, num_bytes: int
) -> None:
    asked, server = corpus("anthropic"), serve()
    asked.build(serve().url, tmp_path / "whole")
    output = tmp_path / "out"
    process = asked.start(server.url, output, key="", stage="ingest")  # puts the prepared stages there
    process.communicate(timeout=60)
    done = limited(asked, server.url, output, num_bytes)
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    assert str(output) in done.stderr
    assert KEY not in done.stderr
    num_answered = server.state.meter["live_replies"]
    asked.build(server.url, output)
    assert texts(output) == texts(tmp_path / "whole")
    # What was on its way when the ledger could take no more is the only thing to be asked again.
    assert server.state.meter["live_replies"] <= 32 + min(num_answered, 16)


def test_a_folder_that_cannot_be_written_is_named(corpus: Callable[..., Asked], tmp_path: Path) -> None:
    asked = corpus("extractive")
    (tmp_path / "out").write_text("a file where a folder should be", encoding="utf-8")
    said = asked.build("http://127.0.0.1:9", tmp_path / "out", code=2)
    assert "cannot be written" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(corpus: Callable[..., Asked], tmp_path: Path) -> None:
    asked = corpus("extractive")
    (tmp_path / "out").mkdir(mode=0o555)
    assert "cannot be written" in asked.build("http://127.0.0.1:9", tmp_path / "out", code=2)


def test_a_disk_that_fills_up_in_an_earlier_stage_is_said_without_a_traceback(
    corpus: Callable[..., Asked], tmp_path: Path
) -> None:
    asked = corpus("extractive", size=400)
    done = limited(asked, "http://127.0.0.1:9", tmp_path / "out", 20_000, stage="build")
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    assert "too large" in done.stderr
