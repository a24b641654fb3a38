"""`longalign publish` and `rehydrate`: a build onto the Hugging Face Hub, and one from there made whole."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longalign_data.cli.arguments import BuildArg, OutputOption, WorkersOption
from longalign_data.errors import UserError

if TYPE_CHECKING:
    from longalign_data.publish.contents import Publication

LISTED = 20


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (publish, rehydrate):
        app.command()(command)


def publish(
    build_path: BuildArg,
    repo_id: Annotated[str, typer.Argument(help="The repository on the Hub, ORG/NAME.", show_default=False)],
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables", help="Tables to publish, such as samples,packs,plan; all without it.", show_default=False
        ),
    ] = None,
    without_documents: Annotated[
        bool,
        typer.Option("--without-documents", help="Publish questions, answers and references, and no document's text."),
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public; it is private without it.")
    ] = False,
    secrets_reviewed: Annotated[
        bool, typer.Option("--secrets-reviewed", help="The listed findings were looked at and are no secrets.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload; without it the command only says what it would do.")
    ] = False,
) -> None:
    """Show what of BUILD would be published, with sizes, licences, terms and the card; with --yes, upload it.

    The token is read from HF_TOKEN, the address of another Hub from HF_ENDPOINT. Cut off, the same command sends what is
    missing.
    """
    from longalign_data.publish.contents import prepare_publication
    from longalign_data.publish.upload import publish as upload
    from longalign_data.shards.folder import open_build

    _require_name(repo_id)
    build = open_build(build_path)
    token = os.environ.get("HF_TOKEN")
    if yes and not token:
        raise UserError("publishing needs a token that may write; set HF_TOKEN (huggingface.co/settings/tokens)")
    with build.lock():
        staging = build.work("publish")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            found = prepare_publication(
                build,
                repo_id,
                tables=None if tables is None else [one.strip() for one in tables.split(",")],
                without_documents=without_documents,
                staging=staging,
                workers=os.cpu_count() or 1,
            )
            _print(found, public=public)
            refusals = [*found.refusals, *([] if secrets_reviewed else _about_leaks(found))]
            if refusals:
                raise UserError("not to be published:\n" + "\n".join(f"- {refusal}" for refusal in refusals))
            if not yes:
                typer.echo("\nNothing was uploaded. The same command with --yes does.")
                return
            done = upload(
                found,
                token=token,
                endpoint=os.environ.get("HF_ENDPOINT"),
                private=not public,
                say=lambda line: typer.echo(line, err=True),
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    typer.echo(
        f"{done.url} at {found.tag}: {done.sent_files:,} files sent ({done.sent_bytes / 1e6:,.1f} MB), "
        f"{done.standing_files:,} stood there, {done.commits:,} commits"
    )


def rehydrate(
    copy: Annotated[
        Path, typer.Argument(help="A downloaded copy of what was published without documents.", show_default=False)
    ],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Where your copy of a source is, ID=PATH; once for each.", show_default=False),
    ] = None,
    output: OutputOption = Path("builds"),
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="The trainee's tokenizer, where it is a file.", show_default=False)
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on without documents that are not found, and their samples.")
    ] = False,
    workers: WorkersOption = 0,
) -> None:
    """Put the documents back into a copy that was published without them, from your own corpus, and pack it."""
    from rich.console import Console

    from longalign_data.build.rehydrate import rehydrate as put_back
    from longalign_data.cli.progress import TerminalProgress
    from longalign_data.engine import RunOptions
    from longalign_data.shards.folder import open_build

    places = {}
    for one in source or ():
        id_, separator, path = one.partition("=")
        if not (separator and id_ and path):
            raise UserError(f"--source {one}: expected ID=PATH")
        places[id_] = path
    run = RunOptions(workers=workers or os.cpu_count() or 1)
    with TerminalProgress(Console(stderr=True)) as progress:
        done = put_back(
            open_build(copy), places, output, tokenizer=tokenizer, partial=partial, run=run, progress=progress
        )
    for name in sorted({*done.found, *done.missing}):
        typer.echo(f"{name}: {done.found.get(name, 0):,} documents put back, {done.missing.get(name, 0):,} not found")
    for table, same in done.same_bytes.items():
        typer.echo(f"{table}: {'the same bytes' if same else 'not the same bytes'} as the publisher's")
    typer.echo(f"{done.folder.root}\ncheck   longalign verify {done.folder.root}")


def _require_name(repo_id: str) -> None:
    """Raises UserError for a name that the Hub does not allow."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # the library re-exports it without saying so

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is no repository of the Hub: {error}") from error
    if "/" not in repo_id:
        raise UserError(f"{repo_id!r} is no repository of the Hub; expected ORG/NAME")


def _print(found: "Publication", *, public: bool) -> None:
    """What would be published, as a person wants to know it."""
    from longalign_data.shards.manifest import shards_of

    manifest = found.manifest
    typer.echo(f"{found.repo_id} ({'public' if public else 'private'}), version {found.tag}\n")
    for table in manifest["tables"]:
        shards = shards_of(manifest, table)
        rows, size = sum(shard.rows for shard in shards), sum(shard.bytes for shard in shards)
        typer.echo(f"  {table:<11} {rows:>12,} rows {len(shards):>5,} files {size / 1e6:>12,.1f} MB")
    typer.echo(f"  {'together':<11} {'':>12}      {len(found.files):>5,} files {found.num_bytes / 1e6:>12,.1f} MB\n")
    for source in (*manifest["cards"], *manifest["mix"]):
        allowed = "may be redistributed" if source["redistribute"] else "may NOT be redistributed"
        typer.echo(f"licence   {source['id']}: {source['license']}, {allowed}")
    teacher = manifest["teacher"]
    if teacher is not None:
        terms = teacher["terms"] or "not stated in the recipe"
        typer.echo(f"teacher   {teacher['model']} ({teacher['provider']}); terms: {terms}")
    for choice in manifest["mix"]:
        if choice["terms"]:
            typer.echo(f"terms     of the answers in {choice['id']}: {choice['terms']}")
    typer.echo(f"secrets   {len(found.leaks):,} findings")
    typer.echo(f"\n----- README.md -----\n{found.card.rstrip()}\n---------------------")


def _about_leaks(found: "Publication") -> list[str]:
    if not found.leaks:
        return []
    lines = [
        f"    {leak.file}{f', row {leak.row_id}, {leak.column}' if leak.row_id else ''}: {leak.rule}, "
        f"begins with {leak.beginning!r}"
        for leak in found.leaks[:LISTED]
    ]
    more = len(found.leaks) - LISTED
    if more > 0:
        lines.append(f"    and {more:,} more")
    return [
        f"{len(found.leaks):,} findings look like keys or passwords. Mask them (curate.secrets: {{action: mask, where: all}} in "
        "the recipe, and build again), take their rows out (longalign remove), or, where they are none, say "
        "--secrets-reviewed:\n" + "\n".join(lines)
    ]
