"""SQL over the tables of a build, by DuckDB.

In: one build, or several by name. Out: a connection with a view for every table, and results as a table for people or
as CSV, JSON or Parquet for programs. Example:

    select task, count(*), avg(num_answer_tokens) from samples group by task

Views read the shards where they stand, and only the columns that a query names. The builds cannot be changed from here:
statements that write files are refused.
"""

import contextlib
import csv
import datetime
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.errors import BuildError, UserError
from longalign_data.explore.plain import one_line, shorten, visible
from longalign_data.explore.recorded import about, stage_reports
from longalign_data.records import TABLES
from longalign_data.shards.files import whole_file
from longalign_data.shards.folder import BuildFolder

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "csv", "json", "parquet")

FURTHER = ("evidence", "targets", "stages", "left_out", "about")
"""Views besides the tables: places of evidence, what the sampler was asked for and had, counts of the stages, what was left
out on purpose, and single settings by their keys."""

BATCH_ROWS = 1024
CELL_WIDTH = 60
TABLE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave: column names (each once: a second `x` is `x_1`), their DuckDB types, and the rows, which can
    be read once and before the connection is used again."""

    columns: Sequence[str]
    types: Sequence[str]
    _reader: pa.RecordBatchReader
    _explained: Callable[[Exception], UserError]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow batches of at most 1,024. Raises UserError with DuckDB's message, and BuildError, which names
        the file, when a shard turns out to be damaged."""
        import duckdb

        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise self._explained(error) from None
            yield batch

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows as Python values, in column order."""
        for batch in self.batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows, with the names of `columns`."""
        return pa.schema([field.with_name(name) for field, name in zip(self._reader.schema, self.columns, strict=True)])


def connect(builds: Mapping[str, BuildFolder] | BuildFolder) -> "duckdb.DuckDBPyConnection":
    """A connection in memory with a view for every table of `records.TABLES`, and those of `FURTHER`.

    A table that the build does not hold is an empty view with the right columns. Of several builds, each table is to be
    had by itself as `"<name>".samples`, and all together as `samples` with the name in the first column, `build`.
    Raises BuildError when a shard is torn; damage further inside shows when its rows are read (`reading`).
    """
    import duckdb

    # Neither a file that the query names nor a missing feature may reach for the network.
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    folders = {"main": builds} if isinstance(builds, BuildFolder) else dict(builds)
    if not isinstance(builds, BuildFolder) and (taken := _RESERVED.intersection(folders)):
        raise UserError(f"a build cannot be called {min(taken)!r} in SQL: DuckDB uses that name; choose another")
    try:
        for name, build in folders.items():
            connection.execute(f"create schema if not exists {quoted(name)}")
            for table in TABLES:
                body = _table_body(build, table)
                view = f"{quoted(name)}.{quoted(table)}"
                connection.execute(f"create view {view} as {body}")
                # Where the rows come from, for `_damage`.
                connection.execute(f"comment on view {view} is {literal(str(build.root.absolute()))}")
            for view, body in _further(build, name):
                connection.execute(f"create view {quoted(name)}.{quoted(view)} as {body}")
    except duckdb.Error as error:
        found = _damage_in(connection, build, table)
        connection.close()
        raise found or BuildError(f"{build.root / table}: cannot be read: {error}") from None
    if not isinstance(builds, BuildFolder):
        for table in (*TABLES, *FURTHER):
            parts = [
                f"select {literal(name)} as build, * from {quoted(name)}.{quoted(table)}"  # noqa: S608 - quoted
                for name in folders
            ]
            connection.execute(f"create view main.{quoted(table)} as {' union all '.join(parts)}")
    return connection


@contextlib.contextmanager
def reading(connection: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    """Around queries of our own over what `connect` opened: an error in them is a BuildError, which names the damaged file
    and what to remove."""
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _damage(connection) or BuildError(f"the build cannot be read: {error}") from None


def run_query(connection: "duckdb.DuckDBPyConnection", text: str) -> Result:
    """The result of the last statement in `text`, after running those before it.

    Raises UserError with DuckDB's own message and the known tables or columns; also for statements that would write
    files, attach databases or load extensions, and when there is no statement at all. Raises BuildError for a damaged
    shard.
    """
    import duckdb

    def explained(error: Exception) -> UserError:
        wrong_words = isinstance(error, duckdb.CatalogException | duckdb.BinderException | duckdb.ParserException)
        found = None if wrong_words else _damage(connection, text)
        return found or UserError(f"{error}{_hint(connection, text, error)}")

    try:
        statements = connection.extract_statements(text)
        if not statements:
            raise UserError(f"nothing to run in {shorten(text.strip(), 60)!r}; for example: from samples limit 3")
        for statement in statements:
            _refuse_writing(statement)
        for statement in statements[:-1]:
            connection.sql(statement.query)
        relation = connection.sql(statements[-1].query)
        types = [str(kind) for kind in relation.types]
        return Result(_unique(relation.columns), types, relation.to_arrow_reader(BATCH_ROWS), explained)
    except duckdb.Error as error:
        raise explained(error) from None


def schema_of(connection: "duckdb.DuckDBPyConnection", table: str) -> Sequence[tuple[str, str]]:
    """Column names of a view with their DuckDB types. Raises UserError, naming the tables, when there is none."""
    import duckdb

    try:
        name = ".".join(quoted(part) for part in table.split("."))
        relation = connection.sql(f"select * from {name}")  # noqa: S608 - every part is quoted
    except duckdb.Error:
        raise UserError(f"no table {table!r}; there are: {', '.join(_views(connection))}") from None
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


def render(
    result: Result,
    *,
    format: str,  # noqa: A002 - the word the command line uses
    out: TextIO | Path | None = None,
    width: int | None = None,
    full: bool = False,
    max_rows: int | None = TABLE_ROWS,
) -> int:
    """Writes the result and returns how many rows were written.

    `table` is for people: numbers grouped and to the right, texts and lists cut to 60 characters unless `full`, at most
    `max_rows` rows (None: all), one row below the other when the columns do not fit into `width` (None: the terminal's).
    `csv`, `json` (one array of objects) and `parquet` hold every row and value whole; lists and structs are JSON in CSV.
    `out` is a file by path, which is written whole or not at all and which Parquet needs, or a stream (None: standard
    output). Raises UserError, for an unknown format too.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    out = sys.stdout if out is None else out
    if isinstance(out, Path):
        with whole_file(out) as temporary:
            if format == "parquet":
                return _write_parquet(result, temporary)
            with temporary.open("w", encoding="utf-8", newline="") as file:
                return render(result, format=format, out=file, width=width, full=full, max_rows=max_rows)
    if format == "parquet":
        raise UserError("a Parquet result needs a file to go to: name one with --out FILE")
    if format == "csv":
        return _write_csv(result, out)
    if format == "json":
        return _write_json(result, out)
    return _write_table(result, out, width=width, full=full, max_rows=max_rows)


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
        out.write(f"Tables: {', '.join(_views(connection))}\nEnd a statement with ;  More: .help\n")
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
        out.write("".join(f"{name}\n" for name in _views(connection)))
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
    names = sorted({name for view in _views(connection) for name in (view, *_columns(connection, view))})

    def complete(start: str, state: int) -> str | None:
        found = [name for name in names if name.startswith(start)]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _table_body(build: BuildFolder, table: str) -> str:
    """The SELECT behind a view. A folder called `[a]*` is a folder, not a pattern, and `lang=zh` is no partition."""
    shards = build.shards(table)
    if not shards:
        schema = TABLES[table][1]
        nothing = ", ".join(f"cast(null as {_sql_type(field.type)}) as {quoted(field.name)}" for field in schema)
        return f"select {nothing} where false"
    return _rows_of(shards)


def _sql_type(kind: pa.DataType) -> str:
    """DuckDB's name for a type of `records`. Asking DuckDB for it would make it import pandas, which takes longer than most
    queries."""
    if pa.types.is_struct(kind):
        return f"struct({', '.join(f'{quoted(field.name)} {_sql_type(field.type)}' for field in kind)})"
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    return _SQL_TYPES[kind]


_SQL_TYPES = {pa.string(): "varchar", pa.int32(): "integer", pa.int64(): "bigint", pa.float64(): "double"}


def _further(build: BuildFolder, schema: str) -> Iterator[tuple[str, str]]:
    """The names and SELECTs of the views of `FURTHER`."""
    reports = stage_reports(build)
    yield (
        "evidence",
        f"""
        select sample_id, task, place.doc_id, place.start, place."end",
               place.start / greatest(1, span."end" - span.start) as depth
        from (
            select sample_id, task, place, document_spans[list_position(doc_ids, place.doc_id)] as span
            from (select sample_id, task, doc_ids, document_spans, unnest(checks.evidence) as place from {quoted(schema)}.samples)
        )
        """,  # noqa: S608 - quoted
    )
    sampled = reports["sample"].details if "sample" in reports else {}
    noted = [cell for name in ("cells", "sources") if isinstance(cells := sampled.get(name), list) for cell in cells]
    cells = [
        (*(str(cell.get(key) or "") for key in ("lang", "source", "bucket")), *(cell.get(key) for key in _CELL))
        for cell in noted
        if isinstance(cell, dict)
    ]
    yield (
        "targets",
        _values({"lang": "text", "source": "text", "bucket": "text"} | dict.fromkeys(_CELL, "bigint"), cells),
    )
    counts = ("num_in", "num_out", "num_rejected", "num_left_out", "num_tokens")
    yield (
        "stages",
        _values(
            {"stage": "text"} | dict.fromkeys(counts, "bigint") | {"seconds": "double"},
            [
                (report.stage, *(getattr(report, name) for name in counts), report.seconds)
                for report in reports.values()
            ],
        ),
    )
    left = [(report.stage, *item) for report in reports.values() for item in report.left_out.items()]
    yield "left_out", _values({"stage": "text", "reason": "text", "number": "bigint"}, left)
    yield "about", _values({"key": "text", "value": "text"}, list(about(build)))


_CELL = ("target", "achieved", "available")


def _values(columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> str:
    """A SELECT of these rows. A value that is no number where one belongs is NULL."""
    heads = ", ".join(f"try_cast({quoted(name)} as {kind}) as {quoted(name)}" for name, kind in columns.items())
    names = ", ".join(quoted(name) for name in columns)
    lines = ", ".join(
        f"({', '.join('null' if value is None else literal(str(value)) for value in row)})" for row in rows
    )
    nothing = f"({', '.join('null' for _ in columns)})"
    return f"select {heads} from (values {lines or nothing}) as given({names}){'' if rows else ' where false'}"  # noqa: S608


def _rows_of(shards: Sequence[Path]) -> str:
    paths = ", ".join(literal(re.sub(r"([*?\[])", r"[\1]", str(path.absolute()))) for path in shards)
    return f"select * from read_parquet([{paths}], hive_partitioning = false)"  # noqa: S608 - the paths are literals


def _damage(connection: "duckdb.DuckDBPyConnection", text: str | None = None) -> BuildError | None:
    """The first shard that cannot be read, of the tables that a query names (None: of all). DuckDB's own words often name
    no file, so every shard is read again, alone."""
    views = connection.cursor().execute(
        "select view_name, comment from duckdb_views() where not internal and comment is not null"
    )
    for table, root in views.fetchall():
        if text is None or re.search(rf"\b{re.escape(table)}\b", text, re.IGNORECASE):
            found = _damage_in(connection, BuildFolder(Path(root)), table)
            if found is not None:
                return found
    return None


def _damage_in(connection: "duckdb.DuckDBPyConnection", build: BuildFolder, table: str) -> BuildError | None:
    import duckdb

    for shard in build.shards(table):
        try:
            for _ in connection.cursor().sql(_rows_of([shard])).to_arrow_reader(BATCH_ROWS):
                pass
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            remove = shard.parent
            if table == "rejects":
                # No stage stops standing for want of its rejects, so it is its report that has to go.
                report = build.report(shard.name.rpartition("-")[0])
                remove = report if report.is_file() else shard
            return BuildError(
                f"{shard}: the file is damaged ({one_line(str(error))}); "
                f"remove {remove} and run `longalign build` again, which makes it anew"
            )
    return None


def _views(connection: "duckdb.DuckDBPyConnection") -> list[str]:
    """The names of all views, those of `main` bare and in the order of the stages."""
    rows = connection.sql("select schema_name, view_name from duckdb_views() where not internal").fetchall()
    order = [*TABLES, *FURTHER]
    rows.sort(key=lambda row: (row[0] != "main", row[0], order.index(row[1]) if row[1] in order else len(order)))
    return [name if schema == "main" else f"{schema}.{name}" for schema, name in rows]


def _columns(connection: "duckdb.DuckDBPyConnection", table: str) -> list[str]:
    return [name for name, _ in schema_of(connection, table)]


_RESERVED = frozenset(["main", "temp", "system", "memory", "information_schema", "pg_catalog"])

_ALLOWED = frozenset(
    [
        "SELECT",
        "EXPLAIN",
        "MULTI",
        "CREATE",
        "INSERT",
        "UPDATE",
        "DELETE",
        "DROP",
        "ALTER",
        "SET",
        "PRAGMA",
        "TRANSACTION",
    ]
)
"""Kinds of statement that touch nothing outside the connection's memory."""

_READS = frozenset(
    ["select", "from", "with", "values", "describe", "show", "summarize", "pivot", "unpivot", "create", "("]
)
"""How a statement must begin whose kind does not tell what it does: EXPLAIN ANALYZE runs what it explains, and
everything around a PIVOT, a COPY too, is MULTI."""


def _refuse_writing(statement: Any) -> None:
    kind = statement.type.name
    if kind in ("EXPLAIN", "MULTI"):
        bare = _without_comments(statement.query)
        bare = re.sub(r"^\s*explain\b\s*(analyze\b\s*)?(\([^()]*\)\s*(?=\w))?", "", bare, flags=re.IGNORECASE)
        first = re.match(r"\s*(\w+|\()", bare)
        allowed = first is not None and first.group(1).lower() in _READS
    else:
        allowed = kind in _ALLOWED
    if not allowed:
        raise UserError(
            f"{shorten(one_line(statement.query), 60)!r} was not run: a build is only read here. To keep a result, use "
            "--format csv, json or parquet with --out FILE"
        )


def _without_comments(text: str) -> str:
    """A statement as DuckDB sees it; only DuckDB knows where its comments end, which may hold others."""
    import duckdb

    data = text.encode()
    tokens = duckdb.tokenize(text)
    ends = [*(begin for begin, _ in tokens[1:]), len(data)]
    return " ".join(
        data[begin:end].decode()
        for (begin, kind), end in zip(tokens, ends, strict=True)
        if kind is not duckdb.token_type.comment
    )


def _hint(connection: "duckdb.DuckDBPyConnection", text: str, error: Exception) -> str:
    """For an unknown name: the names that there are."""
    import duckdb

    views = _views(connection)
    if isinstance(error, duckdb.CatalogException) and "Table" in str(error):
        return f"\nTables: {', '.join(views)}"
    if isinstance(error, duckdb.BinderException):
        named = [view for view in views if re.search(rf"\b{re.escape(view)}\b", text)]
        return "".join(f"\nColumns of {view}: {', '.join(_columns(connection, view))}" for view in named)
    return ""


def _unique(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number, candidate = 0, name
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def _write_parquet(result: Result, path: Path) -> int:
    schema = result.schema
    written = 0
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in result.batches():
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                written += batch.num_rows
    except pa.ArrowException as error:
        raise UserError(f"the result cannot be written as Parquet: {error}; cast the column to text") from None
    return written


def _write_csv(result: Result, out: TextIO) -> int:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.columns)
    written = 0
    for row in result.rows():
        writer.writerow(
            json.dumps(_json(v), ensure_ascii=False) if isinstance(v, list | dict) else _json(v) for v in row
        )
        written += 1
    return written


def _write_json(result: Result, out: TextIO) -> int:
    out.write("[")
    written = 0
    for row in result.rows():
        record = {name: _json(value) for name, value in zip(result.columns, row, strict=True)}
        out.write(("," if written else "") + "\n" + json.dumps(record, ensure_ascii=False, allow_nan=False))
        written += 1
    out.write("\n]\n")
    return written


def _json(value: Any) -> Any:
    """A value that JSON can say: sums are whole numbers, what has no number is null, the rest is text."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _write_table(result: Result, out: TextIO, *, width: int | None, full: bool, max_rows: int | None) -> int:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    full = full or "explain_value" in result.columns
    rows: list[list[str]] = []
    more = False
    for row in result.rows():
        if max_rows is not None and len(rows) == max_rows:
            more = True
            break
        rows.append([_cell(value, full) for value in row])
    heads = [one_line(name) for name in result.columns]
    numeric = [_is_numeric(kind) for kind in result.types]
    natural = [
        max(cell_len(head), *(cell_len(line) for row in rows for line in row[i].split("\n") or [""]), 1)
        for i, head in enumerate(heads)
    ]
    least = sum(w if numeric[i] else min(w, max(12, cell_len(heads[i]))) for i, w in enumerate(natural))
    if least + 2 * len(heads) <= console.width:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for head, number, wide in zip(heads, numeric, natural, strict=True):
            overflow: Literal["fold", "ellipsis"] = "fold" if full else "ellipsis"
            table.add_column(
                Text(head),
                justify="right" if number else "left",
                min_width=wide if number else min(wide, max(12, cell_len(head))),
                no_wrap=not full,
                overflow=overflow,
            )
        for cells in rows:
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    else:
        label = max(cell_len(head) for head in heads)
        for count, cells in enumerate(rows, 1):
            console.print(Text(f"row {count}", style="bold"))
            for head, cell in zip(heads, cells, strict=True):
                line = Text(f"  {head:<{label}}  {cell}")
                console.print(line, no_wrap=not full, overflow="fold" if full else "ellipsis")
    counted = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    note = f"the first {counted}; there are more: add LIMIT, or --format csv for all" if more else counted
    console.print(Text(f"({note})", style="dim"))
    return len(rows)


def _is_numeric(kind: str) -> bool:
    return re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|UINTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)", kind) is not None


def _cell(value: Any, full: bool) -> str:
    if isinstance(value, str):
        return visible(value) if full else shorten(one_line(value), CELL_WIDTH)
    text = _plain(value, full)
    return text if full else shorten(text, CELL_WIDTH)


def _plain(value: Any, full: bool) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return f"{int(value):,}"
    if isinstance(value, float | Decimal):
        return _number(float(value))
    if isinstance(value, str):
        return one_line(value) if full else shorten(one_line(value), 24)
    if isinstance(value, list | tuple):
        shown = value if full else value[:3]
        rest = f", … {len(value):,} in all" if len(shown) < len(value) else ""
        return f"[{', '.join(_plain(item, full) for item in shown)}{rest}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{one_line(str(key))}: {_plain(item, full)}" for key, item in value.items()) + "}"
    return one_line(str(_json(value)))


def _number(value: float) -> str:
    """A float for people: grouped, with as many decimals as matter at its size."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size >= 1000:
        return f"{value:,.1f}"
    if size >= 1e-3 or size == 0:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:.3g}"
