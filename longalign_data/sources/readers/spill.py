"""Groups records whose members stand far apart in a file, with the disk instead of memory.

Records are dealt by a hash of their group into buckets; a group is whole in one of them, and one bucket at a time fits in
memory. Both passes go through the records in the order in which they came.
"""

import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

from longalign_data.identity import digest

BUCKET_BYTES = 32 << 20
HELD_CHARS = 32 << 20
"""Characters of text in records that are kept as they are; from there on everything goes to disk."""

Record = tuple[Any, ...]


class Spill:
    """`add` every record, then read `groups`. `expected_bytes` decides about the number of buckets and, with the groups'
    names, about their order; it must not depend on the run."""

    def __init__(self, expected_bytes: int) -> None:
        count = min(512, max(1, expected_bytes // BUCKET_BYTES))
        self._held: list[list[tuple[str, Record]]] = [[] for _ in range(count)]
        self._chars = 0
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, group: str, record: Record) -> None:
        """Keeps a record of texts, numbers, None and lists of them; what JSON cannot say raises TypeError."""
        count = len(self._held)
        index = int(digest([group])[:8], 16) % count if count > 1 else 0
        if self._files:
            self._write(index, group, record)
            return
        self._held[index].append((group, record))
        # Some 20 characters for what is no text, so that a great many small records count too.
        self._chars += sum(len(value) if isinstance(value, str) else 20 for value in record)
        if self._chars > HELD_CHARS:
            # Closed in __exit__. Each holds its place on disk alone, and a buffer.
            self._files = [tempfile.TemporaryFile() for _ in range(count)]  # noqa: SIM115
            for bucket, held in enumerate(self._held):
                for name, early in held:
                    self._write(bucket, name, early)
                held.clear()

    def _write(self, index: int, group: str, record: Record) -> None:
        # A line of ASCII: line ends and lone surrogates inside a value are escaped.
        self._files[index].write(json.dumps([group, *record]).encode("ascii") + b"\n")

    def groups(self) -> Iterator[tuple[str, list[Record]]]:
        """Each group with its records in the order of `add`; groups of a bucket in the order of their first record."""
        for index, held in enumerate(self._held):
            found: dict[str, list[Record]] = {}
            for group, record in held:
                found.setdefault(group, []).append(record)
            held.clear()
            if self._files:
                file = self._files[index]
                file.seek(0)
                for line in file:
                    group, *values = json.loads(line)
                    found.setdefault(group, []).append(tuple(values))
                file.close()
            yield from found.items()
