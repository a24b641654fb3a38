"""What a stage's result depends on, and what it does not.

| part of a recipe or run                                   | in the identity of                    |
|-----------------------------------------------------------|---------------------------------------|
| table schemas, version of the stage's own rules           | every stage                           |
| fingerprint of the stage before                           | every stage but the first             |
| cards, content of the source files (SHA-256), revision    | ingest                                |
| `ingest`, `tokenizer` (hash of its vocabulary)            | ingest                                |
| `seed`                                                    | sample, generate, pack                |
| `sample`                                                  | sample                                |
| `generate`, text of the prompts in use                    | generate                              |
| `encode`, hash of the trainee's vocabulary and template   | encode                                |
| `pack`                                                    | pack                                  |
| `name`, `version`, `description`, `keep`                  | none                                  |
| where corpus and vocabularies lie here, file times        | none                                  |
| workers, concurrency, output folder, shard sizes, keys    | none                                  |

A stage whose stored fingerprint equals the one computed from the recipe has nothing to do.
"""

from collections.abc import Mapping

from longalign_data.identity import Plain, digest
from longalign_data.recipe import Recipe
from longalign_data.records import SCHEMA_VERSION

RULES = {"ingest": 1, "sample": 1, "generate": 1, "encode": 1, "pack": 1}
"""Raised by one when a stage's code changes what it makes of the same input."""


def fingerprints(recipe: Recipe, *, inputs: Plain, prompts: str, tokenizer: str, encoder: str) -> Mapping[str, str]:
    """The fingerprint of every stage. `inputs` describes the source files, `prompts`,
    `tokenizer` and `encoder` are hashes."""
    plain = recipe.model_dump(mode="json")
    seed = recipe.seed
    parts: dict[str, Plain] = {
        "ingest": [inputs, plain["ingest"], tokenizer],
        "sample": [seed, plain["sample"]],
        "generate": [seed, plain["generate"], prompts],
        # `encoder` has the hash of the vocabulary; the specification may hold a path of this machine.
        "encode": [plain["encode"] | {"tokenizer": None}, encoder],
        "pack": [seed, plain["pack"]],
    }
    result: dict[str, str] = {}
    before: str | None = None
    for stage, part in parts.items():
        before = digest([stage, SCHEMA_VERSION, RULES[stage], before, part])
        result[stage] = before
    return result
