"""The figures of docs/teachers.md, out of the stored results: each block between two comments of its name.

python benchmarks/teachers_page.py          prints the page as it should be
python benchmarks/teachers_page.py --write  writes it
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from packing_page import ROOT, stored, table
from scale_page import paragraph, written

PAGE = ROOT / "docs" / "teachers.md"


def span(values: Iterable[float], form: str) -> str:
    """The least and the largest, where they differ as written."""
    ordered = sorted(values)
    ends = list(dict.fromkeys(format(value, form) for value in (ordered[0], ordered[-1])))
    return " to ".join(ends)


def ways() -> dict[str, dict[str, Any]]:
    return {row["way"]: row for row in stored("bill")["rows"]}


def estimates() -> str:
    rows = list(ways().values())
    tried = [abs(row["estimate_off"]) for row in rows]
    pilots = [row["by_pilot_usd"] / row["usd"] - 1 for row in rows]
    return paragraph(
        f"On {rows[0]['samples']} documents the estimate was off by {span(tried, '.1%')} of the meter after a trial of ten,",
        f"and by {span(pilots, '.1%')} by the pilot alone, which knows nothing of the replies.",
    )


def bill() -> str:
    return table(
        "| way | USD | samples | USD a sample | of two naive calls | by the pilot alone | after a trial of ten |",
        [
            [
                name, f"{row['usd']:.4f}", row["samples"], f"{row['usd_per_sample']:.4f}", f"{row['of_naive_per_sample']:.4f}",
                f"{row['by_pilot_usd'] / row['usd'] - 1:+.1%}", f"{row['estimate_off']:+.1%}",
            ]
            for name, row in ways().items()
        ],
    )  # fmt: skip


def pace() -> str:
    return table(
        "| client | server | its limit | answered a second | of the ideal | refused |",
        [
            [
                row["client"], row["server"], row["limits"], f"{row['answered_per_s']:,.1f} of {row['ideal_per_s']:,.0f}",
                f"{row['share_of_ideal']:.2f}", f"{row['refused_share']:.1%}",
            ]
            for row in stored("throttle")["rows"]
        ],
    )  # fmt: skip


def resume() -> str:
    return table(
        "| a new process on the folder | samples | tokens a document | seconds |",
        [
            [row["what"], f"{row['samples']:,}", f"{row['tokens_per_document']:,}", f"{row['seconds']:.1f}"]
            for row in stored("resume")["rows"]
        ],
    )


def measured() -> str:
    shares: dict[str, list[float]] = {}
    for row in stored("throttle")["rows"]:
        shares.setdefault(row["client"], []).append(row["share_of_ideal"])
    (live,) = stored("live")["rows"]
    beside = paragraph(
        "Against servers that throttle and change their limits twice in a run, `benchmarks/throttle.py`:",
        ", ".join(f"{client} comes to {span(found, '.2f')}" for client, found in shares.items()),
        "of what the limits allow. Curator is asked as its users find it, with no limits given by hand, on the same server in",
        "the same run. Where tokens are limited, they are counted in place of requests; more than the ideal is what a server had",
        "saved up. Of these, more are refused than the 2% that limits of requests stay below; the rows are of before a margin of a",
        "tenth on the tokens reckoned.",
    )
    loop = paragraph(
        f"{live['most_prompts_at_once']} prompts of {live['tokens_each']:,} tokens at once, `benchmarks/live.py`:",
        f"{live['resident_mb']} MB resident; the event loop's own thread worked at most {live['loop_busy_max_ms']:.0f} ms",
        f"without a break ({live['loop_busy_p999_ms']:.0f} ms at the 99.9th percentile). On a machine that does other things as",
        f"well a heartbeat in it was at most {live['loop_late_max_ms']:.0f} ms late",
        f"({live['loop_late_p99_ms']:.0f} ms at the 99th).",
    )
    cores, cpu = (stored("throttle")["machine"][key] for key in ("cores", "cpu"))
    return f"""On {cores} cores ({cpu}), each line from the stored rows of its script.

The bill by the fake provider's meter, `benchmarks/bill.py`, and how far `longalign estimate` was from it:

{bill()}

{beside}

{pace()}

{loop}

Going on, `benchmarks/resume.py`:

{resume()}"""


BLOCKS: dict[str, Callable[[], str]] = {"estimates": estimates, "measured": measured}


if __name__ == "__main__":
    page = written(PAGE, BLOCKS, "teachers_page.py")
    if "--write" in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")
