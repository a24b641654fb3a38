"""A model on the one device at hand, for the tools that train nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import TrainConfig, load_config

if TYPE_CHECKING:
    import torch

    from trainer.objective import Objective

DEFAULT = "torch alone, bf16 on a GPU, else fp32"
"""What `config_or_default` gives where there is no file."""


def config_or_default(path: Path | None) -> TrainConfig:
    """The configuration, or one that runs on this machine without DeepSpeed."""
    if path is not None:
        return load_config(path)[0]
    import torch

    return TrainConfig(engine="torch", dtype="bf16" if torch.cuda.is_available() else "fp32")


def one_device(
    spec: str, config: TrainConfig, *, random_init: bool = False, capacity: int = 1
) -> "tuple[Objective, torch.device]":
    """Model and loss in the dtype that matrices are multiplied in. Raises UserError where the model cannot be loaded or has
    fewer positions than `capacity`."""
    import torch

    from trainer.model import check_fits
    from trainer.objective import compute_dtype, load_objective, load_shape
    from trainer.world import World

    world = World(rank=0, ranks=1, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    shape = load_shape(spec, config, weights=not random_init)
    check_fits(shape, capacity=capacity, parts=1)
    objective, _ = load_objective(spec, shape, config, world, dtype=compute_dtype(config), random_init=random_init)
    return objective.to(world.device), world.device
