"""A small corpus in two languages, a recipe for either provider, and the fake provider beside them."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import Teacher
from longalign_data.teachers.fake import FakeServer

ROOT = Path(__file__).parent.parent
KEY = "sk-planted-5f1d0c7e"
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}

RECIPE = """
name: asked
version: 1.0.0
seed: 3
sources:
  - {id: lines, title: Reports, lang: en, license: CC0-1.0, path: en.jsonl, reader: {kind: jsonl}}
  - {id: zeilen, title: Records, lang: zh, license: CC0-1.0, path: zh.jsonl, reader: {kind: jsonl}}
ingest: {min_tokens: 200, max_tokens: 20000}
sample: {count: COUNT, strategy: none, languages: {}}
generate: {teacher: {provider: PROVIDER}}
encode: {max_tokens: 20000}
pack: {capacity: 20000, packs_per_step: 1}
"""


PRICES = """
dated: 2026-11-22
providers:
  anthropic: {cache_write: 1.25, cache_read: 0.1, batch: 0.5, models: {fake-1: {tiers: [{input: 2, output: 10}]}}}
  openai: {cache_read: 0.1, batch: 0.5, models: {fake-1: {tiers: [{input: 2, output: 10}]}}}
"""
"""What the fake provider's meter charges."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A recipe's corpus with where its builds go."""

    recipe: Path
    prepared: Path

    def start(
        self, url: str, output: Path, *options: str, key: str = KEY, stage: str = "generate"
    ) -> "subprocess.Popen[str]":
        if not output.exists():
            shutil.copytree(self.prepared, output)
        command = [sys.executable, "-m", "longalign_data", stage, str(self.recipe), "--output", str(output)]
        command += ["--teacher-url", url, "--workers", "1", *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": key, "OPENAI_API_KEY": key}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def build(self, url: str, output: Path, *options: str, code: int = 0, key: str = KEY) -> str:
        process = self.start(url, output, *options, key=key)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        assert KEY not in out + err
        return out + err


def wait_for_a_batch(process: "subprocess.Popen[str]", ledger: Path) -> None:
    """Returns once the ledger of a build at work names a batch that is out: the provider has it, and the build has heard so."""
    end = time.monotonic() + 300
    while not _num_out(ledger):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def _num_out(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    with contextlib.closing(sqlite3.connect(ledger.absolute().as_uri() + "?mode=ro", uri=True)) as db:
        try:
            (count,) = db.execute("SELECT count(*) FROM submissions WHERE state = 'open'").fetchone()
        except sqlite3.OperationalError:
            return 0  # no tables yet
    return int(count)


def longalign(*arguments: str, key: str = "any", code: int = 0, columns: int = 160) -> str:
    command = [sys.executable, "-m", "longalign_data", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": key, "OPENAI_API_KEY": key, "COLUMNS": str(columns)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def make_corpus(folder: Path, *, count: int = 16, size: int = 40) -> Path:
    """A corpus, and builds that stand before the generate stage; the same for every teacher."""
    with (folder / "en.jsonl").open("w", encoding="utf-8") as file:
        for n in range(count - count // 4):
            sections = [
                f"Section {k}\n\nOn day {k} the inspectors of site {n} found {(n * 31 + k * 17) % 997} units. "
                f"The foreman Adeline{n}x{k} signed the sheet. Nothing was said about the pumps."
                for k in range(size + n)
            ]
            file.write(json.dumps({"text": f"Report {n}\n\n" + "\n\n".join(sections)}) + "\n")
    with (folder / "zh.jsonl").open("w", encoding="utf-8") as file:
        for n in range(count // 4):
            text = "\n\n".join(
                f"第{k}节 检查记录\n编号{n}的设备在第{k}天由第{k % 7}组检查，读数为{(n * 37 + k * 11) % 1000}。记录员确认无误。"
                for k in range(size + n)
            )
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("COUNT", str(count)).replace("PROVIDER", "extractive"), encoding="utf-8")
    loaded = load_recipe(recipe)
    for stage in ("ingest", "sample"):
        build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=no_teacher, only=stage)
    return folder


def no_teacher() -> Teacher:
    raise AssertionError("nothing is asked before the generate stage")


def with_teacher(prepared: Path, folder: Path, provider: str) -> Asked:
    """A copy of the corpus in `folder` with this teacher in its recipe."""
    for path in prepared.glob("*.jsonl"):
        shutil.copy(path, folder)
    text = (prepared / "recipe.yaml").read_text(encoding="utf-8")
    recipe = folder / "recipe.yaml"
    model = "" if provider == "extractive" else ", model: fake-1"
    recipe.write_text(text.replace("provider: extractive", f"provider: {provider}{model}"), encoding="utf-8")
    return Asked(recipe, prepared / "builds")


def address(server: FakeServer, provider: str) -> str:
    return server.url + ("/v1" if provider == "openai" else "")


def log_of(folder: Path, number: int = 0) -> list[dict[str, Any]]:
    path = folder / f"requests-{number}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(output: Path, table: str, name: str = "asked") -> list[dict[str, Any]]:
    shards = sorted((output / name / "1.0.0" / table).glob("*.parquet"))
    return [row for path in shards for row in pq.read_table(path).to_pylist()]


def texts(output: Path) -> list[dict[str, Any]]:
    """Samples without what the bill says of them."""
    return [{k: v for k, v in row.items() if k not in {"usage", "cost_usd"}} for row in rows(output, "samples")]


def answer_elsewhere(requests: Path, replies: Path, server: FakeServer, provider: str) -> int:
    """What somebody does with the file on another machine: asks line by line, and writes what came, last first."""
    lines = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    answered: list[dict[str, Any]] = []
    for line in lines:
        body = json.dumps(line["body"] if provider == "openai" else line["params"]).encode()
        if provider == "openai":
            assert line["url"] == PATHS["openai"]
            assert line["method"] == "POST"
        headers = {"content-type": "application/json", "authorization": "Bearer any", "anthropic-version": "2026-10-21"}
        with urllib.request.urlopen(
            urllib.request.Request(server.url + PATHS[provider], data=body, headers=headers), timeout=300
        ) as response:
            reply = json.loads(response.read())
        if provider == "openai":
            result: dict[str, Any] = {"response": {"status_code": 200, "body": reply}, "error": None}
        else:
            result = {"result": {"type": "succeeded", "message": reply}}
        answered.append({"custom_id": line["custom_id"], **result})
    with replies.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in reversed(answered))
    return len(lines)
