"""Fused losses against ours: Liger's in Triton's interpreter where there is no GPU (`make liger`), cut-cross-entropy's on a GPU
with it installed; what is said without them."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longalign_data.errors import MissingExtraError, UserError
from longalign_data.packing.reader import open_packs
from tests.exactness.reference import distance, unpacked_gradient
from tests.trainer import runs
from tests.trainer.builds import VOCABULARY, tiny_llama, write_build
from tests.trainer.processes import train
from tests.trainer.runs import losses
from trainer import attention, fused
from trainer.batch import micro_batch
from trainer.config import TrainConfig
from trainer.fused import CutCrossEntropy, LigerCrossEntropy, cut_cross_entropy, liger
from trainer.loss import WeightedCrossEntropy
from trainer.objective import Objective

pytestmark = pytest.mark.torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INSTALLED = importlib.util.find_spec("liger_kernel") is not None and importlib.util.find_spec("triton") is not None
needs_liger = pytest.mark.skipif(
    not INSTALLED or (DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"),
    reason="needs liger-kernel, and Triton's interpreter where there is no GPU; run: make liger",
)


@pytest.fixture
def needs_cut_cross_entropy() -> None:
    try:
        cut_cross_entropy(DEVICE)
    except UserError as error:
        pytest.skip(str(error))


def gradients(
    kind: Callable[..., WeightedCrossEntropy], dtype: torch.dtype, *, autocast: bool, **head: Any
) -> list[Tensor]:
    """The losses of 300 rows, then the gradients of their hidden states and of a head for 97 tokens."""
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 16, generator=drawn)
    labels, weights = torch.randint(97, (300,), generator=drawn), torch.rand(300, generator=drawn, dtype=torch.float64)
    torch.manual_seed(1)
    layer = nn.Linear(16, 97, **head).to(DEVICE, dtype)
    start = hidden.to(DEVICE, dtype).requires_grad_()
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=autocast):
        loss = kind(layer, chunk_rows=64)
        total = loss(start, labels.to(DEVICE), weights.to(DEVICE))
    (3 * total).backward()
    found = [loss.row_losses, start.grad, *(parameter.grad for parameter in layer.parameters())]
    assert all(tensor is not None for tensor in found)
    return [tensor.double() for tensor in found if tensor is not None]


@needs_liger
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast", "allowed"),
    [(torch.float32, False, 2e-6), (torch.bfloat16, False, 2e-2), (torch.float32, True, 2e-2)],
)
def test_ligers_losses_and_gradients_are_ours(
    dtype: torch.dtype, *, autocast: bool, allowed: float, bias: bool
) -> None:
    ours = gradients(WeightedCrossEntropy, dtype, autocast=autocast, bias=bias)
    theirs = gradients(LigerCrossEntropy, dtype, autocast=autocast, bias=bias)
    for mine, other in zip(ours, theirs, strict=True):
        assert float((other - mine).norm() / mine.norm()) < allowed


@pytest.mark.usefixtures("needs_cut_cross_entropy")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "autocast"), [(torch.bfloat16, False), (torch.float32, True)])
def test_the_losses_and_gradients_of_cut_cross_entropy_are_ours(
    dtype: torch.dtype, *, autocast: bool, bias: bool
) -> None:
    ours = gradients(WeightedCrossEntropy, dtype, autocast=autocast, bias=bias)
    theirs = gradients(CutCrossEntropy, dtype, autocast=autocast, bias=bias)
    for mine, other in zip(ours, theirs, strict=True):
        assert float((other - mine).norm() / mine.norm()) < 2e-2


@needs_liger
def test_a_packed_step_through_liger_has_the_gradient_of_the_mean_over_sequences(tmp_path: Path) -> None:
    reader = open_packs(write_build(tmp_path, [[[(30, 7), (20, 3)], [(50, 49)], [(33, 5)]]], packs_per_step=3))
    _, registered = attention.install("sdpa-by-sequence", DEVICE, torch.float32)
    objective = Objective(tiny_llama(registered), chunk_rows=7, loss="liger").to(DEVICE)
    for position in range(3):
        batch = micro_batch(reader.batch(0, position, 3, 0, 1), DEVICE, VOCABULARY)
        torch.autograd.backward(objective(batch) / reader.step(0).normalizer)
    found = {name: p.grad.cpu() for name, p in objective.model.named_parameters() if p.grad is not None}
    assert distance(found, unpacked_gradient(reader)) <= 1e-5


@needs_liger
def test_two_ranks_under_zero_3_train_through_liger_as_one_process_does_without_it(
    place: Path, reference: Path
) -> None:
    output = place / "liger"
    changes: dict[str, Any] = {"engine": "deepspeed", "zero_stage": 3, "loss": "liger"}
    train(2, runs.options(place / "build", place / "model", output, "--max-steps", "3", **changes), output)
    assert losses(output) == pytest.approx(losses(reference)[:3], rel=1e-5)


@pytest.fixture
def anew() -> None:
    liger.cache_clear()
    cut_cross_entropy.cache_clear()


@pytest.mark.usefixtures("anew")
def test_without_liger_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(
        MissingExtraError, match=r"^loss: liger needs liger-kernel.*pip install 'longalign-data\[liger\]'"
    ):
        liger(DEVICE)


@needs_liger
@pytest.mark.usefixtures("anew")
def test_a_liger_that_weighs_rows_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.8.4")
    with pytest.raises(UserError, match=r"liger-kernel 0\.8\.4 weighs single rows wrongly; run: pip install"):
        fused.liger(DEVICE)


FROM_ITS_REPOSITORY = r"run: pip install 'cut-cross-entropy @ git\+https://"


def cut_cross_entropy_with(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any] | None) -> None:
    """As if it were installed with this function, or not at all; nothing is kept for later tests."""
    module = ModuleType("cut_cross_entropy")
    if function is not None:
        module.linear_cross_entropy = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", None if function is None else module)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "25.1.1")


@pytest.mark.usefixtures("anew")
def test_without_cut_cross_entropy_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_cross_entropy_with(monkeypatch, None)
    with pytest.raises(UserError, match=f"needs cut_cross_entropy, which is not installed; {FROM_ITS_REPOSITORY}"):
        cut_cross_entropy(DEVICE)


@pytest.mark.usefixtures("anew")
def test_a_cut_cross_entropy_that_sums_in_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_cross_entropy_with(monkeypatch, lambda e, c, targets, reduction, filter_eps: None)
    with pytest.raises(UserError, match=rf"release 25\.1\.1 sums the head's gradient in bf16.*{FROM_ITS_REPOSITORY}"):
        cut_cross_entropy(DEVICE)


@pytest.mark.usefixtures("anew")
def test_cut_cross_entropy_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_cross_entropy_with(monkeypatch, lambda e, c, targets, bias, accum_c_fp32: None)
    with pytest.raises(UserError, match="runs on a GPU, and here is none; write loss: chunked"):
        cut_cross_entropy(torch.device("cpu"))


def test_cut_cross_entropy_in_fp32_is_refused() -> None:
    with pytest.raises(ValueError, match="cut-cross-entropy multiplies in bf16; write dtype: bf16"):
        TrainConfig(loss="cut-cross-entropy", dtype="fp32")
