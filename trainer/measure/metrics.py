"""What a step did: loss by group, utilisation, memory, and for how long ranks wait for each other.

In: every pack of a step with the losses of its target rows. Out: further fields of the step's line in metrics.jsonl,

    "mfu": 0.46, "memory_peak_gib": 61.2, "modelled_idle": 0.066,
    "loss_by_length": {"8k to 16k": 1.91, "64k to 128k": 2.20}, "loss_by_source": {...}, "loss_by_task": {...}

and, in the steps that are timed, `idle`, `idle_by_rank` and `pack_seconds` (of every micro-batch, rank by rank). All sums of a
step travel in one all-reduce.
"""

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from longalign_data.packing.reader import PackBatch, PackReader
from trainer.batch import MicroBatch
from trainer.config import TrainConfig
from trainer.measure.flops import measure_peak, model_flops, synchronize
from trainer.objective import Objective, compute_dtype
from trainer.world import World

LENGTHS = ("0k to 1k", *(f"{2**i}k to {2 ** (i + 1)}k" for i in range(10)), "1024k or more")
"""Buckets of sequence length, in units of 1,024 tokens."""
Ints = npt.NDArray[np.int64]


def length_buckets(lengths: npt.NDArray[np.integer[Any]]) -> Ints:
    """Indexes into `LENGTHS`."""
    buckets: Ints = np.minimum(np.log2(np.maximum(lengths // 512, 1)).astype(np.int64), len(LENGTHS) - 1)
    return buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the build says of the sequences in its packs: `names` of all sources and tasks as (kind, name); `codes` [kinds,
    sequences] are indexes into `names`, in the order of the packs; pack p holds sequences starts[p] to starts[p + 1].
    There are no kinds where the build keeps no table of sequences. `work` is the modelled cost of each pack."""

    names: list[tuple[str, str]]
    codes: Ints
    starts: Ints
    work: npt.NDArray[np.float64]
    row_of: dict[str, int]


def read_labels(reader: PackReader) -> Labels:
    """Reads them; light beside the tokens. Raises BuildError when a file cannot be read."""
    packs = reader.columns("packs", ["pack_id", "sequence_ids", "work"])
    assert packs is not None
    lists = packs.column("sequence_ids").combine_chunks()
    starts = np.concatenate(([0], np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))))
    names: list[tuple[str, str]] = []
    rows: list[Ints] = []
    sequences = reader.columns("sequences", ["sequence_id", "source", "task"])
    if sequences is not None:
        places = pc.index_in(lists.flatten(), value_set=sequences.column("sequence_id").combine_chunks())
        for kind in ("source", "task"):
            column = sequences.column(kind).combine_chunks().dictionary_encode()
            found = column.take(places)
            codes = found.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)
            rows.append(codes.astype(np.int64) + len(names))
            names += [(kind, name or "none") for name in [*column.dictionary.to_pylist(), "unknown"]]
    return Labels(
        names=names,
        codes=np.stack(rows) if rows else np.zeros((0, int(starts[-1])), np.int64),
        starts=starts.astype(np.int64),
        work=packs.column("work").to_numpy(),
        row_of={name: row for row, name in enumerate(packs.column("pack_id").to_pylist())},
    )


class Meter:
    """Follows the steps of one rank. A step is `begin`, then for each micro-batch its work `under` the clock and `add`, then
    `finish`, which all ranks call."""

    def __init__(self, objective: Objective, reader: PackReader, world: World, config: TrainConfig) -> None:
        self._objective = objective
        self._reader = reader
        self._world = world
        self._every = config.time_every
        self._labels = read_labels(reader)
        self._names = [("length", name) for name in LENGTHS] + self._labels.names
        self._flops = model_flops(objective.model)
        given = config.peak_tflops
        self.peak = given * 1e12 if given else measure_peak(world.device, compute_dtype(config))
        self._timed = False
        self._begun(0)

    def begin(self, step: int) -> None:
        """Forgets the last step. The first one is not timed: it is slower than those that follow."""
        self._timed = self._every > 0 and step % self._every == 1 % self._every
        self._begun(self._reader.packs_per_step // self._world.reader[1])

    def _begun(self, accumulation: int) -> None:
        world = self._world
        self._groups = torch.zeros(2, len(self._names), dtype=torch.float64, device=world.device)
        self._operations = 0.0
        self._seconds = np.zeros((accumulation, world.ranks))
        if world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(world.device)

    @contextmanager
    def under(self, micro: int) -> Iterator[None]:
        """Times the work on micro-batch `micro`, in a step that is timed."""
        if not self._timed:
            yield
            return
        with busy(self._world.device, alone=self._world.ranks == 1) as seconds:
            yield
        self._seconds[micro, self._world.rank] = seconds[0]

    def add(self, pack: PackBatch | None, batch: MicroBatch) -> None:
        """Adds the pack that was worked on last."""
        if pack is None:
            return
        lengths = np.diff(pack.cu_seqlens).astype(np.int64)
        # Ranks that share a pack share its work.
        self._operations += self._flops.count(lengths, int(np.count_nonzero(pack.loss_weights))) / self._world.parts
        losses = self._objective.loss.row_losses
        if losses is None:
            return
        row = self._labels.row_of[pack.pack_id]
        first, end = self._labels.starts[row], self._labels.starts[row + 1]
        rows = torch.stack([batch.weights, losses]).double()
        for of_sequence in (length_buckets(lengths), *(self._labels.codes[:, first:end] + len(LENGTHS))):
            codes = torch.from_numpy(of_sequence).to(batch.sequences.device)
            self._groups.index_add_(1, codes[batch.sequences], rows)

    def finish(self, step: int, seconds: float) -> dict[str, Any]:
        """The fields of plan step `step`, which took `seconds`; the same on every rank."""
        world = self._world
        own = np.zeros(world.ranks)
        own[world.rank] = device_memory_peak(world.device)
        rest = torch.from_numpy(np.concatenate([[self._operations], own, self._seconds.ravel()]))
        sums = world.sum(torch.cat([self._groups.ravel(), rest.to(world.device)])).cpu().numpy()
        weights, losses, rest_sums = np.split(sums, [len(self._names), 2 * len(self._names)])
        found: dict[str, Any] = {
            "mfu": round(rest_sums[0] / (seconds * self.peak * world.ranks), 4),
            "memory_peak_gib": round(float(rest_sums[1 : 1 + world.ranks].max()), 3),
            "modelled_idle": round(idle(self._modelled(step)), 4),
        }
        if self._timed:
            timed = rest_sums[1 + world.ranks :].reshape(self._seconds.shape)
            found["idle"] = round(idle(timed), 4)
            found["idle_by_rank"] = [round(share, 4) for share in idle_by_rank(timed).tolist()]
            found["pack_seconds"] = np.round(timed, 6).tolist()
        for (kind, name), weight, loss in zip(self._names, weights.tolist(), losses.tolist(), strict=True):
            if weight and math.isfinite(loss):
                found.setdefault(f"loss_by_{kind}", {})[name] = round(loss / weight, 6)
        return found

    def _modelled(self, step: int) -> npt.NDArray[np.float64]:
        work = np.zeros(self._reader.packs_per_step)
        rows = [self._labels.row_of[name] for name in self._reader.pack_ids(step)]
        work[: len(rows)] = self._labels.work[rows]
        return work.reshape(-1, self._world.reader[1])


def idle(times: npt.NDArray[np.float64]) -> float:
    """The share of time for which ranks wait, when all of them meet after every micro-batch: `times` are [micro-batches,
    ranks], in any unit."""
    return float(idle_by_rank(times).mean())


def idle_by_rank(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same for each rank."""
    whole = times.max(axis=1).sum()
    return 1.0 - times.sum(axis=0) / whole if whole else np.zeros(times.shape[1])


@contextmanager
def busy(device: torch.device, *, alone: bool) -> Iterator[list[float]]:
    """The seconds for which this rank computes, as the one entry of a list once the block has ended.

    A clock between two barriers would not do: under ZeRO-3 ranks wait for each other in every layer, inside the block. On
    a CPU it is the time of this thread, which waits asleep. On a GPU it is the time of all kernels but those that
    communicate or copy; where a rank is `alone` it waits for nobody, and a clock does, which slows nothing down.
    """
    seconds: list[float] = []
    if device.type != "cuda" or alone:
        clock = time.perf_counter if device.type == "cuda" else time.thread_time
        synchronize(device)
        began = clock()
        yield seconds
        synchronize(device)
        seconds.append(clock() - began)
        return
    synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        yield seconds
        synchronize(device)
    kernels = [event for event in profile.key_averages() if event.device_type.name == "CUDA"]
    seconds.append(sum(kernel.self_device_time_total for kernel in kernels if _computes(kernel.key)) / 1e6)


def _computes(kernel: str) -> bool:
    return not kernel.startswith(("Memcpy", "Memset")) and "nccl" not in kernel.lower()


def device_memory_peak(device: torch.device) -> float:
    """GiB, of this step on a GPU, of the process so far on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists() and (told := status.read_text(encoding="ascii").partition("VmHWM:")[2]):
        return int(told.split()[0]) / 2**20
    # This begins with what the process had resident that started it. In KiB, and on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
