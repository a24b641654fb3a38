"""What a data set costs by each way of asking, beside two naive calls a document, on the fake provider's meter.

python benchmarks/bill.py

Fifty documents of 8,000 to 40,000 tokens, every prompt sent over real HTTP. `naive` sends the same calls with no mark for
the cache; all that differs is the way. `estimated_usd` is what `longalign estimate --pilot 50` says before anything is asked,
with the lengths of replies out of a trial build of ten documents (`--limit 10`); `by_pilot_usd` what it says without the
trial, when nobody knows yet how much this teacher writes. The fake's answers are short, so these ratios are those of the
documents' tokens; see `output_share`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import corpora
from record import store

from longalign_data.build.pipeline import build, prepare
from longalign_data.engine import RunOptions, Silent
from longalign_data.generation.budget import Spending
from longalign_data.recipe import limited, load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import read_report
from longalign_data.teachers.fake import FakeServer, Scenario
from longalign_data.teachers.prices import load_prices
from longalign_data.teachers.table import load_teacher

NUM = 50
SCENARIO = Scenario.model_validate({"batches": {"seconds": 0.2}})
WAYS: dict[str, tuple[str, bool, int, str]] = {
    "naive, two live calls": ("live", False, 1, "live"),
    "live with cache": ("live", True, 1, "live+cache"),
    "batch": ("batch", False, 1, "batch"),
    "batch, five answers a document": ("batch", False, 5, "batch"),
}
"""Schedule, marks for the cache, answers a document, and what the estimate calls it."""


def metered(prepared: Path, output: Path, recipe: Path, schedule: str, cache: bool, answers: int) -> dict[str, Any]:
    shutil.copytree(prepared, output)
    loaded = load_recipe(recipe)
    choice = loaded.recipe.generate.teacher
    with FakeServer(SCENARIO) as server:
        teacher = load_teacher(
            choice, api_key="fake", base_url=server.url, prompt_cache=cache, calls_per_document=1 + answers
        )
        built = build(
            loaded,
            output,
            run=RunOptions(schedule=schedule, concurrency=8),  # type: ignore[arg-type]
            progress=Silent(),
            teacher=lambda: teacher,
            only="generate",
            spending=Spending(prices=load_prices(recipe.parent / "prices.yaml")),
        )
        report = read_report(BuildFolder(built.folder.root), "generate")
        assert report is not None
        meter, prices = server.state.meter, server.state.scenario.prices
        factor = prices.batch if schedule == "batch" else 1.0
        usd = server.state.usd()
        assert abs(report.details["cost"]["ledger_usd"] - usd) < 1e-5, "the bill that we reckon is the provider's"
        return {
            "usd": round(usd, 5),
            "samples": report.num_out,
            "usd_per_sample": usd / report.num_out,
            "output_share": round(factor * meter["output_tokens"] * prices.output / 1e6 / usd, 4),
        }


def trial(output: Path, recipe: Path) -> None:
    loaded = limited(load_recipe(recipe), 10)
    prepare(loaded, output, run=RunOptions(), progress=Silent())
    with FakeServer(SCENARIO) as server:
        teacher = load_teacher(loaded.recipe.generate.teacher, api_key="fake", base_url=server.url)
        run = RunOptions(concurrency=4)
        build(loaded, output, run=run, progress=Silent(), teacher=lambda: teacher, only="generate")


def estimated(output: Path, recipe: Path, way: str, answers: int) -> float:
    with FakeServer(SCENARIO) as server:
        command = [sys.executable, "-m", "longalign_data", "estimate", str(recipe), "--output", str(output)]
        command += ["--pilot", str(NUM), "--teacher-url", server.url, "--prices", str(recipe.parent / "prices.yaml")]
        environment = os.environ | {"ANTHROPIC_API_KEY": "fake", "COLUMNS": "160"}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        assert server.state.usd() == 0.0, "an estimate costs nothing"
    line = next(line for line in said.splitlines() if re.match(rf"{re.escape(way)}\s+{answers} <", line))
    return float(line.removeprefix(way).replace("<", " ").replace(",", "").split()[2])


def main(folder: Path) -> None:
    tokens = [8_000 + 32_000 * n // (NUM - 1) for n in range(NUM)]
    recipes = {1: corpora.write(folder, tokens), 5: corpora.recipe(folder, NUM, answers=5)}
    prepared = folder / "prepared"
    prepare(load_recipe(recipes[1]), prepared, run=RunOptions(), progress=Silent())
    rows: list[dict[str, Any]] = []
    for number, (name, (schedule, cache, answers, way)) in enumerate(WAYS.items()):
        place = folder / f"estimate-{number}"
        shutil.copytree(prepared, place)
        by_pilot = estimated(place, recipes[answers], way, answers)
        trial(place, recipes[answers])
        expected = estimated(place, recipes[answers], way, answers)
        row = metered(prepared, folder / f"build-{number}", recipes[answers], schedule, cache, answers)
        naive = rows[0]["usd_per_sample"] if rows else row["usd_per_sample"]
        row |= {
            "of_naive_per_sample": round(row["usd_per_sample"] / naive, 4),
            "usd_per_sample": round(row["usd_per_sample"], 6),
            "by_pilot_usd": by_pilot,
            "estimated_usd": expected,
            "estimate_off": round(expected / row["usd"] - 1, 4),
        }
        rows.append({"way": name} | row)
        print(rows[-1], flush=True)
    store("bill", rows, packages=("anthropic",))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
