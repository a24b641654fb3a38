"""Packs as a data set of arrays, and the recipe of docs/frameworks.md for the Hugging Face Trainer, run as it stands."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.packing.collate import IGNORED, PlannedPacks
from longalign_data.packing.reader import open_packs
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import Teacher

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
RECIPE = """
name: small
version: 1.0.0
tokenizer: mistral-v1
mix: [{id: chat, lang: en, license: CC0-1.0, path: chat.jsonl}]
encode: {template: llama-inst, max_tokens: 96}
pack: {capacity: 96, packs_per_step: 3}
"""


def nobody() -> Teacher:
    raise AssertionError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collate")
    with (folder / "chat.jsonl").open("w", encoding="utf-8") as file:
        for number in range(17):
            turns = [
                {"role": "user", "content": f"Say {number}!"},
                {"role": "assistant", "content": "word " * (1 + 3 * number)},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    loaded = load_recipe(folder / "recipe.yaml")
    return build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=nobody).folder.root


def test_every_step_has_k_places_and_its_weights_sum_to_one(root: Path) -> None:
    packs = PlannedPacks(open_packs(root))
    steps = [[packs[3 * step + place] for place in range(3)] for step in range(len(packs) // 3)]
    for step in steps:
        assert sum(float(pack["loss_weights"].sum()) for pack in step) == pytest.approx(1.0, rel=1e-5)
    stored = [row for path in sorted((root / "packs").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    given = [pack for step in steps for pack in step if pack["loss_weights"].any()]
    assert [pack["input_ids"].tolist() for pack in given] == [row["input_ids"] for row in stored]
    for pack in given:
        weighs = pack["loss_weights"] > 0
        assert np.array_equal(pack["labels"], np.where(weighs, pack["input_ids"], IGNORED))
        assert pack["labels"][pack["position_ids"] == 0].tolist() == [IGNORED] * int((pack["position_ids"] == 0).sum())
    with pytest.raises(IndexError):
        packs[len(packs)]


def page_code() -> dict[str, Any]:
    names: dict[str, Any] = {}
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        if "InOrder" in block
    ]
    exec(compile(code, str(PAGE), "exec"), names)
    return names


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_the_page_takes_steps_of_eq_2(root: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=3, max_steps=1, max_grad_norm=0.0,
        remove_unused_columns=False, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, learning_rate=1.0,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    page_code()["make_trainer"](model, root, arguments, optimizers=(optimizer, constant)).train()
    step = {name: before[name] - value.detach() for name, value in model.named_parameters()}

    reader = open_packs(root)
    reference = transformers.LlamaForCausalLM(config)
    reference.load_state_dict(before, strict=False)
    total = torch.zeros(())
    for place in range(3):
        pack = reader.batch(0, place, 3, 0, 1)
        for begin, end in zip(pack.cu_seqlens, pack.cu_seqlens[1:], strict=False) if pack else ():
            ids = torch.from_numpy(pack.input_ids[begin:end])
            targets = torch.from_numpy(pack.loss_weights[begin + 1 : end]) > 0
            losses = torch.nn.functional.cross_entropy(reference(ids[None]).logits[0, :-1], ids[1:], reduction="none")
            total = total + losses[targets].mean()
    (total / reader.step(0).num_sequences).backward()
    assert reader.step(0).num_sequences > 3
    for name, value in reference.named_parameters():
        assert torch.allclose(step[name], value.grad, atol=2e-6), name
