"""`longalign stats`, `sql` and `show`: what stands in a build."""

import enum
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from longalign_data.cli.arguments import BuildArg


def register(app: typer.Typer) -> None:
    """Adds the commands that look into a build."""
    for command in (stats, sql, show):
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
    build_path: BuildArg,
    query: Annotated[
        str | None, typer.Argument(help="A SQL statement; without it, a prompt.", show_default=False)
    ] = None,
    format_: Annotated[
        ResultFormat, typer.Option("--format", "-f", help="How the result is written.")
    ] = ResultFormat.table,
    out: Annotated[
        Path | None, typer.Option("--out", help="A file to write to, instead of the terminal.", show_default=False)
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show long texts and all rows of a table whole.")] = False,
) -> None:
    """Ask a build with DuckDB: every table is a view.

    Example: longalign sql builds/quickstart/1.0.0 "select task, lang, count(*) from samples group by all"
    """
    from longalign_data.explore import sql as explore
    from longalign_data.shards.folder import open_build

    connection = explore.connect(open_build(build_path))
    if query is None:
        failed = explore.prompt(connection, source=sys.stdin, out=sys.stdout, errors=sys.stderr, format=format_.value)
        if failed and not sys.stdin.isatty():
            raise SystemExit(2)
        return
    result = explore.run_query(connection, query)
    rows = explore.render(
        result, format=format_.value, out=out or sys.stdout, full=full, max_rows=None if full else explore.TABLE_ROWS
    )
    if out is not None:
        typer.echo(f"{out}: {rows:,} rows")


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
