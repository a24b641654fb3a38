"""Loss weights by turn and by source: the numbers of a small pack by hand, and Z of whole builds."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import RecipeError
from longalign_data.packing.reader import PackReader
from longalign_data.packing.weights import loss_weights, sequence_totals, turn_totals
from longalign_data.recipe import load_recipe

IS_TARGET = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1], bool)
CU_SEQLENS = np.array([0, 5, 11])
"""Two sequences: turns of 2 and 1 targets, and of 0 (its first token has no logits) and 4."""


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_turn_weighs_by_its_own_targets(alpha: float) -> None:
    weights = loss_weights(IS_TARGET, CU_SEQLENS, alpha, unit="turn")
    two, one, four = 2.0**-alpha, 1.0, 4.0**-alpha
    assert weights.tolist() == pytest.approx([0, two, two, 0, one, 0, 0, four, four, four, four])
    totals = turn_totals(np.array([2, 1, 4]), np.array([2, 1]), alpha)
    assert totals.tolist() == pytest.approx([2 * two + one, 4 * four])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("unit", ["sequence", "turn"])
def test_a_source_scales_its_weights_and_its_part_of_z_alike(alpha: float, unit: str) -> None:
    plain = loss_weights(IS_TARGET, CU_SEQLENS, alpha, unit=unit)
    scaled = loss_weights(IS_TARGET, CU_SEQLENS, alpha, unit=unit, multipliers=np.array([0.25, 3.0]))
    assert scaled.tolist() == pytest.approx([*(0.25 * plain[:5]), *(3.0 * plain[5:])])


def test_with_one_turn_a_sequence_both_units_are_the_same() -> None:
    one_turn = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0], bool)
    by_turn = loss_weights(one_turn, CU_SEQLENS, 0.5, unit="turn")
    assert by_turn.tolist() == loss_weights(one_turn, CU_SEQLENS, 0.5).tolist()
    assert turn_totals(np.array([2, 3]), np.array([1, 1]), 0.5).tolist() == pytest.approx(
        sequence_totals(np.array([2, 3]), 0.5).tolist()
    )


RECIPE = """
name: weighed
version: 1.0.0
mix:
  - {id: one, lang: en, license: CC0-1.0, path: one.jsonl}
  - {id: two, lang: en, license: CC0-1.0, path: two.jsonl}
encode: {max_tokens: 512}
pack: {capacity: 512, packs_per_step: 2, alpha: ALPHA, unit: UNIT, source_weights: WEIGHTS}
"""


def write(folder: Path, alpha: float, unit: str, weights: str) -> Path:
    for name, turns in (("one", 3), ("two", 1)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(25):
                chat = []
                for turn in range(turns):
                    chat += [{"role": "user", "content": f"{name} {number} {turn}?"}]
                    chat += [{"role": "assistant", "content": "word " * (1 + (number + 3 * turn) % 7)}]
                file.write(json.dumps({"messages": chat}) + "\n")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("ALPHA", str(alpha)).replace("UNIT", unit).replace("WEIGHTS", weights))
    return path


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("unit", "weights"), [("turn", "{}"), ("sequence", "{two: 0.5}"), ("turn", "{one: 2, two: 3}")]
)
def test_the_weights_of_a_step_sum_to_its_z(tmp_path: Path, alpha: float, unit: str, weights: str) -> None:
    loaded = load_recipe(write(tmp_path, alpha, unit, weights))

    def nobody() -> None:
        raise AssertionError

    built = build(loaded, tmp_path / "builds", run=RunOptions(), progress=Silent(), teacher=nobody)
    reader = PackReader(built.folder.root)
    packs = pq.read_table(built.folder.shards("packs")[0]).to_pylist()
    plan = pq.read_table(built.folder.shards("plan")[0]).to_pylist()
    sums = [0.0] * reader.num_steps
    for row, entry in zip(packs, plan, strict=True):
        sums[entry["step"]] += sum(row["loss_weights"])
    assert sums == pytest.approx([reader.step(step).normalizer for step in range(reader.num_steps)], rel=1e-5)
    if alpha == 1.0 and weights == "{}":
        # Every turn counts 1: 25 sequences of three turns and 25 of one.
        assert sum(sums) == pytest.approx(25 * 3 + 25)
    if alpha == 1.0 and weights == "{two: 0.5}":
        assert sum(sums) == pytest.approx(25 + 25 * 0.5)
    assert sum(entry["num_sequences"] for entry in {e["step"]: e for e in plan}.values()) == 50


def test_a_source_weight_of_an_unknown_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"pack\.source_weights\.tow: no such source in this recipe; it has: one, two"
    ):
        load_recipe(write(tmp_path, 1.0, "turn", "{tow: 2}"))
