"""What a build says of itself besides its tables: the counts of its stages, what its sampler was asked for, its settings.

In: `state/` or, in a published build, `manifest.json` alone. Out: plain values, which `sql` offers as views.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from longalign_data.errors import BuildError
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.stage import StageReport, read_report

_ABOUT = ("name", "version", "made_with", "parent", "tokenizers", "teacher", "cost", "pack")


def manifest_of(build: BuildFolder) -> Mapping[str, Any]:
    """The manifest; empty while the build is not complete. Raises BuildError when it is not JSON."""
    try:
        manifest = json.loads(build.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BuildError(f"{build.manifest}: not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise BuildError(f"{build.manifest}: not a manifest; it holds {type(manifest).__name__}")
    return manifest


def stage_reports(build: BuildFolder) -> Mapping[str, StageReport]:
    """The reports of the complete stages, in their order; without the shards where they are read from a manifest."""
    found = {stage: report for stage in STAGES if (report := read_report(build, stage)) is not None}
    if found:
        return found
    try:
        return {entry["stage"]: StageReport(**entry, shards={}) for entry in manifest_of(build).get("stages", ())}
    except (TypeError, KeyError) as error:
        raise BuildError(f"{build.manifest}: its stages are not reports of this version: {error}") from None


def rehearsal_words(num_replies: int) -> str:
    """What is said wherever a build's samples or their cost are shown, if the fake provider answered."""
    return (
        f"This is a rehearsal: {num_replies:,} replies came from longalign fake-provider, not from the model, and nothing was "
        "paid for them."
    )


def about(build: BuildFolder) -> Iterator[tuple[str, str]]:
    """Single settings and figures of the manifest as text, by dotted key, such as `pack.alpha` and `1.0`."""
    manifest = manifest_of(build)
    for key in _ABOUT:
        yield from _flat(key, manifest.get(key))


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(f"{key}.{name}", item)
    elif isinstance(value, bool | int | float | str):
        yield key, value if isinstance(value, str) else json.dumps(value)
