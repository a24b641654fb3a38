"""Gloo ranks that run the trainer's own engines on many layouts, one after the other, and say how far each is from Eq. 2."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from longalign_data.packing.reader import PackReader, open_packs
from tests.exactness.reference import distance
from tests.trainer.builds import VOCABULARY, tiny_llama
from tests.trainer.processes import finish, start
from trainer import attention, loop
from trainer.config import TrainConfig
from trainer.engine import DeepSpeedEngine, TorchEngine, deepspeed_settings, loss_scale
from trainer.guard import Guard
from trainer.loop import train_step
from trainer.measure.metrics import Meter
from trainer.objective import Objective
from trainer.world import World, prepare_deepspeed

CPU = torch.device("cpu")
OFFLOADS: dict[str, dict[str, Any]] = {
    "": {},
    "optimizer": {"offload_optimizer": {"device": "cpu"}},
    "deepspeed's adam": {"offload_optimizer": {"device": "cpu"}},
    "parameters": {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
}
SHARDED = {
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 1,
    "stage3_max_reuse_distance": 1,
    "stage3_prefetch_bucket_size": 0,
}
"""By default every parameter of a tiny model would stay whole on every rank; with these each is gathered and let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`readers` data-parallel groups of `parts` ranks. Stage -1 is torch alone, in float64; the others are DeepSpeed."""

    stage: int
    readers: int
    parts: int
    accumulation: int
    alpha: float
    offload: str = ""
    fault: str = ""

    @property
    def ranks(self) -> int:
        return self.readers * self.parts

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.stage < 0 else torch.float32

    @property
    def build(self) -> str:
        return f"{self.readers * self.accumulation}-{self.alpha}"


def run(cases: Sequence[Case], folder: Path) -> list[dict[str, float]]:
    """The result of each case, which must all have the same number of ranks: `step 0`, `step 1` (distances from Eq. 2, whose
    gradients lie in `folder` beside the builds) and, in a file of its own, the weights after one update."""
    (ranks,) = {case.ranks for case in cases}
    store = folder / f"store-{ranks}-{id(cases)}"
    result = folder / f"{store.name}.json"
    codes = finish(
        start(_rank, [(rank, ranks, store, list(cases), folder, result) for rank in range(ranks)]), timeout=3600
    )
    assert codes == [0] * ranks, "a rank failed; see the output above"
    found: list[dict[str, float]] = json.loads(result.read_text())
    return found


def updated(case: Case, folder: Path) -> Path:
    """Where the weights after one update of `case` lie."""
    return folder / ("-".join(str(value) for value in asdict(case).values()) + ".pt")


def _rank(rank: int, ranks: int, store: Path, cases: list[Case], folder: Path, result: Path) -> None:
    # DeepSpeed reads these itself.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", store=dist.FileStore(str(store), ranks), rank=rank, world_size=ranks)
    import deepspeed

    prepare_deepspeed(CPU)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    groups: dict[int, Any] = {1: None}
    for parts in sorted({case.parts for case in cases} - {1}):
        made = [dist.new_group(list(range(first, first + parts))) for first in range(0, ranks, parts)]
        groups[parts] = made[rank // parts]
    results = [
        _measure(case, World(rank=rank, ranks=ranks, device=CPU, parts=case.parts, group=groups[case.parts]), folder)
        for case in cases
    ]
    if rank == 0:
        result.write_text(json.dumps(results))
    dist.destroy_process_group()


def _measure(case: Case, world: World, folder: Path) -> dict[str, float]:
    reader = open_packs(folder / case.build)
    wanted = torch.load(folder / f"{case.build}.pt")
    _, registered = attention.install("sdpa-by-sequence", CPU, case.dtype, world.group)
    objective = Objective(tiny_llama(registered, case.dtype), chunk_rows=7)
    names = {name.removeprefix("model."): p for name, p in objective.named_parameters() if name.startswith("model.")}
    config = _config(case)
    engine = _engine(case, config, objective, world)
    guard, meter = Guard(config), Meter(objective, reader, world, config)
    gradients: dict[str, Tensor] = {}

    def look_and_update(rate: float) -> float | None:
        gradients.update({name: engine.gradient(parameter) for name, parameter in names.items()})
        return update(rate)

    update, engine.step = engine.step, look_and_update  # between the last backward and the update
    found = {}
    with _fault(case, engine, reader, world):
        # At a rate of 0 nothing moves, so both steps are measured at the same weights; then one that moves.
        for step, rate in ((0, 0.0), (1, 0.0), (2, 1e-2)):
            if case.fault and step:
                break
            train_step(engine, reader, world, guard, meter, step=step, rate=rate, seed=0, vocabulary=VOCABULARY)
            if world.rank == 0 and not rate:
                found[f"step {step}"] = distance(gradients, wanted[step])
    if not case.fault:
        weights = engine.weights(objective.model)
        if world.rank == 0:
            weights.pop("lm_head.weight", None)  # tied to the embedding; not every engine names it twice
            torch.save(weights, updated(case, folder))
    engine.close()
    return found


def _config(case: Case) -> TrainConfig:
    # A large epsilon keeps Adam from making signs of rounding errors.
    return TrainConfig(
        engine="torch" if case.stage < 0 else "deepspeed",
        zero_stage=max(case.stage, 0),
        dtype="fp32",
        adam_epsilon=1e-2,
        grad_clip=0,
        time_every=0,
        peak_tflops=1,
    )


def _engine(case: Case, config: TrainConfig, objective: Objective, world: World) -> TorchEngine | DeepSpeedEngine:
    if case.stage < 0:
        return TorchEngine(objective, config, world)
    extra: dict[str, Any] = {"zero_optimization": OFFLOADS[case.offload] | (SHARDED if case.stage == 3 else {})}
    if case.offload and case.offload != "deepspeed's adam":
        # DeepSpeed's own Adam for the CPU would be compiled first, for a minute.
        extra |= {"optimizer": {"params": {"torch_adam": True}}, "zero_force_ds_cpu_optimizer": False}
    return DeepSpeedEngine(objective, config, world, deepspeed_settings(config, extra, case.accumulation))


@contextmanager
def _fault(case: Case, engine: TorchEngine | DeepSpeedEngine, reader: PackReader, world: World) -> Iterator[None]:
    """Puts into the trainer what other trainers get wrong: in place of `loss_scale`, or of DeepSpeed's settings."""
    rank, readers = world.reader
    micros = itertools.count()

    def sequences(ranks: Sequence[int]) -> int:
        micro = next(micros)
        packs = [reader.batch(0, other, readers, micro, case.accumulation) for other in ranks]
        return max(1, sum(pack.num_sequences for pack in packs if pack))

    def mean_of_means(world: World, normalizer: float) -> float:
        return world.ranks / reader.packs_per_step / sequences([rank])

    def micro_batch_m(world: World, normalizer: float) -> float:
        return world.ranks / case.accumulation / sequences(range(readers))

    def device_count(world: World, normalizer: float) -> float:
        """Two nodes, each of which counts its own packs."""
        node = range(readers // 2) if rank < readers // 2 else range(readers // 2, readers)
        return world.ranks / 2 / case.accumulation / sequences(node)

    def p_factor(world: World, normalizer: float) -> float:
        return loss_scale(world, normalizer) * world.parts

    faulty = {
        "mean of means": mean_of_means,
        "M of the micro-batch": micro_batch_m,
        "device_count": device_count,
        "the P factor": p_factor,
    }
    if case.fault == "divided by accumulation":
        backward = engine._engine.backward
        engine._engine.backward = lambda loss, **options: backward(loss)  # as it divides by default
    with mock.patch.object(loop, "loss_scale", faulty.get(case.fault, loss_scale)):
        yield
