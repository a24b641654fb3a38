"""The dataset card says what is true of the build."""

import re
import shlex
from pathlib import Path

import yaml

from longalign_data.build.manifest import write_manifest
from longalign_data.publish.card import render_card
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import require_manifest
from longalign_data.shards.parquet import ShardInfo
from longalign_data.shards.stage import StageReport

RECIPE = """
name: card
version: 1.0.0
sources: [{id: a, title: "A | B", lang: zh, license: CC0-1.0, path: ., reader: {kind: text}}]
sample: {count: 3}
pack: {alpha: ALPHA}
"""


def card(folder: Path, alpha: str) -> str:
    (folder / "r.yaml").write_text(RECIPE.replace("ALPHA", alpha), encoding="utf-8")
    shard = ShardInfo(path="x", rows=3, tokens=3, bytes=1, sha256="0")
    tables = {
        "ingest": ["documents"],
        "sample": ["selection"],
        "generate": ["samples"],
        "encode": ["sequences"],
        "pack": ["packs", "plan"],
    }
    reports = [
        StageReport(
            stage=stage,
            fingerprint="f",
            num_in=3,
            num_out=3,
            num_rejected=0,
            num_left_out=0,
            num_tokens=3,
            seconds=0.1,
            rejected={},
            left_out={},
            details={},
            shards={**{table: [shard] for table in names}, "rejects": []},
        )
        for stage, names in tables.items()
    ]
    loaded = load_recipe(folder / "r.yaml")
    manifest = write_manifest(BuildFolder(folder), loaded, reports, tokenizer="t", trainee_tokenizer="t")
    return render_card(manifest)


def test_the_card_states_the_alpha_of_the_recipe(tmp_path: Path) -> None:
    assert "every sequence then counts the same (alpha = 1)" in card(tmp_path, "1.0")
    assert "every target token then counts the same (alpha = 0)" in card(tmp_path, "0.0")
    assert "(alpha = 0.5)" in card(tmp_path, "0.5")


def test_a_bar_in_a_title_stays_in_its_cell(tmp_path: Path) -> None:
    assert r"| A \| B |" in card(tmp_path, "1.0")


def test_the_front_matter_names_only_tables_that_can_be_loaded(tmp_path: Path) -> None:
    front = yaml.safe_load(card(tmp_path, "1.0").split("---")[1])
    names = [config["config_name"] for config in front["configs"]]
    assert names == ["documents", "selection", "samples", "sequences", "packs", "plan"]
    assert [config["config_name"] for config in front["configs"] if config.get("default")] == ["samples"]


def test_one_known_licence_is_named_as_the_hub_names_it(tmp_path: Path) -> None:
    front = yaml.safe_load(card(tmp_path, "1.0").split("---")[1])
    assert front["license"] == "cc0-1.0"
    assert "license_name" not in front


def test_several_licences_stand_source_by_source(towns: BuildFolder) -> None:
    text = towns.card.read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "per-source")
    assert front["license_details"] == "open: CC0-1.0; closed: LicenseRef-house; talk: CC0-1.0"
    assert front["language"] == ["en", "zh"]
    assert front["size_categories"] == ["n<1K"]
    assert "| closed | Records | zh | LicenseRef-house | yes | " in text


def test_the_card_says_how_it_was_made_and_how_it_is_used(towns: BuildFolder) -> None:
    manifest = require_manifest(towns)
    text = render_card(manifest, repo_id="org/towns")
    assert (towns.root.parent.parent.parent / "corpus" / "recipe.yaml").read_text().rstrip() in text
    assert "Terms: made by a program, free to use" in text
    assert "python -m trainer --build hf://datasets/org/towns@1.0.0" in text
    sample = next(stage for stage in manifest["stages"] if stage["stage"] == "sample")
    for cell in sample["details"]["cells"]:
        line = f"| {cell['lang']} | {cell['bucket']} | {cell['target']} | {cell['achieved']} | {cell['available']} |"
        assert line in text
    for table, shards in manifest["tables"].items():
        rows = sum(shard["rows"] for shard in shards)
        assert (f"| `{table}` | " in text) == bool(rows)
    assert "nobody read them all" in text
    assert "personal data was not looked for" in text


def test_the_hub_s_own_library_reads_the_card(towns: BuildFolder) -> None:
    from huggingface_hub import DatasetCard

    found = DatasetCard(towns.card.read_text(encoding="utf-8")).data
    assert found.license == "other"
    assert [config["config_name"] for config in found.configs if config.get("default")] == ["samples"]


def test_the_trainer_understands_the_card_s_command(towns: BuildFolder) -> None:
    from trainer.__main__ import parser

    text = render_card(require_manifest(towns), repo_id="org/towns")
    (command,) = re.findall(r"^    python -m trainer (.*)$", text, re.MULTILINE)
    command = command.replace("<model>", "model").replace("<training configuration>", "train.yaml")
    assert parser().parse_args(shlex.split(command)).build == "hf://datasets/org/towns@1.0.0"
