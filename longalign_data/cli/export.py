"""`longalign export`: a build in the format of another trainer."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from longalign_data.cli.arguments import BuildArg


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(export)


class ExportFormat(enum.StrEnum):
    """What is written."""

    messages = "messages"
    mds = "mds"


def export(
    build_path: BuildArg,
    format_: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            "-f",
            help="messages: conversations as JSON lines; mds: packs for mosaicml-streaming, as ProLong reads them.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="A folder to write to.", show_default=False)],
) -> None:
    """Write a build for another trainer: its conversations, or its packs."""
    from longalign_data.export.mds import export_mds
    from longalign_data.export.messages import export_messages
    from longalign_data.shards.folder import open_build

    write = {ExportFormat.messages: export_messages, ExportFormat.mds: export_mds}[format_]
    place, count = write(open_build(build_path), out)
    typer.echo(f"{place}: {count:,} {'conversations' if format_ is ExportFormat.messages else 'packs'}")
