"""The documentation topics of Python's `help()`: the dictionary in pydoc_data/topics.py, one topic a document.

The module is parsed, never imported.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import failed, locate, storable
from longalign_data.sources.reading import Partition, RawDocument, RawReject, Unit


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """One partition. Raises SourceError when no topics are there."""
    place = locate(placed)
    options = place.files if place.files is not None else ("topics.py", "pydoc_data/topics.py")
    file = next((option for option in options if (place.root / option).is_file()), None)
    if file is None:
        raise failed(placed, f"{place.root}: no pydoc_data/topics.py", "use python:stdlib of a Python that has it")
    path = place.root / file
    if _topics(path) is None:
        raise failed(
            placed, f"{path}: no dictionary of texts called 'topics'", "name Python's own pydoc_data/topics.py"
        )
    unit = Unit(name=storable(file), files=(file,), size=path.stat().st_size)
    return [Partition(card=placed.card, root=str(place.root), key=unit.name, units=(unit,))]


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The topics by name."""
    topics, card = _topics(Path(partition.path)) or {}, partition.card
    for topic in sorted(topics):
        ref = f"{partition.units[0].name}#{topic}"
        yield RawDocument(text=topics[topic], title=topic, lang=card.lang, license=card.license, source_ref=ref)


def _topics(path: Path) -> dict[str, str] | None:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "topics" for target in targets):
            assert isinstance(statement, ast.Assign)
            try:
                value = ast.literal_eval(statement.value)
            except ValueError:
                return None
            right = isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item)
            return value if right else None
    return None
