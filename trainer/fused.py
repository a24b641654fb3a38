"""The same loss through other people's fused kernels, where they are installed: `loss: liger` and `loss: cut-cross-entropy`.

In and out as `loss.WeightedCrossEntropy`. Both give the losses of single rows and take their weights into the logits' gradient
before it is summed over rows, in fp32, as ours is. Versions that do not are refused: Liger before 0.8.5 weighs the sum, and the
cut-cross-entropy of the package index (25.1.1) sums the head's gradient in bf16.
"""

import functools
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from longalign_data.errors import MissingExtraError, UserError
from trainer.loss import WeightedCrossEntropy

NEEDED = Version("0.8.5")
CUT_CROSS_ENTROPY = "pip install 'cut-cross-entropy @ git+https://github.com/apple/ml-cross-entropy'"
"""No release on an index has sums in fp32, and an extra that names a repository cannot be published."""


class LigerCrossEntropy(WeightedCrossEntropy):
    """`chunk_rows` is not used: Liger chooses its chunks."""

    @staticmethod
    def check(device: torch.device) -> None:
        liger(device)

    def row_by_row(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """w * CE of every row, fp32 [R]."""
        apply = liger(hidden.device)
        # hidden, head, labels, bias; then no weights of classes, nothing ignored, neither z-loss nor smoothing; row by row;
        # no cap on logits; no z-loss to return; gradients of the head added in fp32.
        options = (None, -100, 0.0, 0.0, "none", None, False, torch.float32)
        losses: Tensor = apply(hidden, self.weight, labels, self.bias, *options)[0]
        return losses * weights.to(losses.dtype)


@functools.cache
def liger(device: torch.device) -> Callable[..., Any]:
    """Liger's fused function. Raises MissingExtraError where it is not installed, UserError where it is too old or cannot run
    on `device`."""
    try:
        version = importlib.metadata.version("liger-kernel")
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
        from triton import knobs
    except (importlib.metadata.PackageNotFoundError, ImportError) as error:
        missing = getattr(error, "name", None) or "liger-kernel"
        raise MissingExtraError(missing, extra="liger", purpose="loss: liger") from None
    if Version(version) < NEEDED:
        raise UserError(
            f"loss: liger: liger-kernel {version} weighs single rows wrongly; run: pip install 'liger-kernel>={NEEDED}'"
        )
    if device.type == "cpu" and not knobs.runtime.interpret:
        raise UserError("loss: liger runs on a GPU, and here is none; write loss: chunked")
    apply: Callable[..., Any] = LigerFusedLinearCrossEntropyFunction.apply
    return apply


class CutCrossEntropy(WeightedCrossEntropy):
    """Makes no logits in memory at all; `chunk_rows` is not used. Multiplies in bf16, whatever the weights are stored in."""

    @staticmethod
    def check(device: torch.device) -> None:
        cut_cross_entropy(device)

    def row_by_row(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """w * CE of every row, fp32 [R]."""
        apply = cut_cross_entropy(hidden.device)
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        # By default it leaves out small parts of the gradient; `filter_eps=None` keeps all of it.
        options = {"reduction": "none", "filter_eps": None, "accum_e_fp32": True, "accum_c_fp32": True}
        with torch.autocast(hidden.device.type, enabled=False):
            losses: Tensor = apply(
                hidden.to(torch.bfloat16), self.weight.to(torch.bfloat16), labels, bias=bias, **options
            )
        return losses * weights.to(losses.dtype)


@functools.cache
def cut_cross_entropy(device: torch.device) -> Callable[..., Any]:
    """Its function. Raises UserError where it is not installed, cannot sum in fp32, or cannot run on `device`."""
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError as error:
        raise UserError(
            f"loss: cut-cross-entropy needs {error.name or 'cut_cross_entropy'}, which is not installed; run: {CUT_CROSS_ENTROPY}"
        ) from None
    if "accum_c_fp32" not in inspect.signature(linear_cross_entropy).parameters:
        version = importlib.metadata.version("cut-cross-entropy")
        raise UserError(
            f"loss: cut-cross-entropy: release {version} sums the head's gradient in bf16, which loses small parts; "
            f"run: {CUT_CROSS_ENTROPY}"
        )
    if device.type == "cpu":
        raise UserError("loss: cut-cross-entropy runs on a GPU, and here is none; write loss: chunked")
    apply: Callable[..., Any] = linear_cross_entropy
    return apply
