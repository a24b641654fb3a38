"""Arguments and options that several commands share."""

import enum
from pathlib import Path
from typing import Annotated

import typer


class Schedule(enum.StrEnum):
    """How the teacher is asked."""

    live = "live"
    batch = "batch"


class EngineName(enum.StrEnum):
    """Where partitions run."""

    local = "local"
    ray = "ray"


EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="Where ingest and sample run: processes here, or a Ray cluster.")
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        help="The Ray cluster, such as 10.0.0.5:6379; auto is the one this machine is in.",
    ),
]
RecipeArg = Annotated[
    Path,
    typer.Argument(help="The recipe, a YAML file; or the name of one that comes with the package.", show_default=False),
]
BuildArg = Annotated[Path, typer.Argument(help="A build folder, such as builds/quickstart/1.0.0.", show_default=False)]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where builds stand: OUTPUT/<name>/<version>.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", "-w", min=0, help="Processes and threads to use; 0 takes every core.")
]
ConcurrencyOption = Annotated[
    int,
    typer.Option("--concurrency", min=1, help="The most documents to ask about at once; the level is found below it."),
]
ScheduleOption = Annotated[
    Schedule, typer.Option("--schedule", help="Ask call by call, or in two waves through the provider's batch API.")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--teacher-url", help="Base URL of the teacher's server, when it is not the provider's own."),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout", min=1.0, help="Seconds that one live request may take before it is given up and sent again."
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", help="A price file of your own, over the one in the package.", show_default=False),
]
MaxUsdOption = Annotated[
    float | None,
    typer.Option(
        "--max-usd",
        min=0.0,
        help="Dollars that the whole build may cost, earlier runs included; it stops before it would cost more.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="A trial: take at most this many documents, into a build of its own, NAME-limit-N."
    ),
]
