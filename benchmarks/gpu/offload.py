"""Full training of a model of three billion parameters and more on one GPU, its optimizer on the CPU (DeepSpeed, ZeRO-2).

Weights and gradients of its 3.7 billion parameters in bf16 take 14 GiB of the GPU, Adam 56 GiB of the machine. The row tells
the time of a step of two packs of 64k, and what share of it the optimizer takes.
"""

import os
import sys
import time
from typing import Any

import psutil
import torch

from benchmarks.gpu.common import CannotRunError, Place, installed, run
from longalign_data.errors import UserError
from trainer.batch import micro_batch
from trainer.config import TrainConfig
from trainer.engine import DeepSpeedEngine, deepspeed_settings
from trainer.measure.flops import measure_peak, model_flops, synchronize
from trainer.measure.metrics import device_memory_peak
from trainer.settings import load_adam
from trainer.tools.fit_work_model import random_pack
from trainer.world import join

BYTES_A_PARAMETER = 16
"""On the CPU: fp32 weights, two moments and gradients."""


def benchmark(place: Place) -> list[dict[str, Any]]:
    """Two steps, the second of which is told."""
    if installed("deepspeed") is None:
        raise CannotRunError("DeepSpeed is not installed; run: pip install deepspeed")
    config = place.llama(hidden=3072, layers=28, heads=24, kv_heads=8, intermediate=8192)
    tokens = place.size(65_536, 256)
    objective = place.objective(config)
    num_parameters = sum(p.numel() for p in objective.model.parameters())
    free = psutil.virtual_memory().available
    if free < BYTES_A_PARAMETER * num_parameters:
        needed = BYTES_A_PARAMETER * num_parameters / 2**30
        raise CannotRunError(f"the optimizer needs {needed:.0f} GiB of memory, and {free / 2**30:.0f} GiB are free")
    peak = measure_peak(place.device, place.dtype)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    if place.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    train = TrainConfig(engine="deepspeed", zero_stage=2, dtype="bf16" if place.device.type == "cuda" else "fp32")
    settings, adam = settings_of(place, train)
    world = join("deepspeed", rank=0, ranks=1, local_rank=0)
    try:
        worker = DeepSpeedEngine(objective, train, world, settings)
        pack = random_pack([tokens // 4] * 4, config.vocab_size, target_share=0.02)
        batch = micro_batch(pack, place.device, config.vocab_size)
        for _ in range(2):
            synchronize(place.device)
            began = time.perf_counter()
            worker.accumulate(batch, 1.0, last=False)
            worker.accumulate(batch, 1.0, last=True)
            synchronize(place.device)
            computed = time.perf_counter()
            worker.step(1e-5)
            synchronize(place.device)
            ended = time.perf_counter()
    finally:
        torch.distributed.destroy_process_group()
    used = 2 * model_flops(objective.model).count((pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).astype("int64"), 0)
    return [
        {
            "parameters": num_parameters,
            "adam": adam,
            "tokens": 2 * tokens,
            "seconds": round(ended - began, 3),
            "optimizer_share": round((ended - computed) / (ended - began), 3),
            "tokens_per_second": round(2 * tokens / (ended - began)),
            "of_matrix_peak": round(used / (ended - began) / peak, 3),
            "memory_gib": round(device_memory_peak(place.device), 2),
            "host_gib": round(psutil.Process().memory_info().rss / 2**30, 1),
        }
    ]


def settings_of(place: Place, train: TrainConfig) -> tuple[dict[str, Any], str]:
    """Offload to the CPU for steps of two packs, and whose Adam that takes: DeepSpeed's, which is compiled here for minutes
    where nobody has done so, or torch's where it cannot be."""
    extra: dict[str, Any] = {"zero_optimization": {"offload_optimizer": {"device": "cpu", "pin_memory": True}}}
    settings = deepspeed_settings(train, extra, 2)
    try:
        if place.device.type == "cpu":
            raise UserError("off a GPU to compile DeepSpeed's would prove nothing")
        load_adam(settings, "offload", tell=True)
    except UserError as error:
        extra |= {"zero_force_ds_cpu_optimizer": False, "optimizer": {"params": {"torch_adam": True, "fused": True}}}
        return deepspeed_settings(train, extra, 2), f"torch's: {error}"
    return settings, "DeepSpeed's"


if __name__ == "__main__":
    sys.exit(run("offload", __doc__, benchmark, sys.argv[1:]))
