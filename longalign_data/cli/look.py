"""`longalign stats`, `sql` and `show`: what stands in a build."""

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longalign_data.cli.arguments import BuildArg, PricesOption

if TYPE_CHECKING:
    from longalign_data.shards.folder import BuildFolder


def register(app: typer.Typer) -> None:
    """Adds the commands that look into a build."""
    for command in (stats, sql, show, diff, report, view):
        app.command()(command)


class ResultFormat(enum.StrEnum):
    """How the rows of a query are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def stats(
    build_path: BuildArg,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as one JSON object, for programs.")] = False,
) -> None:
    """Lengths by stage, source, language and task; histogram, rejects, fill."""
    from rich.console import Console

    from longalign_data.explore.figures import collect
    from longalign_data.explore.stats import print_stats
    from longalign_data.shards.folder import open_build

    found = collect(open_build(build_path))
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        print_stats(found, Console())


def sql(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUILD [QUERY]",
            help="A build folder, or several as a=DIR b=DIR; then a SQL statement, without which there is a prompt.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        str | None, typer.Option("--named", "-n", help="Answer a named question instead.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the named questions.")] = False,
    format_: Annotated[
        ResultFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="How the result is written; as the ending of --out says, and a table on the terminal.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="A file to write to (.csv, .json or .parquet), instead of the terminal.", show_default=False
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show long texts and all rows of a table whole.")] = False,
) -> None:
    """Ask one build or several with DuckDB: every table is a view.

    Example: longalign sql builds/quickstart/1.0.0 "select task, lang, count(*) from samples group by all"

    Of several builds, tables have a first column `build`: longalign sql a=builds/x/1.0.0 b=builds/x/1.1.0 "from stages"
    """
    from longalign_data.errors import UserError
    from longalign_data.explore import named as questions
    from longalign_data.explore.prompt import prompt
    from longalign_data.explore.results import TABLE_ROWS, render
    from longalign_data.explore.sql import connect, run_query

    if list_:
        known = questions.questions().values()
        wide = max(len(question.name) for question in known)
        typer.echo("\n".join(f"{question.name:<{wide}}  {question.asks}" for question in known))
        return
    format_name = _result_format(format_, out).value
    builds, query = _builds_and_query(arguments or [])
    if out is not None and query is None and named is None:
        raise UserError(f"--out {out} is for one result; give a QUERY or --named")
    several = list(builds) if isinstance(builds, dict) else ()
    connection = connect(builds)
    if named is not None:
        if query is not None:
            raise UserError("a QUERY and --named are two questions; give one of them")
        result = questions.answer(connection, named, several)
    elif query is None:
        failed = prompt(connection, source=sys.stdin, out=sys.stdout, errors=sys.stderr, format=format_name)
        if failed and not sys.stdin.isatty():
            raise SystemExit(2)
        return
    else:
        result = run_query(connection, query)
    rows = render(result, format=format_name, out=out or sys.stdout, full=full, max_rows=None if full else TABLE_ROWS)
    if out is not None:
        typer.echo(f"{out}: {rows:,} rows")


def _result_format(asked: ResultFormat | None, out: Path | None) -> ResultFormat:
    """The format that was asked for, or that the file's ending stands for; of the two, neither may deny the other."""
    from longalign_data.errors import UserError

    if out is None:
        return asked or ResultFormat.table
    endings = {f".{known.value}": known for known in ResultFormat if known is not ResultFormat.table}
    meant = endings.get(out.suffix.lower())
    if asked is None and meant is None:
        raise UserError(
            f"--out {out}: its ending does not say how to write it; use {', '.join(endings)}, or give --format"
        )
    if asked is not None and meant not in (None, asked):
        raise UserError(f"--out {out} is to be {out.suffix}, but --format says {asked.value}; leave one of them out")
    return asked or meant or ResultFormat.table


def _builds_and_query(arguments: list[str]) -> "tuple[BuildFolder | dict[str, BuildFolder], str | None]":
    """The builds in front, one by its folder or several by NAME=FOLDER, and the query that may follow."""
    import re

    from longalign_data.errors import UserError
    from longalign_data.shards.folder import open_build

    if not arguments:
        raise UserError("give a build, such as builds/quickstart/1.0.0")
    pairs = []
    while arguments and (found := re.match(r"([A-Za-z_]\w*)=(.+)", arguments[0])) and not Path(arguments[0]).exists():
        pairs.append(found.groups())
        arguments = arguments[1:]
    builds = {name: open_build(Path(place)) for name, place in pairs}
    if len(builds) < len(pairs):
        raise UserError(f"two builds have one name: {', '.join(name for name, _ in pairs)}")
    rest = arguments if pairs else arguments[1:]
    if len(rest) > 1:
        raise UserError(
            f"one query at a time, in quotes; found {len(rest)}: {' '.join(rest)!r}. Several builds are given as a=DIR b=DIR"
        )
    return builds or open_build(Path(arguments[0])), rest[0] if rest else None


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


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A build folder.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another, such as its next version.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object, for programs.")] = False,
) -> None:
    """What changed from build A to build B: recipe, rows, lengths, rejects, packs, cost."""
    from rich.console import Console

    from longalign_data.explore.diff import compare, print_diff
    from longalign_data.shards.folder import open_build

    found = compare(open_build(before), open_build(after))
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        print_diff(found, Console())


def report(
    build_path: BuildArg,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("report.html"),
    prices: PricesOption = None,
) -> None:
    """The whole build as one HTML file that stands alone: lengths, funnel, cost, evidence, weights, and samples to read."""
    from longalign_data.cli.prices import known_prices
    from longalign_data.explore.plan import recipe_of
    from longalign_data.explore.report.page import render_report
    from longalign_data.shards.files import write_text
    from longalign_data.shards.folder import open_build

    build = open_build(build_path)
    choice = recipe_of(build).generate.teacher if build.manifest.is_file() else None
    write_text(out, render_report(build, known_prices(prices, choice)))
    typer.echo(f"{out}: {out.stat().st_size / 1e6:,.2f} MB")


def view(
    build_path: BuildArg,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8765,
) -> None:
    """Browse a build on this machine: filter, sort, page, open samples whole, see their packs. Changes nothing."""
    from longalign_data.explore.view.server import serve
    from longalign_data.shards.folder import open_build

    serve(open_build(build_path), port, on_start=lambda url: typer.echo(f"{url}  (Ctrl-C ends it)"))
