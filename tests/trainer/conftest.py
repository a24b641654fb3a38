"""A build, a model and an uninterrupted run that other runs are compared with."""

from pathlib import Path

import pytest

from tests.trainer import runs
from tests.trainer.builds import write_build, write_model_config
from tests.trainer.runs import STEP
from trainer.__main__ import main


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of 12 steps of four uneven packs, the last step short of one, and a model folder."""
    root = tmp_path_factory.mktemp("trainer")
    write_build(root / "build", [*[STEP] * (runs.NUM_STEPS - 1), STEP[:3]], packs_per_step=4)
    write_model_config(root / "model")
    return root


@pytest.fixture(scope="session")
def reference(place: Path) -> Path:
    """An uninterrupted run in one process."""
    output = place / "reference"
    assert main(runs.options(place / "build", place / "model", output), {}) == 0
    return output


@pytest.fixture(scope="session")
def alike(place: Path) -> Path:
    """Sixteen steps of the same packs."""
    return write_build(place / "alike", [STEP] * 16, packs_per_step=4, spoiled={})


@pytest.fixture(scope="session")
def spoiled(place: Path) -> Path:
    """The same, with NaN for the weights of one pack of step 3, and those of one of step 13 a thousand times too large."""
    return write_build(place / "spoiled", [STEP] * 16, packs_per_step=4, spoiled={13: float("nan"), 55: 1000.0})
