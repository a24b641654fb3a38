"""The section "Figures" of docs/packing.md, out of the stored results.

python benchmarks/packing_page.py          prints it
python benchmarks/packing_page.py --write  puts it into the page
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "packing.md"
HEAD = "## Figures\n"
OTHERS = ("ours: balanced", "ours: random", "TRL: best fit, per 1000", "axolotl: first fit, per 100k")


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table(head: str, rows: list[list[object]]) -> str:
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def section() -> str:
    packing, encode, reader = stored("packing"), stored("encode"), stored("reader")
    (large,), (million,) = stored("packing-large")["rows"], stored("encode-large")["rows"]
    mix = [row for row in packing["rows"] if row["lengths"] == "synthetic mix"]
    others = [row for row in packing["rows"] if row["lengths"] != "synthetic mix" and row["method"] in OTHERS]
    of = {row["method"]: row for row in mix}
    verl = of["verl: Karmarkar-Karp, no limit of tokens"]
    faster = of["ours: balanced"]["seqs_per_s"] / of["TRL: best fit, per 1000"]["seqs_per_s"]
    read = {row["what"]: row for row in reader["rows"]}
    first = read["first batch of a step"]
    methods = table(
        "| method | packs | fill | steps, K = 8 / 32 | lost | sequences/s | weight, K = 8 | weight, K = 32 "
        "| idle, A = 4 / 8 / 16 | long against short |",
        [
            [
                row["method"], f"{row['packs']:,}", f"{row['fill']:.2%}", row["steps"], row["lost"],
                f"{row['seqs_per_s']:,}" if row["seqs_per_s"] else "", row["weight_k8"], row["weight_k32"], row["idle"],
                row["bias"],
            ]
            for row in mix
        ],
    )  # fmt: skip
    hard = table(
        "| lengths | method | packs | lower bound | fill | steps, K = 8 / 32 | the fewest steps | weight, K = 8 "
        "| idle, A = 4 / 8 / 16 |",
        [
            [
                row["lengths"], row["method"], f"{row['packs']:,}", f"{row['lower_bound']:,}", f"{row['fill']:.2%}",
                row["steps"], row["fewest_steps"], row["weight_k8"], row["idle"],
            ]
            for row in others
        ],
    )  # fmt: skip
    encoded = table(
        "| conversations | tokens | stage | the tokenizer's own batch call | share | one process a core | share |",
        [
            [
                f"{row['count']:,} {row['conversations']}", f"{row['tokens']:,}", *(
                    f"{row[name] / 1e6:.2f} M/s" if name.endswith("_s") else f"{row[name]:.0%}"
                    for name in ("stage_tokens_per_s", "raw_tokens_per_s", "stage_to_raw", "raw_processes_tokens_per_s",
                                 "stage_to_raw_processes")
                ),
            ]
            for row in encode["rows"]
        ],
    )  # fmt: skip
    commits = ", ".join(
        f"`{name}.json` at {stored(name)['machine']['commit']}"
        for name in ("packing", "packing-large", "encode", "encode-large", "reader")
    )
    return f"""{HEAD}
```sh
python benchmarks/packing.py
python benchmarks/packing.py --large
python benchmarks/encode.py
python benchmarks/encode.py --large
python benchmarks/reader.py
```

The rows stand in [benchmarks/results](../benchmarks/results) ({commits}); `benchmarks/packing_page.py` writes this section
from them.
Peers are re-stated as algorithms over lengths in [benchmarks/peers.py](../benchmarks/peers.py).

On the synthetic mix (100,000 sequences, capacity 65,536, a lower bound of {of["ours: balanced"]["lower_bound"]:,} packs, which make
{of["ours: balanced"]["fewest_steps"]} steps at the least):

{methods}

Packs and fill are those at K = 8. `lost` sequences are in no pack; "weight" is the 1st to 99th percentile of how much a
sequence counts, 1 being its fair share, when every step divides by its own number of sequences; "idle" is the share of time that
8 ranks wait by the model 24576 l + l^2; the last column is how much sequences of 8k tokens and more count beside the others.
Steps are whole, so packs are a multiple of K: at K = 32 there are as few steps as can be, and their packs are a little less
full. verl's method levels work without regard to tokens: {verl["over_capacity"]:,} of its packs are over the capacity.
`balanced` is {faster:.1f} times as fast a sequence as TRL's best fit, which packs a thousand sequences at a time.

Lengths that are hard, and those of the quickstart's build:

{hard}

Few packs a step and few sequences a pack leave little to choose: the quickstart's 21 packs' worth of tokens become whole steps,
and where hardly a sequence is short, equal weights cost packs.

Ten million sequences of the mix: {large["seconds"]} s ({large["cpu_seconds"]} s of processor time), {large["peak_gib"]} GiB,
{large["packs"]:,} packs over a lower bound of {large["lower_bound"]:,}.

Encoding, in content tokens, from the table on disk to the table on disk, with what the tokenizer alone does on the same texts:

{encoded}

{million["conversations"]} ({million["tokens"]:,} tokens) take {million["seconds"]:.0f} s, {million["main_peak_mib"]} MiB
in the main process and at most {million["other_process_peak_mib"]} MiB in a worker.

The reader, on random token ids: open after {read["open"]["ms"]} ms, the first batch of any step {first["ms"]} ms later (at most
{first["max_ms"]}), then {read["rank 0 of 1, reading ahead"]["tokens_per_s"] / 1e6:.1f} million tokens a second for one rank that
reads all, {read["rank 0 of 8, reading ahead"]["tokens_per_s"] / 1e6:.1f} million for one of eight.
"""


if __name__ == "__main__":
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page[: page.index(HEAD)] + section(), encoding="utf-8")
    else:
        print(section(), end="")
