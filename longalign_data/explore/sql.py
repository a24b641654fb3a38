"""SQL over the tables of a build, by DuckDB.

In: one build, or several by name. Out: a connection with a view for every table, and results, which `results` writes as
a table for people or as CSV, JSON or Parquet for programs. Example:

    select task, count(*), avg(num_answer_tokens) from samples group by task

Views read the shards where they stand, and only the columns that a query names. The builds cannot be changed from here:
statements that write files are refused.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longalign_data.errors import BuildError, UserError
from longalign_data.explore.plain import one_line, shorten
from longalign_data.explore.recorded import about, stage_reports
from longalign_data.records import TABLES
from longalign_data.shards.folder import BuildFolder

if TYPE_CHECKING:
    import duckdb

FURTHER = ("evidence", "targets", "stages", "left_out", "about")
"""Views besides the tables: places of evidence, what the sampler was asked for and had, counts of the stages, what was left
out on purpose, and single settings by their keys."""

BATCH_ROWS = 1024


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
        raise UserError(f"no table {table!r}; there are: {', '.join(views_of(connection))}") from None
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


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


def views_of(connection: "duckdb.DuckDBPyConnection") -> list[str]:
    """The names of all views, those of `main` bare and in the order of the stages."""
    rows = connection.sql("select schema_name, view_name from duckdb_views() where not internal").fetchall()
    order = [*TABLES, *FURTHER]
    rows.sort(key=lambda row: (row[0] != "main", row[0], order.index(row[1]) if row[1] in order else len(order)))
    return [name if schema == "main" else f"{schema}.{name}" for schema, name in rows]


def columns_of(connection: "duckdb.DuckDBPyConnection", table: str) -> list[str]:
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

    views = views_of(connection)
    if isinstance(error, duckdb.CatalogException) and "Table" in str(error):
        return f"\nTables: {', '.join(views)}"
    if isinstance(error, duckdb.BinderException):
        named = [view for view in views if re.search(rf"\b{re.escape(view)}\b", text)]
        return "".join(f"\nColumns of {view}: {', '.join(columns_of(connection, view))}" for view in named)
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
