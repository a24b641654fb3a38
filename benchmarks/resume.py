"""Resuming a build of 10,000 samples whose replies are all in the ledger, and one that was cut in the middle of the table.

python benchmarks/resume.py

Short documents: what is measured is the way through ledger and state machine, not the tokenizer. The first row is the
whole stage, replies included; the others start a new process on the folder as a kill would leave it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import store

NUM = 10_000
RECIPE = f"""
name: resumed
version: 1.0.0
sources: [{{id: notes, title: Notes, lang: en, license: CC0-1.0, path: notes.jsonl, reader: {{kind: jsonl}}}}]
ingest: {{min_tokens: 50, max_tokens: 2000}}
sample: {{count: {NUM}, strategy: none, languages: {{}}}}
"""


def run(folder: Path, stage: str) -> float:
    command = [sys.executable, "-m", "longalign_data", stage, str(folder / "recipe.yaml"), "--output", str(folder)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(folder: Path) -> None:
    with (folder / "notes.jsonl").open("w", encoding="utf-8") as file:
        for n in range(NUM):
            text = " ".join(f"Item {k} of list {n} is {(n * 31 + k * 7) % 9973} long." for k in range(12))
            file.write(json.dumps({"text": f"List {n}\n\n{text}"}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    state = folder / "resumed" / "1.0.0" / "state"
    for stage in ("ingest", "sample"):
        run(folder, stage)
    rows = [{"what": "generate from nothing", "seconds": round(run(folder, "generate"), 2)}]
    (state / "generate.json").unlink()
    rows.append(
        {"what": "generate, every reply in the ledger, table to write", "seconds": round(run(folder, "generate"), 2)}
    )
    rows.append({"what": "generate, complete", "seconds": round(run(folder, "generate"), 2)})
    store("resume", [row | {"samples": NUM} for row in rows], packages=("pyarrow",))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
