"""The stage `sample`: documents in, the table `selection` out (small: ids, buckets, keys, ranks; texts stay where they are)."""

import dataclasses
from collections.abc import Iterator

from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError
from longalign_data.recipe import LoadedRecipe
from longalign_data.records import Selected
from longalign_data.sampling.draw import Candidate, draw
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.shards.stage import StageReport, StageWriter

_COLUMNS = ["doc_id", "num_tokens", "lang", "source"]


def sample(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Draws the documents and stores them in the order in which they are used.

    `details` holds target against achieved by language and bucket (`cells`) and by source (`sources`), and `edges`.
    Raises BuildError when there is not one document to take.
    """
    wish = loaded.recipe.sample
    paths = build.shards("documents")

    def candidates() -> Iterator[Candidate]:
        for batch in iter_batches(paths, columns=_COLUMNS):
            for row in batch.to_pylist():
                yield Candidate(**row)
            progress.advance(batch.num_rows)

    progress.start("sample", None, "documents")
    drawn = draw(candidates(), wish, seed=loaded.recipe.seed)
    if not drawn.drawn:
        raise BuildError(
            f"{build.root}: no document to take: {drawn.num_seen} documents were ingested, {drawn.num_outside} of them "
            f"outside {wish.edges[0]}-{wish.edges[-1]} tokens; widen sample.edges and ingest.min_tokens/max_tokens, or add a source"
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
