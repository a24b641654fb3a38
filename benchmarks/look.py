"""How long it takes to look at large builds: the report, the explorer's first page, a document of 64k tokens in a browser, and
lengths out of 10 GB.

python benchmarks/look.py BUILDS              makes the builds below BUILDS where they are missing, and measures
python benchmarks/look.py BUILDS --documents  the documents in a browser alone

`100k samples`: documents of 2,000 characters with lengths as the recipe of the paper has them, so that everything that
depends on the number of rows is as in a real build. `10 GB`: a build's `documents` of 10 GB, copies of one shard whose
texts hardly compress. `long documents`: the build that the tests look at, with a document of 64k tokens in Chinese, one in
English and one that is a single line; a page is open once the browser has drawn it (goal: within a second). This needs
Playwright and Chromium (make browser).
The report runs in a process of its own, whose largest memory is told.
"""

import argparse
import base64
import itertools
import json
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import store

from longalign_data.engine import RunOptions
from longalign_data.explore.sql import connect, run_query
from longalign_data.generation.ledger import Ledger
from longalign_data.identity import digest, document_id
from longalign_data.packing.pack import plan_sequences, read_sequences
from longalign_data.recipe import PackSequences
from longalign_data.records import (
    DOCUMENTS,
    Checks,
    Document,
    DocumentSpan,
    Evidence,
    Message,
    Pack,
    PlanEntry,
    Sample,
    Score,
    Selected,
    TargetSpan,
    Teacher,
    TokenSequence,
    Usage,
)
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import to_row
from longalign_data.shards.stage import StageWriter

SAMPLES = 100_000
LARGE_BYTES = 10 * 10**9
SOURCES = [(f"source-{n}", "zh" if n % 4 == 3 else "en") for n in range(9)]
TASKS = ("general", "summary", "reasoning", "extraction")


def write_samples(root: Path) -> None:
    """Every table of a build of 100,000 samples."""
    build, run = BuildFolder(root), RunOptions()
    draw = random.Random(0)
    words = ["river", "hill", "weather", "line", "over", "under", "the", "of", "tells"]
    rows = []
    with StageWriter(build, "ingest", fingerprint="a", run=run) as writer:
        for number in range(SAMPLES):
            source, lang = SOURCES[number % len(SOURCES)]
            text = f"Document {number}\n" + " ".join(draw.choices(words, k=350))
            tokens = int(np.exp(draw.uniform(np.log(8_192), np.log(65_536))))
            document = Document(
                doc_id=document_id(text),
                source=source,
                source_ref=f"{source}.jsonl:{number}-{number + 1}",
                lang=lang,
                license="CC0-1.0",
                title=f"Document {number}",
                text=text,
                num_chars=len(text),
                num_bytes=len(text),
                num_tokens=tokens,
            )
            rows.append((document.doc_id, source, lang, tokens))
            writer.write("documents", document)
            writer.next_input()
        writer.finish()
    edges = [8_192, 16_384, 32_768, 65_536]
    cells = []
    with StageWriter(build, "sample", fingerprint="b", run=run) as writer:
        for rank, (doc_id, _, _, tokens) in enumerate(rows):
            bucket = next(f"{low}-{high}" for low, high in itertools.pairwise(edges) if tokens <= high)
            writer.write("selection", Selected(doc_id=doc_id, bucket=bucket, key=rank / SAMPLES, rank=rank))
            writer.next_input()
        for low, high in itertools.pairwise(edges):
            had = sum(low <= row[3] < high for row in rows)
            cells.append(
                {
                    "lang": "",
                    "source": "",
                    "bucket": f"{low}-{high}",
                    "target": SAMPLES // 3,
                    "achieved": had,
                    "available": had,
                }
            )
        writer.finish({"edges": edges, "cells": cells, "sources": []})
    answers = [max(8, int(draw.lognormvariate(5, 1))) for _ in rows]
    with StageWriter(build, "generate", fingerprint="c", run=run) as writer:
        for number, (doc_id, source, lang, tokens) in enumerate(rows):
            text, place = f"Document {number}\n" + "x" * 200, draw.randrange(150)
            writer.write(
                "samples",
                Sample(
                    sample_id=digest({"n": number}),
                    doc_ids=(doc_id,),
                    source=source,
                    lang=lang,
                    task=TASKS[number % 4],
                    messages=(
                        Message(role="user", content=f"{text}\n\nWhat is told?"),
                        Message(role="assistant", content="It tells."),
                    ),
                    document_spans=(DocumentSpan(message_index=0, start=0, end=len(text)),),
                    questions=tuple(
                        f"{word} is told of in document {number}?" for word in ("What", "Who", "Which", "Where", "Why")
                    ),
                    question_index=number % 5,
                    teacher=Teacher(provider="anthropic", model="model", terms="terms"),
                    usage=Usage(input_tokens=tokens, cache_read_tokens=tokens, output_tokens=answers[number]),
                    cost_usd=0.01,
                    stop_reason="end_turn",
                    request_ids=("a" * 32, "b" * 32),
                    num_tokens=tokens,
                    num_answer_tokens=answers[number],
                    checks=Checks(
                        evidence=(Evidence(doc_id=doc_id, start=place, end=place + 20),),
                        scores=(Score(name="grounding", value=draw.random()), Score(name="num_claims", value=3.0)),
                    ),
                    license="CC0-1.0",
                ),
            )
            writer.next_input()
        writer.finish()
    # Token ids are a few, so that the build stays small; lengths are true, and nothing that is measured reads ids.
    with StageWriter(build, "encode", fingerprint="d", run=run) as writer:
        for number, (_, source, _, tokens) in enumerate(rows):
            targets = min(answers[number], tokens)
            writer.write(
                "sequences",
                TokenSequence(
                    sequence_id=digest({"s": number}),
                    sample_id=digest({"n": number}),
                    source=source,
                    task=TASKS[number % 4],
                    input_ids=(1, 2),
                    target_spans=(TargetSpan(start=tokens - targets, end=tokens),),
                    num_tokens=tokens,
                    num_targets=targets,
                    truncated_tokens=0,
                ),
            )
            writer.next_input()
        writer.finish()
    choice = PackSequences()
    sequences = read_sequences(build.shards("sequences"))
    planned = plan_sequences(sequences, choice, 0)
    plan = planned.plan
    normalizers, in_step = plan.step_sums(planned.totals), plan.sequences_in_steps()
    with StageWriter(build, "pack", fingerprint="e", run=run) as writer:
        for step in range(plan.num_steps):
            for number in range(plan.step_starts[step], plan.step_starts[step + 1]):
                chosen = planned.members[plan.sequences[plan.pack_starts[number] : plan.pack_starts[number + 1]]]
                lengths = sequences.num_tokens[chosen]
                ids = sequences.ids.take(pa.array(chosen)).to_pylist()
                pack = Pack(
                    pack_id=digest({"sequence_ids": ids}),
                    input_ids=(1, 2),
                    loss_weights=(0.0, 1.0),
                    cu_seqlens=[0, *np.cumsum(lengths).tolist()],
                    sequence_ids=ids,
                    num_tokens=int(lengths.sum()),
                    num_sequences=len(ids),
                    num_targets=int(sequences.num_targets[chosen].sum()),
                    work=float(planned.shape.work(lengths).sum()),
                )
                writer.write("packs", pack)
                entry = PlanEntry(
                    step=step,
                    position=int(number - plan.step_starts[step]),
                    pack_id=pack.pack_id,
                    num_sequences=int(in_step[step]),
                    normalizer=float(normalizers[step]),
                    epoch=0,
                    capacity=choice.capacity,
                )
                writer.write("plan", entry)
                writer.next_input(len(ids))
        writer.finish({"capacity": choice.capacity})
    recipe = (Path(__file__).parent.parent / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    manifest = {
        "name": "synthetic",
        "version": "1.0.0",
        "recipe": recipe,
        "pack": choice.model_dump(mode="json"),
        "stages": [{"stage": "encode", "details": {"answers_cut": 0}}],
    }
    write_ledger(build)
    build.manifest.write_text(json.dumps(manifest), encoding="utf-8")


def write_ledger(build: BuildFolder) -> None:
    """Two replies for every sample, over two days."""
    with Ledger(build.ledger):
        pass
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    with sqlite3.connect(build.ledger) as db:
        for number in range(2 * SAMPLES):
            request = f"{number:032x}"
            time = (begin + timedelta(seconds=0.864 * number)).isoformat()
            db.execute(
                "INSERT INTO requests VALUES (?, ?, 'answer', 'anthropic', 'claude-sonnet-5', '{}', 1, 'x', 'answered', 1, ?)",
                (request, f"{number // 2:032x}", time),
            )
            db.execute(
                "INSERT INTO replies VALUES (?, ?, NULL, x'00', 1000, 0, ?, 300, 0)",
                (request, time, 30_000 * (number % 2)),
            )
    db.close()


def write_large(root: Path) -> None:
    """A table `documents` of 10 GB in shards of 256 MB: one of texts that hardly compress, and copies of it."""
    folder = root / "documents"
    folder.mkdir(parents=True)
    first = folder / "00000.parquet"
    with pq.ParquetWriter(first, DOCUMENTS, compression="zstd", use_dictionary=False) as writer:
        while first.stat().st_size < 256 << 20:
            texts = [base64.b64encode(os.urandom(150_000)).decode() for _ in range(20)]
            rows = [
                Document(
                    doc_id=digest({"text": text[:64]}),
                    source=f"source-{n % 9}",
                    source_ref="x",
                    lang="en",
                    license="CC0-1.0",
                    title="x",
                    text=text,
                    num_chars=len(text),
                    num_bytes=len(text),
                    num_tokens=60_000 + n,
                )
                for n, text in enumerate(texts)
            ]
            writer.write_table(pa.Table.from_pylist([to_row(row) for row in rows], schema=DOCUMENTS))
    for number in range(1, LARGE_BYTES // first.stat().st_size + 1):
        shutil.copyfile(first, folder / f"{number:05d}.parquet")
    (root / "state").mkdir()


def command(*arguments: str) -> tuple[float, float]:
    """Seconds and GiB of a command of ours, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "longalign_data", *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return round(seconds, 2), round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2)


def pages(build: Path) -> dict[str, float]:
    """Seconds of the explorer's pages, the first with nothing in memory yet."""
    command_line = [sys.executable, "-m", "longalign_data", "view", str(build), "--port", "0"]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0].rstrip("/")

            def fetch(path: str) -> tuple[float, str]:
                began = time.perf_counter()
                with urllib.request.urlopen(address + path, timeout=60) as answer:
                    text = answer.read().decode()
                return round(time.perf_counter() - began, 3), text

            found = {"first page": fetch("/")}
            sample = re.search(r"/sample/[0-9a-f]+", found["first page"][1])
            assert sample is not None
            for name, path in (
                ("sorted by score", "/?sort=-grounding"),
                ("page 1,000 of it", "/?sort=-grounding&page=1000"),
                ("filtered by source and length", "/?source=source-3&num_tokens=40000.."),
                ("question contains", "/?question=document+77"),
                ("one sample", sample[0]),
            ):
                found[name] = fetch(path)
            return {name: seconds for name, (seconds, _) in found.items()}
        finally:
            process.terminate()


def documents(root: Path) -> list[dict[str, Any]]:
    """Seconds until the browser has drawn the page of a sample of a long document: the first time and the best of ten."""
    from playwright.sync_api import sync_playwright

    from tests.explore.conftest import make_id
    from tests.explore.look.conftest import CHROMIUM, FLAGS, viewing
    from tests.explore.look.planted import write_planted

    assert CHROMIUM is not None, "no Chromium is installed; make browser installs one"
    if not (root / "manifest.json").is_file():
        write_planted(root)
    rows = []
    with viewing(BuildFolder(root)) as address, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        for number, name in enumerate(("one line", "Chinese", "English")):
            taken = []
            for _ in range(10):
                began = time.perf_counter()
                page.goto(f"{address}/sample/{make_id('planted', number)}")
                page.locator(".document").wait_for()
                page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                taken.append(time.perf_counter() - began)
            row = {"what": f"explorer, a document of 64k tokens in a browser, {name}", "build": "long documents"}
            rows.append(row | {"seconds": round(min(taken), 3), "first": round(taken[0], 3), "goal": "less than 1 s"})
        browser.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("builds", type=Path)
    parser.add_argument("--documents", action="store_true", help="measure the documents in a browser alone")
    arguments = parser.parse_args()
    packages = ("duckdb", "pyarrow", "starlette", "uvicorn", "vl-convert-python", "playwright")
    opened = documents(arguments.builds / "planted" / "1.0.0")
    if arguments.documents:
        store("look-documents", opened, packages=packages)
        return
    samples, large = arguments.builds / "samples", arguments.builds / "large"
    if not (samples / "manifest.json").is_file():
        write_samples(samples)
    if not (large / "state").is_dir():
        write_large(large)
    rows = opened
    for name, seconds in pages(samples).items():
        rows.append({"what": f"explorer, {name}", "build": "100k samples", "seconds": seconds})
    report = arguments.builds / "report.html"
    seconds, memory = command("report", str(samples), "--out", str(report))
    rows.append(
        {
            "what": "report",
            "build": "100k samples",
            "seconds": seconds,
            "gib": memory,
            "mb": round(report.stat().st_size / 1e6, 2),
        }
    )
    size = sum(path.stat().st_size for path in (large / "documents").iterdir()) / 1e9
    for query in (
        "select source, count(*), quantile_disc(num_tokens, 0.5) from documents group by source",
        "select sum(num_tokens) from documents",
    ):
        with connect(BuildFolder(large)) as connection:
            began = time.perf_counter()
            list(run_query(connection, query).rows())
            rows.append(
                {
                    "what": query,
                    "build": f"{size:.1f} GB of documents",
                    "seconds": round(time.perf_counter() - began, 3),
                }
            )
    seconds, _ = command(
        "sql", str(large), "select source, count(*), quantile_disc(num_tokens, 0.5) from documents group by source"
    )
    rows.append(
        {
            "what": "longalign sql, the first of these, whole command",
            "build": f"{size:.1f} GB of documents",
            "seconds": seconds,
        }
    )
    store("look", rows, packages=packages)


if __name__ == "__main__":
    main()
