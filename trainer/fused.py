"""The same loss through Liger's fused kernels, where they are installed: `loss: liger` in the configuration.

In and out as `loss.WeightedCrossEntropy`. Liger gives the losses of single rows, and takes their weights into the logits'
gradient before it sums over rows (liger-kernel 0.8.5; earlier releases weigh the sum, which is wrong); the head's gradient is
added in fp32, as ours is.
"""

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from longalign_data.errors import MissingExtraError, UserError
from trainer.loss import WeightedCrossEntropy

NEEDED = Version("0.8.5")


class LigerCrossEntropy(WeightedCrossEntropy):
    """`chunk_rows` is not used: Liger chooses its chunks."""

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
