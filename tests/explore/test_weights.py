"""What `longalign weights` says of a build, against the same shares summed up from its packs."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from longalign_data.build.pipeline import build
from longalign_data.engine import RunOptions, Silent
from longalign_data.explore.plan import plan_report
from longalign_data.explore.weights import weight_rows
from longalign_data.packing.reader import open_packs
from longalign_data.recipe import load_recipe
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.teachers.base import Teacher

RECIPE = """
name: small
version: 1.0.0
mix:
  - {{id: terse, lang: en, license: CC0-1.0, path: terse.jsonl}}
  - {{id: wordy, lang: en, license: CC0-1.0, path: wordy.jsonl}}
encode: {{max_tokens: 700}}
pack: {{capacity: 700, packs_per_step: 2, alpha: {alpha}, unit: {unit}, source_weights: {{wordy: 3.0}}}}
"""


def nobody() -> Teacher:
    raise AssertionError


def made(folder: Path, **choice: Any) -> BuildFolder:
    for name, words in (("terse", 2), ("wordy", 40)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(30):
                turns = [
                    {"role": role, "content": f"{number} " + "word " * (words * (turn + 1) + number)}
                    for turn, role in enumerate(("user", "assistant") * (1 + number % 2))
                ]
                file.write(json.dumps({"messages": turns}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(**choice), encoding="utf-8")
    loaded = load_recipe(folder / "recipe.yaml")
    return build(loaded, folder / "builds", run=RunOptions(), progress=Silent(), teacher=nobody).folder


@pytest.mark.parametrize(("alpha", "unit"), [(1.0, "sequence"), (1.0, "turn"), (0.5, "sequence"), (0.0, "turn")])
def test_the_shares_are_those_that_the_weights_in_the_packs_give(tmp_path: Path, alpha: float, unit: str) -> None:
    folder = made(tmp_path, alpha=alpha, unit=unit)
    rows = {(row.by, row.key): row for row in weight_rows(folder, plan_report(folder, {}))}

    sources = {}
    for batch in iter_batches(folder.shards("sequences"), columns=["sequence_id", "source"]):
        sources.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    packs = [row for batch in iter_batches(folder.shards("packs")) for row in batch.to_pylist()]
    members = {pack["pack_id"]: pack["sequence_ids"] for pack in packs}
    reader = open_packs(folder.root)
    pulls: dict[str, list[float]] = defaultdict(list)
    for step, _, batch in reader.stream(0, 1, 2):
        if batch is not None:
            borders = batch.cu_seqlens.tolist()
            for name, begin, end in zip(members[batch.pack_id], borders, borders[1:], strict=False):
                pull = float(batch.loss_weights[begin:end].sum()) / reader.step(step).normalizer
                pulls[sources[name]].append(pull)
    everything = [pull for found in pulls.values() for pull in found]
    mean = sum(everything) / len(everything)
    assert {name: len(found) for name, found in pulls.items()} == {"terse": 30, "wordy": 30}
    for name, found in pulls.items():
        assert rows["source", name].this_plan.mean == pytest.approx(sum(found) / len(found) / mean, rel=1e-5)
    if alpha == 1.0 and unit == "sequence":
        assert rows["source", "wordy"].this_plan.mean == pytest.approx(1.5, rel=0.05)
        assert rows["source", "terse"].this_plan.mean == pytest.approx(0.5, rel=0.05)
