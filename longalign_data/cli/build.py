"""`longalign build` and the stages one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from longalign_data.cli.arguments import (
    ConcurrencyOption,
    LimitOption,
    OutputOption,
    RecipeArg,
    UrlOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from rich.console import Console

    from longalign_data.recipe import TeacherChoice
    from longalign_data.teachers.base import Teacher

_STAGE_COMMANDS = {
    "ingest": "Run one stage: read the sources into the table documents.",
    "sample": "Run one stage: draw documents into the table selection.",
    "generate": "Run one stage: let the teacher ask and answer, into the table samples.",
    "encode": "Run one stage: turn samples into token ids, the table sequences.",
    "pack": "Run one stage: fill packs, weigh them, and lay out the plan.",
}


def register(app: typer.Typer) -> None:
    """Adds `build` and one command for each stage."""
    app.command()(build)
    for stage, summary in _STAGE_COMMANDS.items():
        app.command(stage)(_stage_command(stage, summary))


def build(
    recipe: RecipeArg,
    output: OutputOption = Path("builds"),
    workers: WorkersOption = 0,
    concurrency: ConcurrencyOption = 8,
    teacher_url: UrlOption = None,
    limit: LimitOption = None,
) -> None:
    """Run every stage of RECIPE that is not complete, and write the build.

    Cut off anywhere, the same command goes on; run again, it changes nothing. The options say how to run and never change
    the data.
    """
    _run(recipe, output, workers, concurrency, teacher_url, None, limit)


def _stage_command(stage: str, summary: str) -> Callable[..., None]:
    def command(
        recipe: RecipeArg,
        output: OutputOption = Path("builds"),
        workers: WorkersOption = 0,
        concurrency: ConcurrencyOption = 8,
        teacher_url: UrlOption = None,
    ) -> None:
        _run(recipe, output, workers, concurrency, teacher_url, stage)

    command.__doc__ = summary
    return command


def _run(
    recipe: Path,
    output: Path,
    workers: int,
    concurrency: int,
    teacher_url: str | None,
    only: str | None,
    limit: int | None = None,
) -> None:
    import os

    from rich.console import Console

    from longalign_data.build.pipeline import build as run_build
    from longalign_data.build.pipeline import build_folder
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.cli.tables import print_outcomes, print_shortfall
    from longalign_data.engine import RunOptions
    from longalign_data.recipe import limited, load_recipe

    loaded = load_recipe(recipe)
    if limit is not None:
        loaded = limited(loaded, limit)
    run = RunOptions(workers=workers or os.cpu_count() or 1, concurrency=concurrency)
    console = Console()
    with TerminalProgress(Console(stderr=True)) as progress:
        built = run_build(
            loaded,
            output,
            run=run,
            progress=progress,
            teacher=lambda: _teacher(loaded.recipe.generate.teacher, teacher_url),
            only=only,
        )
    print_outcomes(built, console)
    print_shortfall(built, console)
    _next_steps(build_folder(loaded, output).root, console, complete=only is None)


def _next_steps(root: Path, console: "Console", *, complete: bool) -> None:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"\n{root}")
    if complete:
        say(f"look    longalign stats {root}")
        say(f"        longalign show {root}")
        say(f"        longalign sql {root}")
        tiny = Path("recipes/train/tiny-llama")
        model = f"{tiny} --random-init" if tiny.is_dir() else "MODEL"
        say(
            f"train   python -m trainer --build {root} --model {model} --config recipes/train/tiny-cpu.yaml --max-steps 2"
        )
        say("        (a tiny random model on the CPU; needs: pip install -e '.[train]')")


def _teacher(choice: "TeacherChoice", url: str | None) -> "Teacher":
    """The recipe's teacher; keys and places come from the environment here and nowhere else."""
    import os

    from longalign_data.teachers.table import load_teacher

    prefix = {"anthropic": "ANTHROPIC", "openai": "OPENAI"}.get(choice.provider, "")
    key = os.environ.get(f"{prefix}_API_KEY") or None
    base_url = url or os.environ.get(f"{prefix}_BASE_URL") or None
    return load_teacher(choice, api_key=key, base_url=base_url)
