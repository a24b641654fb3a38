"""The sequences of a build, read from their table, or recovered from the packs where the recipe does not keep it.

A pack holds its sequences token for token, and its weights are above 0 exactly on their targets. Whose they are follows from
their ids, which are hashes of the samples' ids. What is not known then is how many tokens had been cut out of a document.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from longalign_data.errors import BuildError
from longalign_data.identity import digest
from longalign_data.records import SEQUENCES
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import Manifest, shards_of, stage_of
from longalign_data.shards.parquet import iter_batches


def sequences_of(build: BuildFolder, manifest: Manifest) -> Iterator[pa.Table]:
    """Every sequence once, as rows of `sequences`. Raises BuildError where the build holds neither that table nor packs with
    the conversations that they are of."""
    if shards_of(manifest, "sequences"):
        for batch in iter_batches([build.root / shard.path for shard in shards_of(manifest, "sequences")]):
            yield pa.Table.from_batches([batch])
        return
    owners = _owners(build, manifest)
    seen: set[str] = set()
    columns = ["sequence_ids", "cu_seqlens", "input_ids", "loss_weights"]
    for batch in iter_batches([build.root / shard.path for shard in shards_of(manifest, "packs")], columns=columns):
        rows = []
        for row in range(batch.num_rows):
            names, borders = batch.column(0)[row].as_py(), batch.column(1)[row].as_py()
            tokens, weights = (batch.column(column)[row].values.to_numpy() for column in (2, 3))
            for place, name in enumerate(names):
                if name in seen:  # of an earlier epoch
                    continue
                seen.add(name)
                part = slice(borders[place], borders[place + 1])
                edges = np.flatnonzero(np.diff(weights[part] > 0, prepend=False, append=False)).tolist()
                spans = [{"start": start, "end": end} for start, end in zip(edges[::2], edges[1::2], strict=True)]
                sample_id, source, task = owners[name]
                rows.append(
                    {
                        "sequence_id": name,
                        "sample_id": sample_id,
                        "source": source,
                        "task": task,
                        "input_ids": tokens[part],
                        "target_spans": spans,
                        "num_tokens": borders[place + 1] - borders[place],
                        "num_targets": sum(span["end"] - span["start"] for span in spans),
                        "truncated_tokens": 0,
                    }
                )
        if rows:
            yield pa.Table.from_pylist(rows, schema=SEQUENCES)


def _owners(build: BuildFolder, manifest: Manifest) -> dict[str, tuple[str, str, str]]:
    """Sample id, source and task of each sequence."""
    tables = [table for table, stage in (("samples", "generate"), ("chats", "mix")) if stage_of(manifest, stage)]
    encoded = stage_of(manifest, "encode")
    if encoded is None or not tables or not all(shards_of(manifest, table) for table in (*tables, "packs", "plan")):
        raise BuildError(
            f"{build.root}: holds neither the table sequences nor packs with {' and '.join(tables) or 'conversations'}, from which "
            "its sequences could be recovered; add sequences to the recipe's `keep` and build again"
        )
    paths = [build.root / shard.path for table in tables for shard in shards_of(manifest, table)]
    return {
        digest([sample_id, encoded["details"]["encoding"]]): (sample_id, source, task)
        for batch in iter_batches(paths, columns=["sample_id", "source", "task"])
        for sample_id, source, task in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }
