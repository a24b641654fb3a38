"""`longalign plan` and `longalign weights` as a person meets them, on a build of a few small files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
name: small
version: 1.0.0
sources:
  - {id: reports, title: Reports, lang: en, license: CC0-1.0, path: texts, reader: {kind: text}}
ingest: {min_tokens: 200, max_tokens: 8000}
sample: {count: 16, edges: [200, 1000, 8000]}
encode: {max_tokens: 8192}
pack: {capacity: 8192, packs_per_step: 4}
"""


def longalign(*arguments: str, cwd: Path, columns: int = 160) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "longalign_data", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": str(columns)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "texts").mkdir()
    for number in range(16):
        lines = [
            f"Unit {n} of plant {number} was inspected on day {n * number % 28 + 1}." for n in range(20 + 18 * number)
        ]
        (folder / "texts" / f"{number}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
    done = longalign("build", "small.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


BUILD = "builds/small/1.0.0"


def test_the_plan_of_the_build_is_shown_with_the_numbers_of_its_manifest(place: Path) -> None:
    done = longalign("plan", BUILD, cwd=place)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / BUILD / "manifest.json").read_text(encoding="utf-8"))
    details = next(stage["details"] for stage in manifest["stages"] if stage["stage"] == "pack")
    assert "the plan of the build" in done.stdout
    assert re.search(rf"packs +{details['num_packs']} of 8,192 tokens, {details['fill']:.2%} full", done.stdout)
    assert re.search(rf"lower bound +{details['lower_bound']} packs", done.stdout)
    assert re.search(rf"steps +{details['num_steps']}\n", done.stdout)
    assert re.search(r"answers cut +0\n", done.stdout)
    assert re.search(rf"tokens cut +{details['tokens_cut']} out of documents", done.stdout)
    for split in details["modelled_idle"]:
        assert re.search(
            rf" {split['ranks']} ranks x {split['accumulation']} +modelled idle +{split['idle']:.1%} ", done.stdout
        )
    bars = re.findall(r"^ +\d+\.\d+ +(#+\.*) +[\d,]+ tokens in", done.stdout, re.MULTILINE)
    assert 1 <= len(bars) <= 4
    assert len({len(bar) for bar in bars}) == 1


def test_another_plan_is_made_in_memory_and_nothing_is_written(place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / BUILD).rglob("*") if path.is_file()}
    done = longalign(
        "plan", BUILD, "--ranks", "2", "--accumulation", "3", "--capacity", "4096", "--strategy", "sorted", cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert "sorted, 2 ranks x 3 accumulation, alpha 1: a plan made in memory" in done.stdout
    assert "of 4,096 tokens" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (place / BUILD).rglob("*") if path.is_file()}


def test_a_plan_made_in_memory_is_the_one_that_the_edited_recipe_builds(place: Path) -> None:
    asked = longalign("plan", BUILD, "--ranks", "2", "--accumulation", "1", "--alpha", "0.5", cwd=place)
    changed = RECIPE.replace("packs_per_step: 4", "packs_per_step: 2, alpha: 0.5").replace("1.0.0", "1.1.0")
    (place / "changed.yaml").write_text(changed, encoding="utf-8")
    assert longalign("build", "changed.yaml", cwd=place).returncode == 0
    built = longalign("plan", BUILD.replace("1.0.0", "1.1.0"), cwd=place)
    assert asked.stdout.splitlines()[2:] == built.stdout.splitlines()[2:]
    assert "the plan of the build" in built.stdout


def test_a_measured_work_model_gives_seconds(place: Path) -> None:
    (place / "work.yaml").write_text("linear: 2.0e-5\nquadratic: 1.0e-9\nseconds: 1.0\n", encoding="utf-8")
    done = longalign("plan", BUILD, "--work-model", "work.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    assert re.search(r"modelled idle .* s a step, .* GPU hours", done.stdout)
    (place / "wrong.yaml").write_text("lineal: 2\n", encoding="utf-8")
    wrong = longalign("plan", BUILD, "--work-model", "wrong.yaml", cwd=place)
    assert wrong.returncode == 2
    assert "wrong.yaml:1" in wrong.stderr
    assert "linear" in wrong.stderr


def test_a_number_of_ranks_that_does_not_divide_the_step_is_explained(place: Path) -> None:
    done = longalign("plan", BUILD, "--ranks", "3", cwd=place)
    assert done.returncode == 2
    assert "4 packs a step, which 3 does not divide" in done.stderr


def test_the_bias_of_plain_packing_is_shown_by_length_source_and_task(place: Path) -> None:
    done = longalign("weights", BUILD, cwd=place)
    assert done.returncode == 0, done.stderr
    for words in ("by length", "by source", "by task", "reports", "plain packing"):
        assert words in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("reports"))
    assert re.match(r"reports +16 +\d+ +1\.00 1\.00-1\.00 +1\.00 ", row)
    narrow = longalign("weights", BUILD, cwd=place, columns=80)
    assert narrow.stdout.split("How much")[0] == done.stdout.split("How much")[0]


def test_a_pack_that_is_too_small_for_all_says_how_many_it_rejects(place: Path) -> None:
    done = longalign("plan", BUILD, "--capacity", "10", cwd=place)
    assert done.returncode == 0, done.stderr
    assert re.search(r"rejected +16 \(longer than a pack, or without targets\)\nnothing to pack\n", done.stdout)
    assert longalign("weights", BUILD, "--capacity", "10", cwd=place).stdout.startswith(
        "nothing to pack: every sequence"
    )


def test_a_step_that_no_sequences_could_fill_is_refused(place: Path) -> None:
    done = longalign("plan", BUILD, "--ranks", "100000", "--accumulation", "100000", cwd=place)
    assert done.returncode == 2
    assert "a step of 10,000,000,000 packs is more than its 16 sequences can fill" in done.stderr


@pytest.mark.parametrize("command", ["plan", "weights"])
def test_a_folder_without_a_build_is_said_to_be_none(place: Path, command: str) -> None:
    done = longalign(command, "texts", cwd=place)
    assert done.returncode == 2
    assert "no build stands here" in done.stderr
