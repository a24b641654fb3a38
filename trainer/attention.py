"""Block-diagonal causal attention: a token sees the earlier tokens of its own sequence and nothing else of its pack.

In: queries, keys and values of a whole pack and its `cu_seqlens`. Out: what each sequence alone would give. No T x T mask
exists on any path; memory grows with T. The functions are registered through Transformers' own `AttentionInterface`
under names for which Transformers builds no mask, so they *must* find the borders in their arguments, and raise if not.

    flash-attn        FlashAttention 3 (flash_attn_interface) or 2 (flash_attn); CUDA, bf16
    torch-varlen      torch.nn.attention.varlen; CUDA, bf16; nothing to compile
    sdpa-by-sequence  one causal scaled_dot_product_attention a sequence; anywhere, any dtype; slow for many short ones

Where several ranks share a pack (DeepSpeed Ulysses), `across` puts the exchange around any of them: a rank has a part of the
tokens and all heads outside of attention, all tokens and a part of the heads inside. `cu_seqlens` are those of the whole pack
on every rank, so nothing depends on masks, which DeepSpeed's own wrapper of Transformers models drops.
"""

import functools
import importlib
import importlib.util
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from longalign_data.errors import UserError

AttentionFunction = Callable[..., tuple[Tensor, None]]
WINDOW_BLOCK = 1024
"""Queries whose mask `sdpa_by_sequence` writes out at once, where a model has a sliding window."""


def sdpa_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`query` [1, heads, T, d], `key` and `value` [1, kv_heads, T, d] -> [1, T, heads, d]; as the two below."""
    borders, _ = _borders(module, query, attention_mask, kwargs)
    window = kwargs.get("sliding_window")
    grouped = query.shape[1] != key.shape[1]
    ends = borders.tolist()
    outputs: list[Tensor] = []
    masks: dict[tuple[int, int], Tensor] = {}

    def attend(queries: slice, keys: slice, mask: Tensor | None) -> None:
        q, k, v = query[:, :, queries], key[:, :, keys], value[:, :, keys]
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout, enable_gqa=grouped
            )
        )

    for start, end in itertools.pairwise(ends):
        if window is None or end - start <= window:
            attend(slice(start, end), slice(start, end), None)
            continue
        for first in range(start, end, WINDOW_BLOCK):
            last, oldest = min(first + WINDOW_BLOCK, end), max(start, first - window + 1)
            shape = (first - oldest, last - oldest)
            if shape not in masks:
                positions = torch.arange(last - oldest, device=query.device)
                distance = positions[first - oldest :, None] - positions[None, :]
                masks[shape] = (distance >= 0) & (distance < window)
            attend(slice(first, last), slice(oldest, last), masks[shape])
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def torch_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    from torch.nn.attention.varlen import varlen_attn

    borders, longest = _borders(module, query, attention_mask, kwargs)
    if dropout:
        raise UserError("torch-varlen attention has no dropout; set attention_dropout to 0 in the model's config.json")
    q, k, v = _rows(query, key, value)
    known = inspect.signature(varlen_attn).parameters
    window = kwargs.get("sliding_window")
    options: dict[str, Any] = {}
    # torch 2.10 knows `is_causal`; later releases say it with the window, and from 2.12 on can share key-value heads.
    if "window_size" in known:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is None or longest <= window:
        options["is_causal"] = True
    else:
        raise UserError(
            f"torch {torch.__version__}: varlen_attn has no sliding window; use flash-attn or a newer torch"
        )
    if scaling is not None:
        if "scale" in known:
            options["scale"] = scaling
        else:
            q = q * (scaling * q.shape[-1] ** 0.5)
    if "enable_gqa" in known:
        options["enable_gqa"] = q.shape[1] != k.shape[1]
    else:
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    output = varlen_attn(q, k, v, borders, borders, longest, longest, **options)
    assert isinstance(output, Tensor)
    return output.unsqueeze(0), None


def flash_attn(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    attend = _flash_attention()
    assert attend is not None  # `install` has looked
    if dropout and "dropout_p" not in inspect.signature(attend).parameters:
        raise UserError("FlashAttention 3 has no dropout; set attention_dropout to 0 in the model's config.json")
    borders, longest = _borders(module, query, attention_mask, kwargs)
    window = kwargs.get("sliding_window")
    found = attend(
        *_rows(query, key, value),
        borders,
        borders,
        longest,
        longest,
        softmax_scale=scaling,
        causal=True,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        **({"dropout_p": dropout} if dropout else {}),
    )
    # Some releases of FlashAttention 3 return the log-sum-exp beside the output.
    output: Tensor = found[0] if isinstance(found, tuple) else found
    return output[None], None


@functools.cache
def _flash_attention() -> Callable[..., Any] | None:
    """The function of FlashAttention 3, or else that of 2; None where neither can be imported, as one built for another torch."""
    for module in ("flash_attn_interface", "flash_attn"):
        try:
            found: Callable[..., Any] = importlib.import_module(module).flash_attn_varlen_func
        except (ImportError, AttributeError, OSError, RuntimeError):
            continue
        return found
    return None


def across(group: Any, attend: AttentionFunction) -> AttentionFunction:
    """`attend` over the ranks of `group`, each with its part of the tokens; a batch that is a whole pack by itself stays here."""
    from deepspeed.sequence.layer import DistributedAttention

    size = dist.get_world_size(group)

    def of_my_heads(
        q: Tensor, k: Tensor, v: Tensor, module: nn.Module, mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor:
        # Ulysses has [T, batch, heads, d]; Transformers has [batch, heads, T, d] on the way in, [batch, T, heads, d] out.
        output, _ = attend(module, *(t.permute(1, 2, 0, 3) for t in (q, k, v)), mask, **options)
        return output.transpose(0, 1)

    exchange = DistributedAttention(of_my_heads, group)

    def spread(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        borders, _ = _borders(module, query, attention_mask, kwargs)
        # Asked of the borders, the device would have to answer in every layer.
        tokens = kwargs["pack_tokens"] if "pack_tokens" in kwargs else int(borders[-1])
        if tokens == query.shape[2]:
            return attend(module, query, key, value, attention_mask, **kwargs)
        copies = max(1, size // key.shape[1])
        key, value = (t.repeat_interleave(copies, dim=1) for t in (key, value))
        q, k, v = (t.permute(2, 0, 1, 3).contiguous() for t in (query, key, value))
        return exchange(q, k, v, 1, None, module, attention_mask, kwargs).transpose(0, 1), None

    return spread


BACKENDS: dict[str, tuple[str, AttentionFunction]] = {
    "flash-attn": ("packed_fa", flash_attn),
    "torch-varlen": ("packed_varlen", torch_varlen),
    "sdpa-by-sequence": ("packed_slices", sdpa_by_sequence),
}
"""Name in the configuration -> (name given to Transformers, function). Transformers treats names that contain `flash` or
`sdpa` as its own."""


def install(choice: str, device: torch.device, dtype: torch.dtype, group: Any = None) -> tuple[str, str]:
    """Registers the backend for `choice` (or the best one for `auto`), across the ranks of `group` if there is one; returns
    its name here and its name for `attn_implementation=`. Raises UserError when the choice cannot run here."""
    fast = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    can = {
        "flash-attn": fast and _flash_attention() is not None,
        "torch-varlen": fast and importlib.util.find_spec("torch.nn.attention.varlen") is not None,
        "sdpa-by-sequence": True,
    }
    name = next(name for name in BACKENDS if can[name]) if choice == "auto" else choice
    if not can[name]:
        usable = ", ".join(name for name in BACKENDS if can[name])
        raise UserError(f"attention: {name} cannot run on {device.type} in {dtype}; here: {usable}, or auto")
    registered, function = BACKENDS[name]
    if group is not None:
        registered, function = f"{registered}_across", across(group, function)
    AttentionInterface.register(registered, function)
    return name, registered


def _borders(module: nn.Module, query: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> tuple[Tensor, int]:
    """`cu_seqlens` and the longest sequence, out of what the model handed on; refuses what would be ignored silently."""
    name = type(module).__name__
    borders, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q")
    if borders is None or longest is None:
        raise UserError(f"{name} does not hand cu_seq_lens on to its attention: this model cannot be trained on packs")
    if mask is not None or query.shape[0] != 1:
        raise UserError(
            f"{name} asks for a mask or a batch of {query.shape[0]}; packed attention takes one pack, no mask"
        )
    for key in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(key) is not None:
            raise UserError(f"{name} needs {key}, which packed attention does not compute")
    kind, window = _wanted_window(module)
    if window is not None and kind == "chunked_attention":
        raise UserError(
            f"{name} attends in chunks of {window} tokens (chunked_attention), which packed attention does not compute"
        )
    if window is not None and kwargs.get("sliding_window") is None:
        raise UserError(
            f"{name} has a sliding window of {window} tokens but says so in its mask alone, which packs do not have; with "
            f"max_positions: {window} or less it would not need it"
        )
    return borders, int(longest)


def _wanted_window(module: nn.Module) -> tuple[str, int | None]:
    """The kind of attention that the model's configuration gives this layer, and how many tokens it reaches back; None where
    that is all of them, as in a window that no sequence exceeds. Some models hand it on, some build it into their mask."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        kind = kinds[layer] if isinstance(layer, int) and layer < len(kinds) else "full_attention"
    else:
        kind = "full_attention" if getattr(config, "use_sliding_window", None) is False else "sliding_attention"
    setting = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}.get(kind, "")
    window = getattr(config, setting, None)
    positions = getattr(config, "max_position_embeddings", None)
    # 0 is how some configurations write "none".
    if not window or (positions is not None and positions <= window):
        return kind, None
    return kind, int(window)


def _rows(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[1, heads, T, d] -> [T, heads, d] in the dtype of `value`: under autocast the rotary embedding leaves q, k in fp32."""
    q, k, v = (t[0].transpose(0, 1).to(value.dtype).contiguous() for t in (query, key, value))
    return q, k, v
