"""What changed between two builds, most often two versions of one data set.

In: builds A and B. Out: `Diff`: rows that came, went and stayed by table and source, stages that were made anew, and every
figure of `figures.Stats` that differs. Ids are hashes of content, so an id that stayed is a row that stayed.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longalign_data.explore.figures import Stats, collect
from longalign_data.explore.plain import one_line, visible
from longalign_data.explore.recorded import manifest_of, stage_reports
from longalign_data.explore.sql import connect, reading
from longalign_data.shards.folder import STAGES, BuildFolder

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a table, of one source or (empty) of all: only in A (`gone`), only in B (`came`), in both (`stayed`)."""

    table: str
    source: str
    gone: int
    came: int
    stayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure that is not the same in both; None where a build has no such figure."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """`recipe` is a unified diff of the recipes, empty where they are equal; `anew` names the stages whose fingerprint
    changed; `asked_anew` counts documents that have samples in both builds, but none that stayed."""

    recipe: Sequence[str]
    anew: Sequence[str]
    rows: Sequence[Rows]
    asked_anew: int
    figures: Sequence[Figure]

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries and lists."""
        return dataclasses.asdict(self)


_KEYS = {
    "documents": "doc_id",
    "samples": "sample_id",
    "chats": "sample_id",
    "sequences": "sequence_id",
    "packs": "pack_id",
}
_WITHOUT_SOURCE = frozenset({"packs"})


def compare(before: BuildFolder, after: BuildFolder) -> Diff:
    """What changed from `before` to `after`. Reads ids, lengths and labels, never texts. Raises BuildError on a damaged
    shard, naming it."""
    connection = connect({"a": before, "b": after})
    try:
        with reading(connection):
            rows = [row for table, key in _KEYS.items() for row in _rows(connection, table, key)]
            (asked_anew,) = connection.execute(
                """
                with a as (select sample_id, unnest(doc_ids) as doc_id from a.samples),
                     b as (select sample_id, unnest(doc_ids) as doc_id from b.samples)
                select count(distinct doc_id) from a semi join b using (doc_id)
                where doc_id not in (select doc_id from a semi join b using (sample_id))
                """
            ).fetchall()[0]
    finally:
        connection.close()
    prints = [{stage: report.fingerprint for stage, report in stage_reports(b).items()} for b in (before, after)]
    return Diff(
        recipe=_recipe_diff(before, after),
        anew=[stage for stage in STAGES if prints[0].get(stage) != prints[1].get(stage)],
        rows=rows,
        asked_anew=asked_anew,
        figures=list(_figures(collect(before), collect(after))),
    )


def _rows(connection: "duckdb.DuckDBPyConnection", table: str, key: str) -> Iterator[Rows]:
    """All rows first, then by source where there are several."""
    source = "null::text" if table in _WITHOUT_SOURCE else "source"
    found = connection.execute(
        f"""
        with ids as (
            select {key} as id, any_value({source}) as source, bool_or(build = 'a') as in_a, bool_or(build = 'b') as in_b
            from {table} group by {key}
        )
        select coalesce(source, ''), grouping(source), count_if(not in_b), count_if(not in_a), count_if(in_a and in_b)
        from ids group by grouping sets ((), (source)) having count(*) > 0 order by grouping(source) desc, 1
        """  # noqa: S608 - names of the table above
    ).fetchall()
    for name, is_all, gone, came, stayed in found:
        if is_all or len(found) > 2:
            yield Rows(table=table, source="" if is_all else name, gone=gone, came=came, stayed=stayed)


def _recipe_diff(before: BuildFolder, after: BuildFolder) -> list[str]:
    a, b = (str(manifest_of(build).get("recipe", "")).splitlines() for build in (before, after))
    return list(difflib.unified_diff(a, b, fromfile="A", tofile="B", lineterm="", n=1))


def _figures(before: Stats, after: Stats) -> Iterator[Figure]:
    """What differs, in the order of the names in B and then those that only A has."""
    a, b = _named(before), _named(after)
    for name in dict.fromkeys((*b, *a)):
        if a.get(name) != b.get(name):
            yield Figure(name=name, before=a.get(name), after=b.get(name))


def _named(stats: Stats) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for row in stats.lengths:
        if not row.by:
            for field in ("count", "tokens", "p10", "p50", "p90", "max"):
                found[f"{row.of} {field}"] = getattr(row, field)
        elif row.of == "samples":
            found[f"samples of {row.by} {row.key}"] = row.count
    for aside in stats.set_aside:
        found[f"{aside.stage} {aside.kind} {aside.reason}"] = aside.count
    if stats.packing is not None:
        for field in ("packs", "steps", "mean_fill", "mean_step_sequences", "step_variation", "targets"):
            found[f"packing {field}"] = round(getattr(stats.packing, field), 6)
    for spent in stats.spending:
        teacher = f"{spent.provider} {spent.model}"
        found[f"{teacher} samples"] = spent.samples
        if spent.cost_usd is not None:
            found[f"{teacher} usd"] = round(spent.cost_usd, 6)
    return found


def print_diff(diff: Diff, console: "Console") -> None:
    """Prints what changed; says so where nothing did."""
    from rich.table import Table
    from rich.text import Text

    if not diff.recipe and not diff.anew and not diff.figures and not any(row.gone or row.came for row in diff.rows):
        console.print("The two builds hold the same.", highlight=False)
        return
    for line in diff.recipe:
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        console.print(Text(visible(line), style=style))
    if diff.anew:
        console.print(Text(f"stages made anew: {', '.join(diff.anew)}"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("table", "source"):
        table.add_column(name)
    for name in ("gone", "came", "stayed"):
        table.add_column(name, justify="right")
    for row in diff.rows:
        label = "" if row.source else row.table
        table.add_row(label, Text(one_line(row.source)), f"{row.gone:,}", f"{row.came:,}", f"{row.stayed:,}")
    console.print(table)
    if diff.asked_anew:
        console.print(Text(f"{diff.asked_anew:,} documents are in both and have other samples now"))
    if diff.figures:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("figure")
        for name in ("A", "B", "change"):
            table.add_column(name, justify="right")
        for figure in diff.figures:
            change = "" if figure.before is None or figure.after is None else f"{figure.after - figure.before:+,.6g}"
            table.add_row(Text(one_line(figure.name)), _number(figure.before), _number(figure.after), change)
        console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}"
