"""Is a fast attention backend right, and how fast is it? Against scaled_dot_product_attention, sequence by sequence.

At 4k tokens output and gradients are compared with float64 on the same inputs; the yardstick is what SDPA itself loses in the
same dtype. At 64k a forward and a backward must run and stay finite. The rows tell the signature of torch's varlen_attn, which
differs between releases.
"""

import inspect
import itertools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.common import Place, run
from longalign_data.errors import UserError
from trainer.attention import BACKENDS, install, sdpa_by_sequence
from trainer.measure.flops import measure_peak

HEADS = [(32, 8), (8, 8)]
"""Heads of queries, and of keys and values."""


def benchmark(place: Place) -> Iterator[dict[str, Any]]:
    """One row for each backend, arrangement of heads and size."""
    yield {"varlen_attn": signature()}
    peak = measure_peak(place.device, place.dtype)
    names = [name for name in BACKENDS if usable(name, place)]
    small, large = place.size(4096, 64), place.size(65_536, 128)
    for name, (heads, kv_heads), window in itertools.product(names, HEADS, (None, small // 16)):
        lengths = [small // 2, small // 4, small // 8, small // 8 - 1, 1]
        yield correctness(place, name, heads, kv_heads, lengths, window)
    for name, (heads, kv_heads), parts in itertools.product(names, HEADS, (1, 16)):
        yield speed(place, name, heads, kv_heads, [large // parts] * parts, peak)


def signature() -> str:
    """What this torch's varlen_attn takes."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "absent"
    return str(list(inspect.signature(varlen_attn).parameters))


def usable(name: str, place: Place) -> bool:
    """Whether the trainer would let this backend run here."""
    try:
        install(name, place.device, place.dtype)
    except UserError:
        return False
    return True


def correctness(
    place: Place, name: str, heads: int, kv_heads: int, lengths: list[int], window: int | None
) -> dict[str, Any]:
    """Largest relative error (Frobenius) of output and gradients, beside SDPA's own in the same dtype."""
    inputs = draw(place, heads, kv_heads, sum(lengths))
    options = borders(place, lengths) | ({"sliding_window": window} if window else {})
    exact = outcome(sdpa_by_sequence, [t.double() for t in inputs], options)
    row: dict[str, Any] = {"backend": name, "heads": f"{heads}/{kv_heads}", "tokens": sum(lengths), "window": window}
    try:
        found = outcome(BACKENDS[name][1], inputs, options)
    except UserError as error:
        return row | {"refused": str(error)}
    yardstick = outcome(sdpa_by_sequence, inputs, options)
    ours, theirs = ([distance(t, e) for t, e in zip(ts, exact, strict=True)] for ts in (found, yardstick))
    row |= {part: f"{error:.2e}" for part, error in zip(("output", "dq", "dk", "dv"), ours, strict=True)}
    return row | {"sdpa": f"{max(theirs):.2e}", "goal": "at most twice sdpa", "ok": max(ours) <= 2 * max(theirs) + 1e-6}


def speed(place: Place, name: str, heads: int, kv_heads: int, lengths: list[int], peak: float) -> dict[str, Any]:
    """Forward and backward of one layer's attention: time, and operations a second by sequence."""
    inputs = draw(place, heads, kv_heads, sum(lengths))
    options = borders(place, lengths)
    row = {"backend": name, "heads": f"{heads}/{kv_heads}", "tokens": f"{len(lengths)} x {lengths[0]}"}
    # Made before the clock runs: a quarter of a billion numbers would count as much as short sequences do.
    query = inputs[0].transpose(1, 2)
    upstream = combination(query).to(query.dtype)
    try:
        results = outcome(BACKENDS[name][1], inputs, options, upstream)
    except torch.OutOfMemoryError:
        # SDPA has a kernel without a T x T matrix for some arrangements of heads alone.
        return row | {"refused": "out of memory"}
    finite = all(bool(t.isfinite().all()) for t in results)
    taken = place.seconds(lambda: outcome(BACKENDS[name][1], inputs, options, upstream))
    operations = 3 * 2 * 2 * heads * inputs[0].shape[-1] * sum(n * (n + 1) / 2 for n in lengths)
    return row | {
        "milliseconds": round(taken * 1e3, 2),
        "tflops": round(operations / taken / 1e12, 2),
        "of_matrix_peak": round(operations / taken / peak, 3),
        "ok": finite,
    }


def draw(place: Place, heads: int, kv_heads: int, tokens: int) -> list[Tensor]:
    """Queries, keys, values as Transformers hands them over."""
    torch.manual_seed(tokens)
    width = place.size(128, 16)
    shapes = [(1, h, tokens, width) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, device=place.device, dtype=place.dtype) for shape in shapes]


def borders(place: Place, lengths: list[int]) -> dict[str, Any]:
    """What the trainer passes beside the tensors."""
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=place.device)
    return {"cu_seq_lens_q": ends, "max_length_q": max(lengths)}


def outcome(attend: Any, inputs: list[Tensor], options: dict[str, Any], upstream: Tensor | None = None) -> list[Tensor]:
    """Output and the gradients of a fixed combination of it, or of the one that `upstream` gives."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    output, _ = attend(SimpleNamespace(), *leaves, None, scaling=leaves[0].shape[-1] ** -0.5, **options)
    torch.autograd.backward(output, combination(output).to(output.dtype) if upstream is None else upstream)
    return [output.detach(), *(t.grad for t in leaves if t.grad is not None)]


def combination(output: Tensor) -> Tensor:
    """A fixed factor for each number of an output, in fp32."""
    return torch.linspace(-1, 1, output.numel(), device=output.device, dtype=torch.float32).view(output.shape)


def distance(found: Tensor, wanted: Tensor) -> float:
    """||found - wanted|| / ||wanted||."""
    return float((found.double() - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    sys.exit(run("attention", __doc__, benchmark, sys.argv[1:]))
