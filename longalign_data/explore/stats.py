"""What a build holds, in figures.

In: a build, complete or on its way. Out: `Stats`, plain dataclasses of numbers that JSON can hold, and the same printed
for people. Lengths are in tokens: those of documents and samples of the recipe's tokenizer, those of sequences and packs of
the trainee's. A table that was not kept, or does not stand yet, is left out.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longalign_data.explore.plain import one_line, shorten
from longalign_data.explore.sql import connect, reading
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.stage import StageReport, read_report

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.table import Table

PERCENTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """The lengths of one group: `of` says of what (documents, selected, samples, answers, sequences, packs), `by` and
    `key` which of them (`source`, `language` or `task`; both empty for all). Percentiles are lengths that occur."""

    of: str
    by: str
    key: str
    count: int
    tokens: int
    mean: float
    p1: int
    p10: int
    p50: int
    p90: int
    p99: int
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many lengths stand in one bucket: `low` (inclusive; None: no lower end) to `high` (exclusive; None: no upper
    end). The last bucket between edges includes its upper edge, as in sampling."""

    low: int | None
    high: int | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Lengths counted by bucket, from the shortest."""

    of: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """How many things a stage rejected (`kind` is `rejected`) or left out on purpose (`left out`), for one reason."""

    stage: str
    kind: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Documents asked for (None: nothing was), had and available in one cell of the sampler's target; `lang`, `source` or
    `bucket` is empty where the cell speaks of all of them."""

    lang: str
    source: str
    bucket: str
    target: int | None
    achieved: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Sequences whose document lost its middle, and the tokens lost."""

    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How full packs are and how alike steps are. `capacity` is the recipe's, or the longest pack where it is not known;
    fills are shares of it. `step_variation` is the coefficient of variation of M, the sequences of a step, over all
    steps but the last, which may be short."""

    packs: int
    capacity: int
    mean_fill: float
    least_fill: float
    mean_sequences: float
    most_sequences: int
    targets: int
    steps: int
    mean_step_sequences: float
    step_variation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a teacher was asked and what it cost; `cost_usd` is None where no price is known for any sample."""

    provider: str
    model: str
    samples: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Everything that `longalign stats` shows."""

    lengths: Sequence[Lengths]
    histograms: Sequence[Histogram]
    set_aside: Sequence[SetAside]
    cells: Sequence[Cell]
    truncation: Truncation | None
    packing: Packing | None
    spending: Sequence[Spending]

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries and lists."""
        return dataclasses.asdict(self)


# What is measured: the columns `tokens`, `source`, `language`, `task` (null where a table cannot say).
_MEASURED = {
    "documents": "select num_tokens as tokens, source, lang as language, null::varchar as task from documents",
    "selected": "select num_tokens as tokens, source, lang as language, null::varchar as task "
    "from documents semi join selection using (doc_id)",
    "samples": "select num_tokens as tokens, source, lang as language, task from samples",
    "answers": "select num_answer_tokens as tokens, source, lang as language, task from samples",
    "chats": "select num_tokens as tokens, source, lang as language, task from chats",
    "sequences": "select sequences.num_tokens as tokens, source, lang as language, nullif(task, '') as task from sequences "
    "left join (select sample_id, lang from samples union all select sample_id, lang from chats "
    "union all select doc_id, lang from documents) using (sample_id)",
    "packs": "select num_tokens as tokens, null::varchar as source, null::varchar as language, null::varchar as task from packs",
}
_WITH_SAMPLING_EDGES = ("documents", "selected", "samples", "sequences")


def collect(build: BuildFolder) -> Stats:
    """The figures of a build. Reads lengths and labels, never texts or token ids. Raises BuildError on a damaged shard or
    report, naming it."""
    reports = {stage: report for stage in STAGES if (report := read_report(build, stage)) is not None}
    sampled = reports["sample"].details if "sample" in reports else {}
    connection = connect(build)
    try:
        with reading(connection):
            lengths: list[Lengths] = []
            histograms: list[Histogram] = []
            for of, query in _MEASURED.items():
                found = _lengths(connection, of, query)
                if found:
                    lengths += found
                    edges = _edges(sampled) if of in _WITH_SAMPLING_EDGES else None
                    histograms.append(_histogram(connection, of, query, edges))
            return Stats(
                lengths=lengths,
                histograms=histograms,
                set_aside=list(_set_aside(connection, reports)),
                cells=list(_cells(sampled)),
                truncation=_truncation(connection),
                packing=_packing(connection, reports.get("pack")),
                spending=_spending(connection),
            )
    finally:
        connection.close()


def _lengths(connection: "duckdb.DuckDBPyConnection", of: str, query: str) -> list[Lengths]:
    rows = connection.execute(
        f"""
        with measured as ({query})
        select
            case when grouping(source) = 0 then 'source' when grouping(language) = 0 then 'language'
                 when grouping(task) = 0 then 'task' else '' end as label,
            coalesce(source, language, task, '') as key,
            count(*), sum(tokens)::bigint, avg(tokens), quantile_disc(tokens, $shares), max(tokens)
        from measured
        group by grouping sets ((), (source), (language), (task))
        having count(*) > 0 and (label = '' or key <> '')
        order by list_position(['', 'source', 'language', 'task'], label), count(*) desc, key
        """,  # noqa: S608 - `query` is one of the literals above
        {"shares": list(PERCENTILES)},
    ).fetchall()
    found = []
    for by, key, count, tokens, mean, shares, longest in rows:
        p1, p10, p50, p90, p99 = shares
        found.append(
            Lengths(
                of=of, by=by, key=key, count=count, tokens=tokens, mean=mean,
                p1=p1, p10=p10, p50=p50, p90=p90, p99=p99, max=longest,
            )
        )  # fmt: skip
    return found


def _edges(details: Mapping[str, Any]) -> list[int] | None:
    edges = details.get("edges")
    usable = isinstance(edges, list) and len(edges) > 1 and all(isinstance(edge, int) for edge in edges)
    return sorted(edges) if usable and isinstance(edges, list) else None


def _histogram(connection: "duckdb.DuckDBPyConnection", of: str, query: str, edges: list[int] | None) -> Histogram:
    if edges is None:
        low, high = connection.execute(f"select min(tokens), max(tokens) from ({query})").fetchall()[0]  # noqa: S608 - as above
        edges = [1 << (max(low, 1).bit_length() - 1)]
        while edges[-1] <= high:
            edges.append(edges[-1] * 2)
        if low < edges[0]:
            edges.insert(0, 0)
    # The bucket of a length is the number of edges at or below it, so 0 is below the first edge; the last edge belongs to the
    # bucket under it.
    rows = connection.execute(
        f"""
        with measured as ({query}), edges as (select unnest($edges::bigint[]) as edge)
        select tokens, count(*), (select count(*) from edges where edge <= tokens and not (edge = $last and tokens = $last))
        from measured group by tokens
        """,  # noqa: S608 - as above
        {"edges": edges, "last": edges[-1]},
    ).fetchall()
    counts = [0] * (len(edges) + 1)
    for _, count, bucket in rows:
        counts[bucket] += count
    ends: list[int | None] = [None, *edges, None]
    bars = [Bar(low=low, high=high, count=count) for low, high, count in zip(ends, ends[1:], counts, strict=False)]
    if counts[0] == 0:
        bars = bars[1:]
    if counts[-1] == 0:
        bars = bars[:-1]
    return Histogram(of=of, bars=bars)


def _set_aside(connection: "duckdb.DuckDBPyConnection", reports: Mapping[str, StageReport]) -> Iterator[SetAside]:
    stored = connection.execute("select stage, reason, count(*) from rejects group by all").fetchall()
    for stage in STAGES:
        rejects = {reason: count for of, reason, count in stored if of == stage}
        left_out = reports[stage].left_out if stage in reports else {}
        for kind, counts in (("rejected", rejects), ("left out", left_out)):
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                yield SetAside(stage=stage, kind=kind, reason=reason, count=count)


def _cells(details: Mapping[str, Any]) -> Iterator[Cell]:
    """The sampler's target against what it achieved; what an older or another sampler noted differently is passed over."""
    noted = [cells for name in ("cells", "sources") if isinstance(cells := details.get(name), list)]
    for cell in (cell for cells in noted for cell in cells):
        if isinstance(cell, dict) and isinstance(cell.get("achieved"), int):
            target, available = cell.get("target"), cell.get("available")
            yield Cell(
                lang=str(cell.get("lang") or ""),
                source=str(cell.get("source") or ""),
                bucket=str(cell.get("bucket") or ""),
                target=target if isinstance(target, int) else None,
                achieved=cell["achieved"],
                available=available if isinstance(available, int) else cell["achieved"],
            )


def _truncation(connection: "duckdb.DuckDBPyConnection") -> Truncation | None:
    every, sequences, tokens = connection.execute(
        "select count(*), count_if(truncated_tokens > 0), coalesce(sum(truncated_tokens), 0)::bigint from sequences"
    ).fetchall()[0]
    return Truncation(sequences=sequences, tokens=tokens) if every else None


def _packing(connection: "duckdb.DuckDBPyConnection", report: StageReport | None) -> Packing | None:
    packs, mean, least, longest, mean_sequences, most, targets = connection.execute(
        "select count(*), avg(num_tokens), min(num_tokens), max(num_tokens), avg(num_sequences), max(num_sequences), "
        "sum(num_targets)::bigint from packs"
    ).fetchall()[0]
    if not packs:
        return None
    noted = report.details.get("capacity") if report is not None else None
    capacity = noted if isinstance(noted, int) and noted >= longest else longest
    steps, mean_step, variation = connection.execute(
        """
        with steps as (select step, any_value(num_sequences) as m from plan group by step)
        select count(*), avg(m), (
            select coalesce(stddev_pop(m) / nullif(avg(m), 0), 0) from steps
            where step < (select max(step) from steps) or (select count(*) from steps) = 1
        ) from steps
        """
    ).fetchall()[0]
    return Packing(
        packs=packs,
        capacity=capacity,
        mean_fill=mean / capacity,
        least_fill=least / capacity,
        mean_sequences=mean_sequences,
        most_sequences=most,
        targets=targets,
        steps=steps,
        mean_step_sequences=mean_step or 0.0,
        step_variation=variation or 0.0,
    )


def _spending(connection: "duckdb.DuckDBPyConnection") -> list[Spending]:
    rows = connection.execute(
        "select teacher.provider, teacher.model, count(*), sum(usage.input_tokens + usage.cache_write_tokens)::bigint, "
        "sum(usage.cache_read_tokens)::bigint, sum(usage.output_tokens)::bigint, sum(cost_usd) "
        "from samples group by all order by count(*) desc, 1, 2"
    ).fetchall()
    return [
        Spending(
            provider=provider,
            model=model,
            samples=samples,
            input_tokens=given,
            cached_tokens=cached,
            output_tokens=written,
            cost_usd=cost,
        )
        for provider, model, samples, given, cached, written, cost in rows
    ]


def print_stats(stats: Stats, console: "Console") -> None:
    """Prints the figures as tables and bars that read well on 80 columns and without colour."""
    from rich.text import Text

    if not stats.lengths and not stats.set_aside:
        console.print(Text("This build holds no rows yet."))
        return
    for by in ("", "source", "language", "task"):
        found = [lengths for lengths in stats.lengths if lengths.by == by]
        if found:
            console.print(_lengths_table(by, found))
            console.print()
    for histogram in stats.histograms:
        console.print(Text(f"Lengths of {_NAMES.get(histogram.of, histogram.of)} in tokens", style="bold"))
        for line in _bars(histogram, console.width, "█" if console.encoding.lower().startswith("utf") else "#"):
            console.print(Text(line), no_wrap=True, overflow="crop")
        console.print()
    if stats.cells:
        console.print(_cells_table(stats.cells))
        console.print()
    if stats.set_aside:
        table = _table("Set aside", ("stage", "", "reason"), ("count",))
        for row in stats.set_aside:
            table.add_row(row.stage, row.kind, Text(one_line(row.reason)), f"{row.count:,}")
        console.print(table)
        console.print()
    if stats.truncation is not None and stats.truncation.sequences:
        lost = stats.truncation
        console.print(Text(f"Truncated: {lost.sequences:,} sequences lost {lost.tokens:,} tokens of their documents."))
    if stats.packing is not None:
        packing = stats.packing
        console.print(
            Text(
                f"Packs: {packing.packs:,} of at most {packing.capacity:,} tokens, {packing.mean_fill:.2%} full "
                f"(the emptiest {packing.least_fill:.2%}), {packing.mean_sequences:,.1f} sequences each "
                f"(at most {packing.most_sequences:,}), {packing.targets:,} target tokens."
            )
        )
        if packing.steps:
            console.print(
                Text(
                    f"Plan: {packing.steps:,} steps of {packing.mean_step_sequences:,.1f} sequences, "
                    f"which vary by {packing.step_variation:.2%} from step to step."
                )
            )
    for spent in stats.spending:
        cost = "no price known" if spent.cost_usd is None else f"{spent.cost_usd:,.4f} USD"
        console.print(
            Text(
                f"Teacher: {one_line(spent.provider)} {one_line(spent.model)}, {spent.samples:,} samples, "
                f"{spent.input_tokens:,} tokens in, {spent.cached_tokens:,} read from cache, {spent.output_tokens:,} out; {cost}."
            )
        )


def _table(title: str, labels: Sequence[str], figures: Sequence[str]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for label in labels:
        table.add_column(label, overflow="ellipsis", no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def _lengths_table(by: str, found: Sequence[Lengths]) -> "Table":
    from rich.text import Text

    title = f"Lengths in tokens by {by}" if by else "Lengths in tokens"
    table = _table(title, ("",), ("count", "tokens", "mean", "p1", "p10", "p50", "p90", "p99", "max"))
    shown = ""
    for row in found:
        if by and row.of != shown:
            table.add_row(_NAMES.get(row.of, row.of))
        shown = row.of
        label = f"  {shorten(one_line(row.key), 14)}" if by else _NAMES.get(row.of, row.of)
        lengths = (round(row.mean), row.p1, row.p10, row.p50, row.p90, row.p99, row.max)
        table.add_row(Text(label), *(_short(number) for number in (row.count, row.tokens, *lengths)))
    return table


_NAMES = {"selected": "selected docs"}


def _short(number: int) -> str:
    """At most five characters up to 999T: whole below 10,000, then three digits and a unit."""
    if number < 10_000:
        return f"{number:,}"
    value, units = float(number), iter("kMGT")
    unit = ""
    while value >= 999.5 and (following := next(units, None)):
        value, unit = value / 1000, following
    return f"{value:.3g}{unit}" if value < 999.5 else f"{value:.0f}{unit}"


def _bars(histogram: Histogram, width: int, mark: str) -> Iterator[str]:
    labels = [_span(bar) for bar in histogram.bars]
    counts = [f"{bar.count:,}" for bar in histogram.bars]
    total = sum(bar.count for bar in histogram.bars)
    most = max(bar.count for bar in histogram.bars)
    label_width, count_width = max(map(len, labels)), max(map(len, counts))
    room = max(8, min(60, width - label_width - count_width - 10))
    for bar, label, count in zip(histogram.bars, labels, counts, strict=True):
        # A bucket that holds anything shows at least one mark.
        length = max(1, round(room * bar.count / most)) if bar.count else 0
        yield f"  {label:>{label_width}} {mark * length:<{room}} {count:>{count_width}} {bar.count / total:>4.0%}"


def _span(bar: Bar) -> str:
    if bar.low is None:
        return f"under {bar.high:,}"
    if bar.high is None:
        return f"over {bar.low:,}"
    return f"{bar.low:,} - {bar.high:,}"


def _cells_table(cells: Sequence[Cell]) -> "Table":
    from rich.text import Text

    table = _table("Sampling: asked for and had", ("lang", "source", "bucket"), ("target", "had", "of", "short"))
    for cell in cells:
        names = (cell.lang or "any", cell.source or "any", cell.bucket or "any")
        missing = max(0, (cell.target or 0) - cell.achieved)
        table.add_row(
            *(Text(shorten(one_line(name), 20)) for name in names),
            "" if cell.target is None else f"{cell.target:,}",
            f"{cell.achieved:,}",
            f"{cell.available:,}",
            f"{missing:,}" if missing else "",
        )
    return table
