"""Whole builds by the real command, in real processes: the same rows whatever happens on the way."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longalign_data.records import TABLES
from longalign_data.shards.folder import STAGES

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
name: small
version: 1.0.0
seed: 4
sources:
  - id: modules
    title: Some modules of the standard library
    lang: en
    license: PSF-2.0
    path: modules
    reader: {kind: code, unit: entry, extensions: [.py]}
  - id: lines
    title: Records in several files
    lang: zh
    license: CC0-1.0
    path: lines/*.jsonl
    reader: {kind: jsonl}
ingest: {min_tokens: 500, max_tokens: 20000}
sample: {count: 24, edges: [500, 2000, 8000, 20000], languages: {zh: 0.25}}
encode: {max_tokens: 16384}
pack: {capacity: 16384, packs_per_step: 2}
"""
MODULES = [
    "argparse",
    "ast",
    "base64",
    "bisect",
    "calendar",
    "cgi",
    "cmd",
    "code",
    "codecs",
    "configparser",
    "copy",
    "csv",
    "difflib",
    "dis",
    "doctest",
    "enum",
    "fractions",
    "ftplib",
    "functools",
    "gettext",
    "heapq",
    "inspect",
    "ipaddress",
    "json",
    "locale",
    "mailbox",
]


def write_corpus(folder: Path) -> Path:
    """Real sources of this interpreter and Chinese records made of its numbers; the recipe beside them."""
    library = Path(sysconfig.get_paths()["stdlib"])
    (folder / "modules").mkdir(parents=True)
    for name in MODULES:
        if (library / f"{name}.py").is_file():
            shutil.copy(library / f"{name}.py", folder / "modules")
        elif (library / name).is_dir():
            shutil.copytree(library / name, folder / "modules" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lines").mkdir()
    for part in range(3):
        with (folder / "lines" / f"{part}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(6):
                n = part * 10 + number
                text = "\n\n".join(
                    f"第{k}节 检查记录\n编号{n}的设备在第{k}天由第{k % 7}组检查,读数为{(n * 37 + k * 11) % 1000}。记录员确认无误。"
                    for k in range(60 + 10 * n)
                )
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


def start(recipe: Path, output: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "longalign_data", "build", str(recipe), "--output", str(output), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finish(recipe: Path, output: Path, *options: str, code: int = 0) -> str:
    process = start(recipe, output, *options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out + err


def rows(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, in order."""
    root = output / "small" / "1.0.0"
    return {
        table: [row for path in sorted((root / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        for table in TABLES
    }


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus and an uninterrupted build of it."""
    folder = tmp_path_factory.mktemp("reference")
    recipe = write_corpus(folder)
    finish(recipe, folder / "builds", "--workers", "1")
    return recipe, folder / "builds"


def wait_for(process: "subprocess.Popen[str]", path: Path) -> None:
    """Until the file is there or the process has ended."""
    end = time.monotonic() + 300
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < end, f"neither {path.name} nor an end"
        time.sleep(0.001)


def test_kills_within_every_stage_change_no_row(reference: tuple[Path, Path], tmp_path: Path) -> None:
    """Each kill waits for the end of one of the stages that are still to come, or for none, then for a drawn moment. Only
    kills of an unfinished build count; a build that was complete before its kill is compared and begun anew, and so is
    every fifth one."""
    recipe, whole = reference
    root = tmp_path / "small" / "1.0.0"
    draw = random.Random(20)
    ends = {stage: root / "state" / f"{stage}.json" for stage in STAGES}
    kills = 0
    stood: set[frozenset[str]] = set()
    for _ in range(60):
        ahead = [
            end
            for stage, end in ends.items()
            if stage in ("ingest", "sample", "generate", "encode") and not end.exists()
        ]
        process = start(recipe, tmp_path, "--workers", "1")
        wait_for(process, draw.choice([root / ".lock", *ahead]))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0, 0.4))
        finished = process.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert finished in (None, 0), err
        if not (root / "manifest.json").exists():
            kills += 1
            stood.add(frozenset(stage for stage, end in ends.items() if end.exists()))
            if kills % 5:
                continue
            finish(recipe, tmp_path, "--workers", "2")
        assert rows(tmp_path) == rows(whole)
        shutil.rmtree(root)
        if kills >= 10 and len(stood) >= 3:
            break
    assert kills >= 10
    assert len(stood) >= 3, stood


def test_workers_and_the_order_of_files_change_no_row(reference: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = reference
    moved = tmp_path / "elsewhere"
    for path in sorted(recipe.parent.glob("*/**/*"), reverse=True):
        relative = path.relative_to(recipe.parent)
        if path.is_file() and relative.parts[0] != "builds":
            (moved / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, moved / relative)
    shutil.copy(recipe, moved)
    finish(moved / recipe.name, tmp_path / "builds", "--workers", "4", "--concurrency", "1")
    assert rows(tmp_path / "builds") == rows(whole)
    reports = [
        json.loads((b / "small/1.0.0/manifest.json").read_text())["stages"] for b in (whole, tmp_path / "builds")
    ]
    assert [r["fingerprint"] for r in reports[0]] == [r["fingerprint"] for r in reports[1]]


def test_a_second_run_touches_nothing(reference: tuple[Path, Path]) -> None:
    recipe, whole = reference
    before = contents(whole)
    out = finish(recipe, whole)
    assert out.count("stood complete") == 5
    after = contents(whole)
    # The lock holds the process's number; the hashes of files that were too young at first are kept from now on.
    of_the_run = {"small/1.0.0/.lock", "small/1.0.0/state/inputs.json"}
    assert {name for name in before if before[name] != after.get(name)} <= of_the_run
    assert before.keys() == after.keys()


def test_every_stage_accounts_for_what_it_was_given(reference: tuple[Path, Path]) -> None:
    _, whole = reference
    manifest = json.loads((whole / "small/1.0.0/manifest.json").read_text(encoding="utf-8"))
    for stage in manifest["stages"]:
        assert stage["num_in"] == stage["num_out"] + stage["num_rejected"] + stage["num_left_out"], stage
    for table, shards in manifest["tables"].items():
        assert sum(shard["rows"] for shard in shards) == len(rows(whole)[table])


def test_a_changed_section_of_the_recipe_runs_only_what_depends_on_it(
    reference: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, whole = reference
    shutil.copytree(whole, tmp_path / "builds")
    changed = recipe.parent / "changed.yaml"
    changed.write_text(
        recipe.read_text(encoding="utf-8").replace("packs_per_step: 2", "packs_per_step: 3"), encoding="utf-8"
    )
    out = finish(changed, tmp_path / "builds")
    assert out.count("stood complete") == 4
    assert rows(tmp_path / "builds")["sequences"] == rows(whole)["sequences"]
    assert rows(tmp_path / "builds")["plan"] != rows(whole)["plan"]


def test_tables_that_are_not_kept_go_and_come_back_when_they_are_needed(
    reference: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, whole = reference
    slim = recipe.parent / "slim.yaml"
    text = recipe.read_text(encoding="utf-8")
    slim.write_text(text + "keep: [samples, packs, plan]\n", encoding="utf-8")
    finish(slim, tmp_path)
    root = tmp_path / "small" / "1.0.0"
    assert sorted(p.name for p in root.iterdir() if p.is_dir() and p.name in TABLES) == [
        "packs",
        "plan",
        "rejects",
        "samples",
    ]
    assert finish(slim, tmp_path).count("stood complete") == 5
    slim.write_text(text.replace("alpha", "alpha") + "keep: [samples, packs, plan, sequences]\n", encoding="utf-8")
    finish(slim, tmp_path)
    assert rows(tmp_path)["sequences"] == rows(whole)["sequences"]


@pytest.mark.parametrize("removed", ["samples", "state/ingest.json"])
def test_what_the_word_about_a_damaged_shard_says_to_remove_is_made_anew(
    reference: tuple[Path, Path], tmp_path: Path, removed: str
) -> None:
    recipe, whole = reference
    shutil.copytree(whole, tmp_path / "builds")
    root = tmp_path / "builds" / "small" / "1.0.0"
    damaged = root / ("samples/00000.parquet" if removed == "samples" else "rejects/ingest-00000.parquet")
    data = damaged.read_bytes()
    damaged.write_bytes(data[:40] + b"\xa5" * 60 + data[100:])
    shutil.rmtree(root / removed) if removed == "samples" else (root / removed).unlink()
    assert finish(recipe, tmp_path / "builds").count("stood complete") == 4
    assert rows(tmp_path / "builds") == rows(whole)


@pytest.mark.parametrize("table", sorted(set(TABLES) - {"chats"}))  # this recipe has no mix; test_other_flows has one
def test_every_table_loads_with_datasets(reference: tuple[Path, Path], tmp_path: Path, table: str) -> None:
    _, whole = reference
    program = (
        "import sys; from datasets import load_dataset; "
        "d = load_dataset(sys.argv[1], sys.argv[2], split='train', cache_dir=sys.argv[3]); print(d.num_rows)"
    )
    root = whole / "small" / "1.0.0"
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), table, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert int(done.stdout) == len(rows(whole)[table])


def test_a_second_process_on_the_same_folder_says_so_and_leaves(reference: tuple[Path, Path], tmp_path: Path) -> None:
    from longalign_data.shards.folder import BuildFolder

    recipe, _ = reference
    with BuildFolder(tmp_path / "small" / "1.0.0").lock():
        said = finish(recipe, tmp_path, code=2)
    assert "another build is at work" in said
    assert str(os.getpid()) in said


def test_bad_records_become_counted_rejects_and_the_rest_goes_on(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path)
    with (tmp_path / "lines" / "3.jsonl").open("wb") as file:
        file.write(b'{"text": "cut off\n')
        file.write(b'{"text": ""}\n')
        file.write(b'{"body": "no text here"}\n')
        file.write(b'{"text": "\xff\xfe"}\n')
        file.write(json.dumps({"text": "too long. " * 20_000}).encode() + b"\n")
        file.write(b'{"text": "too short"}\n')
    out = finish(recipe, tmp_path / "builds")
    # Four of the modules are longer than the window, too.
    reasons = [row["reason"] for row in rows(tmp_path / "builds")["rejects"] if row["stage"] == "ingest"]
    assert sorted(reasons) == ["bad-json", "bad-utf8", "empty", "missing-field", *["too-long"] * 5]
    assert "rejected: ingest bad-json 1, ingest bad-utf8 1" in out
    details = " ".join(row["id"] + row["detail"] for row in rows(tmp_path / "builds")["rejects"])
    assert "3.jsonl" in details
    assert "too-short 1" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pack: {", "pack: {capcity: 3, "), ["recipe.yaml:", "pack.capcity", "did you mean 'capacity'"]),
        (
            ("  - id: modules", "  - card: wikipaedia\n  - id: modules"),
            ["unknown source 'wikipaedia'", "python-stdlib"],
        ),
        (("path: lines/*.jsonl", "path: nowhere/*.jsonl"), ["nowhere", "lines"]),
        (("sample: {count: 24", "tokenizer: quen\nsample: {count: 24"), ["unknown tokenizer 'quen'", "mistral-v1"]),
        (("seed: 4", "seed: 4\n  x: ["), ["recipe.yaml:", "not valid YAML"]),
        (("edges: [500, 2000, 8000, 20000]", "edges: [30000, 40000]"), ["no document to take", "sample.edges"]),
        (
            ("sample: {count: 24", "sample: {shortfall: stop, count: 2400"),
            ["missing are", "tokens: ", " of 600;", "sample.shortfall"],
        ),
    ],
)
def test_what_a_user_got_wrong_is_said_with_exit_code_2(
    tmp_path: Path, change: tuple[str, str], words: list[str]
) -> None:
    recipe = write_corpus(tmp_path)
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    said = finish(recipe, tmp_path / "builds", code=2)
    assert all(word in said for word in words), said


def test_one_stage_alone_asks_for_the_ones_before_it(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path)
    command = [sys.executable, "-m", "longalign_data", "sample", str(recipe), "--output", str(tmp_path / "builds")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 2
    assert "longalign ingest" in done.stderr


def test_a_build_without_one_sample_ends_with_the_reasons(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path)
    (tmp_path / "own.yaml").write_text(
        "task: own\nversion: 1\ninstructions: {en: Write a poem about this.}\n", encoding="utf-8"
    )
    text = recipe.read_text(encoding="utf-8") + "generate: {tasks: {own: 1}, templates: [own.yaml]}\n"
    recipe.write_text(text, encoding="utf-8")
    said = finish(recipe, tmp_path / "builds", code=2)
    assert "not one sequence came out" in said
    assert "refusal" in said
    assert "train " not in said


def test_one_stage_alone_makes_its_own_missing_table_again(reference: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = reference
    shutil.copytree(whole, tmp_path / "builds")
    shutil.rmtree(tmp_path / "builds" / "small" / "1.0.0" / "sequences")
    command = [sys.executable, "-m", "longalign_data", "encode", str(recipe), "--output", str(tmp_path / "builds")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, capture_output=True, env=environment, timeout=300, check=True)
    assert rows(tmp_path / "builds") == rows(whole)


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ({}, [], "set ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "with space"}, [], "no key has"),
        ({"ANTHROPIC_API_KEY": "k"}, ["--teacher-url", "not a url"], "no address of a teacher"),
        ({"ANTHROPIC_API_KEY": "k"}, ["--teacher-url", "http://["], "no address of a teacher"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_told_before_the_corpus_is_read(
    tmp_path: Path, environment: dict[str, str], options: list[str], said: str
) -> None:
    recipe = write_corpus(tmp_path)
    text = recipe.read_text(encoding="utf-8") + "generate: {teacher: {provider: anthropic, model: claude-sonnet-5-5}}\n"
    recipe.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "longalign_data", "build", str(recipe), "--output", str(tmp_path / "b"), *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_"))}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=clean | environment | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "ingest" not in done.stderr
