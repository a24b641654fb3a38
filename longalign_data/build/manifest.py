"""`manifest.json`: everything about a build that is not in its tables. Written last, so its existence means completeness."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import longalign_data
from longalign_data.recipe import LoadedRecipe, portable, without_places
from longalign_data.records import SCHEMA_VERSION
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import FORMAT, MANIFEST_VERSION, Manifest, read_manifest
from longalign_data.shards.stage import StageReport
from longalign_data.teachers.table import teacher_record
from longalign_data.tokenizers import HubTokenizer, load_tokenizer


def write_manifest(
    folder: BuildFolder,
    loaded: LoadedRecipe,
    reports: Sequence[StageReport],
    *,
    tokenizer: str,
    trainee_tokenizer: str,
) -> Manifest:
    """Writes the manifest, unless the one that stands says the same; returns it. It names no place on this machine."""
    recipe = loaded.recipe
    rejects: dict[str, dict[str, int]] = {report.stage: dict(report.rejected) for report in reports if report.rejected}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "manifest_version": MANIFEST_VERSION,
        "schema_version": SCHEMA_VERSION,
        "made_with": f"longalign-data {longalign_data.__version__}",
        "name": recipe.name,
        "version": recipe.version,
        "parent": _parent(folder),
        "recipe": without_places(loaded.text),
        "cards": [_placeless(source.card.model_dump(mode="json", exclude_none=True)) for source in loaded.sources],
        "tokenizers": {
            "measure": _tokenizer(recipe.tokenizer, tokenizer),
            "trainee": _tokenizer(recipe.encode.tokenizer or recipe.tokenizer, trainee_tokenizer),
        },
        "pack": recipe.pack.model_dump(mode="json"),
        "mix": [_placeless(choice.model_dump(mode="json", exclude_none=True)) for choice in recipe.mix],
        "teacher": dataclasses.asdict(teacher_record(recipe.generate.teacher))
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
    return manifest


def _tokenizer(spec: str, identity: str) -> dict[str, str]:
    found = {"spec": portable(spec), "identity": identity}
    tokenizer = load_tokenizer(spec)
    if isinstance(tokenizer, HubTokenizer) and tokenizer.revision is not None:
        # What `hf:NAME` without a revision was on the day of the build; written as hf:NAME@REVISION it stays that.
        found["revision"] = tokenizer.revision
    return found


def _placeless(choice: dict[str, Any]) -> dict[str, Any]:
    return choice | {"path": portable(choice["path"])} if "path" in choice else choice


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
