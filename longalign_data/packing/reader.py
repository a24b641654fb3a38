"""What a trainer sees of a build: packs by step, rank and micro-batch. Without torch, and light to import.

In: a folder with the tables `packs` and `plan`: a build, or a published copy of one. Out: `PackBatch`, as

    input_ids     [ 5  9  2  7 | 5  3  2]        int64[T]
    position_ids  [ 0  1  2  3 | 0  1  2]        int64[T], from 0 in every sequence
    loss_weights  [ 0  0 .5 .5 | 0  0  1]        float32[T], of the label at the same place
    cu_seqlens    [ 0  4  7]                     int32[num_sequences + 1]

The same folder serves every split of K into ranks x accumulation: micro-batch m of a step takes its packs m * ranks to
(m + 1) * ranks, rank r the r-th of them. Packs of a step lie by work, so the ranks of a micro-batch do alike work. To go
on from step s is to ask for step s; there is no state.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.errors import BuildError
from longalign_data.records import PACKS, PLAN

CACHED_GROUPS = 4
"""Row groups kept in memory, about a megabyte each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """One optimizer step: M, Z (see `records.PlanEntry`) and how many of its K places hold a pack. The gradient of a step
    is that of sum(loss_weights * cross entropy) over all of its packs, divided by `normalizer`."""

    num_sequences: int
    normalizer: float
    num_packs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackBatch:
    """One pack; the arrays are described at the head of the module. `loss_weights[1:]` belongs to `logits[:-1]`; what is
    at the first token of a sequence is 0. `max_seqlen` is the longest sequence, in tokens."""

    pack_id: str
    input_ids: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]
    loss_weights: npt.NDArray[np.float32]
    cu_seqlens: npt.NDArray[np.int32]
    max_seqlen: int
    num_tokens: int
    num_sequences: int


class PackReader:
    """Random access to the packs of a build. Safe to pickle into loader processes: files are opened where they are read.

    `packs_per_step` is K and `capacity` the largest number of tokens in a pack: as the build declares them, and where it
    declares nothing (a bare copy of the two tables) the largest that occur.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = _files(folder, "packs")
        plan = _read_plan(folder)
        self._pack_ids: list[str] = plan.column("pack_id").to_pylist()
        steps = plan.column("step").to_numpy()
        self._m = plan.column("num_sequences").to_numpy()
        self._z = plan.column("normalizer").to_numpy()
        positions = plan.column("position").to_numpy()
        starts = np.flatnonzero(np.diff(steps, prepend=-1))
        expected = np.arange(len(steps)) - np.repeat(starts, np.diff(starts, append=len(steps)))
        if not np.array_equal(steps[starts], np.arange(len(starts))) or not np.array_equal(positions, expected):
            raise BuildError(
                f"{folder}: the plan does not run step by step from 0; its files are incomplete or of two builds"
            )
        self._starts: list[int] = [*starts.tolist(), len(steps)]
        self._index_groups()
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        declared = _declared(folder)
        self.num_steps = len(starts)
        self.packs_per_step = int(declared.get("packs_per_step") or max(np.diff(self._starts), default=0))
        self.capacity = int(declared.get("capacity") or self._largest)

    def step(self, step: int) -> StepInfo:
        """What step `step` holds. Raises IndexError outside range(num_steps)."""
        first, end = self._bounds(step)
        return StepInfo(num_sequences=int(self._m[first]), normalizer=float(self._z[first]), num_packs=int(end - first))

    def batch(self, step: int, rank: int, ranks: int, micro: int, accumulation: int) -> PackBatch | None:
        """The pack of `rank` in micro-batch `micro` of `step`; None where a short step has no pack (the rank then runs a
        micro-batch of weight 0, so that all ranks keep step).

        Raises BuildError unless ranks * accumulation is K, naming the splits that are, or when the files are torn.
        """
        self.check_split(ranks, accumulation)
        if not (0 <= rank < ranks and 0 <= micro < accumulation):
            raise IndexError(f"rank {rank} of {ranks}, micro-batch {micro} of {accumulation}: out of range")
        first, end = self._bounds(step)
        row = first + micro * ranks + rank
        return self._read(row) if row < end else None

    def check_split(self, ranks: int, accumulation: int) -> None:
        """Raises BuildError unless ranks * accumulation is K."""
        k = self.packs_per_step
        if ranks < 1 or accumulation < 1 or ranks * accumulation != k:
            splits = ", ".join(f"{r} x {k // r}" for r in range(1, k + 1) if k % r == 0)
            raise BuildError(
                f"{self._folder}: a step has {k} packs, but {ranks} ranks x {accumulation} accumulation steps take "
                f"{ranks * accumulation}; splits that fit (ranks x accumulation): {splits}. Or pack again with "
                f"pack.packs_per_step: {ranks * accumulation}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def _bounds(self, step: int) -> tuple[int, int]:
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step}: this plan has {self.num_steps} steps")
        return self._starts[step], self._starts[step + 1]

    def _index_groups(self) -> None:
        """Where each row group begins, in rows of the whole table."""
        self._groups: list[tuple[Path, int]] = []
        self._group_rows: list[int] = []
        self._largest = 0
        rows = 0
        for path in self._files:
            with _open(path, PACKS) as file:
                leaves = [file.metadata.schema.column(leaf).path for leaf in range(len(file.metadata.schema))]
                column = leaves.index("num_tokens")
                for group in range(file.num_row_groups):
                    metadata = file.metadata.row_group(group)
                    self._groups.append((path, group))
                    self._group_rows.append(rows)
                    rows += metadata.num_rows
                    statistics = metadata.column(column).statistics
                    if statistics is not None and statistics.has_min_max:
                        self._largest = max(self._largest, int(statistics.max))
        if rows != len(self._pack_ids):
            raise BuildError(
                f"{self._folder}: {rows} packs but {len(self._pack_ids)} plan entries; files are missing or of two builds"
            )

    def _read(self, row: int) -> PackBatch:
        group = bisect_right(self._group_rows, row) - 1
        table = self._table(group)
        at = row - self._group_rows[group]
        pack_id = table.column("pack_id")[at].as_py()
        if pack_id != self._pack_ids[row]:
            raise BuildError(
                f"{self._groups[group][0]}: row {at} of row group {self._groups[group][1]} is pack {pack_id!r} where the plan has "
                f"{self._pack_ids[row]!r}; packs and plan are of two builds"
            )
        cu_seqlens = _numbers(table, "cu_seqlens", at).astype(np.int32)
        lengths = np.diff(cu_seqlens)
        input_ids = _numbers(table, "input_ids", at).astype(np.int64)
        position_ids = np.arange(len(input_ids), dtype=np.int64) - np.repeat(cu_seqlens[:-1], lengths)
        return PackBatch(
            pack_id=pack_id,
            input_ids=input_ids,
            position_ids=position_ids,
            loss_weights=_numbers(table, "loss_weights", at).astype(np.float32),
            cu_seqlens=cu_seqlens,
            max_seqlen=int(lengths.max()),
            num_tokens=len(input_ids),
            num_sequences=len(lengths),
        )

    def _table(self, group: int) -> pa.Table:
        table = self._cache.get(group)
        if table is None:
            path, number = self._groups[group]
            with _open(path, PACKS) as file:
                try:
                    table = file.read_row_group(
                        number, columns=["pack_id", "input_ids", "loss_weights", "cu_seqlens"], use_threads=False
                    )
                except (pa.ArrowInvalid, OSError) as error:
                    raise BuildError(f"{path}: row group {number} cannot be read: {error}") from error
            self._cache[group] = table
            if len(self._cache) > CACHED_GROUPS:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(group)
        return table


def open_packs(build_folder: Path) -> PackReader:
    """The packs of a build, or of a folder that holds its tables packs/ and plan/ alone. Raises BuildError when there are
    none, or when the two do not belong together."""
    return PackReader(build_folder)


def _numbers(table: pa.Table, column: str, row: int) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = table.column(column)[row].values.to_numpy()
    return numbers


def _files(folder: Path, table: str) -> list[Path]:
    files = sorted((folder / table).glob("*.parquet"))
    if not files:
        raise BuildError(f"{folder}: no {table}/*.parquet here; make them with: longalign build RECIPE")
    return files


def _open(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BuildError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = [name for name in schema.names if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise BuildError(f"{path}: not a table of this package: it has no column {', '.join(missing)}")
    return file


def _read_plan(folder: Path) -> pa.Table:
    tables: list[pa.Table] = []
    for path in _files(folder, "plan"):
        with _open(path, PLAN) as file:
            try:
                tables.append(file.read(columns=PLAN.names, use_threads=False))
            except (pa.ArrowInvalid, OSError) as error:
                raise BuildError(f"{path}: cannot be read: {error}") from error
    return pa.concat_tables(tables).combine_chunks()


def _declared(folder: Path) -> dict[str, Any]:
    """What the stage's report says of K and capacity; it stands in the manifest, and in state/ while there is none."""
    for path in (folder / "manifest.json", folder / "state" / "pack.json"):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise BuildError(f"{path}: not JSON: {error}") from None
        found = _find_report(value)
        if found is not None:
            return found
    return {}


def _find_report(value: Any) -> dict[str, Any] | None:
    """The `details` of the pack stage in a manifest or a stage report."""
    if not isinstance(value, dict):
        return None
    reports = value.get("stages", value)
    if isinstance(reports, dict):
        reports = [reports] if "details" in reports else [reports.get("pack")]
    for report in reports if isinstance(reports, list) else []:
        if (
            isinstance(report, dict)
            and report.get("stage", "pack") == "pack"
            and isinstance(report.get("details"), dict)
        ):
            return dict(report["details"])
    return None
