"""The trainer's configuration: what it says when it is wrong, and the learning rates that it gives."""

import json
import re
from pathlib import Path

import pytest

from longalign_data.errors import RecipeError
from trainer.config import OWNED, TrainConfig, learning_rate, load_config

RECIPES = Path(__file__).parents[2] / "recipes" / "train"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    config, settings = load_config(path)
    assert (config.deepspeed is not None) == bool(settings)


def test_a_misspelt_key_is_named_with_file_line_and_the_key_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("engine: torch\nlerning_rate: 1e-3\n")
    with pytest.raises(RecipeError, match=r"x\.yaml:2: lerning_rate: unknown key; did you mean 'learning_rate'\?"):
        load_config(file)


@pytest.mark.parametrize("text", ["2e-5", "0.00002", "2.0e-5"])
def test_a_rate_may_be_written_as_everyone_writes_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"learning_rate: {text}\n")
    assert load_config(file)[0].learning_rate == 2e-5


def test_a_rate_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("engine: torch\nlearning_rate: fast\n")
    with pytest.raises(RecipeError, match=r"x\.yaml:2: learning_rate: .*number.*'fast'"):
        load_config(file)


@pytest.mark.parametrize("key", OWNED)
def test_deepspeed_settings_that_contradict_the_plan_or_do_nothing_are_refused(tmp_path: Path, key: str) -> None:
    settings: object = 1
    for name in reversed(key.split(".")):
        settings = {name: settings}
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    (tmp_path / "x.yaml").write_text("deepspeed: ds.json\n")
    with pytest.raises(RecipeError, match=rf"ds\.json: {re.escape(key)}: not to be set here"):
        load_config(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        ("engine: torch", "{}", r"x\.yaml.*deepspeed: ds\.json: engine: torch reads no DeepSpeed settings"),
        (
            "zero_stage: 2",
            '{"zero_optimization": null}',
            r"ds\.json: zero_optimization: expected an object.*found null",
        ),
        (
            "zero_stage: 2",
            '{"zero_optimization": true}',
            r"ds\.json: zero_optimization: expected an object.*found true",
        ),
        (
            "zero_stage: 2",
            '{"zero_optimization": {"offload_param": {"device": "cpu"}}}',
            r"ds\.json: zero_optimization\.offload_param: needs zero_stage 3, found zero_stage: 2 in .*x\.yaml",
        ),
        (
            "zero_stage: 0\ndtype: fp32",
            '{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}',
            r"offload_optimizer: needs zero_stage 1 or 2 or 3, found zero_stage: 0",
        ),
        ("zero_stage: 3", '{"zero_optimization": {"offload_param": "cpu"}}', r"offload_param: expected an object"),
        ("zero_stage: 3", '{"optimizer": "adam"}', r'json: optimizer: expected an object of settings, found "adam"'),
        ("zero_stage: 3", '{"optimizer": {"params": [1]}}', r"json: optimizer\.params: expected an object"),
        ("zero_stage: 3", '{"optimizer": {"type": "Lion"}}', r'optimizer\.type: .* AdamW, found "Lion"'),
    ],
)
def test_deepspeed_settings_that_would_do_nothing_are_refused(
    tmp_path: Path, given: str, settings: str, told: str
) -> None:
    (tmp_path / "ds.json").write_text(settings)
    (tmp_path / "x.yaml").write_text(f"{given}\ndeepspeed: ds.json\n")
    with pytest.raises(RecipeError, match=told):
        load_config(tmp_path / "x.yaml")


def test_an_optimizer_that_is_the_trainers_own_and_no_offload_pass(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("zero_stage: 1\ndeepspeed: ds.json\n")
    settings = {"zero_optimization": {"offload_param": None}, "optimizer": {"type": "adamw", "params": {"fused": True}}}
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    assert load_config(tmp_path / "x.yaml")[1] == settings


def test_a_broken_or_missing_deepspeed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("deepspeed: ds.json\n")
    with pytest.raises(RecipeError, match=r"ds\.json: no such file"):
        load_config(tmp_path / "x.yaml")
    (tmp_path / "ds.json").write_text('{\n "a": 1,\n}')
    with pytest.raises(RecipeError, match=r"ds\.json:3: not valid JSON"):
        load_config(tmp_path / "x.yaml")


def test_an_empty_name_of_a_deepspeed_file_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("deepspeed: ''\n")
    with pytest.raises(RecipeError, match=r"x\.yaml:1: deepspeed: .*at least 1 character"):
        load_config(tmp_path / "x.yaml")


def test_the_rate_warms_up_peaks_and_falls_to_its_floor() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=4, min_learning_rate=0.1, schedule="linear")
    rates = [learning_rate(config, step, 14) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[-1] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(0.55)
    cosine = TrainConfig(learning_rate=1.0, warmup_steps=4)
    assert learning_rate(cosine, 9, 14) == pytest.approx(0.5)
    assert learning_rate(TrainConfig(learning_rate=1.0, schedule="constant"), 9, 10) == 1.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("on_bad_step: skip\nzero_stage: 0\n", "on_bad_step: skip needs zero_stage 1, 2 or 3"),
        ("zero_stage: 0\n", "zero_stage: 0 with dtype: bf16 would sum the gradients of a step in bf16"),
        ("offload_activations: true\nactivation_checkpointing: false\n", "needs activation_checkpointing: true"),
        ("min_learning_rate: 3e-5\n", "min_learning_rate: 3e-05 is above learning_rate: 2e-05"),
        ("lora: {rank: 0}\n", r"x\.yaml:1: lora\.rank"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError, match=told):
        load_config(tmp_path / "x.yaml")
