"""Whole runs on two ranks: shared packs, ZeRO-3, kills, other numbers of ranks."""

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from longalign_data.errors import UserError
from tests.exactness.ranks import SHARDED
from tests.trainer import runs
from tests.trainer.builds import tiny_llama
from tests.trainer.processes import finish, free_port, start, start_training, train, train_rank
from tests.trainer.runs import NUM_STEPS, losses, metrics
from trainer import attention, loop
from trainer.config import TrainConfig
from trainer.engine import TorchEngine
from trainer.measure.metrics import idle_by_rank
from trainer.objective import Objective
from trainer.probe import probe
from trainer.world import join

pytestmark = pytest.mark.torch

ZERO_3 = {
    "engine": "deepspeed",
    "zero_stage": 3,
    "activation_checkpointing": True,
    "checkpoint_every": 2,
    "deepspeed": "sharded.json",
}


def arguments(place: Path, output: Path, *extra: str, **changes: Any) -> list[str]:
    return runs.options(place / "build", place / "model", output, *extra, **changes)


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(output / "model").state_dict()
    return found


@pytest.fixture(scope="session")
def whole(place: Path) -> Path:
    """An uninterrupted run of two ranks under ZeRO-3."""
    (place / "sharded.json").write_text(json.dumps({"zero_optimization": SHARDED}))
    output = place / "zero-3"
    train(2, arguments(place, output, **ZERO_3), output)
    return output


def test_two_ranks_under_zero_3_take_the_steps_of_one_process_and_export_its_weights(
    whole: Path, reference: Path
) -> None:
    assert losses(whole) == pytest.approx(losses(reference), rel=1e-5)
    ours, theirs = ([line["grad_norm"] for line in metrics(folder)] for folder in (whole, reference))
    assert ours == pytest.approx(theirs, rel=1e-4)
    for line, wanted in zip(metrics(whole), metrics(reference), strict=True):
        assert line["num_tokens"] == wanted["num_tokens"]
        assert line["loss_by_length"] == pytest.approx(wanted["loss_by_length"], rel=1e-5)
    timed = metrics(whole)[1]
    assert (len(timed["idle_by_rank"]), np.shape(timed["pack_seconds"])) == (2, (2, 2))
    # Two ranks may take the same time by chance, but never say other than what they took.
    waited = idle_by_rank(np.array(timed["pack_seconds"]))
    assert timed["idle_by_rank"] == pytest.approx(waited.tolist(), abs=1e-3)
    assert 0 <= min(timed["idle_by_rank"]) <= max(timed["idle_by_rank"]) < 1
    assert min(map(min, timed["pack_seconds"])) > 0
    found = weights(whole)
    for name, tensor in weights(reference).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def _until_it_is_killed(at: int, *arguments: Any) -> None:
    """A rank that takes one step after `at` steps at most, so that the kill comes before the end however late it comes."""
    take = loop.train_step

    def train_step(*given: Any, step: int, **named: Any) -> dict[str, Any]:
        if step > at:
            time.sleep(800)
        return take(*given, step=step, **named)

    loop.train_step = train_step
    train_rank(*arguments)


def test_a_run_of_two_ranks_that_was_killed_goes_on_to_the_same_losses_to_the_bit(place: Path, whole: Path) -> None:
    output = place / "zero-3-killed"
    options = arguments(place, output, **ZERO_3)
    at = random.randrange(3, NUM_STEPS - 1)
    port = str(free_port())
    ranks = start(
        _until_it_is_killed, [(at, rank, 2, port, options, output.with_suffix(f".{rank}")) for rank in range(2)]
    )
    until = time.monotonic() + 400
    try:
        while not (output / "metrics.jsonl").exists() or (output / "metrics.jsonl").read_bytes().count(b"\n") < at:
            assert time.monotonic() < until
            time.sleep(0.002)
    finally:
        for process in ranks:
            process.kill()
    assert finish(ranks) == [-9, -9]
    assert not (output / "model").exists()
    checkpoints = sorted((output / "checkpoints").glob("*/trainer.json"))
    assert checkpoints, at
    shutil.copytree(output, place / "zero-3-alone")
    train(2, [*options, "--resume"], output)
    assert losses(output) == losses(whole), at
    assert (output / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()

    # The same checkpoint goes on with one rank in place of two, with all packs of a step on it.
    alone = place / "zero-3-alone"
    train(1, arguments(place, alone, "--resume", **ZERO_3), alone)
    assert losses(alone) == pytest.approx(losses(whole), rel=1e-5)
    found = weights(alone)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("engine", "stage"), [("torch", 0), ("deepspeed", 2)])
def test_two_ranks_that_share_each_pack_take_the_steps_of_one(
    place: Path, reference: Path, engine: str, stage: int
) -> None:
    output = place / f"shared-{engine}"
    train(2, arguments(place, output, engine=engine, zero_stage=stage, sequence_parallel=2), output)
    assert losses(output) == pytest.approx(losses(reference), rel=1e-5)
    ours, theirs = ([line["grad_norm"] for line in metrics(folder)] for folder in (output, reference))
    assert ours == pytest.approx(theirs, rel=1e-4)
    for line, wanted in zip(metrics(output), metrics(reference), strict=True):
        assert line["num_tokens"] == wanted["num_tokens"]
        assert line["modelled_idle"] == wanted["modelled_idle"]
        assert line["loss_by_length"] == pytest.approx(wanted["loss_by_length"], rel=1e-5)


def test_a_sharded_run_goes_on_with_more_ranks(place: Path, reference: Path) -> None:
    output = place / "grown"
    one = {"engine": "deepspeed", "zero_stage": 2}
    train(1, arguments(place, output, "--max-steps", "6", **one), output)
    train(2, arguments(place, output, "--resume", **one, sequence_parallel=2), output)
    assert losses(output) == pytest.approx(losses(reference), rel=1e-5)


def test_a_torn_file_of_a_sharded_checkpoint_is_named(place: Path) -> None:
    output = place / "torn-shard"
    sharded = {"engine": "deepspeed", "zero_stage": 2}
    train(1, arguments(place, output, "--max-steps", "1", **sharded), output)
    folder = output / "checkpoints" / "step-00000001"
    file = next(folder.rglob("*optim_states.pt"))
    file.write_bytes(file.read_bytes()[:1000])
    assert finish(start_training(1, arguments(place, output, "--resume", **sharded), output)) == [2]
    assert f"error: {folder}: cannot be read: " in output.with_suffix(".0").read_text()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_trains_at_every_stage_nearly_as_fp32(place: Path, reference: Path, stage: int) -> None:
    output = place / f"bf16-{stage}"
    train(1, arguments(place, output, "--max-steps", "2", engine="deepspeed", dtype="bf16", zero_stage=stage), output)
    assert losses(output) == pytest.approx(losses(reference)[:2], rel=2e-2)
    assert {tensor.dtype for tensor in weights(output).values()} == {torch.bfloat16}


def _where_leaving_waits(*arguments: Any) -> None:
    """A rank whose process group is left as NCCL's is: not before the other ranks leave it too."""
    torch.distributed.destroy_process_group = lambda: time.sleep(1000)
    train_rank(*arguments)


def test_a_rank_that_fails_alone_says_why_and_ends_without_the_others(place: Path) -> None:
    shutil.copytree(place / "build", place / "changed-for-one")
    shard = next((place / "changed-for-one" / "packs").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    output = place / "failed-alone"
    options = arguments(place, output)
    options[1] = str(place / "changed-for-one")
    # Packs are compared by rank 0, the plan by rank 1, which waits for the first.
    port = str(free_port())
    ranks = start(_where_leaving_waits, [(rank, 2, port, options, output.with_suffix(f".{rank}")) for rank in range(2)])
    codes = finish(ranks, timeout=400)
    assert codes[0] == 2
    assert f"error: {shard}: is not the file that the build wrote" in output.with_suffix(".0").read_text()
    assert codes[1] not in (0, None)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_bad_step_stops_sharded_ranks_with_a_checkpoint_and_is_skipped_from_there(
    place: Path, alike: Path, spoiled: Path, stage: int
) -> None:
    """All steps hold the same packs and the rate is constant, so a step left out is a loss that comes twice."""
    sound, output = (place / f"{name}-{stage}" for name in ("sound", "skipped"))
    asked = {"engine": "deepspeed", "zero_stage": stage, "schedule": "constant", "on_bad_step": "skip", "max_steps": 6}
    train(2, runs.options(alike, place / "model", sound, **asked), sound)
    stopping = runs.options(spoiled, place / "model", output, **asked | {"on_bad_step": "stop"})
    assert finish(start_training(2, stopping, output)) == [1, 1]
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000003"]
    train(2, runs.options(spoiled, place / "model", output, "--resume", **asked), output)
    lines = metrics(output)
    assert [line["step"] for line in lines if "skipped" in line] == [3]
    assert "because of pack pack-13; packs of the step: pack-12, pack-13, pack-14, pack-15" in lines[3]["skipped"]
    assert [*losses(output)[:3], *losses(output)[4:]] == losses(sound)[:5]


def probe_a_model_that_looks_back(rank: int, port: str, told: Path) -> None:
    """Each token of a sequence sees the one before it outside of attention, which the second rank's first token cannot."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    world = join("torch", rank=rank, ranks=2, local_rank=rank, parts=2)
    model = tiny_llama(attention.install("auto", world.device, torch.float32, world.group)[1])
    positions = torch.empty(0)

    def note(module: nn.Module, given: Any, named: dict[str, Any]) -> None:
        nonlocal positions
        positions = named["position_ids"]

    def look_back(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        before = output.roll(1, dims=1)
        before[:, 0] = 0
        return output + before * (positions > 0)[..., None]

    model.model.register_forward_pre_hook(note, with_kwargs=True)
    model.model.layers[0].mlp.register_forward_hook(look_back)
    objective = Objective(model, chunk_rows=64)
    engine = TorchEngine(objective, TrainConfig(engine="torch", dtype="fp32"), world)
    try:
        probe(objective, engine, world, longest=41)
    except UserError as error:
        told.with_suffix(f".{rank}").write_text(str(error))


def test_a_model_that_mixes_tokens_outside_of_attention_cannot_share_packs(tmp_path: Path) -> None:
    port = str(free_port())
    ranks = start(probe_a_model_that_looks_back, [(rank, port, tmp_path / "told") for rank in range(2)])
    assert finish(ranks) == [0, 0]
    for rank in range(2):
        assert (
            "LlamaForCausalLM: 2 ranks that share a pack compute something else than one of them alone"
            in (tmp_path / f"told.{rank}").read_text()
        )
