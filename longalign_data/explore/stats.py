"""The figures of a build as a person reads them on a terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from longalign_data.explore.figures import Bar, Cell, Histogram, Lengths, Stats
from longalign_data.explore.plain import one_line, shorten
from longalign_data.explore.recorded import rehearsal_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


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
    if stats.rehearsed:
        console.print(Text(rehearsal_words(stats.rehearsed), style="bold"))
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
