"""Tables that a run ends with."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from longalign_data.build.pipeline import Built
from longalign_data.explore.plain import one_line
from longalign_data.explore.recorded import rehearsal_words
from longalign_data.sampling.partial import OTHER


def print_outcomes(built: Built, console: Console) -> None:
    """The stages: in, out, rejected, left out, tokens, seconds; why things were rejected, and which files were not read."""
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("in", "out", "rejected", "left out", "tokens", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("")
    for outcome in built.outcomes:
        r = outcome.report
        counts = [f"{n:,}" for n in (r.num_in, r.num_out, r.num_rejected, r.num_left_out, r.num_tokens)]
        table.add_row(r.stage, *counts, f"{r.seconds:,.1f}", "" if outcome.ran else "stood complete")
    console.print(table)
    for title, field in (("rejected", "rejected"), ("left out", "left_out")):
        words = [
            f"{outcome.report.stage} {reason} {count:,}"
            for outcome in built.outcomes
            for reason, count in getattr(outcome.report, field).items()
        ]
        if words:
            console.print(f"{title}: {', '.join(words)}", highlight=False, markup=False)
    for outcome in built.outcomes:
        for source, found in (
            outcome.report.details.get("sources", {}).items() if outcome.report.stage == "ingest" else ()
        ):
            if skipped := found.get("skipped"):
                suffixes = ", ".join(f"{one_line(suffix)} {count:,}" for suffix, count in skipped.items())
                line = f"not read: {source} has files that its reader does not take: {suffixes}"
                console.print(line, highlight=False, markup=False)


def print_sampling(built: Built, console: Console) -> None:
    """Target against achieved of the sample stage: by language and bucket, and by source, where it ran now; in all, always."""
    for outcome in built.outcomes:
        for found in outcome.report.details.get("sets", ()) if outcome.report.stage == "mix" else ():
            if found["taken"] < found["asked"]:
                line = (
                    f"mix set {found['id']}: asked for {found['asked']:,} conversations, it holds {found['usable']:,}"
                )
                console.print(line, highlight=False, markup=False)
            elif found["usable"] and not found["taken"]:
                line = f"mix set {found['id']}: nothing was taken, its share of {found['usable']:,} conversations is less than one"
                console.print(line, highlight=False, markup=False)
        if outcome.report.stage != "sample":
            continue
        details = outcome.report.details
        cells = [cell for cell in (*details["cells"], *details["sources"]) if cell["target"] is not None]
        if cells and outcome.ran:
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column("sampling")
            for name in ("target", "achieved", "available"):
                table.add_column(name, justify="right")
            table.add_column("")
            for cell in cells:
                short = "the corpus has no more" if cell["achieved"] < cell["target"] else ""
                counts = [f"{cell[name]:,}" for name in ("target", "achieved", "available")]
                table.add_row(_cell_name(cell), *counts, short)
            console.print(table)
        if outcome.report.num_out < details["asked"]:
            line = f"asked for {details['asked']:,} documents, took {outcome.report.num_out:,}: the corpus holds no more that fit"
            console.print(line, highlight=False, markup=False)


def _cell_name(cell: Mapping[str, Any]) -> str:
    lang = "other languages" if cell["lang"] == OTHER else cell["lang"]
    source = "other sources" if cell["source"] == OTHER else cell["source"]
    return " ".join(part for part in (lang, source, cell["bucket"]) if part)


def print_cost(built: Built, console: Console) -> None:
    """What the samples cost, if they were not free, and what the checks of the answers marked."""
    report = next((outcome.report for outcome in built.outcomes if outcome.report.stage == "generate"), None)
    if report is None:
        return
    if rehearsed := report.details.get("rehearsed"):
        console.print(rehearsal_words(rehearsed), highlight=False, markup=False)
    cost = report.details.get("cost", {})
    if cost.get("usd"):
        line = (
            f"the samples cost {cost['usd']:,.4f} USD, {cost['usd_per_sample']:,.5f} each (prices of {cost['prices']})"
        )
        if cost["ledger_usd"] - cost["usd"] > 5e-5:
            line += f"; with rejected, earlier and trial replies {cost['ledger_usd']:,.4f} USD"
        console.print(line, highlight=False, markup=False)
        for other in cost.get("taken_over", ()):
            line = (
                f"{other['replies']:,} of the replies were taken over from {other['build']}, which paid "
                f"{other['usd']:,.4f} USD of that"
            )
            console.print(line, highlight=False, markup=False)
        if gone := cost.get("not_fetched"):
            line = (
                f"{gone['requests']:,} requests were paid for in batches whose results the provider no longer kept, and asked "
                f"again: about {gone['usd']:,.4f} USD of that"
            )
            console.print(line, highlight=False, markup=False)
    elif cost and cost["usd"] is None:
        console.print("no price is known for this teacher; --prices FILE gives one", highlight=False, markup=False)
    if (silent := cost.get("unheard")) and cost["usd"] is not None:
        unnamed = silent.get("replies_without_usage", 0)
        what = f"or name no usage ({unnamed:,}) " if unnamed else ""
        line = (
            f"{silent['attempts']:,} attempts whose replies never came {what}may have been billed besides: at most "
            f"{silent['most_usd']:,.4f} USD"
        )
        console.print(line, highlight=False, markup=False)
    marked = ", ".join(f"{name} {count:,}" for name, count in report.details.get("marked", {}).items())
    if marked:
        console.print(f"marked answers (in samples.checks): {marked}", highlight=False, markup=False)
