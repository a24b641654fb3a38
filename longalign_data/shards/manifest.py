"""`manifest.json` read back: what a complete build says of itself. `build.manifest` writes it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longalign_data import yamlfile
from longalign_data.errors import BuildError
from longalign_data.recipe import NAME_PATTERN, VERSION_PATTERN, Recipe, name_without_limit
from longalign_data.records import SCHEMA_VERSION, TABLES
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import ShardInfo

FORMAT = "longalign-data build"
MANIFEST_VERSION = 2
"""Raised when the manifest says something in another way than before."""

KNOWN_TABLES = (*TABLES, "references")
"""`references` stand for the documents in what was published without them."""

Manifest = dict[str, Any]


def read_manifest(folder: BuildFolder) -> Manifest | None:
    """The manifest, or None while the build is not complete."""
    try:
        manifest: Manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return manifest


def require_manifest(folder: BuildFolder) -> Manifest:
    """The manifest of a complete build. What it names are paths inside the build, also where a stranger wrote it. Raises
    BuildError where the build is not complete, or the file is another's or names something else."""
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
    if (wrong := _misnamed(manifest)) is not None:
        raise BuildError(f"{folder.manifest}: {wrong}; it was not written by longalign: fetch or build it again")
    return manifest


def _misnamed(manifest: Mapping[str, Any]) -> str | None:
    """What in a manifest would become a path and is none of a build; None where there is nothing."""
    for field, pattern in (("name", NAME_PATTERN), ("version", VERSION_PATTERN)):
        # A trial stands under a name of its own, which may be longer.
        if not re.fullmatch(pattern, name_without_limit(str(manifest.get(field)))):
            return f"the {field} {manifest.get(field)!r} is not one that a build can have"
    tables = manifest.get("tables")
    if not isinstance(tables, dict):
        return "it has no `tables`"
    for table, shards in tables.items():
        if table not in KNOWN_TABLES:
            return f"names an unknown table {table!r}"
        for shard in shards:
            if not re.fullmatch(rf"{table}/[A-Za-z0-9][A-Za-z0-9._-]*\.parquet", str(shard.get("path"))):
                return f"the table {table} names the file {shard.get('path')!r}; expected {table}/....parquet"
    return None


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
