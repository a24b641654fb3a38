"""Packed attention against attention with an explicit block mask, and the refusal of models that leak."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from longalign_data.errors import UserError
from tests.trainer.builds import VOCABULARY, tiny_llama
from trainer import attention
from trainer.batch import micro_batch
from trainer.config import TrainConfig
from trainer.engine import TorchEngine
from trainer.model import load_config, load_model, mixing
from trainer.objective import Objective
from trainer.probe import probe
from trainer.tools.fit_work_model import random_pack
from trainer.world import World

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
ALONE = World(rank=0, ranks=1, device=CPU)
BORDERS = torch.tensor([0, 5, 6, 19, 26], dtype=torch.int32)
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "use_cache": False,
}


def masked_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
    """The definition, with every pair of positions written out."""
    length = query.shape[2]
    sequence = torch.searchsorted(BORDERS, torch.arange(length), right=True)
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    allowed = (sequence[:, None] == sequence[None, :]) & (distance >= 0)
    if window is not None:
        allowed &= distance < window
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
    scores = (query @ key.transpose(2, 3)) * scale
    return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize(("window", "block"), [(None, 1024), (4, 1024), (4, 3), (1, 5), (12, 6)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_by_sequence_is_attention_with_a_block_mask(
    kv_heads: int, window: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "WINDOW_BLOCK", block)
    torch.manual_seed(0)
    tensors = [
        torch.randn(1, heads, 26, 8, dtype=torch.float64, requires_grad=True) for heads in (4, kv_heads, kv_heads)
    ]
    found, _ = attention.sdpa_by_sequence(
        nn.Module(), *tensors, None, scaling=0.3, cu_seq_lens_q=BORDERS, max_length_q=13, sliding_window=window
    )
    wanted = masked_attention(*tensors, scale=0.3, window=window)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), tensors),
        torch.autograd.grad((wanted * weight).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_sliding_window_makes_no_mask_of_the_whole_sequence() -> None:
    """The largest tensor that is made for 8,192 tokens and a window of 64."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's signature
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in tree_leaves(found) if isinstance(t, Tensor))])
            return found

    length, q = 8192, torch.zeros(1, 1, 8192, 4)
    borders = torch.tensor([0, length], dtype=torch.int32)
    with Watch():
        attention.sdpa_by_sequence(
            nn.Module(), q, q, q, None, cu_seq_lens_q=borders, max_length_q=length, sliding_window=64
        )
    assert largest < length**2 / 20


def test_no_backend_runs_without_borders_or_with_a_mask_or_a_softcap() -> None:
    q = torch.randn(1, 2, 6, 4)
    borders = {"cu_seq_lens_q": torch.tensor([0, 6], dtype=torch.int32), "max_length_q": 6}
    for _, function in attention.BACKENDS.values():
        if function is attention.flash_attn:
            continue  # needs the flash-attn package to be imported
        with pytest.raises(UserError, match="does not hand cu_seq_lens on"):
            function(nn.Module(), q, q, q, None)
        with pytest.raises(UserError, match="asks for a mask"):
            function(nn.Module(), q, q, q, torch.ones(1, 1, 6, 6), **borders)
        with pytest.raises(UserError, match="needs softcap"):
            function(nn.Module(), q, q, q, None, softcap=30.0, **borders)


def test_a_stock_model_on_a_pack_gives_what_each_sequence_alone_gives() -> None:
    _, registered = attention.install("auto", CPU, torch.float32)
    packed, alone = tiny_llama(registered, torch.float64), tiny_llama("sdpa", torch.float64)
    ids = torch.randint(VOCABULARY, (26,), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(n) for n in BORDERS.diff().tolist()])
    logits = packed(input_ids=ids[None], position_ids=positions[None], cu_seq_lens_q=BORDERS, max_length_q=13).logits[0]
    for start, end in zip(BORDERS[:-1].tolist(), BORDERS[1:].tolist(), strict=True):
        torch.testing.assert_close(logits[start:end], alone(input_ids=ids[None, start:end]).logits[0])


def test_whether_a_batch_is_a_whole_pack_is_known_without_asking_the_device() -> None:
    """Borders that hold no values stand for a device that would have to be waited for."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        spread = attention.across(dist.group.WORLD, lambda module, query, *rest, **options: (query, None))
    finally:
        dist.destroy_process_group()
    query = torch.randn(1, 4, 26, 8)
    options = {"cu_seq_lens_q": BORDERS.to("meta"), "max_length_q": 13, "pack_tokens": 26}
    assert spread(nn.Module(), query, query, query, None, **options)[0] is query
    del options["pack_tokens"]
    with pytest.raises(RuntimeError, match="meta"):
        spread(nn.Module(), query, query, query, None, **options)


def test_a_stock_model_hands_the_size_of_the_pack_on() -> None:
    seen: list[object] = []

    def noting(*given: Any, **options: Any) -> tuple[Tensor, None]:
        seen.append(options.get("pack_tokens"))
        return attention.sdpa_by_sequence(*given, **options)

    AttentionInterface.register("noting", noting)
    objective = Objective(tiny_llama("noting"), chunk_rows=64)
    objective(micro_batch(random_pack((30, 20), VOCABULARY, target_share=0.5), CPU, VOCABULARY))
    assert seen == [50, 50]


def test_a_backend_that_cannot_run_here_is_refused_with_those_that_can() -> None:
    assert attention.install("auto", CPU, torch.bfloat16)[0] == "sdpa-by-sequence"
    with pytest.raises(UserError, match=r"torch-varlen cannot run on cpu.*here: sdpa-by-sequence, or auto"):
        attention.install("torch-varlen", CPU, torch.bfloat16)
    with pytest.raises(UserError, match=r"flash-attn cannot run on cuda in torch\.float32"):
        attention.install("flash-attn", torch.device("cuda"), torch.float32)


def run_probe(model: PreTrainedModel, longest: int = 64) -> None:
    objective = Objective(model, chunk_rows=64)
    engine = TorchEngine(objective, TrainConfig(engine="torch", dtype="fp32"), ALONE)
    probe(objective, engine, ALONE, longest=longest)


def ours() -> str:
    return attention.install("sdpa-by-sequence", CPU, torch.float32)[1]


def test_the_probe_passes_a_model_that_keeps_sequences_apart() -> None:
    model = tiny_llama(ours())
    run_probe(model)
    assert model.training


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (GlmConfig(**SMALL, head_dim=8, pad_token_id=0), GlmForCausalLM),
        (Qwen2Config(**SMALL), Qwen2ForCausalLM),
        (Qwen3Config(**SMALL, head_dim=8), Qwen3ForCausalLM),
        (MistralConfig(**SMALL, sliding_window=8), MistralForCausalLM),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_probe_passes_the_models_of_the_recipes(config: PretrainedConfig, kind: type[PreTrainedModel]) -> None:
    config._attn_implementation = ours()
    run_probe(kind(config))


def causal_over_the_pack(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: object
) -> tuple[Tensor, None]:
    """What stock `sdpa` does once its mask is lost: it attends causally over the whole pack."""
    output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return output.transpose(1, 2), None


def test_the_probe_refuses_attention_that_ignores_the_borders_and_says_where() -> None:
    AttentionInterface.register("causal_over_the_pack", causal_over_the_pack)
    with pytest.raises(
        UserError,
        match=r"LlamaForCausalLM: sequences of one pack see each other, first in model\.layers\.0\.self_attn\.o_proj, .*"
        "ignores cu_seqlens",
    ):
        run_probe(tiny_llama("causal_over_the_pack"))


def test_what_a_kernel_cannot_do_is_told_in_one_line_and_memory_that_ran_out_is_not_taken_for_it() -> None:
    def refusing(error: Exception) -> PreTrainedModel:
        def attend(*given: Any, **options: Any) -> tuple[Tensor, None]:
            raise error

        AttentionInterface.register("refusing", attend)
        return tiny_llama("refusing")

    wide = RuntimeError("FlashAttention forward only supports head dimension at most 256\nframe #0")
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot take a pack: Flash.* at most 256$"):
        run_probe(refusing(wide))
    for error in (torch.OutOfMemoryError("CUDA out of memory"), dist.DistBackendError("NCCL error")):
        with pytest.raises(type(error)):
            run_probe(refusing(error))


MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "mamba_expand": 2,
}
GATED_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
LEAKING = [
    ("bamba", MAMBA | {"attn_layer_indices": [1]}, r"layers\.0\.mamba.*state-space or linear-attention layers"),
    ("falcon_h1", MAMBA | {"mamba_d_ssm": 64}, r"layers\.0\.mamba.*layers that join attention with a state space"),
    ("mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 16}, "state-space"),
    ("lfm2", {"block_auto_adjust_ff_dim": False, "full_attn_idxs": [1]}, r"layers\.0\.conv.*short convolutions"),
    (
        "minimax",
        GATED_DELTA | {"num_local_experts": 2, "num_experts_per_tok": 1},
        r"layers\.0\.self_attn.*linear-attention",
    ),
    ("rwkv", {}, "time_shift.*a recurrent state"),
    ("bloom", {}, r"self_attention.*attention of its own with ALiBi positions"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("model_type", "changes", "told"), LEAKING, ids=[kind for kind, *_ in LEAKING])
def test_stock_models_that_mix_sequences_are_refused_with_the_place_and_the_cause(
    model_type: str, changes: dict[str, Any], told: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SMALL | changes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ours(), dtype=dtype)
    with pytest.raises(UserError, match=rf"sequences of one pack see each other, first in .*{told}"):
        run_probe(model)


def test_a_model_whose_kernel_for_packs_is_absent_is_refused_with_its_layers() -> None:
    config = AutoConfig.for_model("qwen3_5_text", **SMALL | GATED_DELTA)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ours())
    with pytest.raises(
        UserError, match=r"Qwen3_5ForCausalLM cannot take a pack: .*; it has state-space or linear-attention"
    ):
        run_probe(model)


@pytest.mark.parametrize(
    ("model_type", "changes", "told"),
    [
        (
            "qwen2_vl_text",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
            r"Qwen2VLTextConfig is no causal language model.*it has rotary positions in three dimensions \(mrope_section\)",
        ),
        ("falcon", {}, "falcon has attention of its own, which cannot be replaced"),
    ],
)
def test_models_that_cannot_be_built_for_packs_are_refused_with_the_cause(
    model_type: str, changes: dict[str, Any], told: str
) -> None:
    config = AutoConfig.for_model(model_type, **SMALL | changes)
    with pytest.raises(UserError, match=rf"--model folder: cannot be loaded: {told}"):
        load_model("folder", config, random_init=True, dtype=torch.float32, attention=ours(), seed=0)


def test_rotary_sections_are_refused_only_where_they_matter() -> None:
    """A text model to which every dimension of the positions is the same gives what a plain one does, and passes."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    config = Qwen2Config(**SMALL, rope_parameters=rope)
    config._attn_implementation = ours()
    assert mixing(config) == ["rotary positions in three dimensions (mrope_section)"]
    run_probe(Qwen2ForCausalLM(config))


def longrope(long_factor: float) -> PreTrainedModel:
    """Phi-3 with a context of 64 tokens that was extended to 1,024."""
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [long_factor] * 4}
    positions = {"max_position_embeddings": 1024, "original_max_position_embeddings": 64, "pad_token_id": 0}
    config = AutoConfig.for_model("phi3", **SMALL | positions, rope_parameters=rope)
    found: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=ours())
    return found


def test_frequencies_that_follow_the_longest_sequence_are_refused_where_packs_are_long_enough() -> None:
    """No sequence of the probe's own is long, but those of the packs may be."""
    with pytest.raises(
        UserError,
        match=r"first in model\.rotary_emb, .* \(longrope\), which are alike only in packs of at most original_max_pos",
    ):
        run_probe(longrope(4.0), 65)
    run_probe(longrope(4.0), 64)
    run_probe(longrope(1.0), 1024)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["bart", "mbart", "pegasus", "blenderbot"])
def test_decoders_that_count_positions_over_the_whole_pack_are_refused(model_type: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    small = {
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 64,
        "is_decoder": True,
    }
    config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, encoder_layers=1, pad_token_id=0, **small)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ours(), dtype=dtype)
    with pytest.raises(UserError, match=r"at another place of a pack; this model does not follow position_ids"):
        run_probe(model)


def test_a_model_without_the_positions_of_its_packs_is_refused() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=1, n_head=4)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ours())
    run_probe(model, 64)
    with pytest.raises(UserError, match="cannot take a pack"):
        run_probe(model, 65)


MOE = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 2, "num_experts_per_tok": 1}
MOE |= {"num_local_experts": 2, "max_position_embeddings": 512}
SLIDING = {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]}
CHUNKED = {"intermediate_size_mlp": 64, "head_dim": 8, "moe_layers": []}
WINDOWED = [
    (
        "phimoe",
        {},
        "sliding_window",
        "PhimoeAttention has a sliding window of 128 tokens but says so in its mask alone",
    ),
    ("qwen2_moe", SLIDING, "sliding_window", "Qwen2MoeAttention has a sliding window of 128 tokens but says so in its"),
    ("llama4_text", CHUNKED, "attention_chunk_size", r"attends in chunks of 128 tokens \(chunked_attention\)"),
]


@pytest.mark.parametrize(("model_type", "changes", "setting", "told"), WINDOWED, ids=[kind for kind, *_ in WINDOWED])
def test_a_window_that_is_only_in_the_mask_is_refused_unless_no_sequence_exceeds_it(
    model_type: str, changes: dict[str, Any], setting: str, told: str
) -> None:
    def model(window: int) -> PreTrainedModel:
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **SMALL | MOE | changes | {setting: window})
        found: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=ours())
        return found

    with pytest.raises(UserError, match=told):
        run_probe(model(128))
    if model_type != "llama4_text":  # of which the loss cannot have the hidden states in any case
        run_probe(model(512))


def test_a_window_that_is_switched_off_is_none() -> None:
    config = AutoConfig.for_model("qwen2_moe", **SMALL | MOE | {"sliding_window": 128, "use_sliding_window": False})
    run_probe(AutoModelForCausalLM.from_config(config, attn_implementation=ours()))


def gemma(**changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, **changes)
    config._attn_implementation = ours()
    model = Gemma2ForCausalLM(config)
    # Random heads give logits too small for a cap to matter.
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model


def test_a_model_that_caps_its_logits_is_refused_and_without_the_caps_it_trains() -> None:
    with pytest.raises(UserError, match="needs softcap"):
        run_probe(gemma())
    with pytest.raises(UserError, match="logits are not its output head on its last hidden state"):
        run_probe(gemma(attn_logit_softcapping=None, final_logit_softcapping=2.0))
    run_probe(gemma(attn_logit_softcapping=None, final_logit_softcapping=None))


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("granite", {"logits_scaling": 8.0}), ("cohere", {}), ("gemma2", {"head_dim": 8, "attn_logit_softcapping": None})],
)
def test_logits_that_are_scaled_or_capped_are_found_however_small_they_are(
    model_type: str, changes: dict[str, Any]
) -> None:
    config = AutoConfig.for_model(model_type, **SMALL | {"pad_token_id": 0} | changes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ours())
    with pytest.raises(UserError, match="logits are not its output head on its last hidden state"):
        run_probe(model)


def test_a_model_folder_without_weights_or_that_is_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no weights; add --random-init"):
        load_config(str(tmp_path), weights=True)
    with pytest.raises(UserError, match="no such folder"):
        load_config(str(tmp_path / "missing"), weights=True)


@pytest.mark.parametrize(
    ("third", "second", "wanted"),
    [
        ("def flash_attn_varlen_func(): ...", "def flash_attn_varlen_func(): ...", "flash-attn"),
        ("raise ImportError('undefined symbol: _ZN3c10')", "def flash_attn_varlen_func(): ...", "flash-attn"),
        ("raise ImportError('undefined symbol: _ZN3c10')", "raise OSError('libcudart.so.11.0')", "torch-varlen"),
    ],
)
def test_a_flash_attention_that_cannot_be_imported_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third: str, second: str, wanted: str
) -> None:
    (tmp_path / "flash_attn_interface.py").write_text(third)
    (tmp_path / "flash_attn.py").write_text(second)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("flash_attn_interface", "flash_attn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    attention._flash_attention.cache_clear()
    name, _ = attention.install("auto", torch.device("cuda"), torch.bfloat16)
    found = attention._flash_attention()
    for module in ("flash_attn_interface", "flash_attn"):
        sys.modules.pop(module, None)
    attention._flash_attention.cache_clear()
    assert name == wanted
    assert (found is not None) == (wanted == "flash-attn")
