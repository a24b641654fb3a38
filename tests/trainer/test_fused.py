"""Liger's fused loss against ours, in Triton's interpreter where there is no GPU (`make liger`); what is said without it."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
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
from trainer.fused import LigerCrossEntropy, liger
from trainer.loss import WeightedCrossEntropy
from trainer.objective import Objective

pytestmark = pytest.mark.torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INSTALLED = importlib.util.find_spec("liger_kernel") is not None and importlib.util.find_spec("triton") is not None
needs_liger = pytest.mark.skipif(
    not INSTALLED or (DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"),
    reason="needs liger-kernel, and Triton's interpreter where there is no GPU; run: make liger",
)


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
