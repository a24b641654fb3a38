"""Builds that are not documents -> samples -> sequences: conversations alone, a mix beside samples, plain documents."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.build.pipeline import Built, build
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import BuildError, RecipeError
from longalign_data.recipe import load_recipe
from longalign_data.teachers.base import Teacher
from longalign_data.teachers.table import load_teacher
from longalign_data.tokenizers import load_tokenizer

ROOT = Path(__file__).parent.parent.parent
HEAD = "name: other\nversion: 1.0.0\n"
SOURCE = (
    "sources: [{id: modules, title: M, lang: en, license: PSF-2.0, path: modules, "
    "reader: {kind: code, unit: entry, extensions: [.py]}}]\n"
    "ingest: {min_tokens: 200, max_tokens: 64000}\nsample: {count: 5, edges: [200, 4000, 64000], languages: {}}\n"
)
MIX = "mix: [{id: chat, lang: en, license: CC0-1.0, path: chat.jsonl, count: 12}]\n"
REST = "encode: {max_tokens: 4096}\npack: {capacity: 4096, packs_per_step: 2}\n"
PRETRAIN = REST.replace("max_tokens", "mode: pretrain, max_tokens")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    library = Path(sysconfig.get_paths()["stdlib"])
    (tmp_path / "modules").mkdir()
    for name in ("argparse", "bisect", "heapq", "calendar", "ast", "copy", "csv"):
        shutil.copy(library / f"{name}.py", tmp_path / "modules")
    with (tmp_path / "chat.jsonl").open("w", encoding="utf-8") as file:
        for number in range(30):
            turns = [{"from": "human", "value": f"Count to {number}"}, {"from": "gpt", "value": "1, 2, ... " * number}]
            file.write(json.dumps({"conversations": turns}) + "\n")
    return tmp_path


def no_teacher() -> Teacher:
    raise AssertionError("nobody is to be asked")


def run(folder: Path, text: str, **options: Any) -> Built:
    (folder / "recipe.yaml").write_text(HEAD + text, encoding="utf-8")
    loaded = load_recipe(folder / "recipe.yaml")
    choice = loaded.recipe.generate.teacher
    teacher = options.pop("teacher", lambda: load_teacher(choice))
    return build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=teacher, **options)


def rows(built: Built, table: str) -> list[dict[str, Any]]:
    return [row for path in built.folder.shards(table) for row in pq.read_table(path).to_pylist()]


def stages(built: Built) -> list[tuple[str, bool]]:
    return [(outcome.report.stage, outcome.ran) for outcome in built.outcomes]


def test_a_mix_alone_is_a_whole_build(folder: Path) -> None:
    built = run(folder, MIX + REST, teacher=no_teacher)
    assert stages(built) == [("mix", True), ("encode", True), ("pack", True)]
    assert len(rows(built, "chats")) == len(rows(built, "sequences")) == 12
    assert {row["source"] for row in rows(built, "sequences")} == {"chat"}
    assert {row["task"] for row in rows(built, "sequences")} == {"general-chat"}
    packed = [name for row in rows(built, "packs") for name in row["sequence_ids"]]
    assert sorted(packed) == sorted(row["sequence_id"] for row in rows(built, "sequences"))
    assert {done for _, done in stages(run(folder, MIX + REST, teacher=no_teacher))} == {False}


def test_a_mix_stands_beside_the_built_samples_and_does_not_touch_them(folder: Path) -> None:
    plain = run(folder, SOURCE + REST)
    before = rows(plain, "sequences")
    mixed = run(folder, SOURCE + MIX + REST)
    assert stages(mixed)[:4] == [("ingest", False), ("sample", False), ("generate", False), ("mix", True)]
    assert rows(mixed, "sequences")[: len(before)] == before
    assert len(rows(mixed, "sequences")) == len(before) + 12
    edited = run(folder, SOURCE + MIX.replace("12", "6") + REST)
    assert stages(edited)[2:4] == [("generate", False), ("mix", True)]
    again = run(folder, SOURCE + REST)
    assert rows(again, "sequences") == before
    assert rows(again, "chats") == []


def test_a_mixed_build_is_told_by_stats_card_and_datasets(folder: Path) -> None:
    built = run(folder, SOURCE + MIX + REST)
    card = built.folder.card.read_text(encoding="utf-8")
    assert "| chat | conversations in `chats` | en | CC0-1.0 |" in card
    assert "modules: PSF-2.0; chat: CC0-1.0" in card
    done = subprocess.run(
        [sys.executable, "-m", "longalign_data", "stats", str(built.folder.root)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=True,
    )  # fmt: skip
    assert "chat" in done.stdout
    datasets = pytest.importorskip("datasets")
    chats = datasets.load_dataset(str(built.folder.root), "chats", split="train", cache_dir=str(folder / "cache"))
    assert chats.num_rows == 12


def test_pretraining_asks_nobody_and_every_token_but_the_first_is_a_target_once(folder: Path) -> None:
    built = run(folder, SOURCE + PRETRAIN, teacher=no_teacher)
    assert stages(built) == [("ingest", True), ("sample", True), ("encode", True), ("pack", True)]
    qwen = load_tokenizer("qwen")
    chosen = {row["doc_id"] for row in rows(built, "selection")}
    documents = {row["doc_id"]: row for row in rows(built, "documents")}
    windows: dict[str, list[dict[str, Any]]] = {}
    for row in rows(built, "sequences"):
        windows.setdefault(row["sample_id"], []).append(row)
    assert windows.keys() == chosen
    assert max(map(len, windows.values())) > 2
    for doc_id, parts in windows.items():
        learnt = [token for part in parts for token in part["input_ids"][1:]]
        assert parts[0]["input_ids"][:1] + learnt == [*qwen.encode(documents[doc_id]["text"]), qwen.eos_id]
        assert all(part["num_tokens"] == 4096 for part in parts[:-1])
        assert all(part["num_targets"] == part["num_tokens"] - 1 for part in parts)
        assert all(part["target_spans"] == [{"start": 1, "end": part["num_tokens"]}] for part in parts)
    for stage in built.outcomes:
        report = stage.report
        assert report.num_in == report.num_out + report.num_rejected + report.num_left_out
    for pack in rows(built, "packs"):
        assert np.isclose(sum(pack["loss_weights"]), pack["num_sequences"])
    assert {done for _, done in stages(run(folder, SOURCE + PRETRAIN, teacher=no_teacher))} == {False}


def test_from_conversations_to_plain_documents_and_back_leaves_nothing_behind(folder: Path) -> None:
    first = run(folder, SOURCE + REST)
    samples = rows(first, "samples")
    plain = run(folder, SOURCE + PRETRAIN, teacher=no_teacher)
    assert rows(plain, "samples") == []
    assert "samples" not in json.loads(plain.folder.manifest.read_text(encoding="utf-8"))["tables"]
    assert rows(run(folder, SOURCE + REST), "samples") == samples


def test_a_stage_that_the_recipe_has_not_is_told(folder: Path) -> None:
    with pytest.raises(BuildError, match="this recipe has no stage 'generate'; it has: mix, encode, pack"):
        run(folder, MIX + REST, only="generate")
    with pytest.raises(RecipeError, match="mix is about conversations"):
        run(folder, SOURCE + MIX + PRETRAIN)
    with pytest.raises(RecipeError, match="template says how conversations are encoded"):
        run(folder, SOURCE + PRETRAIN.replace("max_tokens: 4096}\np", "max_tokens: 4096, template: chatml}\np"))
    with pytest.raises(RecipeError, match="sample is about documents, and the recipe has no sources"):
        run(folder, "sample: {count: 3}\n" + MIX + REST)
    with pytest.raises(RecipeError, match="sample: missing"):
        run(folder, SOURCE.split("sample:")[0] + REST)
