"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="A trial: take at most this many documents, into a build of its own, NAME-limit-N."
    ),
]
