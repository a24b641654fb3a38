"""The start-up measurement of what an engine divides by."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longalign_data.errors import LongAlignError, UserError
from tests.trainer.builds import tiny_llama
from trainer.config import TrainConfig
from trainer.engine import TorchEngine, check_buffers, deepspeed_settings, parameter_groups
from trainer.probe import calibrate
from trainer.settings import check_settings
from trainer.world import World

pytestmark = pytest.mark.torch

CONFIG = TrainConfig(engine="torch", dtype="fp32")
ALONE = World(rank=0, ranks=1, device=torch.device("cpu"))


class DividesByAccumulation(TorchEngine):
    """What `backward(loss)` of DeepSpeed does unless told otherwise."""

    def accumulate(self, batch: Any, scale: float, *, last: bool) -> Tensor:
        return super().accumulate(batch, scale / 3, last=last)


class ForgetsTheFirstMicroBatch(TorchEngine):
    """What an engine does that clears gradients at the wrong boundary."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, CONFIG, ALONE)
        self.seen = itertools.count()

    def accumulate(self, batch: Any, scale: float, *, last: bool) -> Tensor:
        return super().accumulate(batch, scale if next(self.seen) else 0.0, last=last)


def test_an_engine_that_divides_by_the_ranks_alone_passes() -> None:
    calibrate(lambda module: TorchEngine(module, CONFIG, ALONE), ALONE, 3, tolerance=1e-6)


def test_an_engine_that_divides_by_the_accumulation_too_is_refused_with_its_divisor() -> None:
    with pytest.raises(LongAlignError, match=r"with 1 ranks and accumulation 3 it divides by 3, not by 1"):
        calibrate(lambda module: DividesByAccumulation(module, CONFIG, ALONE), ALONE, 3, tolerance=1e-6)


def test_an_engine_that_loses_a_micro_batch_is_refused() -> None:
    with pytest.raises(LongAlignError, match=r"gives a gradient of 1\.66667 where 2 was wanted"):
        calibrate(ForgetsTheFirstMicroBatch, ALONE, 3, tolerance=1e-6)


def test_biases_and_norms_have_no_weight_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    decayed, spared = parameter_groups(module, 0.1)
    assert (decayed["weight_decay"], [p.shape for p in decayed["params"]]) == (0.1, [(3, 2)])
    assert (spared["weight_decay"], len(spared["params"])) == (0.0, 3)


def test_the_users_deepspeed_settings_lie_over_ours() -> None:
    extra = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}, "steps_per_print": 5}
    settings = deepspeed_settings(TrainConfig(zero_stage=3), extra, 4)
    assert settings["zero_optimization"] == {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    assert (settings["gradient_accumulation_steps"], settings["steps_per_print"]) == (4, 5)
    assert settings["optimizer"]["params"]["torch_adam"] is False


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"zero_optimisation": {}}, r"ds\.json: zero_optimisation: not a setting.*mean 'zero_optimization'\?"),
        (
            {"zero_optimization": {"overlap_com": True}},
            r"ds\.json: overlap_com: Extra inputs are not permitted, found True",
        ),
        ({"zero_optimization": {"reduce_bucket_size": "big"}}, r"ds\.json: reduce_bucket_size: .*found 'big'"),
        ({"flops_profiler": 3}, r"ds\.json: DeepSpeed cannot read these settings"),
        ({"optimizer": {"legacy_fusion": True}}, r"ds\.json: optimizer\.legacy_fusion: not used by AdamW"),
        (
            {"optimizer": {"params": {"fp32_optimizer_states": True}}},
            r"params\.fp32_optimizer_states: not used by AdamW",
        ),
        ({"optimizer": {"params": {"torch_adam": False, "fused": True}}}, r"params\.fused: not used by FusedAdam"),
        (
            {
                "zero_optimization": {"offload_optimizer": {"device": "cpu"}},
                "optimizer": {"params": {"set_grad_none": True}},
            },
            r"optimizer\.params\.set_grad_none: not used by DeepSpeedCPUAdam",
        ),
    ],
)
def test_settings_that_deepspeed_does_not_know_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], told: str
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(UserError, match=told) as caught:
        check_settings(deepspeed_settings(TrainConfig(zero_stage=2), extra, 4), "ds.json")
    assert "\n" not in str(caught.value)


def test_settings_that_deepspeed_knows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    extra = {name: {"enabled": False} for name in ("flops_profiler", "comms_logger", "autotuning", "torch_autocast")}
    extra |= {
        "aio": {"block_size": 1048576},
        "wall_clock_breakdown": True,
        "optimizer": {"params": {"fused": True}},
    }
    check_settings(deepspeed_settings(TrainConfig(zero_stage=3), extra, 4), "ds.json")


def test_an_engine_that_rounds_the_rotary_frequencies_is_refused_with_their_name() -> None:
    model = tiny_llama("sdpa", torch.bfloat16)
    name = "model.rotary_emb.inv_freq"
    model.get_submodule("model.rotary_emb").float()
    check_buffers(model, [name])
    with pytest.raises(UserError, match=rf"DeepSpeed rounded {name} to torch\.bfloat16"):
        check_buffers(model.bfloat16(), [name])
