"""The documentation topics of Python's `help()`: the dictionary in pydoc_data/topics.py, one topic a document.

The module is parsed, never imported.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from longalign_data.errors import SourceError
from longalign_data.recipe import PlacedSource
from longalign_data.sources.places import failed, locate, storable
from longalign_data.sources.reading import Partition, RawDocument, RawReject, Unit, one_by_one


def partitions(placed: PlacedSource) -> Sequence[Partition]:
    """One partition. Raises SourceError when no such file is there."""
    place = locate(placed)
    options = place.files if place.files is not None else ("topics.py", "pydoc_data/topics.py")
    file = next((option for option in options if (place.root / option).is_file()), None)
    if file is None:
        raise failed(placed, f"{place.root}: no pydoc_data/topics.py", "use python:stdlib of a Python that has it")
    unit = Unit(name=storable(file), files=(file,), size=(place.root / file).stat().st_size)
    return one_by_one(placed.card, str(place.root), [unit])


def read(partition: Partition) -> Iterator[RawDocument | RawReject]:
    """The topics by name. Raises SourceError when the file holds none."""
    topics, card = _topics(Path(partition.path)), partition.card
    if topics is None:
        what = f"{partition.path}: no dictionary of texts called 'topics'"
        raise SourceError(f"source {card.id!r}: {what}; name Python's own pydoc_data/topics.py")
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
