"""`longalign verify`, `why` and `remove`: what a build is, where a sample comes from, a version without something."""

from typing import Annotated

import typer

from longalign_data.cli.arguments import BuildArg
from longalign_data.errors import UserError


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (verify, why, remove):
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


def why(
    build_path: BuildArg,
    sample_id: Annotated[str, typer.Argument(help="A sample id or its beginning.", show_default=False)],
) -> None:
    """Follow a sample from the bytes of its source to its place in the packs."""
    from longalign_data.explore.plain import visible
    from longalign_data.explore.why import trace
    from longalign_data.shards.folder import open_build

    for step in trace(open_build(build_path), sample_id):
        typer.echo(visible(f"{step.stage:<9} {step.what}"))


def remove(
    build_path: BuildArg,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="A source or mix set, with all of it.", show_default=False)
    ] = None,
    doc: Annotated[
        list[str] | None, typer.Option("--doc", help="A document id, with all samples of it.", show_default=False)
    ] = None,
    sample: Annotated[list[str] | None, typer.Option("--sample", help="A sample id.", show_default=False)] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", help="The new version; the next free patch number without it.", show_default=False),
    ] = None,
) -> None:
    """Make a new version of a build without some of it, and record that; packs are filled anew, nothing is asked again.

    Each option may stand several times. The old version stays as it is.
    """
    import re

    from rich.console import Console

    from longalign_data.build.removal import Wish
    from longalign_data.build.removal import remove as run_removal
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.engine import RunOptions
    from longalign_data.shards.folder import open_build

    if not (source or doc or sample):
        raise UserError("say what goes: --source ID, --doc ID or --sample ID")
    if version is not None and not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version):
        raise UserError(f"--version {version}: expected three numbers, such as 1.0.1")
    wish = Wish(sources=source or (), documents=doc or (), samples=sample or ())
    with TerminalProgress(Console(stderr=True)) as progress:
        done = run_removal(open_build(build_path), wish, version=version, run=RunOptions(), progress=progress)
    lost = ", ".join(
        f"{table} {rows:,}" for table, rows in done.rows.items() if rows and table not in ("packs", "plan")
    )
    typer.echo(f"{done.folder.root}: a new version; rows taken out: {lost or 'none'}; packs and plan were made anew")
    typer.echo(f"{build_path} still holds it, and so does its ledger; delete that folder to be rid of it here")
    typer.echo(f"check   longalign verify {done.folder.root}")
