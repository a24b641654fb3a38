"""Every recipe that ships, against the shapes of the models that it is for; no weights are loaded."""

from pathlib import Path
from typing import Any

import pytest
from transformers import GlmConfig, LlamaConfig, PretrainedConfig, Qwen2Config

from longalign_data.errors import UserError
from trainer.config import load_config
from trainer.engine import deepspeed_settings
from trainer.model import check_fits
from trainer.model import load_config as load_model_config

pytestmark = pytest.mark.torch

RECIPES = Path(__file__).parents[2] / "recipes" / "train"
LLAMA_7B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_13B = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
LLAMA_3 = LLAMA_7B | {"num_key_value_heads": 8, "max_position_embeddings": 131_072}
QWEN_7B = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
LONG = {"max_position_embeddings": 65_536}
FIT: list[tuple[str, PretrainedConfig, int]] = [
    ("llama-7b-64k", LlamaConfig(**LLAMA_7B, **LONG), 65_536),
    ("llama-13b-64k", LlamaConfig(**LLAMA_13B, **LONG), 65_536),
    ("chatglm3-6b-64k", GlmConfig(max_position_embeddings=131_072), 65_536),
    ("qwen-64k-lora", Qwen2Config(**QWEN_7B, max_position_embeddings=1_010_000), 65_536),
    ("context-extension", LlamaConfig(**LLAMA_7B, max_position_embeddings=4096), 65_536),
    ("128k-ulysses", LlamaConfig(**LLAMA_3), 131_072),
    ("tiny-cpu", LlamaConfig.from_pretrained(RECIPES / "tiny-llama"), 65_536),
]
DO_NOT_FIT = [
    ("llama-7b-64k", LlamaConfig(**LLAMA_7B, max_position_embeddings=4096), 65_536, "has 4096 positions"),
    ("chatglm3-6b-64k", GlmConfig(max_position_embeddings=8192), 65_536, "has 8192 positions"),
    ("context-extension", LlamaConfig(**LLAMA_7B), 131_072, "has 65536 positions"),
    ("128k-ulysses", Qwen2Config(**QWEN_7B, max_position_embeddings=131_072), 131_072, "sizes that fit: 1, 2, 4, 28$"),
]


def fits(recipe: str, shape: PretrainedConfig, capacity: int, folder: Path) -> PretrainedConfig:
    config, _ = load_config(RECIPES / f"{recipe}.yaml")
    shape.save_pretrained(folder)
    found = load_model_config(
        str(folder), weights=False, rope_base_factor=config.rope_base_factor, positions=config.max_positions
    )
    check_fits(found, capacity=capacity, parts=config.sequence_parallel)
    return found


@pytest.mark.parametrize(("recipe", "shape", "capacity"), FIT, ids=[recipe for recipe, _, _ in FIT])
def test_every_recipe_fits_the_model_that_it_is_for(
    recipe: str, shape: PretrainedConfig, capacity: int, tmp_path: Path
) -> None:
    fits(recipe, shape, capacity, tmp_path)


@pytest.mark.parametrize(("recipe", "shape", "capacity", "told"), DO_NOT_FIT, ids=[recipe for recipe, *_ in DO_NOT_FIT])
def test_models_that_do_not_fit_are_refused_before_their_weights_are_read(
    recipe: str, shape: PretrainedConfig, capacity: int, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        fits(recipe, shape, capacity, tmp_path)


def test_every_recipe_is_in_the_table_above() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {recipe for recipe, _, _ in FIT}


def test_the_rotary_base_of_an_extended_model_is_two_hundred_times_its_own(tmp_path: Path) -> None:
    found: Any = fits("context-extension", LlamaConfig(**LLAMA_7B), 65_536, tmp_path)
    assert found.rope_parameters["rope_theta"] == 2_000_000
    assert found.max_position_embeddings == 65_536


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_deepspeed_knows_every_setting_of_a_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config, extra = load_config(path)
    settings = deepspeed_settings(config, extra, accumulation=4)
    # Unknown keys are an error there.
    assert int(DeepSpeedZeroConfig(**settings["zero_optimization"]).stage) == config.zero_stage
    with pytest.raises(ValueError, match="stage3_nonsense"):
        DeepSpeedZeroConfig(stage=3, stage3_nonsense=1)
