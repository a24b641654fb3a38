"""How much every kind of sequence counts in training: in this plan, and as it would without loss weights.

In: a build and a plan of it. Out: one `Row` for each length bucket, source and task. A share of 1 means: as much as if all
sequences counted the same. Three ways of training on packs are put beside each other:

    this plan      weights N_i^-alpha, divided by the step's Z (LongAlign, Eq. 4; for alpha = 1 every share is 1)
    plain packing  packs filled best-fit, the mean over packs of the mean over a pack's targets (Eq. 3)
    token mean     the packs of this plan, every target of a step counting the same
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from longalign_data.explore.plan import PlanReport, change
from longalign_data.packing.figures import pack_mean_shares, shares
from longalign_data.packing.fill import Floats, Ints
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


def weight_rows(build: BuildFolder, report: PlanReport) -> Sequence[Row]:
    """The table, all sequences first. Sources and tasks are left out where the samples were not kept."""
    planned = report.planned
    if not len(planned.members):
        return []
    plain = plan_sequences(report.sequences, change(report.choice, {"strategy": "random"}), report.recipe.seed)
    ways = (
        shares(planned.plan, planned.totals),
        pack_mean_shares(plain.plan, planned.num_targets),
        shares(planned.plan, planned.num_targets.astype(np.float64)),
    )
    rows = [_row("all", "", np.ones(len(planned.members), np.bool_), planned.num_targets, ways)]
    buckets = np.searchsorted(EDGES, planned.lengths, side="right") - 1
    for number, low in enumerate(EDGES):
        high = EDGES[number + 1] if number + 1 < len(EDGES) else None
        key = f"{low // 1000}k to {high // 1000}k" if high else f"{low // 1000}k or more"
        rows.append(_row("length", key, buckets == number, planned.num_targets, ways))
    for by, values in _origins(build, planned.members):
        keys = sorted(set(values.tolist()))
        rows.extend(_row(by, str(key), values == key, planned.num_targets, ways) for key in keys)
    return [row for row in rows if row.count]


def print_weights(rows: Sequence[Row], console: "Console") -> None:
    """The table as a person reads it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("sequences", "targets", "this plan", "plain packing (Eq. 3)", "token mean"):
        table.add_column(name, justify="right")
    before = "all"
    for row in rows:
        if row.by != before:
            table.add_section()
            table.add_row(f"by {row.by}", style="bold")
            before = row.by
        ways = [
            f"{w.mean:.2f}  ({w.p1:.2f} to {w.p99:.2f})" for w in (row.this_plan, row.plain_packing, row.token_mean)
        ]
        table.add_row(row.key or "all", f"{row.count:,}", f"{row.targets:,.0f}", *ways)
    console.print(table)
    console.print(
        "How much a sequence counts, 1 being what it would if all counted the same: mean (1st to 99th percentile). "
        "`targets` is the mean number of target tokens.",
        highlight=False,
        markup=False,
    )


def _row(
    by: str,
    key: str,
    chosen: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    targets: Ints,
    ways: tuple[Floats, Floats, Floats],
) -> Row:
    count = int(np.count_nonzero(chosen))
    if not count:
        nothing = Way(mean=0.0, p1=0.0, p99=0.0)
        return Row(by=by, key=key, count=0, targets=0.0, this_plan=nothing, plain_packing=nothing, token_mean=nothing)
    this, plain, token = (_way(values[chosen]) for values in ways)
    return Row(
        by=by,
        key=key,
        count=count,
        targets=float(targets[chosen].mean()),
        this_plan=this,
        plain_packing=plain,
        token_mean=token,
    )


def _way(values: Floats) -> Way:
    low, high = np.percentile(values, [1, 99]).tolist()
    return Way(mean=float(values.mean()), p1=low, p99=high)


def _origins(build: BuildFolder, members: Ints) -> "Iterator[tuple[str, np.ndarray[tuple[int], np.dtype[np.object_]]]]":
    sequences = pa.Table.from_batches(iter_batches(build.shards("sequences"), columns=["source", "task"]))
    for by in ("source", "task"):
        yield by, sequences.column(by).take(pa.array(members)).to_numpy()
