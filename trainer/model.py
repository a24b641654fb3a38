"""Stock Hugging Face causal language models, in and out.

In: a folder, or a hub id with `@revision`. Out: the model, and at the end a folder that `from_pretrained` reads.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from longalign_data.errors import UserError
from longalign_data.shards.files import sync_files, sync_folder
from trainer.config import Lora
from trainer.errors import first_line, out_of_memory

TOKENIZER_FILES = [
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "tekken.json",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
]
MIXING_LAYERS = {
    "linear_attention": "state-space or linear-attention layers",
    "hybrid": "layers that join attention with a state space",
    "hybrid_sliding": "layers that join attention with a state space",
    "conv": "short convolutions",
}
"""Kinds of layer (Transformers' `layer_types`) that reach over the borders of a pack, unless a kernel of theirs knows borders."""
MIXING_MODELS = {
    "rwkv": "a recurrent state",
    "xlstm": "a recurrent state",
    "bloom": "attention of its own with ALiBi positions",
    "mpt": "attention of its own with ALiBi positions",
}
"""Models without `layer_types` that do the same."""
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.safetensors.index.json")
UNLOADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, EOFError),
    *(UnpicklingError, SafetensorError, StrictDataclassError),
)
"""What Transformers and the libraries below it raise at a model that is torn, wrong in itself or unknown to them."""


def load_config(
    spec: str, *, weights: bool, rope_base_factor: float = 1.0, positions: int | None = None
) -> PretrainedConfig:
    """The model's configuration, for longer contexts if asked: the base of its rotary embedding times `rope_base_factor`, and
    `positions` in place of its own. Raises UserError when there is no such model, no `weights` where some are wanted, or no
    rotary base to multiply."""
    folder = Path(spec)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {spec}: no config.json in this folder; a Hugging Face model folder was expected")
        if weights and not any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern)):
            raise UserError(f"--model {spec}: holds no weights; add --random-init to train from random ones")
    elif spec.startswith((".", "/")) or spec.count("/") > 1:
        raise UserError(f"--model {spec}: no such folder")
    try:
        name, revision = _name_and_revision(spec)
        config: PretrainedConfig = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except UNLOADABLE as error:
        raise _unloadable(spec, error) from error
    text = config.get_text_config()
    if rope_base_factor != 1.0:
        # Transformers 5 keeps the base in `rope_parameters`, 4 beside the other settings.
        rope = getattr(text, "rope_parameters", None) or vars(text)
        if not isinstance(rope.get("rope_theta"), int | float):
            raise UserError(f"rope_base_factor: {type(config).__name__} of {spec} has no single rope_theta to multiply")
        rope["rope_theta"] *= rope_base_factor
    if positions is not None:
        text.max_position_embeddings = positions
    return config


def mixing(config: PretrainedConfig) -> list[str]:
    """What in a model's configuration is known to mix the sequences of a pack, or to need other positions than a pack has."""
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None) or []
    found = [f"{what} ({kind})" for kind, what in MIXING_LAYERS.items() if kind in layers]
    if text.model_type in MIXING_MODELS:
        found.append(MIXING_MODELS[text.model_type])
    ropes = [getattr(text, name, None) or {} for name in ("rope_parameters", "rope_scaling")]
    if any("mrope_section" in rope for rope in ropes):
        found.append("rotary positions in three dimensions (mrope_section)")
    if any(rope.get("rope_type", rope.get("type")) == "longrope" for rope in ropes):
        found.append(
            "rotary frequencies chosen by the longest sequence (longrope), which are alike only in packs of at most "
            "original_max_position_embeddings tokens or with one list of factors for both"
        )
    return found


def load_model(
    spec: str, config: PretrainedConfig, *, random_init: bool, dtype: torch.dtype, attention: str, seed: int
) -> PreTrainedModel:
    """The model in training mode. `random_init` draws its weights from `seed`. Raises UserError when it cannot be loaded, lacks
    weights that Transformers would draw at random, brings an adapter of its own, or has no output head."""
    try:
        if random_init:
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
            )
        else:
            name, revision = _name_and_revision(spec)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name,
                revision=revision,
                config=config,
                # Left out, Transformers asks on the terminal whether to run it.
                trust_remote_code=False,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                # Refused below, where they are named.
                ignore_mismatched_sizes=True,
            )
            model, told = loaded
            if getattr(model, "_hf_peft_config_loaded", False):
                raise UserError(
                    f"--model {spec}: holds an adapter; merge it into the weights, which can be trained then"
                )
            _check_whole(spec, told)
    except UNLOADABLE as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise _unloadable(spec, error, config) from error
    if model.get_output_embeddings() is None:
        raise UserError(
            f"--model {spec}: {type(model).__name__} has no output head; a causal language model was expected"
        )
    model.train()
    return model


def _check_whole(spec: str, told: dict[str, Any]) -> None:
    """`told` is what Transformers says of a loading; what it may leave out (tied weights, buffers that are computed) it has
    left out already."""
    other = [
        f"{name} {list(found)}, expected {list(wanted)}" for name, found, wanted in sorted(told["mismatched_keys"])
    ]
    wrong = {"lack": sorted(told["missing_keys"]), "have in another shape": other}
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise UserError(
                f"--model {spec}: its weights {what} {', '.join(names[:8])}{more}; Transformers would draw them at random. Take "
                "the weights and the config.json of one model, or add --random-init to train from random ones"
            )


def check_fits(config: PretrainedConfig, *, capacity: int, parts: int) -> None:
    """Raises UserError when packs of `capacity` tokens may hold a sequence with more positions than the model has, when its
    heads cannot be dealt to the `parts` ranks that share a pack, or when it asks for the balancing loss of its experts."""
    config = config.get_text_config()
    coefficient = getattr(config, "router_aux_loss_coef", None)
    if getattr(config, "output_router_logits", False) and coefficient != 0:
        raise UserError(
            f"output_router_logits: true in the model's config.json asks for a balancing loss of its experts "
            f"(router_aux_loss_coef: {coefficient}), which the trainer does not compute; write false there to train without it"
        )
    heads = int(getattr(config, "num_attention_heads", 1))
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if heads % parts or (key_heads % parts and parts % key_heads):
        fit = [n for n in range(1, heads + 1) if heads % n == 0 and (key_heads % n == 0 or n % key_heads == 0)]
        raise UserError(
            f"sequence_parallel: {parts}: the model's {heads} attention heads and {key_heads} key-value heads cannot be dealt to "
            f"{parts} ranks; sizes that fit: {', '.join(map(str, fit))}"
        )
    positions = getattr(config, "max_position_embeddings", None)
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


def add_lora(model: PreTrainedModel, lora: Lora, *, seed: int) -> None:
    """Freezes the model and puts adapters, drawn from `seed`, beside its linear layers. Raises UserError when there
    are no such layers, when one of them is the output head, whose weights the loss reads directly, or when one cannot be merged
    at export where that is wanted."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    target: Any = lora.target_modules
    torch.manual_seed(seed)
    try:
        adapters = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=target,
            # GPT-2 and its kin store W transposed, and then all of their layers do.
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),
            task_type="CAUSAL_LM",
        )
        model.add_adapter(adapters)
    except ValueError as error:
        raise UserError(f"lora.target_modules: {target}: {first_line(error)}") from error
    if type(model.get_output_embeddings()) is not nn.Linear:
        raise UserError("lora.target_modules: the output head cannot have an adapter; leave lm_head out")
    for name, layer in model.named_modules():
        if lora.export == "merged" and isinstance(layer, BaseTunerLayer) and not isinstance(layer, Linear):
            raise UserError(
                f"lora.target_modules: the adapter of {name} ({type(layer.get_base_layer()).__name__}) cannot be merged, only "
                "those of linear layers can; leave it out, or write export: adapter"
            )


def tokenizer_files(spec: str) -> list[Path]:
    """The tokenizer's files as they stand beside a model, fetched where it is on the hub."""
    name, revision = _name_and_revision(spec)
    try:
        source = (
            Path(name)
            if Path(name).is_dir()
            else Path(snapshot_download(name, revision=revision, allow_patterns=TOKENIZER_FILES))
        )
    except UNLOADABLE as error:
        raise _unloadable(spec, error) from error
    # A folder of such a name, as some models have, is none of them.
    return [file for pattern in TOKENIZER_FILES for file in sorted(source.glob(pattern)) if file.is_file()]


def export(
    tokenizer: Sequence[Path], model: PreTrainedModel, weights: dict[str, Tensor], folder: Path, lora: Lora | None
) -> None:
    """Writes a Hugging Face folder: `weights` (whole, on the CPU), the configurations of the model and of its generation, and
    the files of its `tokenizer`. With `lora`, the weights with the adapters merged in, or the adapters alone. The folder
    appears whole and holds nothing else: what stood in it is gone then. Raises UserError where it cannot be written."""
    folder = folder.resolve()
    try:
        with _whole_folder(folder) as temporary:
            if lora is None or lora.export == "adapter":
                model.save_pretrained(temporary, state_dict=weights)
            else:
                with torch.device("meta"):
                    plain: PreTrainedModel = AutoModelForCausalLM.from_config(model.config)
                plain.generation_config = model.generation_config
                plain.save_pretrained(temporary, state_dict=merged(model, weights))
            for file in tokenizer:
                shutil.copy(file, temporary)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the model cannot be written: {first_line(error)}; its checkpoint stands, so mend this and write the model "
            "with --export"
        ) from error


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`; when the block ends well it is flushed to disk and takes its place, else it is removed.
    An older adapter left beside newer weights would be loaded on top of them."""
    temporary, older = (folder.with_name(f".{folder.name}.{kind}") for kind in ("tmp", "old"))
    _restore(older, folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_files(temporary)
        shutil.rmtree(older, ignore_errors=True)
        if folder.exists():
            folder.rename(older)
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        _restore(older, folder)
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(older, ignore_errors=True)


def _restore(older: Path, folder: Path) -> None:
    """Puts back what was moved away by a replacement that was cut off between its two renamings."""
    if older.exists() and not folder.exists():
        older.rename(folder)


def merged(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """`weights` of a model with adapters as those of the plain model: W + scaling * B A, transposed where W is stored so. The
    model's own parameters may lie anywhere; only `weights` are read."""
    found = {}
    for name, tensor in weights.items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        if plain != name and plain.endswith(".weight"):
            layer = plain.removesuffix(".weight")
            down, up = (weights[f"{layer}.lora_{side}.default.weight"].float() for side in "AB")
            adapted: Any = model.get_submodule(layer)
            change = adapted.scaling["default"] * (up @ down)
            tensor = (tensor.float() + (change.T if adapted.fan_in_fan_out else change)).to(tensor.dtype)
        found[plain] = tensor
    return found


def _name_and_revision(spec: str) -> tuple[str, str | None]:
    if Path(spec).is_dir():
        return spec, None
    name, _, revision = spec.partition("@")
    return name, revision or None


def _unloadable(spec: str, error: Exception, config: PretrainedConfig | None = None) -> UserError:
    told = first_line(error)
    if config is not None and isinstance(error, KeyError):
        told = (
            f"{config.model_type} has attention of its own, which cannot be replaced by one that knows packs ({told})"
        )
    elif config is not None and "Unrecognized configuration class" in told:
        told = f"{type(config).__name__} is no causal language model of Transformers"
    elif "trust_remote_code" in str(error):
        told = (
            "it is code of its own (auto_map in its config.json), which the trainer does not run; take its version or successor in "
            "stock Transformers, as GLM-4 is ChatGLM's"
        )
    reasons = "; it has " + ", ".join(mixing(config)) if config is not None and mixing(config) else ""
    return UserError(f"--model {spec}: cannot be loaded: {told}{reasons}")
