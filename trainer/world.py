"""Ranks: who we are among them, and how they join.

In: what the launcher said. Out: a `World`, which is all that the rest of the trainer knows of other processes.
"""

import logging
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

PATIENCE = timedelta(hours=2)
"""How long ranks wait for one another: rank 0 alone converts checkpoints and writes models, which takes long for large ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who we are among the ranks, and where our tensors live. Of several `parts`, neighbouring ranks make one `group` and
    share each pack; engines know nothing of it and see every rank as one that has data of its own."""

    rank: int
    ranks: int
    device: torch.device
    parts: int = 1
    group: Any = None

    @property
    def part(self) -> int:
        """Which part of a pack is ours."""
        return self.rank % self.parts

    @property
    def reader(self) -> tuple[int, int]:
        """Rank and number of ranks in the eyes of the pack reader: those that share a pack are one."""
        return self.rank // self.parts, self.ranks // self.parts

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over ranks, in place; the same on every rank."""
        if self.ranks > 1:
            dist.all_reduce(values)
        return values

    def largest(self, values: Tensor) -> Tensor:
        """The largest of each of `values` over ranks, in place."""
        if self.ranks > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def wait(self) -> None:
        """Returns once every rank is here."""
        if self.ranks > 1:
            dist.barrier()


def join(engine: str, *, rank: int, ranks: int, local_rank: int, parts: int = 1) -> World:
    """Joins the process group that the launcher prepared; without a launcher, DeepSpeed gets a group of one. `parts`
    divides `ranks`."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    bound = device if cuda else None
    if ranks > 1:
        dist.init_process_group(backend, timeout=PATIENCE, device_id=bound)
    elif engine == "deepspeed":
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=PATIENCE, device_id=bound)
    group = None
    if engine == "deepspeed" or parts > 1:
        prepare_deepspeed(device)
    if parts > 1:
        import deepspeed

        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        groups = [
            dist.new_group(list(range(first, first + parts)), timeout=PATIENCE) for first in range(0, ranks, parts)
        ]
        group = groups[rank // parts]
    return World(rank=rank, ranks=ranks, device=device, parts=parts, group=group)


def prepare_deepspeed(device: torch.device) -> None:
    """Quietens DeepSpeed, and keeps it from compiling on a CPU what training never calls."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch renamed; one line a collective otherwise.
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    if device.type == "cpu":
        # Its shared-memory all-reduce serves inference alone; compiling it takes a minute and a C++ compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
