"""What a stage's result depends on, and what it does not.

| part of a recipe or run                                   | in the identity of                    |
|-----------------------------------------------------------|---------------------------------------|
| table schemas, version of the stage's own rules           | every stage                           |
| fingerprint of the stage before                           | every stage but the first             |
| cards, content of the source files (SHA-256), revision    | ingest                                |
| `ingest`, `tokenizer` (hash of its vocabulary)            | ingest                                |
| `curate`, its rules' version, language model, index       | ingest                                |
| `seed`                                                    | sample, generate, pack                |
| `sample`                                                  | sample                                |
| `generate`, text of the prompts in use                    | generate                              |
| `mix`, hashes of its files, `seed`, `tokenizer`           | mix (of no stage before)              |
| `encode`, hash of the trainee's vocabulary and template   | encode                                |
| `pack`                                                    | pack                                  |
| `exclude`                                                 | ingest (documents), generate and mix (samples) |
| `name`, `version`, `description`, `keep`                  | none                                  |
| where corpus and vocabularies lie here, file times        | none                                  |
| workers, concurrency, output folder, shard sizes, keys    | none                                  |

A stage whose stored fingerprint equals the one computed from the recipe has nothing to do.
"""

from collections.abc import Mapping

from longalign_data.identity import Plain, digest
from longalign_data.recipe import Recipe
from longalign_data.records import SCHEMA_VERSION
from longalign_data.shards.folder import STAGES

RULES = {"ingest": 2, "sample": 3, "generate": 5, "mix": 2, "encode": 3, "pack": 4}
"""Raised by one when a stage's code changes what it makes of the same input."""


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that a recipe has, in order: without sources there are no documents, without `mix` no chats, and with
    `encode.mode: pretrain` no conversations."""
    without: set[str] = set() if recipe.mix else {"mix"}
    if not recipe.sources:
        without |= {"ingest", "sample", "generate"}
    if recipe.encode.mode == "pretrain":
        without.add("generate")
    return [stage for stage in STAGES if stage not in without]


def fingerprints(
    recipe: Recipe, *, inputs: Plain, curation: Plain, mix_inputs: Plain, prompts: str, tokenizer: str, encoder: str
) -> Mapping[str, str]:
    """The fingerprint of every stage that the recipe has. `inputs` and `mix_inputs` describe the source files, `curation`
    the rules that clean and judge their documents; `prompts`,
    `tokenizer` and `encoder` are hashes."""
    plain = recipe.model_dump(mode="json")
    seed = recipe.seed
    parts: dict[str, Plain] = {
        "ingest": [inputs, plain["ingest"], curation, tokenizer],
        "sample": [seed, plain["sample"]],
        "generate": [seed, plain["generate"], prompts],
        "mix": [seed, mix_inputs, tokenizer],
        # `encoder` has the hash of the vocabulary; the specification may hold a path of this machine.
        "encode": [plain["encode"] | {"tokenizer": None}, encoder],
        "pack": [seed, plain["pack"]],
    }
    # Nothing withdrawn, nothing changed: builds from before there was an `exclude` stay complete.
    for stage, name in (("ingest", "documents"), ("generate", "samples"), ("mix", "samples")):
        if plain["exclude"][name]:
            parts[stage] = [parts[stage], sorted(plain["exclude"][name])]
    result: dict[str, str] = {}
    before: str | None = None
    for stage in stages_of(recipe):
        part = parts[stage]
        if stage == "mix":
            result[stage] = digest([stage, SCHEMA_VERSION, RULES[stage], None, part])
            continue
        if stage == "encode" and "mix" in result:
            part = [part, result["mix"]]
        before = digest([stage, SCHEMA_VERSION, RULES[stage], before, part])
        result[stage] = before
    return result
