"""Where nothing can be written: a clear word, nothing torn, and the same command goes on once there is room."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from longalign_data.teachers.fake import FakeServer
from tests.asked import KEY, ROOT, Asked, log_of, texts
from tests.generation.small_builds import recipe, run_generate, some_documents, stand
from tests.generation.test_kills import replies


def held(
    asked: Asked, url: str, output: Path, stage: str, hold: Callable[[], None]
) -> "subprocess.CompletedProcess[str]":
    """A stage in a process that `hold` has taken something from before it begins."""
    command = [sys.executable, "-m", "longalign_data", stage, str(asked.recipe), "--output", str(output)]
    return subprocess.run(
        [*command, "--teacher-url", url],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": KEY},
        preexec_fn=hold,
    )


def limited(
    asked: Asked, url: str, output: Path, num_bytes: int, stage: str = "generate"
) -> "subprocess.CompletedProcess[str]":
    """A stage in which no file may grow beyond so many bytes, as on a disk that is full."""
    return held(asked, url, output, stage, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)))


def obey_permissions() -> None:
    """Root may write anywhere, unless it has given up that right."""
    if os.geteuid() == 0:
        drop_from_bounding_set, dac_override = 24, 1
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0) == 0


@pytest.mark.parametrize(("num_bytes", "is_asked"), [(40_000, False), (500_000, True)])
def test_a_full_disk_is_said_and_nothing_that_was_paid_is_lost(
    corpus: Callable[..., Asked], serve: Callable[..., FakeServer], tmp_path: Path, num_bytes: int, is_asked: bool
) -> None:
    asked, server = corpus("anthropic"), serve()
    asked.build(serve().url, tmp_path / "whole")
    output = tmp_path / "out"
    shutil.copytree(asked.prepared, output)
    done = limited(asked, server.url, output, num_bytes)
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    assert str(output) in done.stderr
    assert KEY not in done.stderr
    kept = replies(output)
    assert bool(kept) == is_asked, "the disk fills up while answers come, or before the first"
    assert len(kept) < 32
    asked.build(server.url, output)
    assert texts(output) == texts(tmp_path / "whole")
    # What was on its way when the ledger could take no more is the only thing to be asked again.
    sent = Counter(line["key"] for line in log_of(tmp_path) if line["event"] == "call")
    assert len(sent) == 32
    assert all(sent[key] == 1 for key in kept)
    assert max(sent.values()) <= 2


def test_a_folder_that_cannot_be_written_is_named(corpus: Callable[..., Asked], tmp_path: Path) -> None:
    asked = corpus("extractive")
    (tmp_path / "out").write_text("a file where a folder should be", encoding="utf-8")
    said = asked.build("http://127.0.0.1:9", tmp_path / "out", code=2)
    assert "cannot be written" in said


@pytest.mark.parametrize("place", ["", "asked/1.0.0"])
def test_a_read_only_folder_is_named_and_nothing_is_begun_in_it(
    corpus: Callable[..., Asked], tmp_path: Path, place: str
) -> None:
    asked, output = corpus("extractive"), tmp_path / "out"
    if place:
        shutil.copytree(asked.prepared, output)
    else:
        output.mkdir()
    before = sorted(output.rglob("*"))
    folders = [output / place, *(path for path in (output / place).rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = held(asked, "http://127.0.0.1:9", output, "generate", obey_permissions)
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert str(output / place) in done.stderr
    assert "cannot be" in done.stderr
    assert sorted(output.rglob("*")) == before


def test_the_ledger_of_a_build_that_may_not_be_written_is_shown(tmp_path: Path) -> None:
    build = stand(tmp_path / "small/1.0.0", some_documents(3))
    run_generate(build, recipe(provider="extractive"))
    before = {path: path.read_bytes() for path in build.root.rglob("*") if path.is_file()}
    for path in [build.root, *before]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-m", "longalign_data", "ledger", str(build.root)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, preexec_fn=obey_permissions
    )
    build.root.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "of 3 selected documents" in done.stdout
    assert {path: path.read_bytes() for path in build.root.rglob("*") if path.is_file()} == before


def test_a_disk_that_fills_up_in_an_earlier_stage_is_said_without_a_traceback(
    corpus: Callable[..., Asked], tmp_path: Path
) -> None:
    asked = corpus("extractive", size=400)
    done = limited(asked, "http://127.0.0.1:9", tmp_path / "out", 20_000, stage="build")
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    assert "too large" in done.stderr
