"""The dataset card says what is true of the build."""

from pathlib import Path

import yaml

from longalign_data.build.manifest import write_manifest
from longalign_data.publish.card import render_card
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
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
