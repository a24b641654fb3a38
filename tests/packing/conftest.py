from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longalign_data.engine import RunOptions, Silent
from longalign_data.packing.pack import pack
from longalign_data.recipe import LoadedRecipe, Recipe
from longalign_data.records import TargetSpan, TokenSequence
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageReport, StageWriter


def sequence(name: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> TokenSequence:
    return TokenSequence(
        sequence_id=name,
        sample_id=f"of-{name}",
        input_ids=list(ids),
        target_spans=[TargetSpan(start=start, end=end) for start, end in spans],
        num_tokens=len(ids),
        num_targets=sum(end - max(start, 1) for start, end in spans),
        truncated_tokens=0,
    )


def some_sequences(count: int, longest: int, seed: int = 0) -> list[TokenSequence]:
    """With uneven lengths, every token id from 0 up, and one or two targets ranges each."""
    draws = np.random.default_rng(seed)
    made = []
    for number in range(count):
        length = int(draws.integers(2, longest + 1))
        spans = [(length - 1, length)]
        if length > 8:
            spans = [(2, 2 + int(draws.integers(1, 3))), (length - 3, length)]
        made.append(sequence(f"sequence-{number}", draws.integers(0, 50, length).tolist(), spans))
    return made


def recipe(*, seed: int = 0, **pack_settings: Any) -> LoadedRecipe:
    plain = {
        "name": "packed",
        "version": "1.0.0",
        "seed": seed,
        "sources": [{"card": "nothing"}],
        "sample": {"count": 1},
        "encode": {"max_tokens": pack_settings.get("capacity", 65_536)},
        "pack": pack_settings,
    }
    return LoadedRecipe(recipe=Recipe.model_validate(plain), path=Path("packed.yaml"), text="", sources=[])


def store(folder: Path, sequences: Sequence[TokenSequence], **run: int) -> BuildFolder:
    """A build whose stage `encode` is complete."""
    build = BuildFolder(folder)
    with StageWriter(build, "encode", fingerprint="encoded", run=RunOptions(**run)) as writer:
        for item in sequences:
            writer.write("sequences", item)
            writer.next_input()
        writer.finish()
    return build


def run_pack(build: BuildFolder, loaded: LoadedRecipe, **run: int) -> StageReport:
    return pack(loaded, build, fingerprint="packed", run=RunOptions(**run), progress=Silent())


class Packing:
    """What the tests of this folder share."""

    sequence = staticmethod(sequence)
    some_sequences = staticmethod(some_sequences)
    recipe = staticmethod(recipe)
    store = staticmethod(store)
    run_pack = staticmethod(run_pack)


@pytest.fixture(scope="session")
def packing() -> type[Packing]:
    return Packing
