"""Statements typed by a person, or read from a file, one after the other, with their results."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from longalign_data.errors import UserError
from longalign_data.explore.plain import visible
from longalign_data.explore.results import render
from longalign_data.explore.sql import columns_of, run_query, schema_of, views_of

if TYPE_CHECKING:
    import duckdb


def prompt(
    connection: "duckdb.DuckDBPyConnection",
    *,
    source: TextIO | None = None,
    out: TextIO | None = None,
    errors: TextIO | None = None,
    format: str = "table",  # noqa: A002
) -> int:
    """Reads statements from `source` (None: standard input) until its end or `.quit` and writes their results to `out`
    (None: standard output), what went wrong to `errors` (None: to `out`). Returns how many statements failed.

    A statement ends with `;` and may run over lines; the last one of a file needs none. `.tables`, `.schema TABLE`,
    `.help` and `.quit` are commands. On a terminal it prompts, with line editing and completion of names where Python
    has readline; Ctrl-C drops the statement, Ctrl-D leaves.
    """
    source, out = source or sys.stdin, out or sys.stdout
    interactive = source is sys.stdin and source.isatty()
    if interactive:
        _use_readline(connection)
        out.write(f"Tables: {', '.join(views_of(connection))}\nEnd a statement with ;  More: .help\n")
    failed = 0
    for request in _requests(connection, _Lines(source, interactive=interactive)):
        if request in (".quit", ".exit"):
            break
        try:
            _answer(connection, request, out, format)
        except UserError as error:
            failed += 1
            (errors or out).write(f"{visible(str(error))}\n")
        except KeyboardInterrupt:
            if not interactive:
                raise
            connection.interrupt()
            out.write("stopped\n")
    return failed


HELP = """\
.tables           the tables of this build
.schema TABLE     the columns of a table
.quit             leave (also Ctrl-D)
SELECT ...;       any DuckDB statement that writes no file; it may run over several lines
"""


class _Lines:
    """Lines from a file or from a person; `None` when the person pressed Ctrl-C."""

    def __init__(self, source: TextIO, *, interactive: bool) -> None:
        self._source = source
        self._interactive = interactive

    def read(self, *, goes_on: bool) -> str | None:
        """The next line with its line end; empty at the end."""
        if not self._interactive:
            return self._source.readline()
        try:
            return input("      ...> " if goes_on else "longalign> ") + "\n"
        except EOFError:
            return ""
        except KeyboardInterrupt:
            return None


def _requests(connection: "duckdb.DuckDBPyConnection", lines: _Lines) -> Iterator[str]:
    """Whole statements and dot commands, stripped."""
    pending = ""
    while (line := lines.read(goes_on=bool(pending))) != "":
        if line is None:
            pending = ""
        elif not pending and line.lstrip().startswith("."):
            yield line.strip()
        else:
            pending = (pending + line).lstrip()
            if line.rstrip().endswith(";") and not _is_open(connection, pending):
                yield pending.rstrip()
                pending = ""
    if pending:
        yield pending.rstrip()


def _answer(connection: "duckdb.DuckDBPyConnection", request: str, out: TextIO, format: str) -> None:  # noqa: A002
    words = request.split()
    if not request.startswith("."):
        render(run_query(connection, request), format=format, out=out)
    elif words[0] == ".tables":
        out.write("".join(f"{name}\n" for name in views_of(connection)))
    elif words[0] == ".schema" and len(words) == 2:
        columns = schema_of(connection, words[1])
        wide = max(len(name) for name, _ in columns)
        out.write("".join(f"{name:<{wide}}  {kind}\n" for name, kind in columns))
    elif words[0] == ".help":
        out.write(HELP)
    else:
        raise UserError(f"no command {request!r}; there are: .tables, .schema TABLE, .help, .quit")


def _is_open(connection: "duckdb.DuckDBPyConnection", text: str) -> bool:
    """Whether the `;` at the end of the text stands inside quotes or a comment."""
    import duckdb

    try:
        connection.extract_statements(text)
    except duckdb.ParserException as error:
        return "unterminated" in str(error)
    return False


def _use_readline(connection: "duckdb.DuckDBPyConnection") -> None:
    try:
        import readline
    except ImportError:
        return
    names = sorted({name for view in views_of(connection) for name in (view, *columns_of(connection, view))})

    def complete(start: str, state: int) -> str | None:
        found = [name for name in names if name.startswith(start)]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
