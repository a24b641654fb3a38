"""What a trainer sees of a build: packs by step, rank and micro-batch. Without torch, and light to import.

In: a folder with the tables `packs` and `plan`: a build, or a published copy of one, here, on the Hub
(`hf://datasets/OWNER/NAME@REVISION`) or in any store that fsspec knows (`s3://...`). Out: `PackBatch`, as

    input_ids     [ 5  9  2  7 | 5  3  2]        int64[T]
    position_ids  [ 0  1  2  3 | 0  1  2]        int64[T], from 0 in every sequence
    loss_weights  [ 0  0 .5 .5 | 0  0  1]        float64[T], of the label at the same place
    cu_seqlens    [ 0  4  7]                     int32[num_sequences + 1]

The same folder serves every split of K into ranks x accumulation: micro-batch m of a step takes its packs m * ranks to
(m + 1) * ranks, rank r the r-th of them. Packs of a step lie by work, so the ranks of a micro-batch do alike work. To go
on from step s is to ask for step s; there is no state.

`batch` answers one question; `stream` goes through the steps of a rank and reads ahead:

    reader = open_packs("builds/quickstart/1.0.0")
    for step, micro, batch in reader.stream(rank, ranks, accumulation, first_step=resume_at): ...
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.errors import BuildError
from longalign_data.records import PACKS, PLAN, TABLES

CACHED_GROUPS = 4
"""Row groups kept in memory, about a megabyte each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """One optimizer step: M, Z, epoch and capacity (see `records.PlanEntry`) and how many of its K places hold a pack. The
    gradient of a step is that of sum(loss_weights * cross entropy) over all of its packs, divided by `normalizer`."""

    num_sequences: int
    normalizer: float
    num_packs: int
    epoch: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackBatch:
    """One pack; the arrays are described at the head of the module. `loss_weights[1:]` belongs to `logits[:-1]`; what is
    at the first token of a sequence is 0. `max_seqlen` is the longest sequence, in tokens."""

    pack_id: str
    input_ids: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]
    loss_weights: npt.NDArray[np.float64]
    cu_seqlens: npt.NDArray[np.int32]
    max_seqlen: int
    num_tokens: int
    num_sequences: int


Places: TypeAlias = list[tuple[int, int, int]]
"""Packs of one row group as (step, micro-batch, row of the whole table)."""


class PackReader:
    """Random access to the packs of a build. Safe to pickle into loader processes: files are opened where they are read.

    `packs_per_step` is K and `capacity` the largest number of tokens in a pack: as the build declares them, and where it
    declares nothing (a bare copy of the two tables) the largest that occur. `work` is its work model, `linear` and
    `quadratic`, if it declares one. `num_epochs` epochs follow each other in the
    `num_steps` steps.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = _Folder.at(folder)
        self._files = self._folder.files("packs")
        plan = _concatenated(self._folder, self._folder.files("plan"), PLAN)
        self._pack_ids: list[str] = plan.column("pack_id").to_pylist()
        steps = plan.column("step").to_numpy()
        self._m = plan.column("num_sequences").to_numpy()
        self._z = plan.column("normalizer").to_numpy()
        self._epochs = plan.column("epoch").to_numpy()
        self._capacities = plan.column("capacity").to_numpy()
        positions = plan.column("position").to_numpy()
        starts = np.flatnonzero(np.diff(steps, prepend=-1))
        expected = np.arange(len(steps)) - np.repeat(starts, np.diff(starts, append=len(steps)))
        if not np.array_equal(steps[starts], np.arange(len(starts))) or not np.array_equal(positions, expected):
            raise BuildError(
                f"{self._folder}: the plan does not run step by step from 0; its files are incomplete or of two builds"
            )
        self._starts: list[int] = [*starts.tolist(), len(steps)]
        self._metadata: dict[int, tuple[Any, list[int]]] = {}
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        declared = _declared(self._folder)
        self._index_files()
        self.num_steps = len(starts)
        self.num_epochs = int(self._epochs[-1]) + 1 if len(steps) else 0
        self.packs_per_step = int(declared.get("packs_per_step") or max(np.diff(self._starts), default=0))
        self.capacity = int(declared.get("capacity") or self._capacities.max(initial=0))
        self.work: dict[str, float] | None = declared.get("work")

    def step(self, step: int) -> StepInfo:
        """What step `step` holds. Raises IndexError outside range(num_steps)."""
        first, end = self._bounds(step)
        return StepInfo(
            num_sequences=int(self._m[first]),
            normalizer=float(self._z[first]),
            num_packs=int(end - first),
            epoch=int(self._epochs[first]),
            capacity=int(self._capacities[first]),
        )

    def pack_ids(self, step: int) -> list[str]:
        """The packs of step `step`, in order of position."""
        first, end = self._bounds(step)
        return self._pack_ids[first:end]

    def columns(self, table: str, names: Sequence[str]) -> pa.Table | None:
        """Columns of one of the build's tables, whole; None when the folder has no such table."""
        paths = self._folder.files(table, needed=False)
        schema = pa.schema([TABLES[table][1].field(name) for name in names])
        return _concatenated(self._folder, paths, schema) if paths else None

    def check_files(self, part: int = 0, parts: int = 1) -> int:
        """Compares every `parts`-th file of packs and plan, from `part` on, with the SHA-256 that the build gives for it, and
        returns how many were compared: 0 where nothing is given (a bare copy of the two tables). Raises BuildError naming
        the first file that differs."""
        given = [
            (path, shard["sha256"])
            for table, said in (("packs", self._folder.shards("packs")), ("plan", self._folder.shards("plan")))
            for path in self._folder.files(table)
            if "sha256" in (shard := said.get(_name(path), {}))
        ]
        for path, wanted in given[part::parts]:
            if self._folder.sha256(path) != wanted:
                raise BuildError(
                    f"{path}: is not the file that the build wrote (its SHA-256 differs from the manifest's); copy it again, or "
                    "remove the build's pack stage and run: longalign build RECIPE"
                )
        return len(given[part::parts])

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
        if row >= end:
            return None
        file, group, at = self._place(row)
        table = self._cache.pop((file, group), None)
        if table is None:
            table = self._load(file, group)
        self._cache[file, group] = table
        if len(self._cache) > CACHED_GROUPS:
            self._cache.popitem(last=False)
        return self._batch(table, file, group, at, row)

    def stream(
        self, rank: int, ranks: int, accumulation: int, *, first_step: int = 0, ahead: int = 4, threads: int = 2
    ) -> Iterator[tuple[int, int, PackBatch | None]]:
        """Step, micro-batch and pack of `rank`, in order from `first_step` to the end: what `batch` gives for each, while
        `threads` threads read up to `ahead` row groups (about two packs each) in advance.
        `first_step` may be `num_steps`, when nothing is left. Raises as `batch` does."""
        self.check_split(ranks, accumulation)
        if not 0 <= rank < ranks:
            raise IndexError(f"rank {rank} of {ranks}: out of range")
        if not 0 <= first_step <= self.num_steps:
            raise IndexError(f"first_step {first_step}: out of range; the plan has {self.num_steps} steps")
        return self._stream(rank, ranks, accumulation, first_step, ahead, threads)

    def _stream(
        self, rank: int, ranks: int, accumulation: int, first_step: int, ahead: int, threads: int
    ) -> Iterator[tuple[int, int, PackBatch | None]]:
        jobs = self._jobs(rank, ranks, accumulation, first_step)
        waiting: deque[tuple[Places, Future[list[PackBatch]] | None]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="packs") as pool:
            try:
                while True:
                    while len(waiting) < max(1, ahead) and (job := next(jobs, None)) is not None:
                        file, group, places = job
                        waiting.append((places, pool.submit(self._rows, file, group, places) if file >= 0 else None))
                    if not waiting:
                        return
                    places, future = waiting.popleft()
                    batches: Sequence[PackBatch | None] = future.result() if future is not None else [None]
                    for (step, micro, _), batch in zip(places, batches, strict=True):
                        yield step, micro, batch
            finally:
                for _, future in waiting:
                    if future is not None:
                        future.cancel()

    def _jobs(self, rank: int, ranks: int, accumulation: int, first_step: int) -> Iterator[tuple[int, int, Places]]:
        """What to read, a row group at a time: file, group, packs of it; file -1 stands for a place without a pack."""
        open_job: tuple[int, int] | None = None
        places: Places = []
        for step in range(first_step, self.num_steps):
            first, end = self._bounds(step)
            for micro in range(accumulation):
                row = first + micro * ranks + rank
                job = self._place(row)[:2] if row < end else (-1, -1)
                if places and (job != open_job or job[0] < 0) and open_job is not None:
                    yield (*open_job, places)
                    places = []
                open_job = job
                places.append((step, micro, row))
        if places and open_job is not None:
            yield (*open_job, places)

    def _rows(self, file: int, group: int, places: Places) -> list[PackBatch]:
        table = self._load(file, group)
        return [self._batch(table, file, group, self._place(row)[2], row) for _, _, row in places]

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
        return self.__dict__ | {"_cache": OrderedDict(), "_metadata": {}}

    def _bounds(self, step: int) -> tuple[int, int]:
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step}: this plan has {self.num_steps} steps")
        return self._starts[step], self._starts[step + 1]

    def _index_files(self) -> None:
        """Where each file begins, in rows of the whole table: as the manifest says, or by the files themselves."""
        said = self._folder.shards("packs")
        missing = sorted(said.keys() - {_name(path) for path in self._files})
        if missing:
            raise BuildError(
                f"{self._folder}: packs/{missing[0]} is missing, one of {len(missing)} of {len(said)} files"
            )
        counts = [
            int(said[_name(path)]["rows"]) if _name(path) in said else self._file_metadata(number)[1][-1]
            for number, path in enumerate(self._files)
        ]
        self._file_rows = [0, *np.cumsum(counts).tolist()]
        if self._file_rows[-1] != len(self._pack_ids):
            raise BuildError(
                f"{self._folder}: {self._file_rows[-1]} packs but {len(self._pack_ids)} plan entries; files are missing or of "
                "two builds"
            )

    def _file_metadata(self, file: int) -> tuple[Any, list[int]]:
        """A file's footer, and the row with which each of its row groups begins; read once."""
        known = self._metadata.get(file)
        if known is None:
            with self._folder.parquet(self._files[file], PACKS) as parquet:
                footer = parquet.metadata
            rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            known = self._metadata[file] = (footer, [0, *np.cumsum(rows).tolist()])
        return known

    def _place(self, row: int) -> tuple[int, int, int]:
        """File, row group and row in it of a row of the whole table."""
        file = bisect_right(self._file_rows, row) - 1
        starts = self._file_metadata(file)[1]
        at = row - self._file_rows[file]
        if at >= starts[-1]:
            raise BuildError(f"{self._files[file]}: fewer rows than the manifest says; the file is of another build")
        group = bisect_right(starts, at) - 1
        return file, group, at - starts[group]

    def _load(self, file: int, group: int) -> pa.Table:
        with self._folder.parquet(self._files[file], PACKS, self._file_metadata(file)[0]) as parquet:
            try:
                columns = ["pack_id", "input_ids", "loss_weights", "cu_seqlens"]
                return parquet.read_row_group(group, columns=columns, use_threads=False)
            except self._folder.faults as error:
                raise BuildError(f"{self._files[file]}: row group {group} cannot be read: {error}") from error

    def _batch(self, table: pa.Table, file: int, group: int, at: int, row: int) -> PackBatch:
        pack_id = table.column("pack_id")[at].as_py()
        if pack_id != self._pack_ids[row]:
            raise BuildError(
                f"{self._files[file]}: row {at} of row group {group} is pack {pack_id!r} where the plan has "
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
            loss_weights=_numbers(table, "loss_weights", at).astype(np.float64),
            cu_seqlens=cu_seqlens,
            max_seqlen=int(lengths.max()),
            num_tokens=len(input_ids),
            num_sequences=len(lengths),
        )


def open_packs(build_folder: Path | str) -> PackReader:
    """The packs of a build, or of a folder or URL that holds its tables packs/ and plan/ alone. Raises BuildError when
    there are none, when the two do not belong together, or when the place cannot be reached."""
    return PackReader(build_folder)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on this machine, or (`store`) in a file system of fsspec."""

    root: str
    store: Any = None

    @classmethod
    def at(cls, place: Path | str) -> "_Folder":
        if isinstance(place, Path) or "://" not in place:
            return cls(os.path.expanduser(place))  # noqa: PTH111 - Path raises where ~name is nobody; here it is a folder
        import fsspec

        try:
            store, root = fsspec.core.url_to_fs(place)
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            raise BuildError(f"{place}: cannot be opened: {str(error) or type(error).__name__}") from None
        return cls(root, store)

    def __str__(self) -> str:
        return self.root if self.store is None else self.store.unstrip_protocol(self.root)

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """What reading here may raise. Every store has errors of its own, which share no base and which only its package
        could name."""
        return (pa.ArrowInvalid, OSError) if self.store is None else (Exception,)

    def _unreachable(self, error: Exception) -> BuildError:
        return BuildError(f"{self}: cannot be reached: {str(error) or type(error).__name__}")

    def files(self, table: str, *, needed: bool = True) -> list[str]:
        """The files of a table, in order; none only where they are not `needed`."""
        try:
            if self.store is None:
                found = [str(path) for path in (Path(self.root) / table).glob("*.parquet")]
            else:
                found = self.store.glob(f"{self.root.rstrip('/')}/{table}/*.parquet")
        except self.faults as error:
            raise self._unreachable(error) from error
        if not found and needed:
            raise BuildError(f"{self}: no {table}/*.parquet here; make them with: longalign build RECIPE")
        return sorted(found)

    @contextmanager
    def parquet(self, path: str, schema: pa.Schema, metadata: Any = None) -> Iterator[pq.ParquetFile]:
        """An open file, with the columns of `schema`."""
        with ExitStack() as stack:
            try:
                # Row groups are read whole, so what lies around the bytes that are asked for would be read for nothing.
                source = path if self.store is None else stack.enter_context(self.store.open(path, cache_type="none"))
                file = stack.enter_context(pq.ParquetFile(source, metadata=metadata, pre_buffer=self.store is not None))
            except self.faults as error:
                raise BuildError(f"{path}: cannot be read as Parquet: {error}") from error
            missing = [name for name in schema.names if name not in file.schema_arrow.names]
            if missing:
                raise BuildError(f"{path}: not a table of this package: it has no column {', '.join(missing)}")
            yield file

    def json(self, name: str) -> Any:
        """A JSON file below the folder; None when there is none."""
        path = f"{self.root.rstrip('/')}/{name}"
        try:
            text = (
                Path(path).read_text(encoding="utf-8")
                if self.store is None
                else self.store.cat_file(path).decode("utf-8")
            )
            return json.loads(text)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise BuildError(f"{path}: not JSON: {error}") from None
        except self.faults as error:
            raise self._unreachable(error) from error

    def shards(self, table: str) -> dict[str, dict[str, Any]]:
        """What the manifest (or, while there is none, the stage's report) says of the files of a table, by file name."""
        for name, key in (("manifest.json", "tables"), ("state/pack.json", "shards")):
            found = self.json(name)
            tables = found.get(key) if isinstance(found, dict) else None
            shards = tables.get(table) if isinstance(tables, dict) else None
            if isinstance(shards, list):
                sound = (shard for shard in shards if isinstance(shard, dict) and "path" in shard and "rows" in shard)
                return {_name(str(shard["path"])): shard for shard in sound}
        return {}

    def sha256(self, path: str) -> str:
        """Of a file's bytes."""
        try:
            with Path(path).open("rb") if self.store is None else self.store.open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except self.faults as error:
            raise BuildError(f"{path}: cannot be read: {error}") from error


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _numbers(table: pa.Table, column: str, row: int) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = table.column(column)[row].values.to_numpy()
    return numbers


def _concatenated(folder: _Folder, paths: list[str], schema: pa.Schema) -> pa.Table:
    tables: list[pa.Table] = []
    for path in paths:
        with folder.parquet(path, schema) as file:
            try:
                tables.append(file.read(columns=schema.names, use_threads=False))
            except folder.faults as error:
                raise BuildError(f"{path}: cannot be read: {error}") from error
    return pa.concat_tables(tables).combine_chunks()


def _declared(folder: _Folder) -> dict[str, Any]:
    """What the stage's report says of K and capacity; it stands in the manifest, and in state/ while there is none."""
    for name in ("manifest.json", "state/pack.json"):
        found = _find_report(folder.json(name))
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
