"""The gradients of the chunked loss, against those that autograd finds from whole logits."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import trainer.loss as loss_module
from trainer.config import TrainConfig
from trainer.loss import VOCABULARY_BLOCK, WeightedCrossEntropy

pytestmark = pytest.mark.torch


def inputs(rows: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=drawn, dtype=torch.float64)
    labels = torch.randint(vocabulary, (rows,), generator=drawn)
    return hidden, labels, torch.rand(rows, generator=drawn, dtype=torch.float64)


def head(width: int, vocabulary: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width, vocabulary, bias=bias, dtype=torch.float64)


def whole(layer: nn.Linear, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(layer(hidden), labels, reduction="none") * weights).sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 7, 100])
def test_loss_and_gradients_are_those_of_whole_logits(chunk_rows: int, *, frozen: bool, bias: bool) -> None:
    hidden, labels, weights = inputs(23, 8, 50)
    layer = head(8, 50, bias=bias).requires_grad_(not frozen)
    found = []
    for loss in (WeightedCrossEntropy(layer, chunk_rows=chunk_rows), lambda *rows: whole(layer, *rows)):
        # As if the embedding were tied to the head: what reaches the loss depends on its weight too.
        start = hidden.clone().requires_grad_()
        layer.zero_grad()
        total = 3 * loss(start + layer.weight[labels], labels, weights)
        total.backward()
        found.append([total.detach(), start.grad, *(parameter.grad for parameter in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_gradient_of_a_head_in_bf16_stays_right_over_512_chunks(*, autocast: bool) -> None:
    """Chunks that agree are the hard case: in bf16 a sum stops growing once a term is small beside it."""
    vocabulary = VOCABULARY_BLOCK + 300
    hidden, labels, weights = inputs(2, 8, vocabulary)
    hidden, labels, weights = hidden.repeat(512, 1), labels.repeat(512), weights.repeat(512)
    exact = head(8, vocabulary)
    exact.weight.data = exact.weight.data.bfloat16().double()
    hidden = hidden.bfloat16().double()
    whole(exact, hidden, labels, weights).backward()
    dtype = torch.float32 if autocast else torch.bfloat16
    layer = nn.Linear(8, vocabulary, bias=False, dtype=dtype)
    layer.weight.data = exact.weight.data.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = WeightedCrossEntropy(layer, chunk_rows=2)(hidden.to(dtype).requires_grad_(), labels, weights)
    loss.backward()
    assert layer.weight.grad is not None
    assert exact.weight.grad is not None
    assert layer.weight.grad.dtype == dtype
    error = (layer.weight.grad.double() - exact.weight.grad).norm() / exact.weight.grad.norm()
    assert float(error) < 0.01


def test_the_losses_of_rows_are_kept_and_no_row_is_no_loss() -> None:
    hidden, labels, weights = inputs(5, 8, 50)
    layer = head(8, 50)
    loss = WeightedCrossEntropy(layer, chunk_rows=2)
    total = loss(hidden, labels, weights)
    assert loss.row_losses is not None
    torch.testing.assert_close(loss.row_losses, F.cross_entropy(layer(hidden), labels, reduction="none") * weights)
    assert not loss.row_losses.requires_grad
    torch.testing.assert_close(loss.row_losses.sum(), total)
    nothing = loss(hidden[:0], labels[:0], weights[:0])
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


class Peak(TorchDispatchMode):
    """`peak`: the most bytes that were in memory at once of the tensors made in it, the `given` ones left out."""

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.known = WeakIdKeyDictionary(dict.fromkeys((tensor.untyped_storage() for tensor in given), True))
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's signature
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage not in self.known:
                self.known[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage.nbytes())
        return found

    def freed(self, size: int) -> None:
        self.now -= size


SHRUNK = 32
"""By what each size of the test below is divided; bytes are products of two sizes."""


@pytest.mark.parametrize("num_rows", [65_536 // 50, 65_536])
def test_the_loss_takes_no_more_than_one_and_a_half_gib_at_152k_tokens_and_64k_rows(
    num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What head and loss allocate in forward and backward beyond their inputs, in bf16 at a width of 2,048 with the default
    chunks: counted tensor by tensor with every size divided by 32, the gradients of head and rows included."""
    monkeypatch.setattr(loss_module, "VOCABULARY_BLOCK", VOCABULARY_BLOCK // SHRUNK)
    vocabulary, width = 151_936 // SHRUNK, 2048 // SHRUNK
    hidden, labels, weights = inputs(num_rows // SHRUNK, width, vocabulary)
    start = hidden.bfloat16().requires_grad_()
    layer = head(width, vocabulary).bfloat16()
    loss = WeightedCrossEntropy(layer, chunk_rows=TrainConfig().loss_chunk_rows // SHRUNK)
    with Peak(start, layer.weight, labels, weights) as counted:
        gradients = torch.autograd.grad(loss(start, labels, weights), [start, layer.weight])
    peak = counted.peak * SHRUNK**2
    assert sum(gradient.nbytes for gradient in gradients) * SHRUNK**2 < peak < 1.5 * 2**30
