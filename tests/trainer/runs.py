"""What the tests of whole runs share: the options of a run, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import yaml

NUM_STEPS = 12
STEP = [[(30, 8), (20, 3)], [(50, 16)], [(10, 2), (12, 4), (20, 1)], [(64, 5)]]
CONFIG = {
    "engine": "torch",
    "zero_stage": 2,
    "dtype": "fp32",
    "learning_rate": 1e-2,
    "schedule": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "activation_checkpointing": False,
    "loss_chunk_rows": 3,
    "checkpoint_every": 5,
}


def options(build: Path, model: Path, output: Path, *extra: str, random_init: bool = True, **changes: Any) -> list[str]:
    """The command's options for CONFIG with `changes`, whose file is written beside `output`."""
    config = output.with_name(f"{output.name}.yaml")
    config.write_text(yaml.safe_dump(CONFIG | changes))
    start = ["--random-init"] if random_init else []
    return [
        "--build",
        str(build),
        "--model",
        str(model),
        *start,
        "--config",
        str(config),
        "--output",
        str(output),
        *extra,
    ]


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in metrics(output)]
