"""`longalign decontam`: indexes of benchmarks that must not be trained on."""

from pathlib import Path
from typing import Annotated

import typer

decontam_app = typer.Typer(help="Indexes of benchmarks that must not be trained on.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the group `decontam`."""
    app.add_typer(decontam_app, name="decontam")


@decontam_app.callback()
def _group() -> None:
    """Indexes of benchmarks that must not be trained on."""


@decontam_app.command("index")
def decontam_index(
    files: Annotated[list[Path], typer.Argument(help="Benchmark files: .jsonl, .json, .txt, .md, plain or .gz.")],
    out: Annotated[Path, typer.Option("--out", help="The index to write, such as benchmarks.npz.", show_default=False)],
) -> None:
    """Hash the benchmark FILES into an index without text, for `curate.decontaminate.index` in a recipe."""
    from longalign_data.curation.decontamination import write_index

    made = write_index(files, out)
    typer.echo(
        f"{out}: {made.num_hashes:,} hashes of {made.num_items:,} texts (not counted: {made.num_repeated:,} repeated, "
        f"{made.num_short:,} too short, {made.num_common:,} of nothing but what stands in many others)"
    )
