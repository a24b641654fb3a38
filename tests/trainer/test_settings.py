"""DeepSpeed's own optimizer, which it compiles before its first use, in processes of their own: one that has it keeps it."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests.trainer import runs
from tests.trainer.processes import finish, free_port, start, train_rank
from trainer import settings

pytestmark = pytest.mark.torch


def train_without_a_compiler(tools: Path, options: list[str], errors: Path) -> None:
    """A rank whose programs are those in `tools`, and whose compiled extensions are in a folder beside them."""
    os.environ |= {"PATH": str(tools), "TORCH_EXTENSIONS_DIR": str(tools.with_name("extensions"))}
    settings.PATIENCE = 0.0
    train_rank(0, 1, str(free_port()), options, errors)


@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
def test_an_adam_that_cannot_be_compiled_ends_in_one_line_and_a_lock_that_was_left_is_named(
    place: Path, tmp_path: Path, locked: bool
) -> None:
    ninja, lock = tmp_path / "tools" / "ninja", tmp_path / "extensions" / "cpu_adam" / "lock"
    for file in (ninja, lock):
        file.parent.mkdir(parents=True)
    # What ninja does here: it gives the compiler to a shell, which has none.
    ninja.write_text('#!/bin/sh\n[ "$1" = --version ] || c++\n')
    ninja.chmod(0o755)
    if locked:
        lock.touch()
    (tmp_path / "offload.json").write_text(json.dumps({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}))
    options = runs.options(
        place / "build", place / "model", tmp_path / "run", engine="deepspeed", deepspeed="offload.json"
    )
    errors = tmp_path / "errors"
    ranks = start(train_without_a_compiler, [(ninja.parent, options, errors)])
    if locked:
        until = time.monotonic() + 200
        while "remove that file and start again\n" not in (errors.read_text() if errors.exists() else ""):
            assert time.monotonic() < until
            time.sleep(0.05)
        lock.unlink()
    assert finish(ranks) == [2]
    told, found = errors.read_text().rsplit("error: offload.json: zero_optimization.offload_optimizer: ")
    assert ("a killed run has left a file cpu_adam/lock" in told) or not locked
    assert re.match(
        r"takes DeepSpeed's Adam, which cannot be compiled or loaded here: .*\. It needs a C\+\+ compiler.*\n$", found
    )
    assert "c++: not found" in found.replace("command ", "") or locked  # who waited for a lock asks nobody to compile
    assert not (tmp_path / "run").exists()
