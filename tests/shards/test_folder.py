import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longalign_data.engine import RunOptions
from longalign_data.errors import BuildError
from longalign_data.records import TABLES, Reject
from longalign_data.shards.files import whole_file, write_json
from longalign_data.shards.folder import STAGES, BuildFolder, open_build
from longalign_data.shards.stage import StageWriter

ROOT = Path(__file__).parents[2]


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from longalign_data.errors import BuildError
from longalign_data.shards.folder import BuildFolder
try:
    with BuildFolder(Path(sys.argv[1])).lock():
        print("free")
except BuildError as error:
    print(error)
"""

    def other() -> str:
        arguments = [sys.executable, "-c", program, str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            arguments, capture_output=True, text=True, timeout=300, check=True, env=environment
        ).stdout

    with BuildFolder(tmp_path).lock():
        assert f"another build is at work in this folder (process {os.getpid()})" in other()
    assert other().strip() == "free"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from longalign_data.shards.folder import BuildFolder
with BuildFolder(Path(sys.argv[1])).lock():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=300, check=False, env=environment)
    assert done.returncode == -9
    with BuildFolder(tmp_path).lock():
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """A file where a folder should be: nobody can write there, the superuser neither."""
    (tmp_path / "file").write_text("")
    build = BuildFolder(tmp_path / "file" / "build")
    with pytest.raises(BuildError, match="cannot be written: Not a directory"), build.lock():
        pass
    with pytest.raises(BuildError, match="cannot be written: Not a directory"):
        write_json(build.report("ingest"), {})
    with pytest.raises(BuildError, match="cannot be written: Not a directory"), whole_file(build.manifest) as temporary:
        temporary.write_text("x")
    with (
        pytest.raises(BuildError, match="cannot be written"),
        StageWriter(build, "ingest", fingerprint="f", run=RunOptions()) as writer,
    ):
        writer.finish()


READ_ONLY = """
import os, sys
from pathlib import Path
from longalign_data.engine import RunOptions
from longalign_data.errors import BuildError
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter
if os.getuid() == 0:
    os.setuid(65534)  # permissions do not bind the superuser
build = BuildFolder(Path(sys.argv[1]))
def lock():
    with build.lock():
        pass
def stage():
    with StageWriter(build, "ingest", fingerprint="f", run=RunOptions()) as writer:
        writer.finish()
for action in (lock, stage):
    try:
        action()
        print("written")
    except BuildError as error:
        print(error)
"""


def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    # The folders of pytest are closed to other users, so the path is given open from the working directory.
    folder = tmp_path / "build"
    (folder / "state").mkdir(parents=True)
    for path in (folder / "state", folder):
        path.chmod(0o555)
    opened = os.open(folder, os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, "."],
            cwd=f"/proc/self/fd/{opened}" if Path("/proc/self/fd").exists() else folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, pass_fds=[opened], capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        os.close(opened)
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "cannot be written: Permission denied" in line


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"

    def write_half(text: str) -> None:
        with whole_file(path) as temporary:
            temporary.write_text(text)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half("half")
    assert list(path.parent.iterdir()) == []
    with whole_file(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError):
        write_half("new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fill() -> None:
        with whole_file(tmp_path / "x") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x" * 100_000)

    with pytest.raises(BuildError, match="cannot be written: No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_no_build_names_the_builds_nearby(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no build stands here; make one with: longalign build RECIPE"):
        open_build(tmp_path / "none")
    (tmp_path / "mine" / "1.0.0").mkdir(parents=True)
    (tmp_path / "mine" / "1.0.0" / "manifest.json").write_text("{}")
    assert open_build(tmp_path / "mine" / "1.0.0").root == tmp_path / "mine" / "1.0.0"
    for wrong in (tmp_path, tmp_path / "mine", tmp_path / "nime"):
        with pytest.raises(BuildError, match=r"builds nearby: .*mine/1\.0\.0"):
            open_build(wrong)


def test_an_unknown_table_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="unknown table 'sample'; a build has: documents, selection, samples"):
        BuildFolder(tmp_path).shards("sample")


@pytest.mark.parametrize("rejected", [False, True])
def test_every_table_of_a_build_loads_as_a_dataset(tmp_path: Path, rejected: bool) -> None:
    """Tables without rows by streaming alone: `datasets` cannot make a split of no rows, so a card has no config for them."""
    import datasets

    build = BuildFolder(tmp_path / "build")
    for stage in STAGES:
        with StageWriter(build, stage, fingerprint="f", run=RunOptions()) as writer:
            if rejected:
                writer.reject(Reject(id="1", stage=stage, reason="r", detail="d"))
                writer.next_input()
            writer.finish()
    configs = "".join(f"- config_name: {table}\n  data_files: {table}/*.parquet\n" for table in TABLES)
    build.card.write_text(f"---\nconfigs:\n{configs}---\n# A build\n")
    for table, (_, schema) in TABLES.items():
        assert build.shards(table)
        streamed = datasets.load_dataset(str(build.root), table, split="train", streaming=True)
        assert len(list(streamed)) == (len(STAGES) if rejected and table == "rejects" else 0)
        assert all(pq.read_schema(path).names == schema.names for path in build.shards(table))
    if rejected:
        loaded = datasets.load_dataset(str(build.root), "rejects", split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded["stage"][:] == sorted(STAGES)
