"""Model and loss as one module, which is what engines wrap.

In: a configuration and a model's name. Out: an `Objective`: stock layers, one of our attention functions, our loss. Whoever
trains, measures or compares gets it from `load_objective`, so that all of them run the same.
"""

import contextlib

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from trainer import attention, model
from trainer.batch import MicroBatch
from trainer.config import TrainConfig
from trainer.fused import CutCrossEntropy, LigerCrossEntropy
from trainer.loss import WeightedCrossEntropy
from trainer.world import World

LOSSES: dict[str, type[WeightedCrossEntropy]] = {
    "chunked": WeightedCrossEntropy,
    "liger": LigerCrossEntropy,
    "cut-cross-entropy": CutCrossEntropy,
}
"""Every `loss` of the configuration."""


class Objective(nn.Module):
    """`forward(batch)` is l = sum(w * CE) of a pack."""

    def __init__(
        self, model: PreTrainedModel, *, chunk_rows: int, offload: bool = False, loss: str = "chunked"
    ) -> None:
        super().__init__()
        self.model = model
        self._offload = offload
        self.loss = LOSSES[loss](model.get_output_embeddings(), chunk_rows=chunk_rows)

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
        "pack_tokens": batch.pack_tokens,
    }


def compute_dtype(config: TrainConfig) -> torch.dtype:
    """In which matrices are multiplied."""
    return torch.bfloat16 if config.dtype == "bf16" else torch.float32


def load_shape(spec: str, config: TrainConfig, *, weights: bool) -> PretrainedConfig:
    """The model's configuration with the longer context that `config` asks for; errors as in `model.load_config`."""
    return model.load_config(
        spec, weights=weights, rope_base_factor=config.rope_base_factor, positions=config.max_positions
    )


def load_objective(
    spec: str, shape: PretrainedConfig, config: TrainConfig, world: World, *, dtype: torch.dtype, random_init: bool
) -> tuple[Objective, str]:
    """The objective with weights in `dtype`, and the name of its attention. Raises UserError as `load_model`, `add_lora` and
    `attention.install` do, and where the loss cannot run here."""
    LOSSES[config.loss].check(world.device)
    name, registered = attention.install(config.attention, world.device, compute_dtype(config), world.group)
    causal_lm = model.load_model(
        spec, shape, random_init=random_init, dtype=dtype, attention=registered, seed=config.seed
    )
    if config.lora is not None:
        model.add_lora(causal_lm, config.lora, seed=config.seed)
    if config.activation_checkpointing:
        model.checkpoint_activations(causal_lm)
    offload = config.offload_activations
    return Objective(causal_lm, chunk_rows=config.loss_chunk_rows, offload=offload, loss=config.loss), name
