"""How much every kind of sequence counts in training: in this plan, and as it would without loss weights.

In: a build and a plan of it. Out: one `Row` for each length bucket, source and task. A share of 1 means: as much as if all
sequences counted the same. Three ways of training on packs are put beside each other:

    this plan      weights N_i^-alpha, divided by the step's Z (LongAlign, Eq. 4; for alpha = 1 every share is 1)
    plain packing  packs filled best-fit, the mean over packs of the mean over a pack's targets (Eq. 3)
    token mean     the packs of this plan, every target of a step counting the same
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from longalign_data.explore.plan import PlanReport, change
from longalign_data.packing.figures import pack_mean_shares, shares
from longalign_data.packing.pack import plan_sequences
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches

if TYPE_CHECKING:
    from rich.console import Console

EDGES = (0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The shares of a group under one way of training: mean and percentiles."""

    mean: float
    p1: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group of sequences: `by` is `all`, `length`, `source` or `task`."""

    by: str
    key: str
    count: int
    targets: float
    this_plan: Way
    plain_packing: Way
    token_mean: Way


WAYS = ("this_plan", "plain_packing", "token_mean")


def weight_rows(build: BuildFolder, report: PlanReport) -> Sequence[Row]:
    """The table, all sequences first; then by length, by source and by task."""
    import polars as pl

    planned = report.planned
    if not len(planned.members):
        return []
    plain = plan_sequences(report.sequences, change(report.choice, {"strategy": "random"}), report.recipe.seed)
    origins = pa.Table.from_batches(iter_batches(build.shards("sequences"), columns=["source", "task"]))
    origins = origins.take(pa.array(planned.members))
    names = [f"{low // 1000}k to {high // 1000}k" for low, high in pairwise(EDGES)] + [f"{EDGES[-1] // 1000}k or more"]
    frame = pl.DataFrame(
        {
            "all": [""] * len(planned.members),
            "length": pl.Series(names).gather(np.searchsorted(EDGES, planned.lengths, side="right") - 1),
            "source": pl.Series(origins.column("source").to_pylist()),
            "task": pl.Series(origins.column("task").to_pylist()),
            "targets": planned.num_targets,
            "this_plan": shares(planned.plan, planned.totals),
            "plain_packing": pack_mean_shares(plain.plan, planned.num_targets),
            "token_mean": shares(planned.plan, planned.num_targets.astype(np.float64)),
        }
    )
    measured = [pl.len().alias("count"), pl.mean("targets")]
    for way in WAYS:
        p1, p99 = (pl.col(way).quantile(at, "linear").alias(f"{way}_p{at:.0%}") for at in (0.01, 0.99))
        measured += [pl.mean(way), p1, p99]
    rows: list[Row] = []
    for by in ("all", "length", "source", "task"):
        found = frame.group_by(by).agg(measured).sort(by).to_dicts()
        if by == "length":
            found.sort(key=lambda row: names.index(row["length"]))
        rows.extend(
            Row(
                by=by,
                key=row[by],
                count=row["count"],
                targets=row["targets"],
                **{w: Way(mean=row[w], p1=row[f"{w}_p1%"], p99=row[f"{w}_p99%"]) for w in WAYS},
            )
            for row in found
        )
    return rows


def print_weights(rows: Sequence[Row], console: "Console") -> None:
    """The table as a person reads it."""
    from rich.table import Table

    if not rows:
        console.print("nothing to pack: every sequence is longer than a pack, or without targets", highlight=False)
        return
    # In a narrow terminal names fold, and nothing else does.
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for name in ("count", "targets", "this plan", "plain packing", "token mean"):
        table.add_column(name, justify="right", no_wrap=True)
    before = "all"
    for row in rows:
        if row.by != before:
            table.add_section()
            table.add_row(f"by {row.by}", style="bold")
            before = row.by
        ways = [f"{w.mean:.2f} {w.p1:.2f}-{w.p99:.2f}" for w in (row.this_plan, row.plain_packing, row.token_mean)]
        table.add_row(row.key or "all", f"{row.count:,}", f"{row.targets:,.0f}", *ways)
    console.print(table)
    console.print(
        "How much a sequence counts, 1 being what it would if all counted the same: mean, 1st to 99th percentile. "
        "Plain packing is Eq. 3. `count` is of sequences, `targets` their mean number of target tokens.",
        highlight=False,
        markup=False,
    )
