"""Groups records whose members stand far apart in a file, with the disk instead of memory.

Records are dealt by a hash of their group into files; a group is whole in one of them, and one file at a time fits in
memory. Both passes go through the records in the order in which they came.
"""

import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

from longalign_data.identity import digest

BUCKET_BYTES = 32 << 20
IN_MEMORY = 1 << 20


class Spill:
    """`add` every record, then read `groups`. `expected_bytes` decides about the number of files and, with the groups'
    names, about their order; it must not depend on the run."""

    def __init__(self, expected_bytes: int) -> None:
        count = min(512, max(1, expected_bytes // BUCKET_BYTES))
        # Closed in __exit__.
        self._files: list[IO[bytes]] = [tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) for _ in range(count)]  # noqa: SIM115

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, group: str, record: tuple[Any, ...]) -> None:
        """Keeps a record of texts, numbers and None; raises TypeError for anything that JSON cannot say."""
        index = int(digest([group])[:8], 16) % len(self._files) if len(self._files) > 1 else 0
        # A line of ASCII: line ends and lone surrogates inside a value are escaped.
        self._files[index].write(json.dumps([group, *record]).encode("ascii") + b"\n")

    def groups(self) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        """Each group with its records in the order of `add`; groups of a file in the order of their first record."""
        for file in self._files:
            file.seek(0)
            found: dict[str, list[tuple[Any, ...]]] = {}
            for line in file:
                group, *record = json.loads(line)
                found.setdefault(group, []).append(tuple(record))
            yield from found.items()
            file.close()
