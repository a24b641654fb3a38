"""A page of rows of a table: which columns there are, what the visitor asked for, and the rows.

In: the query string of a page, such as `?lang=zh&num_tokens=8000..&sort=-grounding&page=3`. Out: SQL in which every value is
a parameter and every name one of `COLUMNS`. Only the columns that are shown are read, so a page costs the same with long
texts as with short ones.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longalign_data.explore.plain import one_line
from longalign_data.explore.sql import quoted, reading

if TYPE_CHECKING:
    import duckdb

PAGE_ROWS = 50
CHOICES = 24
"""Up to so many values of a column are offered as a list; of more, one is typed."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `sql` says where it comes from. A `number` takes ranges (`8000..`, `..20`, `3..7`, `5`), a `label` one of
    its values, a `text` a part of it. Hidden columns can be filtered by and are shown on the sample's own page."""

    sql: str
    kind: str
    hidden: bool = False


Columns = Mapping[str, Column]

_SAMPLE: dict[str, Column] = {
    "question": Column("coalesce(questions[question_index + 1], '')", "text"),
    "task": Column("task", "label"),
    "lang": Column("lang", "label"),
    "source": Column("source", "label"),
    "num_tokens": Column("num_tokens", "number"),
    "num_answer_tokens": Column("num_answer_tokens", "number"),
    "evidence": Column("len(checks.evidence)", "number"),
    "cost_usd": Column("cost_usd", "number", hidden=True),
    "license": Column("license", "label", hidden=True),
    "stop_reason": Column("stop_reason", "label", hidden=True),
    "provider": Column("teacher.provider", "label", hidden=True),
    "model": Column("teacher.model", "label", hidden=True),
    "question_index": Column("question_index", "number", hidden=True),
    "documents": Column("len(doc_ids)", "number", hidden=True),
    "input_tokens": Column("usage.input_tokens", "number", hidden=True),
    "cache_read_tokens": Column("usage.cache_read_tokens", "number", hidden=True),
    "cache_write_tokens": Column("usage.cache_write_tokens", "number", hidden=True),
    "output_tokens": Column("usage.output_tokens", "number", hidden=True),
    "thinking_tokens": Column("usage.thinking_tokens", "number", hidden=True),
    "sample_id": Column("sample_id", "text", hidden=True),
    "doc_id": Column("array_to_string(doc_ids, ' ')", "text", hidden=True),
}
_SCORE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def sample_columns(connection: "duckdb.DuckDBPyConnection", table: str) -> Columns:
    """The columns of samples, with one for each score that any of them has."""
    with reading(connection):
        names = connection.execute(
            f"select distinct score.name from (select unnest(checks.scores) as score from {quoted(table)}) order by 1"  # noqa: S608
        ).fetchall()
    scores = {
        name: Column(
            f"[score.value for score in checks.scores if score.name = '{name}'][1]",
            "number",
            hidden=name != "grounding",
        )
        for (name,) in names
        if _SCORE.fullmatch(name) and name not in _SAMPLE
    }
    return _SAMPLE | scores


REJECTS: Columns = {
    "stage": Column("stage", "label"),
    "reason": Column("reason", "label"),
    "id": Column("id", "text"),
    "detail": Column("detail", "text"),
}
DOCUMENTS: Columns = {
    "title": Column("title", "text"),
    "source": Column("source", "label"),
    "lang": Column("lang", "label"),
    "license": Column("license", "label"),
    "num_tokens": Column("num_tokens", "number"),
    "num_chars": Column("num_chars", "number"),
    "source_ref": Column("source_ref", "text"),
    "doc_id": Column("doc_id", "text", hidden=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a visitor asked for. `filters` are as typed; `wrong` says what could not be understood and was left out."""

    filters: Mapping[str, str]
    sort: str
    falling: bool
    page: int
    wrong: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows `first` to `first + len(rows)` of `total`."""

    rows: Sequence[Mapping[str, Any]]
    first: int
    total: int
    pages: int


def asked(columns: Columns, query: Mapping[str, str], *, sort: str) -> Asked:
    """Reads a query string. What names no column or makes no sense is told, not guessed."""
    wrong = []
    filters = {}
    for name, value in query.items():
        if name in ("sort", "page") or not value.strip():
            continue
        if name not in columns:
            wrong.append(f"there is no column {one_line(name)!r}")
        elif columns[name].kind == "number" and _range(value) is None:
            wrong.append(f"{name}: {one_line(value)!r} is no number and no range such as 8000..16000")
        else:
            filters[name] = value.strip()
    by = query.get("sort") or sort
    if by.removeprefix("-") not in columns:
        wrong.append(f"there is no column {one_line(by)!r} to sort by")
        by = sort
    page = query.get("page") or "1"
    return Asked(
        filters=filters,
        sort=by.removeprefix("-"),
        falling=by.startswith("-"),
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
        wrong=wrong,
    )


def rows_of(
    connection: "duckdb.DuckDBPyConnection", table: str, key: str | None, columns: Columns, wish: Asked
) -> Page:
    """The page that was asked for, or the last one there is. `key` is the table's own id, None where rows have none; it is
    `row_key` of every row."""
    where, values = _where(columns, wish.filters)
    names = [name for name, column in columns.items() if not column.hidden or name == wish.sort]
    shown = ", ".join(f"{columns[name].sql} as {quoted(name)}" for name in names)
    ties = [quoted(key)] if key else [columns[name].sql for name in names]
    order = ", ".join([f"{columns[wish.sort].sql} {'desc' if wish.falling else 'asc'} nulls last", *ties])
    with reading(connection):
        (total,) = connection.execute(f"select count(*) from {quoted(table)} {where}", values).fetchall()[0]  # noqa: S608
        pages = max(1, math.ceil(total / PAGE_ROWS))
        first = (min(max(1, wish.page), pages) - 1) * PAGE_ROWS
        page = f"{where} order by {order} limit {PAGE_ROWS} offset {first}"
        if key is None:
            found = connection.sql(f"select null as row_key, {shown} from {quoted(table)} {page}", params=values)  # noqa: S608
        else:
            # First the ids of the page, by what it is sorted by alone; then what is shown of these few.
            ids = connection.execute(f"select {quoted(key)} from {quoted(table)} {page}", values).fetchall()  # noqa: S608
            found = connection.sql(
                f"select {quoted(key)} as row_key, {shown} from {quoted(table)} "  # noqa: S608
                f"where {quoted(key)} in (select unnest($1)) order by {order}",
                params=[[row[0] for row in ids]],
            )
        rows = found.to_arrow_table().to_pylist()
    return Page(rows=rows, first=first, total=total, pages=pages)


def choices(connection: "duckdb.DuckDBPyConnection", table: str, columns: Columns) -> dict[str, list[str]]:
    """The values of each label, most frequent first; columns with more than `CHOICES` of them are left out."""
    found = {}
    with reading(connection):
        for name, column in columns.items():
            if column.kind == "label":
                rows = connection.execute(
                    f"select {column.sql} as value from {quoted(table)} where value is not null "  # noqa: S608
                    "group by value order by count(*) desc, value "
                    f"limit {CHOICES + 1}"
                ).fetchall()
                if len(rows) <= CHOICES:
                    found[name] = [str(value) for (value,) in rows]
    return found


def _where(columns: Columns, filters: Mapping[str, str]) -> tuple[str, list[Any]]:
    parts = []
    values: list[Any] = []
    for name, value in filters.items():
        column = columns[name]
        for condition, given in _conditions(column, value):
            parts.append(condition)
            values.append(given)
    return (f"where {' and '.join(parts)}" if parts else ""), values


def _conditions(column: Column, value: str) -> Iterator[tuple[str, Any]]:
    if column.kind == "number":
        low, high = _range(value) or (None, None)
        if low is not None:
            yield f"{column.sql} >= ?", low
        if high is not None:
            yield f"{column.sql} <= ?", high
    elif column.kind == "label":
        yield f"{column.sql} = ?", value
    else:
        yield f"contains(lower({column.sql}), lower(?))", value


def _range(value: str) -> tuple[float | None, float | None] | None:
    """`8000..16000`, `8000..`, `..16000` or one number; None for anything else."""
    number = r"-?\d+(?:\.\d+)?"
    found = re.fullmatch(rf"({number})?\s*\.\.\s*({number})?|({number})", value.strip())
    if found is None or not any(found.groups()):
        return None
    low, high, same = found.groups()
    if same is not None:
        return float(same), float(same)
    return (None if low is None else float(low)), (None if high is None else float(high))
