"""The trainer's YAML configuration.

In: `recipes/train/*.yaml`. Out: `TrainConfig`. Example:

    engine: deepspeed
    zero_stage: 3
    dtype: bf16
    learning_rate: 2e-5
    schedule: cosine
    warmup_steps: 40
    activation_checkpointing: true
    deepspeed: zero3-offload.json
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from longalign_data import yamlfile
from longalign_data.errors import RecipeError


def _number(value: object) -> object:
    """YAML 1.1 reads `2e-5` (no dot) as text; everyone writes learning rates that way."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number)]


class Lora(yamlfile.Strict):
    """Low-rank adapters (peft) in place of full training. `export` is what the run's `model/` holds: whole weights with the
    adapters merged in, or the adapters alone."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    export: Literal["merged", "adapter"] = "merged"


class TrainConfig(yamlfile.Strict):
    """How to train. How many packs make a step is no choice here: the build's plan fixes it, and accumulation follows
    from the number of ranks."""

    engine: Literal["torch", "deepspeed"] = "deepspeed"
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    dtype: Literal["fp32", "bf16"] = "bf16"
    attention: Literal["auto", "flash-attn", "torch-varlen", "sdpa-by-sequence"] = "auto"
    rope_base_factor: Annotated[Number, Field(gt=0)] = 1.0
    """Multiplies the base of the model's rotary embedding; LongAlign extends contexts from 4k to 64k with 200."""
    max_positions: Annotated[int, Field(ge=1)] | None = None
    """Replaces the model's max_position_embeddings, where its context is extended."""
    sequence_parallel: Annotated[int, Field(ge=1)] = 1
    """Ranks that share each pack (DeepSpeed Ulysses), for windows beyond one GPU; it divides ranks and attention heads."""
    activation_checkpointing: bool = True
    offload_activations: bool = False
    """Keeps what activation checkpointing saves (the input of every layer) in the CPU's memory."""
    loss: Literal["chunked", "liger", "cut-cross-entropy"] = "chunked"
    """Our own in plain PyTorch, or the fused kernels of Liger (the extra `liger`) or of cut-cross-entropy (from its repository;
    bf16), on a GPU; all give the same."""
    loss_chunk_rows: Annotated[int, Field(ge=1)] = 512
    """Target rows whose logits exist at once; 512 rows of a 152k vocabulary are 0.3 GB in fp32, and two such tensors live."""

    learning_rate: Annotated[Number, Field(gt=0)] = 2e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_learning_rate: Annotated[Number, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    adam_beta1: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[Number, Field(ge=0, lt=1)] = 0.95
    adam_epsilon: Annotated[Number, Field(gt=0)] = 1e-8
    grad_clip: Annotated[Number, Field(ge=0)] = 1.0
    """Norm above which gradients are scaled down, after reduction over ranks; 0 switches clipping off."""

    on_bad_step: Literal["stop", "skip"] = "stop"
    """What to do at a step whose loss is not finite or a spike: end the run, or leave the step out."""
    spike_factor: Annotated[Number, Field(ge=0)] = 10.0
    """A loss over this many times the median of the last 50 steps is a spike; 0 looks for none."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the data in all; by default those that the plan holds (`pack.epochs` of the build's recipe, 1 where it says
    nothing). The plan's epochs, which differ in their draws, are taken one after the other; where more are asked for it begins
    anew."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Ends the run, and its schedule, before the plan does."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints; 0 writes one at the end alone."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    time_every: Annotated[int, Field(ge=0)] = 50
    """Steps between those in which each rank's work on every pack is timed, for `idle`; 0 times none."""
    peak_tflops: Annotated[Number, Field(gt=0)] | None = None
    """What utilisation is measured against, for one device; without it large matrix products are timed at the start."""
    lora: Lora | None = None
    deepspeed: Annotated[str, Field(min_length=1)] | None = None
    """JSON file with further DeepSpeed settings, such as offload; relative to this file."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.on_bad_step == "skip" and self.engine == "deepspeed" and self.zero_stage == 0:
            raise ValueError(
                "on_bad_step: skip needs zero_stage 1, 2 or 3: without ZeRO, DeepSpeed cannot leave out a step"
            )
        if self.dtype == "bf16" and self.engine == "deepspeed" and self.zero_stage == 0:
            raise ValueError(
                "zero_stage: 0 with dtype: bf16 would sum the gradients of a step in bf16, which loses the small ones; "
                "take zero_stage 1, 2 or 3, engine: torch, or dtype: fp32"
            )
        if self.deepspeed is not None and self.engine == "torch":
            raise ValueError(
                f"deepspeed: {self.deepspeed}: engine: torch reads no DeepSpeed settings; leave them out, or write engine: "
                "deepspeed"
            )
        if self.offload_activations and not self.activation_checkpointing:
            raise ValueError("offload_activations: needs activation_checkpointing: true, whose inputs it keeps")
        if self.loss == "cut-cross-entropy" and self.dtype == "fp32":
            raise ValueError("loss: cut-cross-entropy multiplies in bf16; write dtype: bf16, or loss: chunked")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate:g} is above learning_rate: {self.learning_rate:g}, from which "
                "the rate falls to it"
            )
        return self


OWNED = {
    "train_batch_size": "the plan fixes it",
    "train_micro_batch_size_per_gpu": "it is one pack",
    "gradient_accumulation_steps": "it follows from the plan and the number of ranks",
    "gradient_clipping": "write grad_clip in the YAML file",
    "scheduler": "write schedule in the YAML file",
    "optimizer.params.lr": "write learning_rate in the YAML file",
    "optimizer.params.betas": "write adam_beta1 and adam_beta2 in the YAML file",
    "optimizer.params.eps": "write adam_epsilon in the YAML file",
    "optimizer.params.weight_decay": "write weight_decay in the YAML file",
    "optimizer.params.adam_w_mode": "weight decay is always that of AdamW",
    "optimizer.params.max_grad_norm": "write grad_clip in the YAML file",
    "zero_optimization.stage": "write zero_stage in the YAML file",
    "checkpoint.load_universal": "it follows from the checkpoint and the number of ranks",
    "activation_checkpointing": "write activation_checkpointing and offload_activations in the YAML file",
    "bf16": "write dtype in the YAML file",
    "fp16": "write dtype: bf16 in the YAML file; fp16 is not supported",
}
"""DeepSpeed settings that would contradict the configuration or do nothing beside it, with what to do instead."""
OFFLOADS = {"offload_optimizer": (1, 2, 3), "offload_param": (3,)}
"""What DeepSpeed can offload, and the ZeRO stages at which it does; at others it would say nothing."""


def load_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration and the settings of its DeepSpeed file ({} without one). Raises RecipeError, naming file and line."""
    config = yamlfile.load(path, TrainConfig)
    if config.deepspeed is None:
        return config, {}
    file = path.parent / config.deepspeed
    try:
        settings = json.loads(yamlfile.read_text(file))
    except json.JSONDecodeError as error:
        raise RecipeError(f"{file}:{error.lineno}: not valid JSON: {error.msg}") from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{file}:1: expected a JSON object of DeepSpeed settings")
    for key, instead in OWNED.items():
        parent, _, name = key.rpartition(".")
        if name in _section(file, settings, parent):
            raise RecipeError(f"{file}: {key}: not to be set here: {instead}")
    kind = _section(file, settings, "optimizer").get("type", "AdamW")
    if str(kind).lower() not in ("adam", "adamw"):
        raise RecipeError(f"{file}: optimizer.type: the trainer's optimizer is AdamW, found {json.dumps(kind)}")
    for key, stages in OFFLOADS.items():
        device = _section(file, settings, f"zero_optimization.{key}").get("device", "none")
        if device != "none" and config.zero_stage not in stages:
            fit = " or ".join(map(str, stages))
            raise RecipeError(
                f"{file}: zero_optimization.{key}: needs zero_stage {fit}, found zero_stage: {config.zero_stage} in {path}"
            )
    return config, settings


def _section(file: Path, settings: dict[str, Any], path: str) -> dict[str, Any]:
    """The object at a dotted path, {} where there is none. Raises RecipeError where something else stands there."""
    section = settings
    names = path.split(".") if path else []
    for depth, name in enumerate(names, start=1):
        found = section.get(name, {})
        # DeepSpeed takes null for an offload that is switched off.
        if found is None and name in OFFLOADS:
            return {}
        if not isinstance(found, dict):
            at = ".".join(names[:depth])
            raise RecipeError(f"{file}: {at}: expected an object of settings, found {json.dumps(found)}")
        section = found
    return section


def learning_rate(config: TrainConfig, step: int, num_steps: int) -> float:
    """The rate of optimizer step `step` of `num_steps`, from 0: linear warm-up from peak/warmup, then the schedule down to
    `min_learning_rate`, which the step after the last one would have."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * left
