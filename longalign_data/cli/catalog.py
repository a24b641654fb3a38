"""`longalign catalog`: the sources that come with the project."""

from collections.abc import Mapping
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

    cards = [load_card(name, relative_to=Path())[0] for name in builtin_cards()]
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a program reads it, to which a line is an entry
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Ids are typed again, and licences acknowledged by their names: where room is short, titles give way.
    table.add_column("source", min_width=max(len(card.id) for card in cards))
    table.add_column("title", no_wrap=True, max_width=max(16, console.width - 80))
    table.add_column("lang", min_width=4)
    table.add_column("licence", overflow="fold", min_width=20)
    table.add_column("reader", min_width=max(len(card.reader.kind) for card in cards))
    for card in cards:
        table.add_row(card.id, card.title, card.lang, card.license, card.reader.kind)
    console.print(table)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _skipped(kind: str, counts: Mapping[str, int]) -> str:
    from longalign_data.explore.plain import one_line
    from longalign_data.sources.readers import BY_RULES

    if kind in BY_RULES:
        return "not counted: this reader chooses among all files"
    return ", ".join(f"{one_line(name)} {count:,}" for name, count in counts.items()) or "none"


@catalog_app.command("show")
def catalog_show(source: Annotated[str, typer.Argument(help="The id of a source, or the path of a card.")]) -> None:
    """Print one card, with how to obtain the corpus."""
    from longalign_data.catalog import load_card
    from longalign_data.yamlfile import read_text

    _, path = load_card(source, relative_to=Path())
    typer.echo(read_text(path).rstrip())


@catalog_app.command("check")
def catalog_check(
    source: Annotated[str, typer.Argument(help="The id of a source, or the path of a card.")],
    path: Annotated[str | None, typer.Option("--path", help="Your copy of the corpus: a file, folder or glob.")] = None,
    tokenizer: Annotated[str, typer.Option(help="Measures lengths, as in a recipe.")] = "qwen",
    partitions: Annotated[int, typer.Option(min=1, help="How many partitions to read.")] = 2,
    documents: Annotated[int, typer.Option(min=1, help="How many documents to read at most.")] = 2000,
) -> None:
    """Read the beginning of a corpus: is it what the card says, how fast, how long, and what is rejected."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from longalign_data.catalog import load_card
    from longalign_data.errors import RecipeError
    from longalign_data.recipe import PlacedSource
    from longalign_data.sources.checking import check
    from longalign_data.tokenizers import load_tokenizer

    card, file = load_card(source, relative_to=Path())
    place = path if path is not None else card.path
    if place is not None and not place.startswith("python:"):
        place = str((Path.cwd() if path is not None else file.resolve().parent) / Path(place).expanduser())
    elif place is None and not (card.reader.kind == "hub" and card.reader.dataset):
        raise RecipeError(f"{card.id}: --path is missing: where is your copy? {card.obtain or ''}".rstrip())
    found = check(
        PlacedSource(card=card, path=place),
        load_tokenizer(tokenizer),
        max_partitions=partitions,
        max_documents=documents,
    )
    seconds = max(found.seconds, 1e-9)
    names = ("least", "quarter", "median", "three quarters", "greatest")
    rows = [
        ("partitions", f"{found.num_partitions:,}, read the first {found.read_partitions:,}"),
        ("documents", f"{found.num_documents:,} ({_rate(found.num_documents / seconds)}/s)"),
        ("text", f"{found.num_bytes / 1e6:,.2f} MB ({found.num_bytes / 1e6 / seconds:,.2f} MB/s)"),
        ("tokens", ", ".join(f"{n} {v:,}" for n, v in zip(names, found.lengths, strict=False)) or "no document"),
        ("languages", ", ".join(f"{name} {count:,}" for name, count in found.languages.items())),
        ("by their texts", ", ".join(f"{name} {count:,}" for name, count in found.found_languages.items())),
        ("licences", ", ".join(f"{name} {count:,}" for name, count in found.licences.items())),
        ("titles", "; ".join(title for title in found.titles if title)),
        ("rejects", ", ".join(f"{name} {count:,}" for name, count in found.rejects.items()) or "none"),
        ("skipped files", _skipped(card.reader.kind, found.skipped)),
        *(("", f"{reject.reason}: {reject.detail[:300]}") for reject in found.examples),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, words in rows:
        table.add_row(name, Text(words))
    Console().print(table)
