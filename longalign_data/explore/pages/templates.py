"""The templates of report and explorer: every value is escaped, and made visible first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_data.explore.pages.text import breakable
from longalign_data.explore.plain import shorten, visible
from longalign_data.explore.show import excerpt
from longalign_data.sources.extras import extra

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
BASE_CSS = HERE / "base.css"


def environment(folder: Path, *, purpose: str) -> "jinja2.Environment":
    """Templates of `folder` and the shared ones. Raises MissingExtraError when jinja2 is not installed."""
    jinja = extra("jinja2", package="jinja2", extra="look", purpose=purpose)
    found: jinja2.Environment = jinja.Environment(
        loader=jinja.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["numeric_columns"] = _numeric_columns
    found.filters["plain"] = _plain
    found.filters["shown"] = _shown
    found.filters["brief"] = lambda text, width: shorten(breakable(text), width)
    return found


def _plain(value: object) -> str:
    """Numbers grouped, text on one line with nothing hidden in it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return breakable(str(value))


def _shown(text: str, limit: int) -> str:
    """A text of several lines with nothing hidden in it, its middle left out where it is longer than `limit` (0: never)."""
    head, left_out, tail = excerpt(text, head=limit // 2, tail=limit // 2) if limit else (text, "", "")
    return visible(f"{head}\n[… {left_out} …]\n{tail}" if left_out else head)


def _numeric_columns(rows: Sequence[Sequence[object]]) -> list[bool]:
    """Which columns of a table hold numbers, as its last row says."""
    return [len(rows) > 1 and str(cell)[:1].isdigit() and number > 0 for number, cell in enumerate(rows[-1])]
