"""The exact loss: sum(w * CE) over target rows, without ever holding the logits of a pack.

In: a stock causal LM and a `MicroBatch`. Out: one scalar, the *sum* over the pack; whoever calls divides by Z of the step.
A 64k pack with 2% targets reaches the head with 1,300 rows instead of 65,536, and no more than `chunk_rows` of them at once.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from trainer.batch import MicroBatch


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

    def forward(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """`hidden` [R, H], `labels` and `weights` (fp64) [R] -> the weighted sum, a scalar in fp32 (fp64 for an fp64 model)."""
        parts = [
            checkpoint(self._chunk, *rows, use_reentrant=False, preserve_rng_state=False)
            for rows in zip(*(t.split(self.chunk_rows) for t in (hidden, labels, weights)), strict=True)
        ]
        losses = torch.cat(parts)
        self.row_losses = losses.detach()
        return losses.sum()

    def _chunk(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        logits = F.linear(hidden, self.weight, self.bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction="none") * weights.to(logits.dtype)


class Objective(nn.Module):
    """Model and loss as the one module that engines wrap: `forward(batch)` is l = sum(w * CE) of a pack."""

    def __init__(self, model: PreTrainedModel, *, chunk_rows: int, offload: bool = False) -> None:
        super().__init__()
        self.model = model
        self._offload = offload
        self.loss = WeightedCrossEntropy(model.get_output_embeddings(), chunk_rows=chunk_rows)

    def forward(self, batch: MicroBatch) -> Tensor:
        # With checkpointed layers, all that is saved outside of them is their inputs.
        keep = (
            torch.autograd.graph.save_on_cpu(pin_memory=batch.input_ids.is_cuda)
            if self._offload
            else contextlib.nullcontext()
        )
        with keep:
            hidden = self.model.get_decoder()(**model_inputs(batch)).last_hidden_state
        loss: Tensor = self.loss(hidden[0].index_select(0, batch.target_rows), batch.labels, batch.weights)
        return loss


def model_inputs(batch: MicroBatch) -> dict[str, object]:
    """What a stock model gets: no mask, and the borders under the names that Transformers hands on to attention."""
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": None,
        "use_cache": False,
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": batch.max_seqlen,
        "max_length_k": batch.max_seqlen,
    }
