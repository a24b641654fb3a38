"""What a statement gave, written for people or for programs: a table, CSV, JSON or Parquet."""

import csv
import datetime
import json
import math
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.errors import UserError
from longalign_data.explore.plain import one_line, shorten, visible
from longalign_data.explore.sql import Result
from longalign_data.shards.files import whole_file

FORMATS = ("table", "csv", "json", "parquet")

CELL_WIDTH = 60
TABLE_ROWS = 200


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
