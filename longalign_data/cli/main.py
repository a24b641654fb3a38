"""The command line `longalign`. Heavy imports stand inside the commands, so that `longalign --help` answers at once.

Exit codes: 0 done; 2 something the user gave or can mend; 1 a teacher or a machine failed; 130 stopped by Ctrl-C.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import longalign_data
from longalign_data.errors import LongAlignError, MissingExtraError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from longalign_data.teachers.base import Teacher

app = typer.Typer(
    name="longalign",
    help="Long-context instruction data from your own documents, packed and weighted for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
catalog_app = typer.Typer(help="The sources that come with longalign.", no_args_is_help=False)
app.add_typer(catalog_app, name="catalog")

RecipeArg = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
BuildArg = Annotated[Path, typer.Argument(help="A build folder, such as builds/quickstart/1.0.0.", show_default=False)]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where builds stand: OUTPUT/<name>/<version>.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", "-w", min=0, help="Processes and threads to use; 0 takes every core.")
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", min=1, help="Documents that the teacher works on at once.")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--teacher-url", help="Base URL of the teacher's server, when it is not the provider's own."),
]


def main() -> None:
    """Runs the command line; every error a person can meet becomes one message and an exit code."""
    try:
        app(prog_name="longalign")
    except UserError as error:
        _fail(str(error), 2)
    except MissingExtraError as error:
        _fail(str(error), 2)
    except LongAlignError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on where this one was", 130)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None


def _fail(message: str, code: int) -> None:
    typer.echo(f"longalign: {message}", err=True)
    raise SystemExit(code)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"longalign-data {longalign_data.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def build(
    recipe: RecipeArg,
    output: OutputOption = Path("builds"),
    workers: WorkersOption = 0,
    concurrency: ConcurrencyOption = 8,
    teacher_url: UrlOption = None,
) -> None:
    """Run every stage of RECIPE that is not complete, and write the build.

    Cut off anywhere, the same command goes on; run again, it changes nothing. The options say how to run and never change
    the data.
    """
    _run(recipe, output, workers, concurrency, teacher_url, None)


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


for _stage, _summary in {
    "ingest": "Run one stage: read the sources into `documents`.",
    "sample": "Run one stage: draw documents into `selection`.",
    "generate": "Run one stage: let the teacher ask and answer, into `samples`.",
    "encode": "Run one stage: turn samples into token ids, `sequences`.",
    "pack": "Run one stage: fill `packs`, weigh them, and lay out the `plan`.",
}.items():
    app.command(_stage)(_stage_command(_stage, _summary))


def _run(recipe: Path, output: Path, workers: int, concurrency: int, teacher_url: str | None, only: str | None) -> None:
    import os

    from rich.console import Console

    from longalign_data.build.pipeline import build as run_build
    from longalign_data.build.pipeline import build_folder
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.cli.tables import print_outcomes, print_shortfall
    from longalign_data.engine import RunOptions
    from longalign_data.recipe import load_recipe

    loaded = load_recipe(recipe)
    run = RunOptions(workers=workers or os.cpu_count() or 1, concurrency=concurrency)
    console = Console()
    with TerminalProgress(Console(stderr=True)) as progress:
        built = run_build(
            loaded,
            output,
            run=run,
            progress=progress,
            teacher=lambda: _teacher(loaded.recipe.generate.teacher.provider, teacher_url, loaded),
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
        say(f"train   python -m trainer --build {root} --model MODEL --config recipes/train/tiny-cpu.yaml")


def _teacher(provider: str, url: str | None, loaded: object) -> "Teacher":
    import os

    from longalign_data.recipe import LoadedRecipe
    from longalign_data.teachers.table import load_teacher

    assert isinstance(loaded, LoadedRecipe)
    key = os.environ.get({"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}.get(provider, ""))
    base_url = url or os.environ.get({"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}.get(provider, ""))
    return load_teacher(loaded.recipe.generate.teacher, api_key=key, base_url=base_url)


@app.command()
def stats(build_path: BuildArg) -> None:
    """Lengths by stage, source, language and task; histogram, rejects, fill."""
    from rich.console import Console

    from longalign_data.explore.stats import collect, print_stats
    from longalign_data.shards.folder import open_build

    print_stats(collect(open_build(build_path)), Console())


@app.command()
def sql(
    build_path: BuildArg,
    query: Annotated[
        str | None, typer.Argument(help="One or more SQL statements; without it, a prompt.", show_default=False)
    ] = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="table, csv, json or parquet.")] = "table",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write there instead of to the terminal.", show_default=False)
    ] = None,
) -> None:
    """Ask a build with DuckDB: every table is a view.

    Example: `longalign sql builds/quickstart/1.0.0 "select task, lang, count(*) from samples group by all"`
    """
    from longalign_data.explore import sql as explore_sql
    from longalign_data.shards.folder import open_build

    connection = explore_sql.connect(open_build(build_path))
    if query is None:
        explore_sql.prompt(connection)
    else:
        explore_sql.render(explore_sql.run_query(connection, query), format=format_, out=out)


@app.command()
def show(
    build_path: BuildArg,
    sample_id: Annotated[
        str | None, typer.Argument(help="A sample id or its beginning; without it, one is chosen.", show_default=False)
    ] = None,
) -> None:
    """One sample as a person reads it: document, questions, answer, and where it came from."""
    from rich.console import Console

    from longalign_data.explore.show import show as show_sample
    from longalign_data.shards.folder import open_build

    show_sample(open_build(build_path), sample_id, Console())


@catalog_app.callback(invoke_without_command=True)
def catalog_list(context: typer.Context) -> None:
    """List the sources that come with longalign."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from longalign_data.catalog import builtin_cards, load_card

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "title", "language", "licence", "reader"):
        table.add_column(name)
    for name in builtin_cards():
        card, _ = load_card(name, relative_to=Path())
        table.add_row(card.id, card.title, card.lang, card.license, card.reader.kind)
    Console().print(table)


@catalog_app.command("show")
def catalog_show(source: Annotated[str, typer.Argument(help="The id of a source, or the path of a card.")]) -> None:
    """Print one card, with how to obtain the corpus."""
    from longalign_data.catalog import load_card
    from longalign_data.yamlfile import read_text

    _, path = load_card(source, relative_to=Path())
    typer.echo(read_text(path).rstrip())
