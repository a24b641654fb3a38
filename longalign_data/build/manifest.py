"""`manifest.json`: everything about a build that is not in its tables. Written last, so its existence means completeness."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import longalign_data
from longalign_data.recipe import LoadedRecipe
from longalign_data.records import SCHEMA_VERSION
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageReport
from longalign_data.tokenizers import HubTokenizer, load_tokenizer

FORMAT = "longalign-data build"


def write_manifest(
    folder: BuildFolder,
    loaded: LoadedRecipe,
    reports: Sequence[StageReport],
    *,
    tokenizer: str,
    trainee_tokenizer: str,
) -> None:
    """Writes the manifest, unless the one that stands says the same."""
    recipe = loaded.recipe
    rejects: dict[str, dict[str, int]] = {report.stage: dict(report.rejected) for report in reports if report.rejected}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "made_with": f"longalign-data {longalign_data.__version__}",
        "name": recipe.name,
        "version": recipe.version,
        "parent": _parent(folder),
        "recipe": loaded.text,
        "cards": [source.card.model_dump(mode="json", exclude_none=True) for source in loaded.sources],
        "tokenizers": {
            "measure": _tokenizer(recipe.tokenizer, tokenizer),
            "trainee": _tokenizer(recipe.encode.tokenizer or recipe.tokenizer, trainee_tokenizer),
        },
        "pack": recipe.pack.model_dump(mode="json"),
        "mix": [choice.model_dump(mode="json", exclude_none=True) for choice in recipe.mix],
        "teacher": {"provider": recipe.generate.teacher.provider, "model": recipe.generate.teacher.model}
        if any(report.stage == "generate" for report in reports)
        else None,
        "cost": next((report.details.get("cost") for report in reports if report.stage == "generate"), None),
        "rejects": rejects,
        "stages": [
            {name: value for name, value in dataclasses.asdict(report).items() if name != "shards"}
            for report in reports
        ],
        "tables": {
            table: [dataclasses.asdict(shard) for shard in shards]
            for report in reports
            for table, shards in report.shards.items()
            if table != "rejects" and table in recipe.keep
        }
        | {"rejects": [dataclasses.asdict(shard) for report in reports for shard in report.shards["rejects"]]},
    }
    if read_manifest(folder) != manifest:
        write_json(folder.manifest, manifest)


def _tokenizer(spec: str, identity: str) -> dict[str, str]:
    found = {"spec": spec, "identity": identity}
    tokenizer = load_tokenizer(spec)
    if isinstance(tokenizer, HubTokenizer) and tokenizer.revision is not None:
        # What `hf:NAME` without a revision was on the day of the build; written as hf:NAME@REVISION it stays that.
        found["revision"] = tokenizer.revision
    return found


def read_manifest(folder: BuildFolder) -> dict[str, Any] | None:
    """The manifest, or None while the build is not complete."""
    try:
        manifest: dict[str, Any] = json.loads(folder.manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return manifest


def _parent(folder: BuildFolder) -> dict[str, str] | None:
    """The newest complete build of the same name with a smaller version."""
    versions = []
    for path in folder.root.parent.glob("*/manifest.json"):
        try:
            number = tuple(int(part) for part in path.parent.name.split("."))
        except ValueError:
            continue
        if number < tuple(int(part) for part in folder.root.name.split(".")):
            versions.append((number, path.parent))
    if not versions:
        return None
    parent = BuildFolder(max(versions)[1])
    manifest = read_manifest(parent)
    if manifest is None:
        return None
    return {"version": parent.root.name, "fingerprint": manifest["stages"][-1]["fingerprint"]}
