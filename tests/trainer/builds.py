"""Builds and models for the trainer's tests: packs and plan written through the stage writer, tiny random Llamas."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longalign_data.engine import RunOptions
from longalign_data.records import Pack, PlanEntry
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageWriter

VOCABULARY = 97
Shape = tuple[int, int]
"""Length and number of targets of a sequence; the targets are its last tokens."""


def write_build(
    root: Path,
    steps: Sequence[Sequence[Sequence[Shape]]],
    *,
    packs_per_step: int,
    alpha: float = 1.0,
    spoiled: Mapping[int, float] | None = None,
    first: int = 0,
    epochs: int = 1,
) -> Path:
    """Steps of packs of sequences as a build. Tokens count upwards by 7 from a drawn start, so that there is something
    to learn. With `spoiled` all steps of one shape hold the same tokens, and the weights of pack n are multiplied by
    `spoiled[n]`, which the plan does not know. The packs are numbered from `first`. The steps are of so many `epochs`."""
    drawn = np.random.default_rng(0)
    alike = drawn.bit_generator.state
    with StageWriter(BuildFolder(root), "pack", fingerprint="test", run=RunOptions()) as writer:
        number = first
        for step, packs in enumerate(steps):
            if spoiled is not None:
                drawn.bit_generator.state = alike
            counts = [targets for pack in packs for _, targets in pack if targets]
            for position, pack in enumerate(packs):
                ids: list[int] = []
                weights: list[float] = []
                borders = [0]
                factor = (spoiled or {}).get(number, 1.0)
                for length, targets in pack:
                    start = int(drawn.integers(VOCABULARY))
                    ids += [(start + 7 * i) % VOCABULARY for i in range(length)]
                    weights += [0.0] * (length - targets) + [factor * max(targets, 1) ** -alpha] * targets
                    borders.append(borders[-1] + length)
                row = Pack(
                    pack_id=f"pack-{number}",
                    input_ids=ids,
                    loss_weights=weights,
                    cu_seqlens=borders,
                    sequence_ids=[f"sequence-{number}-{j}" for j in range(len(pack))],
                    num_tokens=len(ids),
                    num_sequences=len(pack),
                    num_targets=sum(targets for _, targets in pack),
                    work=1.0,
                )
                writer.write("packs", row)
                writer.write(
                    "plan",
                    PlanEntry(
                        step=step,
                        position=position,
                        pack_id=row.pack_id,
                        num_sequences=len(counts),
                        normalizer=float(sum(n ** (1 - alpha) for n in counts)),
                        epoch=step * epochs // len(steps),
                        capacity=64,
                    ),
                )
                writer.next_input()
                number += 1
        writer.finish({"packs_per_step": packs_per_step, "capacity": 64})
    return root


def llama_config(**changes: object) -> LlamaConfig:
    """A Llama of 15,000 parameters with grouped heads and tied embeddings."""
    return LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "use_cache": False,
            **changes,
        }
    )


def tiny_llama(attention: str, dtype: torch.dtype = torch.float32, **changes: object) -> LlamaForCausalLM:
    """The same random weights for every `attention`."""
    torch.manual_seed(0)
    config = llama_config(**changes)
    config._attn_implementation = attention
    model = LlamaForCausalLM(config).to(dtype)
    if dtype == torch.float64:
        # The stock norm computes in float32 whatever the weights are; torch's own stays in float64.
        for parent in [model.model, *model.model.layers]:
            for name, norm in list(parent.named_children()):
                if type(norm).__name__ == "LlamaRMSNorm":
                    setattr(parent, name, torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=dtype))
    return model


def write_model_config(folder: Path) -> Path:
    """A model folder that holds no more than a config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**llama_config().to_dict(), "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder
