"""Where a step's metrics go: one line in `metrics.jsonl` always, the terminal, and the trackers that are asked for.

In: the dictionary of a step. Out: on rank 0, a line of JSON; a bar with the time left; scalars in TensorBoard, Weights &
Biases or trackio, as `loss`, `loss_by_length/8k to 16k`, `idle_by_rank/3`. A tracker is imported only when it is asked for.
"""

import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from longalign_data.errors import UserError
from longalign_data.shards.files import writing

Report = Callable[[dict[str, Any]], None]
Scalars = Callable[[dict[str, float], int], None]


@contextmanager
def reporting(
    output: Path, *, trackers: Sequence[str], described: dict[str, Any], start: int, stop: int
) -> Iterator[Report]:
    """What takes the metrics of each step from `start` to `stop`; `described` is what trackers note of the run."""
    console, path = Console(stderr=True), output / "metrics.jsonl"
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    live = Progress(*columns, console=console, disable=not console.is_terminal)
    with ExitStack() as stack:
        sinks = [stack.enter_context(TRACKERS[name](output, described)) for name in trackers]
        stack.enter_context(live)
        task = live.add_task("", total=stop, completed=start)

        def report(metrics: dict[str, Any]) -> None:
            # A file that stays open would raise again when it is closed, and that would be told instead.
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
            for sink in sinks:
                sink(scalars(metrics), metrics["step"])
            if "skipped" in metrics:
                console.print(f"step {metrics['step']} is skipped: {metrics['skipped']}", highlight=False)
            loss = "skipped" if "skipped" in metrics else f"loss {metrics['loss']:.4f}"
            line = f"{loss}  {metrics['tokens_per_second']:,.0f} tokens/s"
            live.update(task, advance=1, description=line)
            if not console.is_terminal:
                console.print(f"step {metrics['step'] + 1}/{stop}  {line}  {metrics['seconds']:.1f} s", highlight=False)

        yield report


def check_installed(trackers: Sequence[str]) -> None:
    """Raises UserError, with the line that installs it, when one of the trackers is absent."""
    for name in trackers:
        spec = importlib.util.find_spec(name)
        # A folder of that name in the working directory, as W&B itself leaves, is found too but is no file to import.
        if spec is None or spec.origin is None:
            raise UserError(f"--log {name}: {name} is not installed; run: pip install {name}")


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of a step under flat names; what is neither a number nor a group of them is left out."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        groups = dict(enumerate(value)) if isinstance(value, list) else value
        parts = (
            {f"{name}/{part}": number for part, number in groups.items()} if isinstance(groups, dict) else {name: value}
        )
        found |= {part: number for part, number in parts.items() if isinstance(number, int | float)}
    return found


@contextmanager
def _tensorboard(output: Path, described: dict[str, Any]) -> Iterator[Scalars]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(output / "tensorboard")) as writer:
        writer.add_text("run", f"```\n{json.dumps(described, indent=2)}\n```")

        def write(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield write


@contextmanager
def _wandb(output: Path, described: dict[str, Any]) -> Iterator[Scalars]:
    import wandb

    from trainer.errors import first_line

    try:
        # One run id a folder, so that a resumed run goes on in the same chart.
        begun = wandb.init(
            project="longalign", name=output.name, id=_run_id(output), resume="allow", dir=str(output), config=described
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"--log wandb: {first_line(error).rstrip('.')}; run `wandb login` once, or set WANDB_MODE=offline, which keeps the run "
            f"in {output / 'wandb'} for `wandb sync`"
        ) from error
    with begun as run:
        yield lambda values, step: run.log(values, step=step)


@contextmanager
def _trackio(output: Path, described: dict[str, Any]) -> Iterator[Scalars]:
    import trackio

    trackio.init(project="longalign", name=_run_id(output), resume="allow", config=described)
    try:
        # It keeps the name `step` for its own.
        yield lambda values, step: trackio.log({name: values[name] for name in values if name != "step"}, step=step)
    finally:
        trackio.finish()


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
"""Every tracker of the option `--log`."""


def _run_id(output: Path) -> str:
    """A name that stays the same for a folder and differs between folders."""
    file = output / "run-id"
    if not file.exists():
        file.write_text(f"{output.name}-{uuid.uuid4().hex[:8]}\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
