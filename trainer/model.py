"""Stock Hugging Face causal language models, in and out.

In: a folder, or a hub id with `@revision`. Out: the model, and at the end a folder that `from_pretrained` reads.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from longalign_data.errors import UserError

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def load_model(spec: str, *, random_init: bool, dtype: torch.dtype, attention: str, seed: int) -> PreTrainedModel:
    """The model in training mode. `random_init` draws its weights from `seed` and needs no more than a config.json.
    Raises UserError when there is no such model, no weights, or an architecture without this attention."""
    folder, revision = Path(spec), None
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {spec}: no config.json in this folder; a Hugging Face model folder was expected")
        if not random_init and not any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern)):
            raise UserError(f"--model {spec}: holds no weights; add --random-init to train from random ones")
    elif spec.startswith((".", "/")) or spec.count("/") > 1:
        raise UserError(f"--model {spec}: no such folder")
    else:
        spec, _, found = spec.partition("@")
        revision = found or None
    try:
        config = AutoConfig.from_pretrained(spec, revision=revision)
        if random_init:
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention
            )
        else:
            model = AutoModelForCausalLM.from_pretrained(
                spec, revision=revision, dtype=dtype, attn_implementation=attention
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {spec}: cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if model.get_output_embeddings() is None:
        raise UserError(
            f"--model {spec}: {type(model).__name__} has no output head; a causal language model was expected"
        )
    model.train()
    return model


def check_fits(model: PreTrainedModel, capacity: int) -> None:
    """Raises UserError when packs of `capacity` tokens may hold a sequence with more positions than the model has."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions < capacity:
        raise UserError(
            f"the packs hold sequences of up to {capacity} tokens but the model has {positions} positions "
            "(max_position_embeddings); take a model whose context was extended, or pack again with a smaller window"
        )


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keeps the input of every layer instead of its activations, and recomputes them in the backward."""
    # Transformers renamed this in 5.x and warns at the old name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def export(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Writes `weights` (whole, on the CPU) and the model's configuration as a Hugging Face folder."""
    model.save_pretrained(folder, state_dict=weights)
