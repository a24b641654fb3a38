"""What a build holds, in figures.

In: a build, complete or on its way. Out: `Stats`, plain dataclasses of numbers that JSON can hold: the one place that
`longalign stats`, the report and the card take them from. Lengths are in tokens: those of documents and samples of the
recipe's tokenizer, those of sequences and packs of the trainee's. A table that was not kept, or does not stand yet, is
left out.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longalign_data.explore.recorded import stage_reports
from longalign_data.explore.sql import connect, reading
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.stage import StageReport

if TYPE_CHECKING:
    import duckdb

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
class StageCounts:
    """What went into a stage and came out of it; see `shards.stage.StageReport`."""

    stage: str
    num_in: int
    num_out: int
    num_rejected: int
    num_left_out: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """How many things a stage rejected (`kind` is `rejected`) or left out on purpose (`left out`), for one reason; or files of
    a source that its reader does not take (`not read`; the reason is the source and their suffix)."""

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
class Crossing:
    """The samples of one source in one language with one task."""

    source: str
    language: str
    task: str
    samples: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceDepth:
    """How deep in their documents the pieces of evidence of one task begin: `tenths` counts those in the first tenth of
    the document to those in the last."""

    task: str
    tenths: Sequence[int]


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
class StepBand:
    """Steps `first` to `last` of the plan, both included: the share of their packs' room that is filled, the fewest and the
    most sequences in a step, and the modelled share of time that ranks wait when each pack of a step has its own."""

    first: int
    last: int
    fill: float
    least_sequences: int
    most_sequences: int
    idle: float


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
    """The figures of a build. `histograms` are in the sampler's buckets or in powers of two, `fine` in `FINE_BINS` equal
    ones; `steps` are at most `STEP_BANDS` bands of equally many steps; `rehearsed` are replies of the fake provider."""

    stages: Sequence[StageCounts]
    lengths: Sequence[Lengths]
    histograms: Sequence[Histogram]
    fine: Sequence[Histogram]
    crossings: Sequence[Crossing]
    depths: Sequence[EvidenceDepth]
    set_aside: Sequence[SetAside]
    cells: Sequence[Cell]
    truncation: Truncation | None
    packing: Packing | None
    steps: Sequence[StepBand]
    spending: Sequence[Spending]
    rehearsed: int

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
FINE_BINS = 32
STEP_BANDS = 120
_FINE = ("documents", "selected", "samples")
_WITH_SAMPLING_EDGES = ("documents", "selected", "samples", "sequences")


def collect(build: BuildFolder) -> Stats:
    """The figures of a build. Reads lengths and labels, never texts or token ids. Raises BuildError on a damaged shard or
    report, naming it."""
    reports = stage_reports(build)
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
            ends = _edges(sampled) or [0, max((row.max for row in lengths if row.of == "samples"), default=0)]
            bins = [ends[0] + (ends[-1] - ends[0]) * n // FINE_BINS for n in range(FINE_BINS + 1)]
            measured = [row.of for row in lengths if not row.by]
            return Stats(
                stages=[_stage_counts(report) for report in reports.values()],
                lengths=lengths,
                histograms=histograms,
                fine=[
                    _histogram(connection, of, _MEASURED[of], bins)
                    for of in _FINE
                    if of in measured and bins[-1] - bins[0] >= FINE_BINS
                ],
                crossings=_crossings(connection),
                depths=_depths(connection),
                set_aside=list(_set_aside(connection, reports)),
                cells=list(_cells(sampled)),
                truncation=_truncation(connection),
                packing=_packing(connection, reports.get("pack")),
                steps=_steps(connection),
                spending=_spending(connection),
                rehearsed=reports["generate"].details.get("rehearsed", 0) if "generate" in reports else 0,
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


def _stage_counts(report: StageReport) -> StageCounts:
    return StageCounts(
        stage=report.stage,
        num_in=report.num_in,
        num_out=report.num_out,
        num_rejected=report.num_rejected,
        num_left_out=report.num_left_out,
        num_tokens=report.num_tokens,
        seconds=report.seconds,
    )


def _crossings(connection: "duckdb.DuckDBPyConnection") -> list[Crossing]:
    rows = connection.execute(
        "select source, lang, task, count(*), sum(num_tokens)::bigint from samples group by all "
        "order by count(*) desc, 1, 2, 3"
    ).fetchall()
    return [
        Crossing(source=source, language=lang, task=task, samples=samples, tokens=tokens)
        for source, lang, task, samples, tokens in rows
    ]


def _depths(connection: "duckdb.DuckDBPyConnection") -> list[EvidenceDepth]:
    rows = connection.execute(
        "select task, least(9, floor(10 * depth))::int, count(*) from evidence where depth between 0 and 1 "
        "group by all order by 1, 2"
    ).fetchall()
    found: dict[str, list[int]] = {}
    for task, tenth, count in rows:
        found.setdefault(task, [0] * 10)[tenth] = count
    return [EvidenceDepth(task=task, tenths=tenths) for task, tenths in found.items()]


def _set_aside(connection: "duckdb.DuckDBPyConnection", reports: Mapping[str, StageReport]) -> Iterator[SetAside]:
    stored = connection.execute("select stage, reason, count(*) from rejects group by all").fetchall()
    for stage in STAGES:
        rejects = {reason: count for of, reason, count in stored if of == stage}
        left_out = reports[stage].left_out if stage in reports else {}
        for kind, counts in (("rejected", rejects), ("left out", left_out)):
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                yield SetAside(stage=stage, kind=kind, reason=reason, count=count)
        if stage == "ingest" and stage in reports:
            yield from _not_read(reports[stage].details.get("sources"))


def _not_read(sources: object) -> Iterator[SetAside]:
    """The skipped files that ingest noted; what another version noted differently is passed over."""
    for source, found in sources.items() if isinstance(sources, dict) else ():
        skipped = found.get("skipped") if isinstance(found, dict) else None
        for suffix, count in skipped.items() if isinstance(skipped, dict) else ():
            if isinstance(count, int):
                yield SetAside(stage="ingest", kind="not read", reason=f"{source} {suffix}", count=count)


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


def _steps(connection: "duckdb.DuckDBPyConnection") -> list[StepBand]:
    rows = connection.execute(
        """
        with steps as (
            select step, sum(num_tokens) as tokens, sum(capacity) as room, any_value(plan.num_sequences) as sequences,
                   sum(work) as work, max(work) as slowest, count(*) as packs
            from plan join packs using (pack_id) group by step
        ), bands as (select *, ntile($bands) over (order by step) as band, max(packs) over () as ranks from steps)
        select min(step), max(step), sum(tokens) / sum(room), min(sequences), max(sequences),
               coalesce(1 - sum(work) / nullif(sum(ranks * slowest), 0), 0)
        from bands group by band order by band
        """,
        {"bands": STEP_BANDS},
    ).fetchall()
    return [
        StepBand(first=first, last=last, fill=fill, least_sequences=least, most_sequences=most, idle=idle)
        for first, last, fill, least, most, idle in rows
    ]


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
