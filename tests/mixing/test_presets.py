"""The recipes of recipes/mix, as they are, on small sets at the places that they name."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.packing.reader import PackReader
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import Teacher

RECIPES = Path(__file__).parents[2] / "recipes" / "mix"


def nobody() -> Teacher:
    raise AssertionError("nobody is to be asked")


def write_sets(folder: Path) -> None:
    """50 short conversations, one with an empty reply, and 30 long ones of LongAlign's form."""
    (folder / "data").mkdir()
    with (folder / "data" / "sharegpt.jsonl").open("w", encoding="utf-8") as file:
        for number in range(50):
            said = ["Hello!", "", "Bye."][number % 3] if number == 1 else f"Number {number} it is. " * (number + 1)
            turns = [{"from": "human", "value": f"Say {number}"}, {"from": "gpt", "value": said}]
            file.write(json.dumps({"conversations": turns}) + "\n")
    with (folder / "data" / "longalign.jsonl").open("w", encoding="utf-8") as file:
        for number in range(30):
            document = "\n".join(f"Line {line} of report {number}." for line in range(200 + 40 * number))
            messages = [
                {"role": "user", "content": f"{document}\n\nHow many lines has it?"},
                {"role": "assistant", "content": f"It has {200 + 40 * number} lines."},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def built(folder: Path, name: str, count: int | None = None) -> dict[str, Any]:
    """The build of a preset; `count` stands in for its thousands."""
    (folder / "recipes" / "mix").mkdir(parents=True, exist_ok=True)
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    for thousands in ("10000", "5000"):
        text = text.replace(f"count: {thousands}", f"count: {count}")
    path = folder / "recipes" / "mix" / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    done = build(load_recipe(path), folder / "builds", run=RunOptions(), progress=Silent(), teacher=nobody)
    reports = {outcome.report.stage: outcome.report for outcome in done.outcomes}
    chats = [row for shard in done.folder.shards("chats") for row in pq.read_table(shard).to_pylist()]
    return {
        "long": {row["sample_id"] for row in chats if row["source"] == "longalign"},
        "short": {row["sample_id"] for row in chats if row["source"] == "sharegpt"},
        "reports": reports,
        "reader": PackReader(done.folder.root),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sets(tmp_path)
    return tmp_path


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {
        "paper", "short-only", "long-5k", "token-averaged", "two-stage-1-short", "two-stage-2-long",
    }  # fmt: skip


def test_each_preset_takes_as_much_as_it_says(folder: Path) -> None:
    """In the original scripts a line after the choice of the amount took everything again."""
    paper, half, none = built(folder, "paper", 20), built(folder, "long-5k", 10), built(folder, "short-only")
    assert (len(paper["long"]), len(half["long"]), len(none["long"])) == (20, 10, 0)
    assert half["long"] < paper["long"]
    assert len(paper["short"]) == len(half["short"]) == len(none["short"]) == 49
    assert paper["reports"]["mix"].rejected == {"empty-reply": 1}


def test_the_thousands_of_the_presets_are_those_of_the_paper(folder: Path) -> None:
    counts = {path.stem: [choice.count for choice in load_recipe(path).recipe.mix] for path in RECIPES.glob("*.yaml")}
    assert counts == {
        "paper": [None, 10_000],
        "short-only": [None],
        "long-5k": [None, 5_000],
        "token-averaged": [None, 10_000],
        "two-stage-1-short": [None],
        "two-stage-2-long": [10_000],
    }
    report = built(folder, "two-stage-2-long", 10_000)["reports"]["mix"]
    assert (report.details["sets"][0]["asked"], report.details["sets"][0]["taken"]) == (10_000, 30)


def test_sequences_count_the_same_in_paper_and_tokens_in_token_averaged(folder: Path) -> None:
    paper, tokens = built(folder, "paper", 20)["reader"], built(folder, "token-averaged", 20)["reader"]
    for step in range(paper.num_steps):
        assert paper.step(step).normalizer == paper.step(step).num_sequences
    targets = built(folder, "token-averaged", 20)["reports"]["pack"].details["num_targets"]
    assert sum(tokens.step(step).normalizer for step in range(tokens.num_steps)) == targets


def test_the_two_stages_are_apart_and_together_what_paper_is(folder: Path) -> None:
    paper = built(folder, "paper", 20)
    first, second = built(folder, "two-stage-1-short"), built(folder, "two-stage-2-long", 20)
    assert (first["long"], second["short"]) == (set(), set())
    assert (first["short"], second["long"]) == (paper["short"], paper["long"])
