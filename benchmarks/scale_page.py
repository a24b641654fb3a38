"""The figures of docs/scale.md, out of the stored results: each block between two comments of its name.

python benchmarks/scale_page.py          prints the page as it should be
python benchmarks/scale_page.py --write  writes it
"""

import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packing_page import ROOT, stored, table

PAGE = ROOT / "docs" / "scale.md"
KINDS = ("English", "code", "Chinese")

PEERS = {"datatrove": "datatrove", "nemo_curator": "NeMo Curator"}
SPEEDS = ("mb_per_s", "bare_mb_per_s", "datatrove_mb_per_s", "nemo_curator_mb_per_s")
SIDES = {
    "jsonl": "JSON lines",
    "jsonl, .gz": "JSON lines, gzip",
    "jsonl, .zst": "JSON lines, zst",
    "parquet": "Parquet",
    "hub, local JSON lines": "JSON lines through `datasets`",
    "warc, HTML": "WARC, HTML to text",
    "warc, WET": "WET",
}
"""The rows that a peer has a reader for, as the page calls them."""

MARKUP = ("wikipedia", "arxiv")
"""Their bare loops turn markup into text by other means; lengths decide nothing there."""

WHY_ABOVE = {
    "json, Chinese": "the array is parsed piece by piece in bounded memory, and the bare loop holds the whole file",
    "github, Parquet": "every file is looked at for NULs, marks of generators, licences and white space at its end, and its "
    "repository is put together out of a spill that can go to disk",
}
"""What a reader does for its time, where that is above the goal. A row that comes to it needs its reason here."""


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


def percent(times: float) -> str:
    return f"{round(100 * (times - 1))}%"


def listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def paragraph(*sentences: str, begin: str = "") -> str:
    return textwrap.fill(" ".join(sentences), 125, initial_indent=begin, subsequent_indent=" " * len(begin))


def time() -> str:
    """A terabyte through the tokenizer, from what one core counted of long documents."""
    speed = next(row["mb_per_cpu_s"] for row in stored("counting")["rows"] if row["what"].startswith("long"))
    hours = 1e6 / speed / 3600
    return paragraph(
        f"**Time.** bytes to tokenize / (MB/s a core x cores). With the {speed:.1f} MB that one core counted of long",
        f"documents in a second of processor time (below), 16 machines of 32 cores tokenize 1 TB in {hours * 60 / 512:.0f}",
        f"minutes, and mostly read and decompress; one machine of 32 cores takes {hours / 32:.1f} hours. Short documents",
        "cost next to nothing: a text with fewer bytes than `min_tokens` is skipped unread, and exactly.",
        begin="- ",
    )


def reading() -> str:
    rows = {row["reader"]: row for row in stored("readers")["rows"]}
    above = [
        f"`{name}` ({percent(row['time_against_bare'])}{': ' + WHY_ABOVE[name] if name in WHY_ABOVE else ''})"
        for name, row in rows.items()
        if row["time_against_bare"] > 1.15
    ]
    below = [f"`{name}`" for name, row in rows.items() if row["time_against_bare"] < 0.85 and name not in MARKUP]
    heaviest = max(rows.values(), key=lambda row: row["time_against_texts_alone"])
    versions = {package: next(row[package] for row in rows.values() if package in row) for package in PEERS}
    speeds: list[list[object]] = [
        [SIDES[name], *(f"{row[key]:.{0 if row[key] >= 10 else 1}f}" if key in row else "-" for key in SPEEDS)]
        for name, row in rows.items()
        if name in SIDES
    ]
    head = " | ".join(f"{name} {versions[package]}" for package, name in PEERS.items())
    costs = paragraph(
        f"Our layer costs at most 15% of the bare loop's time{' but for ' + listed(above) if above else ''}.",
        f"Less time than the bare loop take {listed(below)}, because a length comes from the bytes at hand instead of",
        "encoding the text again. The column `time_against_texts_alone` leaves lengths out of the bare loop, and there",
        f"lengths, checks and references together weigh up to {percent(heaviest['time_against_texts_alone'])}",
        f"(`{heaviest['reader']}`).",
    )
    wet = rows["warc, WET"]
    peers = paragraph(
        "NeMo Curator reads a whole JSON-lines file into a table with Arrow's parser, which is faster on plain files than",
        "Python's and needs memory for all of it. Of WET datatrove asks libmagic about every record and takes",
        f"{wet['datatrove_documents']} of {wet['documents']} texts for plain ones. Wikipedia and arXiv are bound by their",
        f"markup: {rows['wikipedia']['mb_per_s']:.1f} and {rows['arxiv']['mb_per_s']:.1f} MB of text a second of a core.",
    )
    return f"{costs}\n\n{table(f'| MB/s of a core | ours | bare | {head} |', speeds)}\n\n{peers}"


def draws() -> str:
    row = next(row for row in stored("sampling-large")["rows"] if row["what"].startswith("draw"))
    return paragraph(
        "What stays is bounded by `count` for each combination of language quota, source quota and bucket, so",
        f"{row['candidates'] // 10**6} million candidates need the memory of 10 million: {row['drawn']:,} are drawn of them in",
        f"{row['seconds']:.0f} s and {row['peak_mib']} MiB. Partial draws merge: `PartialDraw.merge`, in any order.",
    )


def measured() -> str:
    curated = stored("curation")
    compared = next(row for row in curated["rows"] if not row["text"])["documents_per_s"]
    cores, cpu, memory_gib = (curated["machine"][key] for key in ("cores", "cpu", "memory_gib"))
    draws = [row for name in ("sampling", "sampling-large") for row in stored(name)["rows"]]
    return f"""On {cores} cores ({cpu}, {memory_gib:g} GiB), each line from the stored rows of its script.

Memory, `benchmarks/reader_memory.py`:

{memory(stored("reader_memory")["rows"])}

Counting tokens, `benchmarks/counting.py`:

{counting(stored("counting")["rows"])}

Curation by one core, in processor time, on documents of a megabyte, `benchmarks/curation.py`; comparing signatures is one
process' work, {compared:,} documents a second:

{curation(curated["rows"])}

Sampling, `benchmarks/sampling.py`:

{sampling([row for row in draws if row["what"].startswith("draw") or row["candidates"] <= 10**7])}"""


BLOCKS: dict[str, Callable[[], str]] = {"time": time, "reading": reading, "draws": draws, "measured": measured}


def written(path: Path, blocks: Mapping[str, Callable[[], str]], script: str) -> str:
    """A page with every block that `script` has made anew; each has its place in it, once."""
    page = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- {name}: benchmarks/{script} -->\n", f"\n<!-- end of {name} -->"
        assert page.count(begin) == page.count(end) == 1, f"{path.name} has no one place for {name!r}"
        head, _, rest = page.partition(begin)
        page = head + begin + block() + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    page = written(PAGE, BLOCKS, "scale_page.py")
    if "--write" in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")
