"""How much arithmetic a pack takes, and how much the device can do.

In: a stock model, then the lengths of sequences and their numbers of targets. Out: floating-point operations of a forward
and a backward, by sequence: attention grows with each sequence's own length squared, never with the pack's. Only what the
mathematics needs is counted. What activation checkpointing computes again is not, so that utilisations compare.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlops:
    """Operations of one training step: `per_token` in the layers' matrices, `per_target` in the output head (other rows never
    reach it), `per_pair` for every pair of a query and a key that it sees, in all heads of one layer. `windows` holds the
    attention window of each layer in tokens, None for full causal attention."""

    per_token: float
    per_target: float
    per_pair: float
    windows: tuple[int | None, ...]

    def count(self, lengths: npt.NDArray[np.int64], num_targets: int) -> float:
        """Operations of sequences of these lengths with so many targets in all."""
        l = lengths.astype(np.float64)  # noqa: E741 - the letter of the formula
        pairs = 0.0
        for window in self.windows:
            seen = l if window is None else np.minimum(l, window)
            # Each of the first `seen` tokens sees one more than the one before it, the others `seen` each.
            pairs += float((seen * (seen + 1) / 2 + (l - seen) * seen).sum())
        return self.per_token * float(l.sum()) + self.per_target * num_targets + self.per_pair * pairs


def model_flops(model: PreTrainedModel) -> ModelFlops:
    """A multiply-add counts two. The backward costs a product for the inputs of every matrix and one for its weights where
    these are trained (with LoRA the large ones are not). Of a mixture's experts those count that one token goes to."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    apart = {id(module.weight) for module in (model.get_input_embeddings(), head)}
    per_token = 0.0
    for name, parameter in model.named_parameters():
        if id(parameter) not in apart and len(_shape(parameter)) >= 2:
            per_token += _operations(parameter) * (_active_experts(config) if ".experts." in name else 1.0)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelFlops(
        per_token=per_token,
        per_target=_operations(head.weight),
        # Scores and values, two operations an element, and twice that in the backward.
        per_pair=3 * 2 * 2 * heads * width,
        windows=_windows(config),
    )


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of large matrix products on random data, the best of a few: what this device can do at most."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    times = []
    for _ in range(5):
        synchronize(device)
        times.append(time.perf_counter())
        a @ b
    synchronize(device)
    times.append(time.perf_counter())
    return 2 * size**3 / min(end - start for start, end in pairwise(times))


def synchronize(device: torch.device) -> None:
    """Returns once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    # ZeRO-3 leaves a parameter flat and empty; its shape is kept beside it.
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _operations(parameter: nn.Parameter) -> float:
    return (6.0 if parameter.requires_grad else 4.0) * float(np.prod(_shape(parameter)))


def _active_experts(config: Any) -> float:
    """The share of a layer's routed experts that a token goes to."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    total = next((value for name in names if (value := getattr(config, name, None))), None)
    return float(config.num_experts_per_tok) / total if total else 1.0


def _windows(config: Any) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
