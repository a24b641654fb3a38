"""`longalign verify`, `why` and `remove`: what a build is, where a sample comes from, a version without something."""

import typer

from longalign_data.cli.arguments import BuildArg


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (verify,):
        app.command()(command)


def verify(build_path: BuildArg) -> None:
    """Check every hash, row count and invariant of a build against its manifest.

    Exit code 1 when something is not as it must be; each fault names its file and what to do.
    """
    from rich.console import Console

    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.publish.verify import verify as check
    from longalign_data.shards.folder import open_build

    with TerminalProgress(Console(stderr=True)) as progress:
        found = check(open_build(build_path), progress)
    for fault in found.faults:
        typer.echo(f"{build_path / fault.where}: {fault.what}; {fault.remedy}")
    rows = ", ".join(f"{table} {count:,}" for table, count in found.rows.items())
    typer.echo(f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB; rows: {rows}")
    typer.echo(f"{len(found.faults):,} faults" if found.faults else "everything is as the manifest says")
    if found.faults:
        raise SystemExit(1)
