"""The exact loss: sum(w * CE) over target rows, without ever holding the logits of a pack.

In: hidden states of the rows that predict a target, their labels and weights. Out: one scalar, the *sum* over the pack; whoever
calls divides by Z of the step. A 64k pack with 2% targets has 1,300 such rows out of 65,536, and the logits of no more than
`chunk_rows` of them exist at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

VOCABULARY_BLOCK = 16384
"""Tokens of the vocabulary that the backward works on at once; their gradient in fp32 is 0.27 GB at a width of 4,096."""


class WeightedCrossEntropy(nn.Module):
    """The model's output head and the loss in one module.

    The head's parameters are registered here a second time (shared, not copied). Under ZeRO-3 they are sharded and
    DeepSpeed gathers a module's own parameters around its forward and its backward: as one module the head is gathered
    once for all chunks in each direction, and the recomputation inside the backward finds it gathered. Calling
    `head(chunk)` would gather per chunk, and ranks with different numbers of chunks would wait for each other for ever.
    """

    def __init__(self, head: nn.Linear, *, chunk_rows: int) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = head.bias
        self.chunk_rows = chunk_rows
        self.row_losses: Tensor | None = None
        """w * CE of every row of the last forward, detached, [R]. Kept here because engines pass on one scalar."""

    @staticmethod
    def check(device: torch.device) -> None:
        """Says what keeps this loss from running on `device`, by an error. Ours runs anywhere."""

    def forward(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """`hidden` [R, H], `labels` and `weights` (fp64) [R] -> the weighted sum, a scalar in fp32 (fp64 for an fp64 model)."""
        losses = self.row_by_row(hidden, labels, weights)
        self.row_losses = losses.detach()
        return losses.sum()

    def row_by_row(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """w * CE of every row, [R]."""
        device = hidden.device.type
        # A function of our own is not reached by autocast.
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        losses: Tensor = _ChunkedLosses.apply(  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
            hidden, self.weight, self.bias, labels, weights, self.chunk_rows, compute
        )
        return losses


class _ChunkedLosses(Function):
    """w * CE of every row, [R]; logits of no more than `chunk_rows` rows exist at once, in either direction.

    Autograd would add the chunks' gradients of the head in the head's own dtype. In bf16 a sum of hundreds loses what is
    small beside it (17% of the gradient at 512 chunks), so they are added in fp32 here, and rounded once. The backward goes
    through the vocabulary block by block, with the log-sum-exp of every row from the forward, so that no more than a block's
    gradient exists in fp32: with 152k tokens and a width of 2,048 the whole of it would be 1.2 GiB.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        weights: Tensor,
        chunk_rows: int,
        compute: torch.dtype,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            head, offset = weight.to(compute), None if bias is None else bias.to(compute)
            parts = []
            for rows, targets in zip(hidden.split(chunk_rows), labels.split(chunk_rows), strict=True):
                logits = _logits(rows.to(compute), head, offset)
                losses = F.cross_entropy(logits, targets, reduction="none")
                parts.append(torch.stack([losses, losses + logits.gather(1, targets[:, None])[:, 0]]))
                del logits  # before those of the next chunk are made
            losses, totals = torch.cat(parts, dim=1)
            # The head itself is saved, not a copy in `compute`: under ZeRO-3 it is gathered again for the backward.
            ctx.save_for_backward(hidden, weight, bias, labels, weights, totals)
            ctx.chunk_rows, ctx.compute = chunk_rows, compute
            weighted: Tensor = losses * weights.to(losses.dtype)
            return weighted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, weights, totals = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        wide = torch.promote_types(hidden.dtype, torch.float32)
        of_hidden = torch.zeros_like(hidden, dtype=wide) if for_hidden else None
        of_weight = torch.empty_like(weight) if for_weight else None
        of_bias = torch.empty_like(bias) if for_bias else None
        scales = weights.to(upstream.dtype) * upstream
        for first in range(0, len(weight), VOCABULARY_BLOCK):
            block = slice(first, first + VOCABULARY_BLOCK)
            head, offset = weight[block].to(ctx.compute), None if bias is None else bias[block].to(ctx.compute)
            of_head, of_offset = torch.zeros_like(head, dtype=wide), head.new_zeros(len(head), dtype=wide)
            for start in range(0, len(hidden), ctx.chunk_rows):
                chunk = slice(start, start + ctx.chunk_rows)
                rows = hidden[chunk].to(ctx.compute)
                # d(w * CE) / d(logits) = w * (softmax - one-hot)
                of_logits = _logits(rows, head, offset).sub_(totals[chunk, None]).exp_()
                places = (labels[chunk] - first)[:, None]
                inside = (places >= 0) & (places < len(head))
                of_logits.scatter_add_(1, places.clamp(0, len(head) - 1), -inside.to(of_logits.dtype))
                of_logits *= scales[chunk, None]
                if of_bias is not None:
                    of_offset += of_logits.sum(dim=0)
                of_logits = of_logits.to(ctx.compute)
                if of_hidden is not None:
                    _add_product(of_hidden[chunk], of_logits, head)
                if of_weight is not None:
                    _add_product(of_head, of_logits.t(), rows)
            if of_weight is not None:
                of_weight[block] = of_head
            if of_bias is not None:
                of_bias[block] = of_offset
        return None if of_hidden is None else of_hidden.to(hidden.dtype), of_weight, of_bias, *[None] * 4


def _logits(rows: Tensor, head: Tensor, offset: Tensor | None) -> Tensor:
    logits = F.linear(rows, head, offset)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, added in the dtype of `total`, which is theirs or wider."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
