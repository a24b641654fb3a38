"""Questions that people ask of builds, by name.

Each is a file `named/<name>.sql`: a comment that says what is asked, and one SELECT over the views of `sql.connect`. They
read lengths, labels and counts, never texts or token ids; the question about repeated questions reads these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_data.errors import UserError
from longalign_data.explore.sql import Result, literal, quoted, run_query

if TYPE_CHECKING:
    import duckdb

FOLDER = Path(__file__).parent / "named"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A named question: what it asks, and its SQL."""

    name: str
    asks: str
    text: str


def questions() -> Mapping[str, Question]:
    """Every question, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.sql")):
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        found[path.stem] = Question(name=path.stem, asks=first.removeprefix("--").strip(), text=text.strip())
    return found


def answer(connection: "duckdb.DuckDBPyConnection", name: str, builds: Sequence[str] = ()) -> Result:
    """The result of a question. Of the builds that `connect` was given by name, each is asked by itself, and the first
    column, `build`, names it. Raises UserError, naming the questions, when there is none of this name."""
    known = questions()
    if name not in known:
        raise UserError(f"no question is called {name!r}; there are: {', '.join(known)}")
    text = known[name].text
    if not builds:
        return run_query(connection, text)
    try:
        for number, build in enumerate(builds):
            # Only the schema that is current says which build a bare table name means.
            connection.execute(f"set schema = {literal(build)}")
            connection.execute(f"create or replace temp table answer_{number} as {text}")
    finally:
        connection.execute("set schema = 'main'")
    parts = [
        f"select {literal(build)} as {quoted('build')}, * from answer_{number}"  # noqa: S608 - quoted
        for number, build in enumerate(builds)
    ]
    return run_query(connection, " union all ".join(parts))
