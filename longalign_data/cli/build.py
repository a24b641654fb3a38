"""`longalign build` and the stages one by one."""

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from longalign_data.cli.arguments import (
    AddressOption,
    ConcurrencyOption,
    EngineName,
    EngineOption,
    LimitOption,
    MaxUsdOption,
    OutputOption,
    PricesOption,
    RecipeArg,
    Schedule,
    ScheduleOption,
    TimeoutOption,
    UrlOption,
    WorkersOption,
)
from longalign_data.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from longalign_data.recipe import Generate, LoadedRecipe, TeacherChoice
    from longalign_data.shards.folder import BuildFolder
    from longalign_data.teachers.base import Connection, Teacher

_STAGE_COMMANDS = {
    "ingest": "Run one stage: read the sources into the table documents.",
    "sample": "Run one stage: draw documents into the table selection.",
    "generate": "Run one stage: let the teacher ask and answer, into the table samples.",
    "mix": "Run one stage: draw conversations of the recipe's mix, into the table chats.",
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
    concurrency: ConcurrencyOption = 64,
    schedule: ScheduleOption = Schedule.live,
    teacher_url: UrlOption = None,
    timeout: TimeoutOption = 600.0,
    max_usd: MaxUsdOption = None,
    prices: PricesOption = None,
    limit: LimitOption = None,
    engine: EngineOption = EngineName.local,
    address: AddressOption = "auto",
) -> None:
    """Run every stage of RECIPE that is not complete, and write the build.

    Cut off anywhere, the same command goes on; run again, it changes nothing. The options say how to run and never change
    the data.
    """
    ray_address = address if engine is EngineName.ray else None
    _run(
        recipe, output, workers, concurrency, schedule, teacher_url, max_usd, prices, None, ray_address, limit, timeout
    )


def _stage_command(stage: str, summary: str) -> Callable[..., None]:
    def command(
        recipe: RecipeArg,
        output: OutputOption = Path("builds"),
        workers: WorkersOption = 0,
        concurrency: ConcurrencyOption = 64,
        schedule: ScheduleOption = Schedule.live,
        teacher_url: UrlOption = None,
        engine: EngineOption = EngineName.local,
        address: AddressOption = "auto",
    ) -> None:
        ray_address = address if engine is EngineName.ray else None
        _run(recipe, output, workers, concurrency, schedule, teacher_url, None, None, stage, ray_address)

    def paid_command(
        recipe: RecipeArg,
        output: OutputOption = Path("builds"),
        workers: WorkersOption = 0,
        concurrency: ConcurrencyOption = 64,
        schedule: ScheduleOption = Schedule.live,
        teacher_url: UrlOption = None,
        timeout: TimeoutOption = 600.0,
        max_usd: MaxUsdOption = None,
        prices: PricesOption = None,
    ) -> None:
        _run(recipe, output, workers, concurrency, schedule, teacher_url, max_usd, prices, stage, None, None, timeout)

    chosen: Callable[..., None] = paid_command if stage == "generate" else command
    chosen.__doc__ = summary
    return chosen


def _run(
    recipe: Path,
    output: Path,
    workers: int,
    concurrency: int,
    schedule: Schedule,
    teacher_url: str | None,
    max_usd: float | None,
    prices: Path | None,
    only: str | None,
    ray_address: str | None,
    limit: int | None = None,
    timeout_s: float = 600.0,
) -> None:
    import os

    from rich.console import Console

    from longalign_data.build.pipeline import build as run_build
    from longalign_data.build.pipeline import build_folder
    from longalign_data.cli.prices import known_prices
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.cli.tables import print_cost, print_outcomes, print_sampling
    from longalign_data.engine import RunOptions
    from longalign_data.generation.budget import Spending
    from longalign_data.recipe import limited, load_recipe
    from longalign_data.teachers.table import PROVIDERS

    loaded = load_recipe(recipe)
    if limit is not None:
        loaded = limited(loaded, limit)
    spending = Spending(prices=known_prices(prices, loaded.recipe.generate.teacher), max_usd=max_usd)
    if only in (None, "generate"):
        _refuse_rehearsal(loaded, build_folder(loaded, output), teacher_url)
    run = RunOptions(
        workers=workers or os.cpu_count() or 1,
        concurrency=concurrency,
        schedule=schedule.value,
        ray_address=ray_address,
    )

    def teacher() -> "Teacher":
        # Called before any work, and only where something may be sent.
        choice = loaded.recipe.generate.teacher
        if max_usd is not None and not PROVIDERS[choice.provider].is_free:
            spending.prices.require(choice.provider, choice.model)
        return _teacher(
            loaded.recipe.generate, teacher_url, concurrency, timeout_s, build_folder(loaded, output).ledger
        )

    console = Console()
    with TerminalProgress(Console(stderr=True)) as progress:
        built = run_build(
            loaded,
            output,
            run=run,
            progress=progress,
            teacher=teacher,
            only=only,
            spending=spending,
        )
    print_outcomes(built, console)
    print_cost(built, console)
    print_sampling(built, console)
    _next_steps(build_folder(loaded, output).root, console, complete=only is None)


def _next_steps(root: Path, console: "Console", *, complete: bool) -> None:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"\n{root}")
    if not complete:
        return
    longalign, python = _as_typed("longalign"), _as_typed("python")
    say(f"look    {longalign} stats {root}")
    say(f"        {longalign} show {root}")
    say(f"        {longalign} sql {root}")
    configurations = Path("recipes/train")
    if configurations.is_dir():
        say(
            f"train   {python} -m trainer --build {root} --model {configurations}/tiny-llama --random-init "
            f"--config {configurations}/tiny-cpu.yaml --max-steps 2"
        )
        say("        (a tiny random model on the CPU; needs: pip install -e '.[train]')")
    else:
        say(f"train   {python} -m trainer --build {root} --model MODEL --config CONFIGURATION")


def _as_typed(tool: str) -> str:
    """How to call a program of this environment from here: by name when the shell finds it, else by its path."""
    own = Path(sys.executable).with_name(tool)
    if not own.exists() or shutil.which(tool) == str(own):
        return tool
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)


def _teacher(generate: "Generate", url: str | None, concurrency: int, timeout_s: float, ledger: Path) -> "Teacher":
    from longalign_data.teachers.table import PROVIDERS, load_teacher

    known = connection_of(generate.teacher, url)
    _need_key(generate.teacher, known, ledger)
    notice = PROVIDERS[generate.teacher.provider].notice(known.base_url)
    if notice and generate.teacher.terms is None and not ledger.is_file():
        typer.echo(f"longalign: {notice}", err=True)
    return load_teacher(
        generate.teacher,
        api_key=known.api_key,
        base_url=known.base_url,
        timeout_s=timeout_s,
        concurrency=concurrency,
        calls_per_document=1 + generate.answers_per_document * (2 if generate.paid_checks.judge else 1),
    )


def _refuse_rehearsal(loaded: "LoadedRecipe", folder: "BuildFolder", url: str | None) -> None:
    """Raises BuildError where the fake provider has answered in this build, or in a trial of it that would be taken over, and
    does not answer now: its replies would stand for the model's."""
    from longalign_data.errors import BuildError
    from longalign_data.generation.ledger import rehearsed_in
    from longalign_data.generation.trials import copied_ledger, trial_builds
    from longalign_data.recipe import limit_words
    from longalign_data.teachers.fake.known import is_fake

    choice = loaded.recipe.generate.teacher
    for stands in (folder, *trial_builds(loaded.recipe, folder)):
        if not stands.ledger.is_file():
            continue
        if stands is folder:
            num_rehearsed = rehearsed_in(stands.ledger, choice.provider, choice.model)
        else:
            num_rehearsed = 0
            # Nothing is taken over from one that cannot be read; the stage says so.
            with contextlib.suppress(BuildError), copied_ledger(stands.ledger) as ledger:
                num_rehearsed = len(ledger.rehearsed(choice.provider, choice.model))
        if num_rehearsed and not is_fake(connection_of(choice, url).base_url):
            way = (
                f"longalign ledger RECIPE{limit_words(loaded.recipe.name)} --output OUTPUT --forget rehearsal"
                if stands is folder
                else "remove that folder"
            )
            raise BuildError(
                f"{stands.root}: {num_rehearsed:,} replies are of a rehearsal with longalign fake-provider, which does not answer "
                f"at the address of this run, so they would be taken for {choice.model}'s. Build into another --output; or take "
                f"them out: {way}"
            )


def connection_of(choice: "TeacherChoice", url: str | None) -> "Connection":
    """How the recipe's teacher is reached; keys and places come from the environment here and nowhere else. Raises
    UserError for a place that is no web address and a key that no header can carry, which would only fail later."""
    import os
    from urllib.parse import urlsplit

    from longalign_data.teachers.base import Connection
    from longalign_data.teachers.retry import without_password

    prefix = {"anthropic": "ANTHROPIC", "openai": "OPENAI"}.get(choice.provider, "")
    key = os.environ.get(f"{prefix}_API_KEY") or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"{prefix}_API_KEY holds white space or other characters that no key has; set it again")
    base_url = url or os.environ.get(f"{prefix}_BASE_URL") or None
    if base_url is not None:
        try:
            parts = urlsplit(base_url)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            is_address = False
        if not is_address:
            raise UserError(
                f"{without_password(base_url)!r} is no address of a teacher; expected something like http://localhost:8000/v1"
            )
    return Connection(api_key=key, base_url=base_url)


def _need_key(choice: "TeacherChoice", connection: "Connection", ledger: Path) -> None:
    """Raises UserError where the first request would fail for want of a key. With a ledger there may be no request left."""
    needed = choice.provider == "anthropic" or (choice.provider == "openai" and connection.base_url is None)
    if needed and connection.api_key is None and not ledger.is_file():
        raise UserError(
            f"the teacher {choice.model!r} needs an API key; set {choice.provider.upper()}_API_KEY. To rehearse without one: "
            "longalign fake-provider, and --teacher-url"
        )
