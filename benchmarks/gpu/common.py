"""What the GPU benchmarks share: where they run, random models, lengths, how a result is told and stored.

Each runs as `python -m benchmarks.gpu.<name>` from the root of the repository and takes less than eight minutes of an 80 GB
GPU. Without one it says so and ends. `--tiny` runs the same code on whatever there is, in sizes that mean nothing, and
stores nothing.
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.record import write
from trainer import attention, model
from trainer.config import TrainConfig
from trainer.measure.flops import synchronize
from trainer.objective import Objective

VOCABULARY = 151_936
"""Entries of Qwen's, the largest in wide use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a benchmark runs. `tiny` makes `size` choose the second of two numbers."""

    device: torch.device
    tiny: bool

    @property
    def dtype(self) -> torch.dtype:
        """bf16 on a GPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def config(self) -> TrainConfig:
        """How the trainer would run here, without DeepSpeed."""
        return TrainConfig(engine="torch", dtype="bf16" if self.device.type == "cuda" else "fp32")

    def size(self, real: int, tiny: int) -> int:
        """One or the other."""
        return tiny if self.tiny else real

    def llama(self, *, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> LlamaConfig:
        """A Llama of these sizes with the large vocabulary, or a tiny one."""
        shrink = self.tiny
        return LlamaConfig(
            vocab_size=self.size(VOCABULARY, 97),
            hidden_size=32 if shrink else hidden,
            num_hidden_layers=2 if shrink else layers,
            num_attention_heads=4 if shrink else heads,
            num_key_value_heads=2 if shrink else kv_heads,
            intermediate_size=64 if shrink else intermediate,
            max_position_embeddings=131_072,
            tie_word_embeddings=False,
            use_cache=False,
        )

    def one_billion(self) -> LlamaConfig:
        """The shape of Llama-3.2-1B: 1.24 billion parameters, and the rest is vocabulary."""
        return self.llama(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192)

    def objective(self, config: LlamaConfig, **options: Any) -> Objective:
        """Model and loss with random weights in `dtype`, activation checkpointing on."""
        _, registered = attention.install("auto", self.device, self.dtype)
        torch.manual_seed(0)
        with torch.device(self.device):
            causal_lm = AutoModelForCausalLM.from_config(config, dtype=self.dtype, attn_implementation=registered)
        causal_lm.train()
        model.checkpoint_activations(causal_lm)
        return Objective(causal_lm, chunk_rows=512, **options)

    def seconds(self, work: Callable[[], object], *, repeats: int = 3) -> float:
        """The median time of some work, after one run that does not count."""
        times = []
        for _ in range(repeats + 1):
            synchronize(self.device)
            began = time.perf_counter()
            work()
            synchronize(self.device)
            times.append(time.perf_counter() - began)
        return float(np.median(times[1:]))


def run(
    name: str, purpose: str, benchmark: Callable[[Place], Iterable[dict[str, Any]]], arguments: Sequence[str]
) -> int:
    """Runs a benchmark where it can run, stores its rows as `gpu-<name>`; 0, also where it is skipped or missed a goal
    (`reached` is False), or 1 when a row says that something is wrong (`ok` is False)."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{name}", description=purpose)
    parser.add_argument("--tiny", action="store_true", help="the same code in tiny sizes on any device; stores nothing")
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not asked.tiny:
        sys.stdout.write(f"{name}: skipped: it needs an NVIDIA GPU, and torch sees none here\n")
        return 0
    place = Place(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"), tiny=asked.tiny)
    rows: list[dict[str, Any]] = []
    try:
        for row in benchmark(place):
            rows.append(row)
            sys.stdout.write("  ".join(f"{key}={value}" for key, value in row.items()) + "\n")
            sys.stdout.flush()
            if not asked.tiny:
                # At once, as a later one may end it, or somebody's clock: minutes of a GPU are in these.
                write(f"gpu-{name}", [described_gpu(), *rows], packages=("torch", "transformers"))
    except CannotRunError as reason:
        sys.stdout.write(f"{name}: skipped: {reason}\n")
        return 0
    return 0 if all(row.get("ok", True) for row in rows) else 1


def described_gpu() -> dict[str, Any]:
    """The first row of what is stored."""
    return {"gpu": torch.cuda.get_device_name(), "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1)}


class CannotRunError(Exception):
    """Why a benchmark cannot run here."""


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def paper_mix(number: int, *, longest: int, seed: int = 0) -> np.ndarray:
    """Lengths in tokens of a mix as in LongAlign's training: a tenth of the sequences long, between an eighth of `longest` and
    all of it, the others chats of some thousand tokens at 64k, in proportion to `longest`."""
    drawn = np.random.default_rng(seed)
    long = np.exp(drawn.uniform(np.log(longest / 8), np.log(longest), number // 10))
    short = np.exp(drawn.normal(6.9, 0.9, number - number // 10)) * longest / 65_536
    return np.clip(np.concatenate([long, short]).astype(np.int64), 8, longest)
