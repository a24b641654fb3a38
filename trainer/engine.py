"""What turns sums into steps: one process or DDP through torch, or DeepSpeed, behind the same few methods.

An engine averages gradients over ranks, and some divide by the accumulation too. We want the gradient of
sum(l over all packs of the step) / Z, so every l is scaled by ranks / Z before its backward; that is right exactly if
the engine divides by `ranks` and by nothing else. `probe.calibrate` measures that at start-up instead of trusting this
sentence.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longalign_data.errors import LongAlignError, UserError
from trainer.config import TrainConfig
from trainer.world import World


def loss_scale(world: World, normalizer: float) -> float:
    """What the sum of a pack is multiplied with before its backward, in a step of this Z."""
    return world.ranks / normalizer


def _always(loss: Tensor) -> bool:
    return True


class Engine(Protocol):
    """One optimizer step is `accumulate` for every micro-batch, `last` on the last one, then `step`."""

    def accumulate(self, batch: Any, scale: float, *, last: bool, sound: Callable[[Tensor], bool] = _always) -> Tensor:
        """Adds the gradient of `scale` * l; returns l, detached. The last call averages the gradients over ranks. Where
        `sound` says no to l, the gradient becomes NaN."""

    def gradient(self, parameter: nn.Parameter) -> Tensor:
        """The averaged gradient, whole, between the last `accumulate` and `step`."""

    def step(self, learning_rate: float) -> float | None:
        """Clips, updates, forgets the gradients; returns their norm before clipping where the engine computes one. Changes
        nothing where the gradient is not finite."""

    def forward_context(self) -> contextlib.AbstractContextManager[None]:
        """What the model must run under (autocast) outside of `accumulate`."""

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """Whole parameters and buffers of a part of the trained module, on the CPU; {} on other ranks than 0. All ranks call it."""

    def save(self, folder: Path) -> None:
        """Writes parameters and optimizer state. All ranks call it."""

    def load(self, folder: Path, *, universal: bool = False) -> None:
        """Takes back what `save` wrote, to the bit; `universal` if the checkpoint was converted for this number of ranks."""

    def close(self) -> None:
        """Frees what the engine holds."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases and norms without."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in module.parameters():
        if parameter.requires_grad:
            # ZeRO-3 leaves a parameter flat and empty; its shape is kept beside it.
            groups[len(getattr(parameter, "ds_shape", parameter.shape)) < 2].append(parameter)
    return [
        {"params": found, "weight_decay": decay}
        for found, decay in zip(groups, (weight_decay, 0.0), strict=True)
        if found
    ]


class TorchEngine:
    """One process, or DDP when there are several ranks. Weights are fp32; `dtype: bf16` means autocast."""

    def __init__(self, module: nn.Module, config: TrainConfig, world: World) -> None:
        self._module = module.to(world.device)
        self._wrapped = DistributedDataParallel(self._module) if world.ranks > 1 else None
        self._world = world
        self._clip = config.grad_clip or math.inf
        self._bf16 = config.dtype == "bf16"
        self._optimizer = torch.optim.AdamW(
            parameter_groups(module, config.weight_decay),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=world.device.type == "cuda",
        )

    def accumulate(self, batch: Any, scale: float, *, last: bool, sound: Callable[[Tensor], bool] = _always) -> Tensor:
        wait = self._wrapped.no_sync() if self._wrapped is not None and not last else contextlib.nullcontext()
        with wait:
            with self.forward_context():
                loss: Tensor = (self._wrapped or self._module)(batch)
            torch.autograd.backward(loss * (scale if sound(loss.detach()) else math.nan))
        return loss.detach()

    def gradient(self, parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad

    def step(self, learning_rate: float) -> float | None:
        norm = nn.utils.clip_grad_norm_(self._module.parameters(), self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if norm.isfinite():
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def forward_context(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self._world.device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        return {k: v.cpu() for k, v in module.state_dict().items()} if self._world.rank == 0 else {}

    def save(self, folder: Path) -> None:
        if self._world.rank == 0:
            state = {"module": self._module.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, folder / "torch.pt")

    def load(self, folder: Path, *, universal: bool = False) -> None:
        state = torch.load(folder / "torch.pt", map_location=self._world.device, weights_only=True)
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])

    def close(self) -> None:
        self._wrapped = None


class DeepSpeedEngine:
    """DeepSpeed with ZeRO 0-3; it owns the optimizer, so that offload can choose its own Adam."""

    def __init__(self, module: nn.Module, config: TrainConfig, world: World, settings: dict[str, Any]) -> None:
        import deepspeed

        self._deepspeed = deepspeed
        self._rank = world.rank
        fine = [name for name, buffer in module.named_buffers() if buffer.dtype == torch.float32]
        self._engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=parameter_groups(module, config.weight_decay),
            config=copy.deepcopy(settings),
        )
        check_buffers(module, fine)

    def accumulate(self, batch: Any, scale: float, *, last: bool, sound: Callable[[Tensor], bool] = _always) -> Tensor:
        loss: Tensor = self._engine(batch)
        scale = scale if sound(loss.detach()) else math.nan
        # DeepSpeed would divide by the accumulation here; the scale already holds the whole step's Z.
        self._engine.backward(loss * scale, scale_wrt_gas=False)
        if not last:
            self._engine.step()
        return loss.detach()

    def gradient(self, parameter: nn.Parameter) -> Tensor:
        found: Tensor = self._deepspeed.utils.safe_get_full_grad(parameter)
        return found

    def step(self, learning_rate: float) -> float | None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def forward_context(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        found = {}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            # One parameter at a time: under ZeRO-3 the whole model may fit on no device.
            gather = self._deepspeed.zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id"))
            with gather:
                if self._rank == 0 and (isinstance(tensor, nn.Parameter) or name in module.state_dict()):
                    found[name] = tensor.detach().cpu().clone()
        return found

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False)

    def load(self, folder: Path, *, universal: bool = False) -> None:
        decays = [group["weight_decay"] for group in self._engine.optimizer.param_groups]
        path, _ = self._engine.load_checkpoint(str(folder), tag="universal" if universal else "deepspeed")
        # From the universal form, ZeRO-3 gives the first group's settings to all, so that norms would decay.
        for group, decay in zip(self._engine.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        # Nor may its groups share one counter of steps, which each of them would advance.
        for state in self._engine.optimizer.state.values() if universal else ():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()
        if path is None:
            raise LongAlignError(f"{folder}: DeepSpeed cannot load this checkpoint; see its messages above")

    def close(self) -> None:
        self._engine.destroy()


def deepspeed_settings(
    config: TrainConfig, extra: dict[str, Any], accumulation: int, *, universal: bool = False
) -> dict[str, Any]:
    """The whole DeepSpeed configuration: ours, with the user's `extra` laid over it; `universal` to load a checkpoint that
    was converted."""
    offload = extra.get("zero_optimization", {}).get("offload_optimizer") or {}
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.grad_clip,
        "zero_optimization": {"stage": config.zero_stage},
        "bf16": {"enabled": config.dtype == "bf16", "check_grad_overflow": True},
        "checkpoint": {"load_universal": universal},
        # In bf16 a sum over hundreds of packs would lose the small ones.
        "data_types": {"grad_accum_dtype": "fp32"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.learning_rate,
                "betas": [config.adam_beta1, config.adam_beta2],
                "eps": config.adam_epsilon,
                # torch's AdamW needs no compiler at run time; only offload needs DeepSpeed's own.
                "torch_adam": offload.get("device", "none") == "none",
            },
        },
    }
    return _overlaid(ours, extra)


def check_buffers(module: nn.Module, fine: Sequence[str]) -> None:
    """Raises UserError where one of the buffers named in `fine` is no longer fp32: in bf16 the frequencies of a rotary embedding
    put far tokens at wrong positions, and no loss would say so."""
    spoiled = [name for name in fine if module.get_buffer(name).dtype != torch.float32]
    if spoiled:
        raise UserError(
            f"DeepSpeed rounded {', '.join(spoiled)} to {module.get_buffer(spoiled[0]).dtype}, which training in bf16 needs in "
            "fp32; install deepspeed 0.19.8 or later, or take engine: torch"
        )


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlaid(merged[key], value) if both else value
    return merged
