"""torch's varlen_attn has had three signatures; the backend must call each of them right.

The kernel itself needs a GPU (`python -m benchmarks.gpu.attention`). Here stand-ins with the signatures of torch 2.10, 2.11 and
2.12 compute the same on a CPU and refuse what the release refuses.
"""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longalign_data.errors import UserError
from trainer.attention import sdpa_by_sequence, torch_varlen

pytestmark = pytest.mark.torch

LENGTHS = [9, 1, 14]


def attend(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scale: float, window: int, gqa: bool) -> Tensor:
    """[T, heads, d] -> [T, heads, d]; a window of -1 is none."""
    assert ends.dtype == torch.int32
    assert longest == max(LENGTHS)
    assert gqa or q.shape[1] == k.shape[1], "this release shares no key-value heads"
    parts = []
    for start, end in itertools.pairwise(ends.tolist()):
        one, two, three = (t[start:end].transpose(0, 1) for t in (q, k, v))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
        mask = (distance >= 0) & ((distance <= window) | (window < 0))
        parts.append(F.scaled_dot_product_attention(one, two, three, mask, scale=scale, enable_gqa=gqa).transpose(0, 1))
    return torch.cat(parts)


def torch_2_10(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: object = None,
) -> Tensor:  # fmt: skip
    assert is_causal
    return attend(query, key, value, cu_seq_q, max_q, query.shape[-1] ** -0.5, -1, False)


def torch_2_11(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    *, return_aux: object = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    assert window_size[1] == 0
    return attend(query, key, value, cu_seq_q, max_q, scale or query.shape[-1] ** -0.5, window_size[0], False)


def torch_2_12(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    *, return_aux: object = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False, seqused_k: object = None, block_table: object = None, num_splits: object = None,
) -> Tensor:  # fmt: skip
    assert window_size[1] == 0
    return attend(query, key, value, cu_seq_q, max_q, scale or query.shape[-1] ** -0.5, window_size[0], enable_gqa)


def inputs(heads: int, kv_heads: int) -> tuple[list[Tensor], dict[str, Any]]:
    torch.manual_seed(0)
    tensors = [torch.randn(1, h, sum(LENGTHS), 8, dtype=torch.float64) for h in (heads, kv_heads, kv_heads)]
    ends = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    return tensors, {"cu_seq_lens_q": ends, "max_length_q": max(LENGTHS)}


@pytest.mark.parametrize("release", [torch_2_10, torch_2_11, torch_2_12])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_every_release_gives_what_sdpa_gives(
    monkeypatch: pytest.MonkeyPatch, release: Callable[..., Tensor], kv_heads: int, scaling: float | None
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", release)
    tensors, options = inputs(4, kv_heads)
    found, _ = torch_varlen(SimpleNamespace(), *tensors, None, scaling=scaling, **options)
    wanted, _ = sdpa_by_sequence(SimpleNamespace(), *tensors, None, scaling=scaling, **options)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("release", [torch_2_11, torch_2_12])
def test_a_sliding_window_is_handed_on_where_the_release_knows_it(
    monkeypatch: pytest.MonkeyPatch, release: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", release)
    tensors, options = inputs(4, 2)
    found, wanted = (
        function(SimpleNamespace(), *tensors, None, sliding_window=4, **options)[0]
        for function in (torch_varlen, sdpa_by_sequence)
    )
    torch.testing.assert_close(found, wanted)


def test_a_window_that_the_release_does_not_know_is_refused_unless_no_sequence_is_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", torch_2_10)
    tensors, options = inputs(4, 4)
    with pytest.raises(UserError, match="varlen_attn has no sliding window"):
        torch_varlen(SimpleNamespace(), *tensors, None, sliding_window=13, **options)
    torch_varlen(SimpleNamespace(), *tensors, None, sliding_window=14, **options)
