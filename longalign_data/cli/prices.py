"""The price file that a command uses, with a word when it has grown old."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from longalign_data.recipe import TeacherChoice
    from longalign_data.teachers.prices import Prices


def known_prices(override: Path | None, choice: "TeacherChoice | None" = None) -> "Prices":
    """The package's prices with the user's over them. Warns on standard error when they are old, unless the teacher
    `choice` is free or has no price anyway."""
    import datetime

    from longalign_data.teachers.prices import load_prices
    from longalign_data.teachers.table import PROVIDERS

    prices = load_prices(override)
    matters = choice is None or (
        not PROVIDERS[choice.provider].is_free and prices.rate(choice.provider, choice.model) is not None
    )
    warning = prices.age_warning(datetime.datetime.now(datetime.UTC).date()) if matters else None
    if warning:
        typer.echo(f"longalign: {warning}", err=True)
    return prices
