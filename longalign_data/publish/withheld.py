"""Samples without their documents: what may be published where the documents may not.

    samples      messages [{user: "<document>\\n\\nWhat ...?"}]     ->  [{user: "\\n\\nWhat ...?"}], `document_spans` as they were
    documents    text, title, source_ref, ...                     ->  references: all of it but the text, and its SHA-256

`document_spans` say where each text goes back in, and `references` where it stood in its corpus; `build.rehydrate` puts it
there. Packs and sequences are token ids of the documents and stay behind; encoding makes them anew.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from longalign_data.errors import BuildError
from longalign_data.records import DOCUMENTS, SAMPLES
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import Manifest, shards_of
from longalign_data.shards.parquet import ShardFile, ShardInfo, iter_batches

WITHOUT_DOCUMENTS = ("documents", "selection", "samples", "chats")
"""Tables of a build of which something is published without the documents; of `documents` the references. Rejects are left
out: their details may quote what they reject."""

REFERENCES = pa.schema([field for field in DOCUMENTS if field.name != "text"] + [pa.field("text_sha256", pa.string())])
"""A document without its text. `text_sha256` is of the text's UTF-8 bytes."""

_ROW_GROUP_BYTES = 4 << 20


def withhold_documents(
    build: BuildFolder, manifest: Manifest, tables: Sequence[str], folder: Path
) -> Mapping[str, Sequence[ShardInfo]]:
    """Writes the tables `references` and `samples` (those of them that `tables` ask for) below `folder`. The same build
    gives the same bytes. Raises BuildError when a sample does not say where its documents stand."""
    written: dict[str, Sequence[ShardInfo]] = {}
    used: set[str] | None = None
    if "samples" in tables:
        used = set()
        written["samples"] = [_samples(build, shard, folder, used) for shard in shards_of(manifest, "samples")]
    elif shards_of(manifest, "selection"):
        paths = [build.root / shard.path for shard in shards_of(manifest, "selection")]
        used = {doc_id for batch in iter_batches(paths, columns=["doc_id"]) for doc_id in batch.column(0).to_pylist()}
    if "documents" in tables:
        written["references"] = [_references(build, manifest, folder, used)]
    return written


def _samples(build: BuildFolder, shard: ShardInfo, folder: Path, used: set[str]) -> ShardInfo:
    file = ShardFile(folder / shard.path, SAMPLES, row_group_bytes=_ROW_GROUP_BYTES)
    for batch in iter_batches([build.root / shard.path]):
        rows = batch.to_pylist()
        for row in rows:
            used.update(row["doc_ids"])
            _cut(row, build.root / shard.path)
        file.write_table(pa.Table.from_pylist(rows, schema=SAMPLES))
    return file.close(folder)


def _cut(row: dict[str, Any], path: Path) -> None:
    """Takes the documents out of a sample's messages."""
    if len(row["document_spans"]) != len(row["doc_ids"]):
        raise BuildError(f"{path}: sample {row['sample_id']}: it does not say where each of its documents stands")
    for span in sorted(row["document_spans"], key=lambda span: -int(span["start"])):
        message = row["messages"][span["message_index"]]
        message["content"] = message["content"][: span["start"]] + message["content"][span["end"] :]


def put_back(row: dict[str, Any], texts: Mapping[str, str]) -> None:
    """Puts the documents into a sample's messages again, each by its id."""
    for doc_id, span in sorted(
        zip(row["doc_ids"], row["document_spans"], strict=True), key=lambda pair: int(pair[1]["start"])
    ):
        message = row["messages"][span["message_index"]]
        message["content"] = message["content"][: span["start"]] + texts[doc_id] + message["content"][span["start"] :]


def _references(build: BuildFolder, manifest: Manifest, folder: Path, used: set[str] | None) -> ShardInfo:
    file = ShardFile(folder / "references" / "00000.parquet", REFERENCES, row_group_bytes=_ROW_GROUP_BYTES)
    for batch in iter_batches([build.root / shard.path for shard in shards_of(manifest, "documents")]):
        rows = [row for row in batch.to_pylist() if used is None or row["doc_id"] in used]
        for row in rows:
            row["text_sha256"] = hashlib.sha256(row.pop("text").encode()).hexdigest()
        if rows:
            file.write_table(pa.Table.from_pylist(rows, schema=REFERENCES))
    return file.close(folder)
