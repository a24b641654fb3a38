"""Conversations as JSON lines, which every SFT trainer reads: TRL, axolotl, LLaMA-Factory.

{"messages": [{"role": "user", "content": "..."}, ...], "sample_id": "9f0c...", "source": "...", "task": "...", ...}
"""

import json
from pathlib import Path

from longalign_data.errors import BuildError
from longalign_data.shards.files import whole_file
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches

COLUMNS = ["messages", "sample_id", "source", "task", "lang", "license"]


def export_messages(build: BuildFolder, out: Path) -> tuple[Path, int]:
    """Writes `out`/train.jsonl with every conversation of the build, those of `samples` before those of `chats`. Returns
    the file and the number of its lines. Raises BuildError when the build holds no conversations."""
    shards = [path for table in ("samples", "chats") for path in build.shards(table)]
    if not shards:
        raise BuildError(
            f"{build.root}: holds no conversations: its recipe does not make or `keep` the tables samples and chats"
        )
    count = 0
    place = out / "train.jsonl"
    with whole_file(place) as temporary, temporary.open("w", encoding="utf-8") as file:
        for batch in iter_batches(shards, columns=COLUMNS):
            for row in batch.to_pylist():
                file.write(json.dumps({name: row[name] for name in COLUMNS}, ensure_ascii=False) + "\n")
                count += 1
    return place, count
