"""Checkpoints of a run: which one to go on from, how it is written, and how it fits another number of ranks.

checkpoints/step-00000040/     parameters and optimizer after 40 steps; `trainer.json` in it is written last
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from longalign_data.errors import LongAlignError, UserError
from longalign_data.shards.files import sync_files, write_json
from trainer.engine import Engine
from trainer.errors import first_line, out_of_memory
from trainer.world import World

MAY_DIFFER = ("ranks", "sequence_parallel")
"""Facts that may change between runs; the plan's K is in `plan`."""
TORN = (OSError, RuntimeError, ValueError, KeyError, IndexError, AssertionError, EOFError, UnpicklingError)
"""What torch and DeepSpeed raise at files that they cannot read or write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a run begins: the first step, the checkpoint to load before it, whether that was written on another number of
    ranks, and the losses that the guard remembers."""

    step: int = 0
    checkpoint: Path | None = None
    other_ranks: bool = False
    recent_losses: tuple[float, ...] = ()


def find_start(output: Path, resume: bool, facts: dict[str, Any]) -> Start:
    """Raises UserError when the folder holds a run that is not to be resumed, or whose last checkpoint is of another plan or
    engine."""
    done = sorted(path.parent for path in (output / "checkpoints").glob("step-*/trainer.json"))
    if not resume and (done or (output / "metrics.jsonl").exists()):
        raise UserError(f"{output}: holds a run already; go on with --resume, or give another --output")
    if not done:
        return Start()
    stored = _note(done[-1])
    for key, value in facts.items():
        if stored.get(key) != value and key not in MAY_DIFFER:
            raise UserError(
                f"{done[-1]}: was written with {key} {stored.get(key)!r}, this run has {value!r}; "
                "a run goes on with what it began with"
            )
    return Start(
        step=int(stored["step"]),
        checkpoint=done[-1],
        other_ranks=stored["ranks"] != facts["ranks"],
        recent_losses=tuple(stored["recent_losses"]),
    )


def _note(checkpoint: Path) -> dict[str, Any]:
    """The facts in its `trainer.json`. Raises UserError where that is torn or lacks what every run notes."""
    file = checkpoint / "trainer.json"
    with _named(file, "read", "remove its folder, and --resume goes on from the checkpoint before it"):
        stored: Any = json.loads(file.read_text(encoding="utf-8"))
        for name in ("step", "ranks", "recent_losses"):
            if not isinstance(stored, dict) or name not in stored:
                raise ValueError(f"{name} was expected in it")
    return dict(stored)


def save_checkpoint(worker: Engine, output: Path, world: World, facts: dict[str, Any], *, keep: int) -> None:
    """Writes checkpoints/step-N, complete once `trainer.json` stands in it, and removes all but the last `keep`. Raises UserError
    where it cannot be written."""
    folder = output / "checkpoints" / f"step-{facts['step']:08d}"
    with _named(folder, "written", "mend this and go on with --resume from the checkpoint before it"):
        if world.rank == 0 and folder.exists():
            # Of a run that was killed here: files of more ranks than ours would be taken for part of what we write.
            shutil.rmtree(folder)
        world.wait()
        folder.mkdir(parents=True, exist_ok=True)
        worker.save(folder)
        world.wait()
        # Every rank, because only its own machine knows what it has not yet written out.
        sync_files(folder)
        world.wait()
    if world.rank == 0:
        write_json(folder / "trainer.json", facts)
        complete = sorted(path.parent for path in (output / "checkpoints").glob("step-*/trainer.json"))
        for old in complete[:-keep]:
            # Without its note a folder is no checkpoint, so a torn removal is never loaded.
            (old / "trainer.json").unlink()
            shutil.rmtree(old)
    world.wait()


def load_checkpoint(worker: Engine, checkpoint: Path, *, universal: bool) -> None:
    """Takes back what `save_checkpoint` wrote; `universal` after `make_universal`. Raises UserError where a file of it is missing
    or torn."""
    with _named(checkpoint, "read", "remove this folder, and --resume goes on from the checkpoint before it"):
        worker.load(checkpoint, universal=universal)


@contextmanager
def _named(checkpoint: Path, what: str, instead: str) -> Iterator[None]:
    """Turns what torch and DeepSpeed raise at files into a UserError."""
    try:
        yield
    except TORN as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        room = _room(checkpoint.parents[1]) if what == "written" else ""
        raise UserError(f"{checkpoint}: cannot be {what}: {first_line(error)}; {room}{instead}") from error


def _room(folder: Path) -> str:
    """What is left where nothing could be written: of a full disk torch says no more than "unexpected pos"."""
    with suppress(OSError):
        return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB are free there; "
    return ""


def make_universal(checkpoint: Path, world: World) -> None:
    """Writes DeepSpeed's universal form of a checkpoint into it: one file a parameter, which any number of ranks can load.
    Rank 0 works and the others wait."""
    if world.rank == 0:
        shutil.rmtree(checkpoint / "universal", ignore_errors=True)
        # A process of its own: the converter reads the command line, prints, and starts workers.
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
        folders = ["--input_folder", str(checkpoint / "deepspeed"), "--output_folder", str(checkpoint / "universal")]
        alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        ended = subprocess.run([*command, *folders], env=alone, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
        if ended.returncode:
            told = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1]
            raise LongAlignError(
                f"{checkpoint}: DeepSpeed cannot convert it for {world.ranks} ranks: {told}; "
                "go on with as many ranks as wrote it"
            )
    world.wait()
