"""The section "Measured" of docs/scale.md, out of the stored results.

python benchmarks/scale_page.py          prints it
python benchmarks/scale_page.py --write  puts it into the page
"""

import sys
from typing import Any

from packing_page import ROOT, stored, table

PAGE = ROOT / "docs" / "scale.md"
HEAD = "## Measured\n"
KINDS = ("English", "code", "Chinese")


def memory(rows: list[dict[str, Any]]) -> str:
    return table(
        "| what is read | GB, unpacked | documents | rejects | most resident |",
        [
            [
                row["format"], f"{row['gigabytes']:g}", f"{row['documents']:,}", ", ".join(row["rejects"]),
                f"{row['peak_rss_mib']:,} MiB",
            ]
            for row in rows
        ],
    )  # fmt: skip


def curation(rows: list[dict[str, Any]]) -> str:
    speed = {(row["switch"], row["text"]): row["mb_per_s"] for row in rows if row["text"]}
    switches = dict.fromkeys(switch for switch, _ in speed)
    return table(
        f"| switch | {' | '.join(f'{kind}, MB/s' for kind in KINDS)} |",
        [[switch, *(f"{speed[switch, kind]:g}" for kind in KINDS)] for switch in switches],
    )


def sampling(rows: list[dict[str, Any]]) -> str:
    return table(
        "| candidates | what | seconds | most resident |",
        [
            [
                f"{row['candidates'] // 10**6} million", row["what"], f"{row['seconds']:.1f}",
                f"{row['peak_mib']} MiB" if row["peak_mib"] else "",
            ]
            for row in rows
        ],
    )  # fmt: skip


def counting(rows: list[dict[str, Any]]) -> str:
    return table(
        "| what | MB/s | documents/s | MB a second of processor time |",
        [[row["what"], f"{row['mb_s']:.1f}", f"{row['docs_s']:,}", f"{row['mb_per_cpu_s']:.1f}"] for row in rows],
    )


def section() -> str:
    results = ROOT / "benchmarks" / "results"
    large = stored("sampling-large")["rows"] if (results / "sampling-large.json").is_file() else []
    compared = next(row for row in stored("curation")["rows"] if not row["text"])["documents_per_s"]
    machine = stored("curation")["machine"]
    return f"""{HEAD}
On {machine["cores"]} cores ({machine["cpu"]}, {machine["memory_gib"]:g} GiB), each line from the stored rows of its script.

Memory, `benchmarks/reader_memory.py`:

{memory(stored("reader_memory")["rows"])}

Counting tokens, `benchmarks/counting.py`:

{counting(stored("counting")["rows"])}

Curation by one core, in processor time, on documents of a megabyte, `benchmarks/curation.py`; comparing signatures is one
process' work, {compared:,} documents a second:

{curation(stored("curation")["rows"])}

Sampling, `benchmarks/sampling.py`:

{sampling([row for row in (*stored("sampling")["rows"], *large) if row["what"].startswith("draw") or row["candidates"] <= 10**7])}
"""


if __name__ == "__main__":
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page[: page.index(HEAD)] + section(), encoding="utf-8")
    else:
        print(section(), end="")
