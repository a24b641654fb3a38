"""Eq. 2 of LongAlign as it is written, and how far a gradient is from it."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from longalign_data.packing.reader import PackReader
from tests.trainer.builds import tiny_llama


def unpacked_gradient(reader: PackReader, *, step: int = 0, alpha: float = 1.0) -> dict[str, Tensor]:
    """Every sequence alone through the stock model in float64, labels -100 off the targets, stock attention (`sdpa`; the
    stock `eager` takes its softmax in float32)."""
    model = tiny_llama("sdpa", torch.float64)
    losses, normalizer = [], 0.0
    for position in range(reader.step(step).num_packs):
        pack = reader.batch(step, position, reader.packs_per_step, 0, 1)
        assert pack is not None
        for start, end in zip(pack.cu_seqlens[:-1], pack.cu_seqlens[1:], strict=True):
            ids = torch.from_numpy(pack.input_ids[start:end])
            targets = torch.from_numpy(pack.loss_weights[start:end] > 0)
            count = int(targets.sum())
            if count:
                logits = model(input_ids=ids[None]).logits[0]
                labels = torch.where(targets, ids, -100)
                summed = F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
                losses.append(summed / count**alpha)
                normalizer += count ** (1 - alpha)
    torch.autograd.backward(torch.stack(losses).sum() / normalizer)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Largest difference of any element, relative to the largest element of its parameter."""
    assert found.keys() == wanted.keys()
    return max(float((found[n].double() - wanted[n]).abs().max() / wanted[n].abs().max()) for n in wanted)
