"""Resuming a build of 10,000 samples: how long until a new process asks for the one reply that is missing.

python benchmarks/resume.py [FOLDER]

Short documents: what is measured is the way through ledger and state machine, not the tokenizer. The first row is the
whole stage, replies included; the others start a new process on the folder as a kill would leave it. A FOLDER that is given
keeps the build, so that a second run measures the others alone.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from record import store

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import UNWATCHED, Raw, Teacher, TeacherRequest, Watch
from longalign_data.teachers.table import load_teacher

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


class Stopwatch:
    """The offline teacher, with the moment at which it is asked first."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.asked_at = 0.0
        self.num_asked = 0

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        self.asked_at = self.asked_at or time.time()
        self.num_asked += 1
        return await self._teacher.ask(request, watch=watch)

    async def close(self) -> None:
        await self._teacher.close()

    def status(self) -> str:
        return self._teacher.status()


def child(recipe: Path, output: Path, began: float) -> None:
    loaded = load_recipe(recipe)
    teacher = Stopwatch(load_teacher(loaded.recipe.generate.teacher))
    build(loaded, output, run=RunOptions(), progress=Silent(), teacher=lambda: teacher, only="generate")
    assert teacher.num_asked == 1
    print(teacher.asked_at - began)


def until_asked(folder: Path) -> float:
    """Takes the last reply out of the ledger, and gives the seconds from the start of a process until it is asked for."""
    build_folder = folder / "resumed" / "1.0.0"
    rank = "select doc_id from read_parquet(?) order by rank desc limit 1"
    (last,) = duckdb.execute(rank, [str(build_folder / "selection" / "*.parquet")]).fetchone()
    ledger = sqlite3.connect(build_folder / "ledger.sqlite")
    with ledger:
        wanted = "SELECT request_id FROM requests WHERE kind = 'answer' AND document_id = ?"
        ledger.execute(f"DELETE FROM replies WHERE request_id IN ({wanted})", [last])
    ledger.close()
    command = [sys.executable, __file__, str(folder / "recipe.yaml"), str(folder), str(time.time())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(folder: Path) -> None:
    rows = [] if (folder / "resumed").exists() else [from_nothing(folder)]
    state = folder / "resumed" / "1.0.0" / "state"
    (state / "generate.json").unlink(missing_ok=True)
    rows.append({"what": "one reply missing: until it is asked for", "seconds": round(until_asked(folder), 2)})
    (state / "generate.json").unlink()
    rows.append(
        {"what": "generate, every reply in the ledger, table to write", "seconds": round(run(folder, "generate"), 2)}
    )
    rows.append({"what": "generate, complete", "seconds": round(run(folder, "generate"), 2)})
    store("resume", [row | {"samples": NUM} for row in rows], packages=("pyarrow",))


def from_nothing(folder: Path) -> dict[str, Any]:
    """Makes the corpus and its whole build."""
    folder.mkdir(exist_ok=True)
    with (folder / "notes.jsonl").open("w", encoding="utf-8") as file:
        for n in range(NUM):
            text = " ".join(f"Item {k} of list {n} is {(n * 31 + k * 7) % 9973} long." for k in range(12))
            file.write(json.dumps({"text": f"List {n}\n\n{text}"}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for stage in ("ingest", "sample"):
        run(folder, stage)
    return {"what": "generate from nothing", "seconds": round(run(folder, "generate"), 2)}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
