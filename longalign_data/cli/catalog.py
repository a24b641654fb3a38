"""`longalign catalog`: the sources that come with the project."""

from pathlib import Path
from typing import Annotated

import typer

catalog_app = typer.Typer(help="The sources that come with longalign.", no_args_is_help=False)


def register(app: typer.Typer) -> None:
    """Adds the group `catalog`."""
    app.add_typer(catalog_app, name="catalog")


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
