"""What identifies the inputs of a build: names relative to each source, sizes and content hashes; no absolute path and no
time, so that a copied or touched corpus is the same corpus.

    [{"source": {"id": "notes", "lang": "en", ...}, "inputs": [{"key": "a.txt", "size": 1840, "sha256": "9f..."}]}]

Hashes of files are kept in `state/inputs.json` by path, size and time of change: an unchanged corpus is not read again.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from longalign_data.catalog import Card
from longalign_data.errors import SourceError
from longalign_data.identity import Plain, file_sha256
from longalign_data.recipe import LoadedRecipe
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.sources.places import storable
from longalign_data.sources.readers import partitions
from longalign_data.sources.reading import READING_VERSION, Partition, Unit

SETTLED_NS = 2_000_000_000
"""A file that changed more recently than this may change again without its time showing it; its hash is not kept."""


def snapshot(loaded: LoadedRecipe, build: BuildFolder) -> list[dict[str, Any]]:
    """The inputs as plain values, one entry a source in the recipe's order. Raises SourceError."""
    hashes = Hashes(build)
    found = []
    for placed in loaded.sources:
        inputs: list[dict[str, Any]] = []
        if not is_remote(placed.card):
            seen: set[str] = set()
            for partition in partitions(placed):
                for unit in partition.units:
                    if unit.name not in seen:
                        seen.add(unit.name)
                        inputs.append(
                            {"key": unit.name, "size": unit.size, "sha256": hashes.unit(partition.root, unit)}
                        )
        found.append({"source": card_identity(placed.card), "inputs": inputs})
    hashes.save()
    return found


def is_remote(card: Card) -> bool:
    """Whether the source is a hub dataset, which its id, config, split and revision identify."""
    return card.reader.kind == "hub" and card.reader.dataset is not None


def card_identity(card: Card) -> dict[str, Plain]:
    """What of a card decides about the documents; its title and notes do not."""
    kept: dict[str, Plain] = card.model_dump(mode="json", include={"id", "lang", "license", "reader"})
    if card.reader.kind == "code" and card.reader.unit == "tree":
        kept["title"] = card.title
    return kept | {"reading_version": READING_VERSION}


class Hashes:
    """SHA-256 of files and units, remembered in the build folder."""

    def __init__(self, build: BuildFolder, name: str = "inputs") -> None:
        self._place = build.root / "state" / f"{name}.json"
        self._known = _read(self._place)
        self._used: dict[str, list[Any]] = {}

    def partition(self, partition: Partition) -> list[str]:
        """The hashes of a partition's units."""
        return [self.unit(partition.root, unit) for unit in partition.units]

    def unit(self, root: str, unit: Unit) -> str:
        """The hash of a file's bytes; of several files, the hash over their names and hashes."""
        if len(unit.files) == 1:
            return self._file(Path(root, unit.files[0]))
        lines = (f"{self._file(Path(root, file))}  {storable(file)}\n" for file in unit.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _file(self, path: Path) -> str:
        try:
            stat = path.stat()
            key = storable(str(path))
            entry = self._used.get(key) or self._known.get(key)
            if entry is None or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
                entry = [stat.st_size, stat.st_mtime_ns, file_sha256(path)]
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}; make it readable or leave it out") from error
        if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            self._used[key] = entry
        sha256: str = entry[2]
        return sha256

    def save(self) -> None:
        """Keeps the hashes of the files that were asked for."""
        if self._used != self._known:
            write_json(self._place, self._used)


def _read(place: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
