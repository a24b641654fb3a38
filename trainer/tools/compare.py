"""Trains the same sequences by several batch methods and puts them beside each other (LongAlign, Figure 5 and Table 3).

In: a build, a model, a configuration. Out: a table, and the same as compare.json, which grows by a row with every method. The
sequences of the build's first steps are taken out of their packs and packed again for each method, nothing being encoded anew;
a few of every length are held out. Every method takes as many sequences into a step, so that all of them take about as many
steps over the same data:

    balanced    packs of alike work and steps of alike composition
    random      best-fit packs in any order
    unweighted  the packs of `random`, trained on the mean of pack means (Eq. 3), as packing without loss weights does
    sorted      one sequence a pack, steps of like length
    naive       one sequence a pack, any lengths
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from longalign_data.errors import LongAlignError, UserError
from longalign_data.packing.again import Loose, pack_again, take_apart
from longalign_data.packing.reader import PackReader, open_packs
from longalign_data.shards.files import write_json
from trainer.config import TrainConfig, load_config
from trainer.options import Parser, check_folder, exit_code, positive
from trainer.tools.plain import DEFAULT, config_or_default, one_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How sequences are packed and planned; `packed` where packs hold several; `pack_means` as in `pack_again`."""

    strategy: str
    packed: bool = True
    pack_means: bool = False


METHODS = {
    "balanced": Method(strategy="balanced"),
    "random": Method(strategy="random"),
    "unweighted": Method(strategy="random", pack_means=True),
    "sorted": Method(strategy="sorted", packed=False),
    "naive": Method(strategy="naive", packed=False),
}
"""Every method of `--methods`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method. `seconds` are those of all its steps, the first among them, which is a little slower than it would be later;
    `step_seconds` are their mean. `idle` is of the steps whose packs were timed, `modelled_idle` of all. `held_out_loss` is the
    mean over the held-out sequences of the mean over their targets, after training; `loss` that of the last step."""

    method: str
    num_steps: int
    num_packs: int
    tokens_per_second: float
    step_seconds: float
    seconds: float
    idle: float
    modelled_idle: float
    loss: float
    held_out_loss: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and compares; returns the exit code."""
    asked = _parser().parse_args(arguments)
    return exit_code(lambda: _compare(asked))


def _compare(asked: argparse.Namespace) -> None:
    check_folder(asked.output)
    config = config_or_default(asked.config)
    if asked.replay_ranks and asked.ranks > 1:
        raise UserError("--replay-ranks replays the times of one process; leave --ranks away")
    if asked.ranks % config.sequence_parallel:
        raise UserError(f"sequence_parallel: {config.sequence_parallel}: does not divide --ranks {asked.ranks}")
    from trainer import model

    model.load_config(asked.model, weights=not asked.random_init)
    reader = open_packs(asked.build)
    ranks = asked.replay_ranks or asked.ranks
    # Those that share a pack are one to the plan.
    readers = ranks // config.sequence_parallel
    if any(METHODS[name].packed for name in asked.methods):
        # Dealt to ranks that K does not fill, packs would look slower than they are.
        reader.check_split(readers, max(1, reader.packs_per_step // readers))
    train, held_out = split(reader, asked.steps, held_out=asked.held_out)
    rows = _begin(asked, config, reader)
    try:
        with tempfile.TemporaryDirectory(prefix="longalign-compare-") as scratch:
            test = Path(scratch) / "held-out"
            pack_again(held_out, test, strategy="naive", capacity=reader.capacity, packs_per_step=len(held_out.lengths))
            done = {row.method for row in rows}
            for name in dict.fromkeys(asked.methods):
                output = asked.output / name
                if name not in done:
                    build = Path(scratch) / name
                    replan(METHODS[name], reader, train, build, num_steps=asked.steps, ranks=readers)
                    sys.stderr.write(f"{name}: {open_packs(build).num_steps} steps\n")
                    if output.exists():  # a run that was cut off
                        shutil.rmtree(output)
                    train_on(build, output, asked.output / "config.yaml", asked)
                    told = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
                    loss = held_out_loss(output / "model", test, config)
                    steps = [json.loads(line) for line in told]
                    work = works(open_packs(build))
                    rows.append(summary(name, steps, work, held_out_loss=loss, ranks=ranks, readers=readers))
                    write_json(asked.output / "compare.json", [asdict(row) for row in rows])
                for part in ("checkpoints", "model"):
                    shutil.rmtree(output / part, ignore_errors=True)
    finally:
        # Those that are done took hours, whatever became of the next one.
        if rows:
            print_rows(rows)


def _begin(asked: argparse.Namespace, config: TrainConfig, reader: PackReader) -> list[Row]:
    """Makes the output folder; with --resume, the rows that stand in it. Raises UserError where they were measured otherwise."""
    from trainer.loop import plan_hash

    options = ("model", "random_init", "steps", "held_out", "ranks", "replay_ranks")
    noted = {name: getattr(asked, name) for name in options} | {"plan": plan_hash(reader)}
    noted |= {"config": config.model_dump(), "deepspeed": load_config(asked.config)[1] if asked.config else {}}
    note, table = asked.output / "asked.json", asked.output / "compare.json"
    if not asked.output.exists():
        write_json(note, noted)
    elif not asked.resume:
        raise UserError(f"{asked.output}: exists already; give another --output, or --resume to go on with its methods")
    elif not note.exists():
        raise UserError(f"{note}: no such file, so there is no comparison to go on with; give another --output")
    before = json.loads(note.read_text(encoding="utf-8"))
    other = [name for name in noted if before.get(name) != noted[name]]
    if other:
        raise UserError(
            f"{asked.output}: its methods were compared with another {', '.join(other)} (see asked.json in it), and rows could "
            "not be put beside theirs; give another --output"
        )
    # Of several processes on a GPU a profiler does the timing, which takes time itself.
    every = 1 if asked.ranks == 1 else max(2, asked.steps // 4)
    warmup = min(config.warmup_steps, asked.steps // 4)
    write_config(asked.output / "config.yaml", config, asked.config, time_every=every, warmup_steps=warmup)
    return [Row(**row) for row in json.loads(table.read_text(encoding="utf-8"))] if table.exists() else []


def split(reader: PackReader, num_steps: int, *, held_out: int) -> tuple[Loose, Loose]:
    """The sequences of the first steps: those to train on, and about so many of every length that are held out."""
    loose = take_apart(reader, range(min(num_steps, reader.num_steps)))
    if len(loose.lengths) < 2 * held_out:
        raise UserError(
            f"the first {num_steps} steps have {len(loose.lengths)} sequences, too few to hold out {held_out}; give more "
            "--steps or a smaller --held-out"
        )
    return loose.without_every(len(loose.lengths) // held_out)


def replan(method: Method, reader: PackReader, loose: Loose, folder: Path, *, num_steps: int, ranks: int) -> None:
    """Packs the sequences by a method. Where a pack is one sequence a step has as many packs as make `num_steps` steps."""
    k = reader.packs_per_step
    if not method.packed:
        k = ranks * math.ceil(len(loose.lengths) / (min(num_steps, reader.num_steps) * ranks))
    pack_again(
        loose,
        folder,
        strategy=method.strategy,
        capacity=reader.capacity,
        packs_per_step=k,
        work=reader.work,
        pack_means=method.pack_means,
    )


def train_on(build: Path, output: Path, config: Path, asked: argparse.Namespace) -> None:
    """One run in processes of its own, so that neither memory nor process groups are handed on."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(asked.ranks), "-m"]
    command = [sys.executable, "-m", *(launcher if asked.ranks > 1 else []), "trainer"]
    command += ["--build", str(build), "--model", asked.model, "--config", str(config), "--output", str(output)]
    command += ["--random-init"] * asked.random_init
    ended = subprocess.run(  # noqa: S603 - our own command line, no shell
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        told = [line for line in ended.stderr.splitlines() if line.startswith("error")] or [ended.stderr[-2000:]]
        raise LongAlignError(
            f"{output.name}: training ended with exit code {ended.returncode}: {told[0]}; {output} holds what there is "
            "of it, and --resume begins it anew"
        )


def write_config(path: Path, config: TrainConfig, given: Path | None, **changes: int) -> None:
    """The configuration with `changes`, no checkpoint but the last, and whole weights at the end."""
    values = config.model_dump() | changes | {"checkpoint_every": 0, "epochs": 1, "max_steps": None}
    if config.lora is not None:
        values["lora"]["export"] = "merged"
    if config.deepspeed is not None and given is not None:
        values["deepspeed"] = str((given.parent / config.deepspeed).absolute())
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def held_out_loss(model_folder: Path, build: Path, config: TrainConfig) -> float:
    """The loss of a model folder on the one step of a build, on one device, without training."""
    import torch
    import transformers

    from trainer.batch import micro_batch

    transformers.utils.logging.disable_progress_bar()
    plain = TrainConfig(dtype=config.dtype, attention=config.attention, activation_checkpointing=False)
    objective, device = one_device(str(model_folder), plain)
    objective.eval()
    vocabulary = objective.model.config.get_text_config().vocab_size
    reader = open_packs(build)
    total = 0.0
    with torch.no_grad():
        for position in range(reader.step(0).num_packs):
            pack = reader.batch(0, position, reader.packs_per_step, 0, 1)
            total += float(objective(micro_batch(pack, device, vocabulary)))
    return total / reader.step(0).normalizer


def works(reader: PackReader) -> list[list[float]]:
    """The modelled work of the packs of every step."""
    table = reader.columns("packs", ["pack_id", "work"])
    assert table is not None
    work = dict(zip(table.column("pack_id").to_pylist(), table.column("work").to_pylist(), strict=True))
    return [[work[name] for name in reader.pack_ids(step)] for step in range(reader.num_steps)]


def summary(
    name: str,
    steps: Sequence[dict[str, Any]],
    works: Sequence[Sequence[float]],
    *,
    held_out_loss: float,
    ranks: int,
    readers: int,
) -> Row:
    """The row of a run by as many processes as `ranks`, or by one for all of them. The plan deals packs to `readers`, fewer than
    `ranks` where these share packs."""
    from trainer.measure.metrics import idle

    timed = [step for step in steps if "pack_seconds" in step] or [steps[0] | {"pack_seconds": [[0.0] * ranks]}]
    dealt = {step["step"]: deal(np.ravel(step["pack_seconds"]), ranks) for step in timed}
    alone = np.shape(timed[0]["pack_seconds"])[1] == 1
    # Nothing is inferred from other steps: they hold other lengths, and a step costs something besides its tokens.
    seconds = sum(replay(step, dealt[step["step"]]) if alone else float(step["seconds"]) for step in steps)
    return Row(
        method=name,
        num_steps=len(steps),
        num_packs=sum(step["num_packs"] for step in steps),
        tokens_per_second=sum(step["num_tokens"] for step in steps) / seconds,
        step_seconds=seconds / len(steps),
        seconds=seconds,
        idle=idle(np.concatenate(list(dealt.values()))),
        modelled_idle=idle(np.concatenate([deal(np.array(of_step), readers) for of_step in works])),
        loss=steps[-1]["loss"],
        held_out_loss=held_out_loss,
    )


def replay(step: dict[str, Any], dealt: npt.NDArray[np.float64]) -> float:
    """The seconds of a timed step, had its packs been dealt so: every micro-batch lasts as long as its slowest pack, and the
    rest of the step (optimizer, reading) as long as it did. Dealt as it was run, they are what they were."""
    as_run = float(step["seconds"])
    if np.shape(step["pack_seconds"]) == dealt.shape:
        return as_run
    return float(dealt.max(axis=1).sum()) + max(0.0, as_run - float(dealt.sum()))


def deal(packs: npt.NDArray[np.float64], ranks: int) -> npt.NDArray[np.float64]:
    """[packs] -> [micro-batches, ranks], as the reader deals them; places without a pack are 0."""
    dealt = np.zeros(-(-len(packs) // ranks) * ranks)
    dealt[: len(packs)] = packs
    return dealt.reshape(-1, ranks)


def print_rows(rows: Sequence[Row]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("steps", "packs", "tokens/s", "s/step", "total s", "idle", "modelled", "loss", "held out"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.method,
            f"{row.num_steps}",
            f"{row.num_packs:,}",
            f"{row.tokens_per_second:,.0f}",
            f"{row.step_seconds:.2f}",
            f"{row.seconds:,.1f}",
            f"{row.idle:.1%}",
            f"{row.modelled_idle:.1%}",
            f"{row.loss:.4f}",
            f"{row.held_out_loss:.4f}",
        )
    console = Console()
    # A file or a pipe has no width of its own, and a row of figures must not be cut.
    (console if console.is_terminal else Console(width=120)).print(table)


def _parser() -> argparse.ArgumentParser:
    found = Parser("trainer.compare", __doc__)
    found.add_build()
    found.add_model()
    found.add_config(DEFAULT)
    add = found.add_argument
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    add("--steps", type=positive, default=20, metavar="N", help="steps of the build whose sequences are taken")
    add("--held-out", type=positive, default=8, metavar="N", help="sequences, about, that are not trained on")
    add("--ranks", type=positive, default=1, metavar="N", help="processes to train in, on this machine")
    add("--replay-ranks", type=positive, metavar="N", help="time packs in one process; say what N ranks would take")
    add("--resume", action="store_true", help="go on in --output with the methods that have no row yet")
    add("--output", type=Path, default=Path("runs/compare"), metavar="FOLDER", help="default: runs/compare")
    return found
