"""Does DeepSpeed know what a user's file asks of it, and can it do so here? It passes over most of what it does not know, in
silence, and compiles its own optimizer in the middle of its set-up.

In: the whole settings, which hold those of the file. Out: nothing, or a UserError that names the file and the key.
"""

import copy
import difflib
import inspect
import re
import sys
import threading
from typing import Any

import torch

from longalign_data.errors import UserError
from trainer.errors import first_line

PATIENCE = 10.0
"""Seconds for which DeepSpeed may compile, or wait for another process that does, before a person is told."""


def check_settings(settings: dict[str, Any], file: str) -> None:
    """Raises UserError, naming `file` and the key, where DeepSpeed cannot read `settings`, which hold those of `file`, or never
    asks for one of them: it would pass over a misspelt one in silence. It has no list of its top-level keys."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError
    from pydantic import ValidationError

    noting = _Noting(copy.deepcopy(settings))
    try:
        DeepSpeedConfig(noting)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(str(part) for part in wrong["loc"])
        raise UserError(
            f"{file}: {key}: {wrong['msg']}, found {wrong['input']!r} (DeepSpeed's {error.title})"
        ) from error
    except (DeepSpeedConfigError, ValueError, TypeError, AttributeError, KeyError, AssertionError) as error:
        raise UserError(f"{file}: DeepSpeed cannot read these settings: {first_line(error)}") from error
    for key in settings:
        if key not in noting.asked:
            close = difflib.get_close_matches(key, [str(known) for known in noting.asked], n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{file}: {key}: not a setting of DeepSpeed{meant}")
    _check_optimizer(settings, file)


def _check_optimizer(settings: dict[str, Any], file: str) -> None:
    """The same for the settings of the optimizer: DeepSpeed drops some in silence, others end it in the middle of its set-up."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

    section, offload = settings["optimizer"], settings["zero_optimization"].get("offload_optimizer") or {}
    adam = DeepSpeedCPUAdam if offload.get("device", "none") != "none" else FusedAdam
    adam = torch.optim.AdamW if section["params"]["torch_adam"] else adam
    known = {"type", "params"}, {"torch_adam", *inspect.signature(adam).parameters}
    for place, found, used in zip(("optimizer", "optimizer.params"), (section, section["params"]), known, strict=True):
        for key in sorted(found.keys() - used):
            raise UserError(f"{file}: {place}.{key}: not used by {adam.__name__}, the optimizer of this run")


def load_adam(settings: dict[str, Any], file: str, *, tell: bool) -> None:
    """Loads DeepSpeed's Adam where `settings`, which hold those of `file`, ask for it, and compiles it where nobody has done so
    yet; with `tell` a line on standard error says so. Raises UserError where it cannot be compiled or loaded."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    offload = settings["zero_optimization"].get("offload_optimizer") or {}
    if offload.get("device", "none") == "none" or settings["optimizer"]["params"]["torch_adam"]:
        return
    # Whoever finds the lock of another process waits until it is gone, without a word and without end.
    waiting = threading.Timer(PATIENCE, _tell_of_lock)
    if tell:
        waiting.start()
    try:
        CPUAdamBuilder().load()
    except Exception as error:  # of a dozen kinds; DeepSpeed catches no less here
        lines = [line.strip() for line in str(error).splitlines()]
        told = next((line for line in lines if re.search(r"not found$|error: ", line)), first_line(error))
        raise UserError(
            f"{file}: zero_optimization.offload_optimizer: takes DeepSpeed's Adam, which cannot be compiled or loaded here: "
            f"{told}. It needs a C++ compiler (g++) and ninja. Or take torch's: write "
            '"zero_force_ds_cpu_optimizer": false and "optimizer": {"params": {"torch_adam": true}} into this file'
        ) from error
    finally:
        waiting.cancel()


def _tell_of_lock() -> None:
    from torch.utils.cpp_extension import get_default_build_root

    sys.stderr.write(
        "DeepSpeed is still at its Adam, which it compiles once on a machine, for some minutes. Where that does not end, "
        f"a killed run has left a file cpu_adam/lock in a folder below {get_default_build_root()}, or in "
        "TORCH_EXTENSIONS_DIR where that is set: end this run, remove that file and start again\n"
    )
    sys.stderr.flush()


class _Noting(dict[str, Any]):
    """Settings that note which of their keys are asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[object] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def keys(self) -> Any:
        # DeepSpeed writes `name in settings.keys()`.
        return self
