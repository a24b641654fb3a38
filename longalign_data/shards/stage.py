"""How a stage writes its tables, so that it can be cut off anywhere and go on.

A stage reads inputs in a fixed order and writes rows in that order. `StageWriter` closes shards at sizes that depend on
the rows alone, and after each closing notes how many inputs the closed shards hold. A stage that was cut off starts
again at that input; the rows after it come out as they would have.
"""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longalign_data.engine import RunOptions
from longalign_data.errors import BuildError
from longalign_data.records import REJECTS, TABLES, Record, Reject
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.parquet import ShardFile, ShardInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What a complete stage did. Every input is accounted for: `num_in` = `num_out` + `num_rejected` + `num_left_out`
    where a stage maps inputs to rows one by one (all but pack, which puts many sequences into a pack and counts
    sequences in all three, and encode of plain documents, which cuts them into windows and counts windows).

    `rejected` counts the stored rejects by reason, `left_out` counts by reason what was set aside on purpose (outside the
    window, not drawn). `num_tokens` is of what came out. `details` are the stage's own figures.
    """

    stage: str
    fingerprint: str
    num_in: int
    num_out: int
    num_rejected: int
    num_left_out: int
    num_tokens: int
    seconds: float
    rejected: Mapping[str, int]
    left_out: Mapping[str, int]
    details: Mapping[str, Any]
    shards: Mapping[str, Sequence[ShardInfo]]


def write_report(build: BuildFolder, report: StageReport) -> None:
    """Marks a stage complete."""
    write_json(build.report(report.stage), dataclasses.asdict(report))
    build.progress(report.stage).unlink(missing_ok=True)


def read_report(build: BuildFolder, stage: str) -> StageReport | None:
    """The report of a stage, or None when it is not complete."""
    try:
        data = json.loads(build.report(stage).read_text(encoding="utf-8"))
        shards = {table: [ShardInfo(**shard) for shard in found] for table, found in data.pop("shards").items()}
        return StageReport(**data, shards=shards)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildError(
            f"{build.report(stage)}: not a stage report: {error}; remove it to run the stage again"
        ) from None


@dataclass(slots=True, kw_only=True)
class Counts:
    """Running totals of a stage; they survive a cut together with the shards."""

    num_in: int = 0
    num_out: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)


class StageWriter:
    """Writes the tables of one stage.

    Use: skip the first `cursor` inputs; for each further input call `write`, `reject` or `leave_out` as often as needed
    and then `next_input`; at the end `finish`. `counts.num_in` and `num_out` are kept here, one for each `next_input`
    and each row of the stage's first table unless more is said. `began` (`time.monotonic`) is when the stage's work began, where
    that was before its writing.
    """

    def __init__(
        self, build: BuildFolder, stage: str, *, fingerprint: str, run: RunOptions, began: float | None = None
    ) -> None:
        self._build = build
        self._stage = stage
        self._fingerprint = fingerprint
        self._run = run
        self._tables = (*STAGES[stage], "rejects")
        self._closed: dict[str, list[ShardInfo]] = {table: [] for table in self._tables}
        self._open: dict[str, ShardFile] = {}
        self._began = time.monotonic() if began is None else began
        self.counts = Counts()
        self.cursor = 0
        if not self._restore():
            build.clear(stage)
        self._clean()

    def write(self, table: str, record: Record, *, num_out: int = 1) -> None:
        """Adds a row to one of the stage's tables; a row of the first one counts as `num_out` things that came out."""
        self._file(table).write(record)
        if table == self._tables[0]:
            self.counts.num_out += num_out
            self.counts.num_tokens += getattr(record, "num_tokens", 0)

    def write_table(self, table: str, rows: pa.Table) -> None:
        """Adds rows of the stage's first table that are in Arrow already; each counts as one thing that came out."""
        assert table == self._tables[0]
        self._file(table).write_table(rows)
        self.counts.num_out += rows.num_rows
        self.counts.num_tokens += pc.sum(rows.column("num_tokens")).as_py() or 0

    def reject(self, reject: Reject) -> None:
        """Stores and counts a reject of this stage."""
        assert reject.stage == self._stage
        self._file("rejects").write(reject)
        self.counts.rejected[reject.reason] += 1

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts inputs that are set aside on purpose."""
        self.counts.left_out[reason] += count

    def count(self, figures: Mapping[str, int]) -> None:
        """Adds to the stage's own figures, which stand in the report's `details`."""
        self.counts.figures.update(figures)

    def next_input(self, num_in: int = 1, *, inputs: int = 1) -> None:
        """One input, or `inputs` at once, is done (`num_in` things in the counts); closes the shards when one is full."""
        self.cursor += inputs
        self.counts.num_in += num_in
        if any(file.num_bytes >= self._run.shard_bytes for file in self._open.values()):
            self._close()
            self._save()

    def finish(self, details: Mapping[str, Any] | None = None) -> StageReport:
        """Closes everything and marks the stage complete. Every table gets a file, if only an empty one, so that every
        table of a build can be loaded."""
        for table in self._tables:
            if not self._closed[table] and table not in self._open:
                self._file(table)
        self._close()
        report = StageReport(
            stage=self._stage,
            fingerprint=self._fingerprint,
            num_in=self.counts.num_in,
            num_out=self.counts.num_out,
            num_rejected=self.counts.rejected.total(),
            num_left_out=self.counts.left_out.total(),
            num_tokens=self.counts.num_tokens,
            seconds=round(self._seconds(), 3),
            rejected=dict(sorted(self.counts.rejected.items())),
            left_out=dict(sorted(self.counts.left_out.items())),
            details={**self.counts.figures, **(details or {})},
            shards=self._closed,
        )
        write_report(self._build, report)
        return report

    def abandon(self) -> None:
        """Drops the files that are still open, after an error; what was closed stays for the next run."""
        for file in self._open.values():
            file.abandon()
        self._open.clear()

    def __enter__(self) -> "StageWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def _file(self, table: str) -> ShardFile:
        if table not in self._open:
            prefix = f"{self._stage}-" if table == "rejects" else ""
            path = self._build.root / table / f"{prefix}{len(self._closed[table]):05d}.parquet"
            schema = REJECTS if table == "rejects" else TABLES[table][1]
            self._open[table] = ShardFile(path, schema, row_group_bytes=self._run.row_group_bytes)
        return self._open[table]

    def _close(self) -> None:
        for table, file in self._open.items():
            self._closed[table].append(file.close(self._build.root))
        self._open.clear()

    def _seconds(self) -> float:
        return self.counts.seconds + time.monotonic() - self._began

    def _save(self) -> None:
        # Field by field: `asdict` builds a Counter from pairs, which counts the pairs.
        counts = {f.name: getattr(self.counts, f.name) for f in dataclasses.fields(self.counts)}
        counts["seconds"] = self._seconds()
        shards = {table: [dataclasses.asdict(shard) for shard in closed] for table, closed in self._closed.items()}
        state = {"fingerprint": self._fingerprint, "cursor": self.cursor, "counts": counts, "shards": shards}
        write_json(self._build.progress(self._stage), state)

    def _restore(self) -> bool:
        try:
            state = json.loads(self._build.progress(self._stage).read_text(encoding="utf-8"))
            shards = {table: [ShardInfo(**shard) for shard in closed] for table, closed in state["shards"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # no note, or a torn one: start over
            return False
        whole = all(
            (self._build.root / s.path).is_file() and (self._build.root / s.path).stat().st_size == s.bytes
            for c in shards.values()
            for s in c
        )
        if state["fingerprint"] != self._fingerprint or not whole:
            return False
        counts = state["counts"]
        self.counts = Counts(**counts | {name: Counter(counts[name]) for name in ("rejected", "left_out", "figures")})
        self._closed, self.cursor = shards, state["cursor"]
        return True

    def _clean(self) -> None:
        """Removes files that a cut-off run wrote after its last note, and its unfinished ones."""
        known = {self._build.root / shard.path for closed in self._closed.values() for shard in closed}
        for table in self._tables:
            pattern = f"*{self._stage}-*.parquet*" if table == "rejects" else "*.parquet*"
            for path in (self._build.root / table).glob(pattern):
                if path not in known:
                    path.unlink()
            for path in (self._build.root / table).glob(f".{pattern}"):
                path.unlink(missing_ok=True)


def require(build: BuildFolder, stage: str) -> StageReport:
    """The report of a stage that another stage builds on. Raises BuildError, saying which command to run."""
    report = read_report(build, stage)
    if report is None:
        raise BuildError(
            f"{build.root}: the stage {stage!r} is not complete; run: longalign {stage} RECIPE (or longalign build RECIPE)"
        )
    return report


def work_folder(build: BuildFolder, stage: str) -> Path:
    """The stage's scratch folder, made if need be."""
    path = build.work(stage)
    path.mkdir(parents=True, exist_ok=True)
    return path
