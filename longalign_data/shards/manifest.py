"""`manifest.json` read back: what a complete build says of itself. `build.manifest` writes it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longalign_data import yamlfile
from longalign_data.errors import BuildError
from longalign_data.recipe import Recipe
from longalign_data.records import SCHEMA_VERSION
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import ShardInfo

FORMAT = "longalign-data build"
MANIFEST_VERSION = 2
"""Raised when the manifest says something in another way than before."""

Manifest = dict[str, Any]


def read_manifest(folder: BuildFolder) -> Manifest | None:
    """The manifest, or None while the build is not complete."""
    try:
        manifest: Manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return manifest


def require_manifest(folder: BuildFolder) -> Manifest:
    """The manifest of a complete build. Raises BuildError where the build is not complete or the file is another's."""
    try:
        manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(
            f"{folder.root}: the build is not complete: it has no manifest.json; run: longalign build RECIPE"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BuildError(f"{folder.manifest}: not JSON: {error}; remove it and run: longalign build RECIPE") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BuildError(f"{folder.manifest}: not the manifest of a build (its `format` is not {FORMAT!r})")
    found = (manifest.get("manifest_version"), manifest.get("schema_version"))
    if found != (MANIFEST_VERSION, SCHEMA_VERSION):
        raise BuildError(
            f"{folder.manifest}: made with {manifest.get('made_with')}, which wrote builds in another way; use that version, or "
            "run longalign build RECIPE with this one"
        )
    return manifest


def recipe_of(manifest: Mapping[str, Any]) -> Recipe:
    """The recipe that the manifest holds; its cards are not looked up. Raises RecipeError."""
    return yamlfile.parse(manifest["recipe"], Path("manifest.json: recipe"), Recipe)


def stage_of(manifest: Mapping[str, Any], stage: str) -> Mapping[str, Any] | None:
    """What the manifest says of a stage; None where the build has no such stage."""
    return next((report for report in manifest["stages"] if report["stage"] == stage), None)


def shards_of(manifest: Mapping[str, Any], table: str) -> Sequence[ShardInfo]:
    """The shards of a table, in order; none where the build does not hold it."""
    return [ShardInfo(**shard) for shard in manifest["tables"].get(table, ())]


def rows_of(manifest: Mapping[str, Any], table: str) -> int:
    """The rows of a table."""
    return sum(shard.rows for shard in shards_of(manifest, table))
