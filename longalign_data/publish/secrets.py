"""Keys and passwords in what is about to be published: every text column of every table, the card and the manifest.

In: Parquet files, or a text. Out: findings, each with its file, row, column and rule, and the first characters of what was found
(the whole of it is shown nowhere).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from longalign_data.curation.secrets import find_secrets
from longalign_data.engine import map_ordered
from longalign_data.shards.parquet import iter_batches

SHOWN = 4
"""Characters of a finding that are shown, enough to find it again."""


SEVERAL_BYTES = 20_000_000
"""From so many bytes of files on, starting other processes costs less than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Something that looks like a key or a password: in which `file`, in the row whose id is `row_id`, in which `column`
    (both empty for the card and the manifest), by which `rule` of `curation.secrets`; `beginning` is how it begins."""

    file: str
    row_id: str
    column: str
    rule: str
    beginning: str


def find_leaks(files: Sequence[tuple[Path, str]], *, workers: int = 1) -> list[Leak]:
    """Everything that is found in the text columns of the files, each a folder and a path below it, in their order."""
    size = sum((root / file).stat().st_size for root, file in files)
    workers = min(workers, len(files)) if size > SEVERAL_BYTES else 1
    return [leak for found in map_ordered(_of_file, files, workers=workers) for leak in found]


def leaks_of_text(file: str, *texts: str) -> list[Leak]:
    """Everything that is found in the texts, which all stand in `file`; each finding once."""
    found = [(one.rule, text[one.start : one.end]) for text in texts for one in find_secrets(text)]
    return [
        Leak(file=file, row_id="", column="", rule=rule, beginning=secret[:SHOWN])
        for rule, secret in dict.fromkeys(found)
    ]


def _of_file(job: tuple[Path, str]) -> list[Leak]:
    root, file = job
    leaks: list[Leak] = []
    for batch in iter_batches([root / file]):
        # The first column is the row's id in every table.
        ids = batch.column(0).to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for row, text in _texts(column):
                for found in find_secrets(text):
                    beginning = text[found.start : found.start + SHOWN]
                    leaks.append(
                        Leak(file=file, row_id=str(ids[row]), column=name, rule=found.rule, beginning=beginning)
                    )
    return leaks


def _texts(column: pa.Array) -> Iterator[tuple[int, str]]:
    """Every string in a column, however deep in lists and structures, with its row."""
    rows = list(range(len(column)))
    pending: list[tuple[pa.Array, list[int]]] = [(column, rows)]
    while pending:
        array, rows = pending.pop()
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            for row, text in zip(rows, array, strict=True):
                if text.is_valid:
                    yield row, text.as_py()
        elif pa.types.is_list(array.type) and not pa.types.is_primitive(array.type.value_type):
            counts = array.value_lengths().to_pylist()
            pending.append(
                (array.flatten(), [row for row, count in zip(rows, counts, strict=True) for _ in range(count or 0)])
            )
        elif pa.types.is_struct(array.type):
            pending += [(array.field(index), rows) for index in range(array.type.num_fields)]
