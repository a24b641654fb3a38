"""A build folder and what stands in it.

    <root>/<table>/00000.parquet ...     the tables; rejects/<stage>-00000.parquet
    <root>/manifest.json  README.md      written last
    <root>/ledger.sqlite                 requests and replies; never published
    <root>/state/<stage>.json            the report of a complete stage, with its fingerprint
    <root>/state/text-hashes.json        the hashes of the selected texts, with those of the shards that they are of
    <root>/work/<stage>/                 scratch of a stage that is running or was cut off

A table belongs to exactly one stage; rejects hold one series of files a stage.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_data.errors import BuildError
from longalign_data.records import TABLES
from longalign_data.shards.files import writing

STAGES: dict[str, tuple[str, ...]] = {
    "ingest": ("documents",),
    "sample": ("selection",),
    "generate": ("samples",),
    "mix": ("chats",),
    "encode": ("sequences",),
    "pack": ("packs", "plan"),
}
"""Every stage in order, with the tables that it writes."""


@dataclass(frozen=True, slots=True)
class BuildFolder:
    """The places inside one build."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    def work(self, stage: str) -> Path:
        """Scratch space of a stage; gone once the stage is complete."""
        return self.root / "work" / stage

    def report(self, stage: str) -> Path:
        """The report of a complete stage."""
        return self.root / "state" / f"{stage}.json"

    def progress(self, stage: str) -> Path:
        """What a stage that was cut off had finished."""
        return self.root / "state" / f"{stage}.progress.json"

    def shards(self, table: str) -> list[Path]:
        """The files of a table, in order. Raises BuildError for a name that is no table."""
        if table not in TABLES:
            raise BuildError(f"unknown table {table!r}; a build has: {', '.join(TABLES)}")
        return sorted((self.root / table).glob("*.parquet"))

    def clear(self, stage: str) -> None:
        """Removes what a stage left: report first, so that a torn removal is never taken for a complete stage."""
        with writing(self.root):
            self.report(stage).unlink(missing_ok=True)
            self.progress(stage).unlink(missing_ok=True)
            self.manifest.unlink(missing_ok=True)
            for table in STAGES[stage]:
                shutil.rmtree(self.root / table, ignore_errors=True)
            for path in (self.root / "rejects").glob(f"*{stage}-*.parquet*"):
                path.unlink()

    def is_at_work(self) -> bool:
        """Whether a process holds the folder now."""
        try:
            descriptor = os.open(self.root / ".lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one process; the lock ends with the process, however it ends. Raises BuildError when
        another process holds it, with its process id."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BuildError(f"{self.root}: cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
                raise BuildError(
                    f"{self.root}: another build is at work in this folder (process {holder}); wait for it or stop it"
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)


def open_build(root: Path) -> BuildFolder:
    """The build at `root`, for reading. Raises BuildError when there is none, naming the builds nearby."""
    if (root / "manifest.json").is_file() or (root / "state").is_dir():
        return BuildFolder(root)
    near = _builds_below(root if root.is_dir() else root.parent)
    hint = (
        f"; builds nearby: {', '.join(str(path) for path in near)}"
        if near
        else "; make one with: longalign build RECIPE"
    )
    raise BuildError(f"{root}: no build stands here{hint}")


def _builds_below(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return []
    return sorted(path.parent for pattern in ("*/manifest.json", "*/*/manifest.json") for path in folder.glob(pattern))[
        :8
    ]
