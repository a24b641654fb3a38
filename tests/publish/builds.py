"""Small real builds: two sources, a set of conversations, the offline teacher, several shards a table."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import TeacherChoice, load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import require_manifest, shards_of
from longalign_data.teachers.base import Teacher
from longalign_data.teachers.table import load_teacher
from tests.hub.server import Hub

ROOT = Path(__file__).parent.parent.parent

RECIPE = """
name: towns
version: VERSION
description: Reports on towns.
seed: 3
sources:
  - {id: open, title: Reports, lang: en, license: CC0-1.0, path: open.jsonl, reader: {kind: jsonl}, redistribute: true}
  - id: closed
    title: Records
    lang: zh
    license: LicenseRef-house
    path: closed.jsonl
    reader: {kind: jsonl}
    redistribute: CLOSED
ingest: {min_tokens: 100, max_tokens: 20000}
sample: {count: 14, edges: [100, 1000, 20000], languages: {zh: 0.3}}
generate: {teacher: {terms: "made by a program, free to use"}}
mix:
  - {id: talk, lang: en, license: CC0-1.0, path: talk.jsonl, redistribute: MIX}
encode: {max_tokens: 4096}
pack: {capacity: 4096, packs_per_step: 2, epochs: 2, source_weights: {talk: 0.5}}
"""

RUN = RunOptions(shard_bytes=30_000, row_group_bytes=8_000)


def write_corpus(
    folder: Path, *, version: str = "1.0.0", closed: str = "true", mix: str = "true", extra: str = ""
) -> Path:
    """The corpus, with the recipe beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "open.jsonl").open("w", encoding="utf-8") as file:
        for n in range(14):
            sections = [
                f"Section {k}\n\nOn day {k} the inspectors of town {n} found {(n * 31 + k * 17) % 997} units. "
                f"The foreman Adeline{n}x{k} signed the sheet. Nothing was said about the pumps."
                for k in range(6 + 3 * n)
            ]
            file.write(json.dumps({"text": f"Report {n}\n\n" + "\n\n".join(sections)}) + "\n")
    with (folder / "closed.jsonl").open("w", encoding="utf-8") as file:
        for n in range(6):
            text = "\n\n".join(
                f"第{k}节 检查记录\n编号{n}的设备在第{k}天由第{k % 7}组检查，读数为{(n * 37 + k * 11) % 1000}。记录员确认无误。"
                for k in range(8 + 4 * n)
            )
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with (folder / "talk.jsonl").open("w", encoding="utf-8") as file:
        for n in range(9):
            turns = [("user", f"What is {n} plus {n}?"), ("assistant", f"It is {n + n}.")] * (1 + n % 2)
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    recipe = folder / "recipe.yaml"
    text = RECIPE.replace("VERSION", version).replace("CLOSED", closed).replace("MIX", mix)
    recipe.write_text(text + extra, encoding="utf-8")
    return recipe


def offline() -> Teacher:
    return load_teacher(TeacherChoice(), api_key=None, base_url=None, concurrency=1, calls_per_document=2)


def make(recipe: Path, output: Path) -> BuildFolder:
    """The build of a recipe, in this process."""
    return build(load_recipe(recipe), output, run=RUN, progress=Silent(), teacher=offline).folder


def rows(build: BuildFolder, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in order."""
    return [row for path in build.shards(table) for row in pq.read_table(path).to_pylist()]


def hashes(build: BuildFolder) -> dict[str, str]:
    """Path and SHA-256 of every shard that the manifest names."""
    manifest = require_manifest(build)
    return {shard.path: shard.sha256 for table in manifest["tables"] for shard in shards_of(manifest, table)}


def hold(root: Path, text: str) -> list[str]:
    """The files below a folder in which a text stands: as bytes, or in any string of a decoded table."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            plain = text.encode() in path.read_bytes()
            if path.suffix == ".parquet":
                plain = plain or text in json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False)
            if plain:
                found.append(path.relative_to(root).as_posix())
    return found


def longalign(hub: Hub, *arguments: str, home: Path) -> "subprocess.Popen[str]":
    """The command in a process of its own, with `hub` as the Hub and its caches below `home`."""
    environment = os.environ | hub.environment() | {"PYTHONPATH": str(ROOT), "HF_HOME": str(home)}
    command = [sys.executable, "-m", "longalign_data", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
