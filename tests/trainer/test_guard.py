"""Steps that would spoil the weights, and packs that do not fit into memory."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longalign_data.errors import LongAlignError
from longalign_data.packing.reader import open_packs
from tests.trainer import runs
from tests.trainer.builds import VOCABULARY, tiny_llama
from tests.trainer.runs import losses, metrics
from trainer import attention, loop
from trainer.__main__ import main
from trainer.config import TrainConfig
from trainer.engine import TorchEngine
from trainer.guard import Guard, memory
from trainer.loop import train_step
from trainer.measure.metrics import Meter
from trainer.objective import Objective
from trainer.world import World

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
ALONE = World(rank=0, ranks=1, device=CPU)


@pytest.fixture(scope="module")
def sound(place: Path, alike: Path) -> Path:
    output = place / "sound"
    assert main(runs.options(alike, place / "model", output, schedule="constant", max_steps=16), {}) == 0
    return output


def test_a_step_that_is_not_finite_stops_the_run_with_its_packs_and_leaves_the_weights(
    place: Path, spoiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = place / "stopped-at-nan"
    assert main(runs.options(spoiled, place / "model", output), {}) == 1
    message = capsys.readouterr().err
    assert "step 3: the loss is nan because of pack pack-13, so training stops" in message
    assert "packs of the step: pack-12, pack-13, pack-14, pack-15" in message
    assert "Traceback" not in message
    assert len(losses(output)) == 3
    # It left a checkpoint from which the run can go on without it.
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000003"]
    assert (
        main(runs.options(spoiled, place / "model", output, "--resume", "--max-steps", "5", on_bad_step="skip"), {})
        == 0
    )
    assert ["skipped" in line for line in metrics(output)] == [False, False, False, True, False]


def test_bad_steps_are_skipped_and_the_others_are_those_of_a_sound_run(place: Path, spoiled: Path, sound: Path) -> None:
    """All steps hold the same packs and the rate is constant, so a step left out is a loss that comes twice."""
    output = place / "skipped"
    changes: dict[str, Any] = {"schedule": "constant", "on_bad_step": "skip"}
    assert main(runs.options(spoiled, place / "model", output, "--max-steps", "12", **changes), {}) == 0
    # What counts as a spike is remembered over a resume.
    assert main(runs.options(spoiled, place / "model", output, "--resume", **changes), {}) == 0
    lines = metrics(output)
    assert [line["step"] for line in lines if "skipped" in line] == [3, 13]
    assert "over 10 times the median" in lines[13]["skipped"]
    found = losses(output)
    assert [*found[:3], *found[4:13], *found[14:]] == losses(sound)[:14]


def test_a_run_that_skips_too_often_ends() -> None:
    guard = Guard(TrainConfig(on_bad_step="skip"))
    nothing = torch.zeros(1)
    for step in range(5):
        assert guard.judge(step, math.nan, ["p"], nothing)
    with pytest.raises(LongAlignError, match="after 5 skipped steps"):
        guard.judge(5, math.nan, ["p"], nothing)


class FindsAnInfiniteGradient(TorchEngine):
    def step(self, learning_rate: float) -> float | None:
        for parameter in self._module.parameters():
            assert parameter.grad is not None
            parameter.grad[0] = math.inf
        return super().step(learning_rate)


class RunsOutOfMemory(TorchEngine):
    def accumulate(self, batch: Any, scale: float, **options: Any) -> Tensor:
        if batch.max_seqlen > 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words")
        return super().accumulate(batch, scale, **options)


def take_steps(build: Path, kind: type[TorchEngine], number: int = 1, **changes: Any) -> Guard:
    _, registered = attention.install("auto", CPU, torch.float32)
    config = TrainConfig(engine="torch", dtype="fp32", peak_tflops=1, **changes)
    objective, reader = Objective(tiny_llama(registered), chunk_rows=7), open_packs(build)
    engine = kind(objective, config, ALONE)
    meter = Meter(objective, reader, ALONE, config)
    guard = Guard(config)
    for step in range(number):
        train_step(engine, reader, ALONE, guard, meter, step=step, rate=0.1, seed=0, vocabulary=VOCABULARY)
    return guard


def test_a_gradient_that_is_not_finite_changes_no_weight(alike: Path) -> None:
    with pytest.raises(
        LongAlignError, match="step 0: the norm of the gradient is inf, so training stops; the weights are still"
    ):
        take_steps(alike, FindsAnInfiniteGradient)


def test_gradients_that_are_never_finite_end_a_run_that_skips_though_its_losses_are(alike: Path) -> None:
    assert not take_steps(alike, FindsAnInfiniteGradient, 5, on_bad_step="skip").recent
    with pytest.raises(LongAlignError, match=r"step 5: the norm of the gradient is inf.* after 5 skipped steps"):
        take_steps(alike, FindsAnInfiniteGradient, 6, on_bad_step="skip")


class RunsOutOfMemoryInTheUpdate(TorchEngine):
    def step(self, learning_rate: float) -> float | None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.")


class RunsOutOfMemoryAtTheStart(TorchEngine):
    def __init__(self, *given: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


def test_out_of_memory_names_the_pack_its_lengths_and_what_helps(alike: Path) -> None:
    with pytest.raises(LongAlignError) as told:
        take_steps(alike, RunsOutOfMemory)
    message = str(told.value)
    assert "on rank 0 in step 0, forward and backward: pack pack-3 of 64 tokens, sequences of 64." in message
    assert "offload_activations: true" in message
    assert "sequence_parallel: 2" in message
    assert message.endswith("(CUDA out of memory. Tried to allocate 2 GiB.)")


def test_out_of_memory_in_the_update_names_the_step_and_no_pack(alike: Path) -> None:
    with pytest.raises(LongAlignError) as told:
        take_steps(alike, RunsOutOfMemoryInTheUpdate)
    message = str(told.value)
    assert "out of memory on rank 0 in step 0, where the optimizer updates the weights" in message
    assert "offload_optimizer in the DeepSpeed file" in message
    assert "pack-" not in message


def test_out_of_memory_before_the_first_step_is_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TorchEngine", RunsOutOfMemoryAtTheStart)
    assert main(runs.options(place / "build", place / "model", place / "no-room"), {}) == 1
    message = capsys.readouterr().err
    assert "error: out of memory on rank 0 while the model and its optimizer were set up" in message
    assert "zero_stage: 3, offload_optimizer and offload_param" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "error",
    [
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory\nMore words"),
        OSError("weights: Cannot allocate memory (os error 12)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_torch_does_not_allocate_itself_is_told_like_its_own(error: Exception) -> None:
    """Pinned memory, as `offload_activations` takes it, and files that are mapped."""
    with (
        pytest.raises(LongAlignError, match=r"^out of memory on rank 1 .* What helps, the cheapest first"),
        memory("set-up", 1),
    ):
        raise error


def test_other_errors_than_those_of_memory_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^size mismatch$"), memory("pack", 0, 1):
        raise RuntimeError("size mismatch")
