"""Resuming a build of 10,000 samples: how long until a new process asks for the one reply that is missing.

python benchmarks/resume.py [FOLDER]

Once with documents of some 180 tokens, from nothing and through the whole stage, which is the way through ledger and state
machine; once with documents of some 25,000, whose replies are made of a short text, for the offline teacher would read them for
half an hour. Every row is a new process on the folder as a kill would leave it. A FOLDER that is given keeps the builds, so
that a second run measures resuming alone.
"""

import asyncio
import dataclasses
import json
import os
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
from longalign_data.errors import TeacherError
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import UNWATCHED, Raw, Teacher, TeacherRequest, Watch
from longalign_data.teachers.table import load_teacher

NUM = 10_000
ITEMS = {"short": 12, "long": 1_400}
"""How many items a document's list has."""


def recipe(kind: str) -> str:
    return f"""
name: {kind}
version: 1.0.0
sources: [{{id: notes, title: Notes, lang: en, license: CC0-1.0, path: {kind}.jsonl, reader: {{kind: jsonl}}}}]
ingest: {{min_tokens: 50, max_tokens: 64000}}
sample: {{count: {NUM}, strategy: none, languages: {{}}}}
"""


def text(number: int, items: int) -> str:
    stated = " ".join(f"Item {k} of list {number} is {(number * 31 + k * 7) % 9973} long." for k in range(items))
    return f"List {number}\n\n{stated}"


class Brief:
    """Answers out of a short text whatever document it is asked about, and is away for the one that begins with `but`."""

    def __init__(self, teacher: Teacher, but: str) -> None:
        self._teacher = teacher
        self._but = but

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        if request.document.startswith(self._but):
            raise TeacherError("away", reason="unavailable", retryable=True)
        return await self._teacher.ask(dataclasses.replace(request, document=text(0, ITEMS["short"])), watch=watch)

    async def close(self) -> None:
        await self._teacher.close()

    def status(self) -> str:
        return self._teacher.status()


class Stopwatch(Brief):
    """Prints the seconds from `began` until it is asked first, and ends the process."""

    def __init__(self, teacher: Teacher, began: float) -> None:
        super().__init__(teacher, "")
        self._began = began

    async def ask(self, request: TeacherRequest, *, watch: Watch = UNWATCHED) -> Raw:
        del request, watch
        await asyncio.sleep(0)
        print(time.time() - self._began, flush=True)
        os._exit(0)


def generate(kind: str, folder: Path, **how: Any) -> None:
    """The stage in this process, with a teacher of ours: until all is asked but what `but` begins, or until it is asked
    first."""
    loaded = load_recipe(folder / f"{kind}.yaml")
    offline = load_teacher(loaded.recipe.generate.teacher)
    teacher = Stopwatch(offline, **how) if "began" in how else Brief(offline, **how)
    build(loaded, folder, run=RunOptions(), progress=Silent(), teacher=lambda: teacher, only="generate")


def run(kind: str, folder: Path, stage: str) -> float:
    command = [sys.executable, "-m", "longalign_data", stage, str(folder / f"{kind}.yaml"), "--output", str(folder)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def prepare(kind: str, folder: Path) -> None:
    """Makes the corpus and draws from it."""
    with (folder / f"{kind}.jsonl").open("w", encoding="utf-8") as file:
        for number in range(NUM):
            file.write(json.dumps({"text": text(number, ITEMS[kind])}) + "\n")
    (folder / f"{kind}.yaml").write_text(recipe(kind), encoding="utf-8")
    for stage in ("ingest", "sample"):
        run(kind, folder, stage)


def last(build_folder: Path) -> tuple[str, str]:
    """The document that is used last, and how it begins."""
    found = duckdb.execute(
        "select doc_id, split_part(text, chr(10), 1) || chr(10) from read_parquet(?) d join read_parquet(?) s using (doc_id) "
        "order by rank desc limit 1",
        [str(build_folder / table / "*.parquet") for table in ("documents", "selection")],
    ).fetchone()
    assert found is not None
    return found


def until_asked(kind: str, folder: Path) -> float:
    """Takes the last reply out of the ledger, and gives the seconds from the start of a process until it is asked for."""
    build_folder = folder / kind / "1.0.0"
    doc_id, _ = last(build_folder)
    ledger = sqlite3.connect(build_folder / "ledger.sqlite")
    with ledger:
        wanted = "SELECT request_id FROM requests WHERE kind = 'answer' AND document_id = ?"
        ledger.execute(f"DELETE FROM replies WHERE request_id IN ({wanted})", [doc_id])
    ledger.close()
    (build_folder / "state" / "generate.json").unlink(missing_ok=True)
    command = [sys.executable, __file__, str(folder), kind, str(time.time())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []

    def row(kind: str, what: str, seconds: float) -> None:
        tokens = duckdb.execute(
            "select avg(num_tokens) from read_parquet(?)", [str(folder / kind / "1.0.0" / "documents" / "*.parquet")]
        ).fetchone()
        assert tokens is not None
        rows.append(
            {"what": what, "samples": NUM, "tokens_per_document": round(tokens[0]), "seconds": round(seconds, 2)}
        )
        print(rows[-1], flush=True)

    if not (folder / "short").exists():
        prepare("short", folder)
        row("short", "generate from nothing", run("short", folder, "generate"))
    row("short", "one reply missing: until it is asked for", until_asked("short", folder))
    row("short", "generate, one reply to ask for, table to write", run("short", folder, "generate"))
    row("short", "generate, complete", run("short", folder, "generate"))
    if not (folder / "long").exists():
        prepare("long", folder)
        # In this process nothing is measured: the replies come, and all but the last document has them.
        try:
            generate("long", folder, but=last(folder / "long" / "1.0.0")[1])
        except TeacherError as error:
            print(error)
    row("long", "one reply missing: until it is asked for", until_asked("long", folder))
    store("resume", rows, packages=("pyarrow",))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        generate(sys.argv[2], Path(sys.argv[1]), began=float(sys.argv[3]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
