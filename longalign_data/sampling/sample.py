"""The stage `sample`: documents in, the table `selection` out (small: ids, buckets, keys, ranks; texts stay where they are)."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from longalign_data.engine import Progress, RunOptions, map_ordered
from longalign_data.errors import BuildError
from longalign_data.identity import ID_HEX
from longalign_data.recipe import LoadedRecipe, SampleDocuments
from longalign_data.records import Selected
from longalign_data.sampling.draw import finish, missing
from longalign_data.sampling.keys import Ids
from longalign_data.sampling.partial import Batch, PartialDraw
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.shards.stage import StageReport, StageWriter

_COLUMNS = ["doc_id", "num_tokens", "lang", "source"]
FILES_PER_PART = 16
"""Files of documents that one process goes through, some 4 GB; a smaller table is not worth a second process."""

BATCH_ROWS = 1 << 16
"""Row groups hold a few dozen documents; so many rows are drawn at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    paths: tuple[Path, ...]
    wish: SampleDocuments
    seed: int


def sample(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Draws the documents and stores them in the order in which they are used.

    `details` holds target against achieved by language and bucket (`cells`) and by source (`sources`), and `edges`.
    Raises BuildError when there is not one document to take, and with `shortfall: stop` when there are too few of a kind.
    """
    wish = loaded.recipe.sample
    # Workers on other machines have another working folder.
    paths = [path.resolve() for path in build.shards("documents")]
    jobs = [
        _Job(paths=tuple(paths[at : at + FILES_PER_PART]), wish=wish, seed=loaded.recipe.seed)
        for at in range(0, len(paths), FILES_PER_PART)
    ]
    progress.start("sample", None, "documents")
    whole = PartialDraw(wish, seed=loaded.recipe.seed)
    for partial in map_ordered(_partial, jobs, workers=min(run.workers, len(jobs)), ray_address=run.ray_address):
        whole.merge(partial)
        progress.advance(partial.num_seen)
    drawn = finish(whole)
    if not drawn.drawn:
        raise BuildError(
            f"{build.root}: no document to take: {drawn.num_seen} documents were ingested, {drawn.num_outside} of them "
            f"outside {wish.edges[0]}-{wish.edges[-1]} tokens; widen sample.edges and ingest.min_tokens/max_tokens, or add a source"
        )
    if wish.shortfall == "stop" and (lacking := missing(drawn, wish)):
        raise BuildError(
            f"{build.root}: the documents do not fill what sample asks for; missing are {'; '.join(lacking)}; add to the "
            "sources, ask for less in sample.count, shares, languages or sources, or set sample.shortfall to fill or leave"
        )
    with StageWriter(build, "sample", fingerprint=fingerprint, run=run) as writer:
        # One input for the whole table: a draw is quick, and is made again from the start after a cut.
        for rank, item in enumerate(drawn.drawn):
            writer.write("selection", Selected(doc_id=item.doc_id, bucket=item.bucket, key=item.key, rank=rank))
        if drawn.num_outside:
            writer.leave_out("outside-edges", drawn.num_outside)
        not_drawn = drawn.num_seen - drawn.num_outside - len(drawn.drawn)
        if not_drawn:
            writer.leave_out("not-drawn", not_drawn)
        writer.counts.num_in = drawn.num_seen
        writer.counts.num_tokens = sum(item.num_tokens for item in drawn.drawn)
        return writer.finish(
            {
                "asked": wish.count,
                "edges": list(wish.edges),
                "cells": [dataclasses.asdict(cell) for cell in drawn.cells],
                "sources": [dataclasses.asdict(cell) for cell in drawn.sources],
            }
        )


def _partial(job: _Job) -> PartialDraw:
    partial = PartialDraw(job.wish, seed=job.seed)
    for table in _tables(job.paths):
        partial.add(to_batch(table))
    return partial


def _tables(paths: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in iter_batches(paths, columns=_COLUMNS):
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting)


def to_batch(table: pa.Table) -> Batch:
    """The columns `doc_id`, `num_tokens`, `lang` and `source` of documents, as the sampler wants them."""
    langs = table["lang"].combine_chunks().dictionary_encode()
    sources = table["source"].combine_chunks().dictionary_encode()
    return Batch(
        ids=_fixed_width(table["doc_id"].combine_chunks()),
        num_tokens=table["num_tokens"].to_numpy(),
        langs=langs.indices.to_numpy().astype(np.int64),
        lang_names=langs.dictionary.to_pylist(),
        sources=sources.indices.to_numpy().astype(np.int64),
        source_names=sources.dictionary.to_pylist(),
    )


def _fixed_width(column: pa.StringArray) -> Ids:
    """The ids as an array of bytes. Ids of the usual length lie end to end in the column already."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    if len(column) and (np.diff(offsets) == ID_HEX).all():
        return np.frombuffer(column.buffers()[2], dtype=f"S{ID_HEX}", count=len(column), offset=int(offsets[0]))
    return np.array([value.encode() for value in column.to_pylist()])
