"""The stage `ingest`: corpora in, the table `documents` out.

    partition --read--> texts --measure--> documents within the window, rejects, a count of what is too short
    all partitions, in the order of the recipe --merge--> documents and rejects of the build, without duplicates

Partitions run on any number of processes. Each leaves its result in the work folder, under a name made of everything
that decides about it, and writes it whole; a run that was cut off reads again only what was not finished.
"""

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longalign_data.engine import Progress, RunOptions, map_ordered
from longalign_data.identity import Plain, digest, document_id
from longalign_data.recipe import Ingest, LoadedRecipe, PlacedSource
from longalign_data.records import DOCUMENTS, REJECTS, SCHEMA_VERSION, Document, Reject
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import ShardFile, iter_batches, iter_records
from longalign_data.shards.stage import StageReport, StageWriter, work_folder
from longalign_data.sources.places import storable
from longalign_data.sources.readers import partitions, read
from longalign_data.sources.reading import Partition, RawDocument, RawReject
from longalign_data.sources.snapshot import Hashes, card_identity, is_remote
from longalign_data.sources.snapshot import snapshot as snapshot
from longalign_data.tokenizers import Tokenizer, count_tokens, load_tokenizer

STAGE = "ingest"

BATCH_BYTES = 4 << 20
BATCH_TEXTS = 64
"""Texts are measured in batches of about so many bytes, and at most so many texts."""

MAX_WHITE_SPACE = 100_000
"""White space in a row beyond which a document is rejected: tiktoken's split pattern backtracks over every character of
such a run, and at about a million it ends the process' call with a stack overflow."""

PIECE_CHARS = 100_000
SURELY_BYTES_PER_TOKEN = 16
"""Natural text and code have 1.5 to 6 bytes a token. Only a text with more than this for each of the `max_tokens` is
first measured in pieces."""


MAX_DETAIL = 1000
"""Characters of a reject's detail that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    partition: Partition
    window: Ingest
    tokenizer: str
    result: Path
    row_group_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What a partition came to; `docs` and `rejects` are files."""

    docs: Path
    rejects: Path
    num_docs: int
    num_rejects: int
    num_short: int
    num_tokens: int


def ingest(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Makes the table `documents`: every text of every source with `min_tokens` <= tokens <= `max_tokens`, in the order of
    the sources, their partitions and the places therein; of equal texts the first. What is too short is counted, all else
    that does not come out is a stored reject. Raises SourceError for a corpus that is not there or in another format.

    `details` of the report hold, for each source, `partitions`, `in`, `out`, `rejected`, `left_out`, `tokens` and the
    `lengths` of its documents in tokens (least, quartiles, greatest).
    """
    jobs = _jobs(loaded, build, run)
    progress.start(STAGE, len(jobs), "partitions")
    totals = {placed.card.id: _Totals() for placed in loaded.sources}
    with StageWriter(build, STAGE, fingerprint=fingerprint, run=run) as writer:
        seen: set[bytes] = set()
        position = 0
        workers = min(run.workers, len(jobs))
        for job, done in zip(jobs, map_ordered(_partition, jobs, workers=workers), strict=True):
            of_source = totals[job.partition.card.id]
            position = _merge(done, writer, position, seen, of_source)
            of_source.partitions += 1
            progress.advance(1, done.num_tokens, note=f"{len(seen)} documents")
        assert writer.counts.num_in == (
            writer.counts.num_out + writer.counts.rejected.total() + writer.counts.left_out.total()
        )
        report = writer.finish({"sources": {source: found.as_details() for source, found in totals.items()}})
    shutil.rmtree(build.work(STAGE), ignore_errors=True)
    return report


def _jobs(loaded: LoadedRecipe, build: BuildFolder, run: RunOptions) -> list[_Job]:
    recipe = loaded.recipe
    hashes = Hashes(build)
    work = work_folder(build, STAGE)
    settings: list[Plain] = [SCHEMA_VERSION, recipe.ingest.model_dump(), load_tokenizer(recipe.tokenizer).identity]
    jobs = []
    for placed in loaded.sources:
        identity = card_identity(placed.card)
        for partition in _partitions(placed):
            names = [unit.name for unit in partition.units]
            part: list[Plain] = [partition.key, partition.start, partition.end, names]
            content = [] if is_remote(placed.card) else hashes.partition(partition)
            jobs.append(
                _Job(
                    partition=partition,
                    window=recipe.ingest,
                    tokenizer=recipe.tokenizer,
                    result=work / f"{digest([settings, identity, part, content])}.json",
                    row_group_bytes=run.row_group_bytes,
                )
            )
    hashes.save()
    return jobs


def _partitions(placed: PlacedSource) -> Sequence[Partition]:
    found = partitions(placed)
    assert len({partition.key for partition in found}) == len(found), "partition keys must be unique"
    return found


def _partition(job: _Job) -> _Done:
    """Reads and measures one partition, unless that is done; runs in a worker process."""
    docs, rejects = job.result.with_suffix(".docs.parquet"), job.result.with_suffix(".rejects.parquet")
    if not job.result.exists():
        _measure_partition(job, docs, rejects)
    counts = json.loads(job.result.read_text(encoding="utf-8"))
    return _Done(docs=docs, rejects=rejects, **counts)


def _measure_partition(job: _Job, docs: Path, rejects: Path) -> None:
    source = job.partition.card.id
    accepted = ShardFile(docs, DOCUMENTS, row_group_bytes=job.row_group_bytes)
    refused = ShardFile(rejects, REJECTS, row_group_bytes=job.row_group_bytes)
    num_short = 0
    try:
        for found in _measured(job, load_tokenizer(job.tokenizer)):
            if found is None:
                num_short += 1
            elif isinstance(found, RawReject):
                # What a reject quotes comes from the corpus: it may be endless, or hold what no table can.
                place, detail = storable(f"{source}:{found.source_ref}"), storable(found.detail)[:MAX_DETAIL]
                refused.write(Reject(id=place, stage=STAGE, reason=found.reason, detail=detail))
            else:
                accepted.write(found)
    except BaseException:
        # Even a keyboard interrupt must not leave half a file open; it goes on its way.
        accepted.abandon()
        refused.abandon()
        raise
    accepted.close(docs.parent)
    refused.close(rejects.parent)
    counts = {
        "num_docs": accepted.num_rows,
        "num_rejects": refused.num_rows,
        "num_short": num_short,
        "num_tokens": accepted.num_tokens,
    }
    write_json(job.result, counts)


def _measured(job: _Job, tokenizer: Tokenizer) -> Iterator[Document | RawReject | None]:
    """Documents within the window, rejects, and None for each text that is too short. Rejects may overtake documents."""
    batch: list[RawDocument] = []
    size = 0
    for raw in read(job.partition):
        if isinstance(raw, RawReject):
            yield raw
            continue
        num_bytes = len(raw.text.encode())
        if surely_short(tokenizer, num_bytes, job.window.min_tokens):
            yield None
            continue
        refusal = _unmeasurable(raw, num_bytes, tokenizer, job.window)
        if refusal is not None:
            yield refusal
            continue
        batch.append(raw)
        size += num_bytes
        if size >= BATCH_BYTES or len(batch) >= BATCH_TEXTS:
            yield from _count(batch, job, tokenizer)
            batch, size = [], 0
    yield from _count(batch, job, tokenizer)


def _count(batch: Sequence[RawDocument], job: _Job, tokenizer: Tokenizer) -> Iterator[Document | RawReject | None]:
    for raw, num_tokens in zip(batch, count_tokens(tokenizer, [raw.text for raw in batch]), strict=True):
        if num_tokens < job.window.min_tokens:
            yield None
        elif num_tokens > job.window.max_tokens:
            yield _too_long(raw, f"{num_tokens} tokens", job.window)
        else:
            yield Document(
                doc_id=document_id(raw.text),
                source=job.partition.card.id,
                source_ref=raw.source_ref,
                lang=raw.lang,
                license=raw.license,
                title=raw.title,
                text=raw.text,
                num_chars=len(raw.text),
                num_bytes=len(raw.text.encode()),
                num_tokens=num_tokens,
            )


def surely_short(tokenizer: Tokenizer, num_bytes: int, min_tokens: int) -> bool:
    """Whether no text of `num_bytes` UTF-8 bytes can have `min_tokens` tokens. Exact: never true of a text that has."""
    return tokenizer.slack is not None and num_bytes + tokenizer.slack < min_tokens


def surely_long(tokenizer: Tokenizer, text: str, max_tokens: int) -> bool:
    """Whether the pieces of a text have more than twice `max_tokens` tokens; stops reading there.

    Cutting a text changes its tokens only around the cuts, one for each PIECE_CHARS characters, so the pieces of a text
    with `max_tokens` tokens never come near to twice as many.
    """
    total = 0
    for start in range(0, len(text), PIECE_CHARS):
        total += len(tokenizer.encode(text[start : start + PIECE_CHARS]))
        if total > 2 * max_tokens:
            return True
    return False


def _unmeasurable(raw: RawDocument, num_bytes: int, tokenizer: Tokenizer, window: Ingest) -> RawReject | None:
    if num_bytes > SURELY_BYTES_PER_TOKEN * window.max_tokens and surely_long(tokenizer, raw.text, window.max_tokens):
        return _too_long(raw, f"{num_bytes} bytes, more than {2 * window.max_tokens} tokens", window)
    run = longest_white_space(raw.text)
    if run > MAX_WHITE_SPACE:
        detail = f"{raw.source_ref}: {run} white-space characters in a row; expected at most {MAX_WHITE_SPACE}"
        return RawReject(source_ref=raw.source_ref, reason="white-space-run", detail=detail)
    return None


def _too_long(raw: RawDocument, found: str, window: Ingest) -> RawReject:
    detail = f"{raw.source_ref}: {found}; ingest.max_tokens is {window.max_tokens}"
    return RawReject(source_ref=raw.source_ref, reason="too-long", detail=detail)


def longest_white_space(text: str) -> int:
    """The length of the longest run of white space, if that is MAX_WHITE_SPACE or more, else 0.

    Such a run covers a whole block of half its length, counted from the start; ordinary text answers each block at its
    first letter.
    """
    block = MAX_WHITE_SPACE // 2
    longest = 0
    start = 0
    while start + block <= len(text):
        if not text[start : start + block].isspace():
            start += block
            continue
        left, right = start, start + block
        while left > 0 and text[left - 1].isspace():
            left -= 1
        while right < len(text) and text[right].isspace():
            right += 1
        longest = max(longest, right - left)
        start = right - right % block
        start += block if start < right else 0
    return longest if longest >= MAX_WHITE_SPACE else 0


@dataclass(slots=True, kw_only=True)
class _Totals:
    """Figures of one source, over all partitions, whether merged now or before a cut."""

    partitions: int = 0
    num_in: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    num_short: int = 0
    lengths: "array[int]" = field(default_factory=lambda: array("q"))

    def as_details(self) -> dict[str, Any]:
        rejected = dict(sorted(self.rejected.items()))
        names = ("min", "p25", "p50", "p75", "max")
        values: Iterable[float] = ()
        if self.lengths:
            values = np.percentile(self.lengths, (0, 25, 50, 75, 100), method="nearest")
        return {
            "partitions": self.partitions,
            "in": self.num_in,
            "out": len(self.lengths),
            "rejected": rejected,
            "left_out": self.num_short,
            "tokens": sum(self.lengths),
            "lengths": {name: int(value) for name, value in zip(names, values, strict=False)},
        }


def _merge(done: _Done, writer: StageWriter, position: int, seen: set[bytes], totals: _Totals) -> int:
    """Takes over one partition: its documents, its rejects, and one input that stands for all that is too short. Inputs
    before `writer.cursor` were taken over before a cut: of them only the ids and figures are read."""
    totals.num_in += done.num_docs + done.num_rejects + done.num_short
    totals.num_short += done.num_short
    if position + done.num_docs <= writer.cursor:
        for batch in iter_batches([done.docs], columns=["doc_id", "num_tokens"]):
            for doc_id, num_tokens in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                _first(doc_id, num_tokens, seen, totals)
        position += done.num_docs
    else:
        for document in iter_records([done.docs], Document):
            is_first = _first(document.doc_id, document.num_tokens, seen, totals)
            if position >= writer.cursor:
                if is_first:
                    writer.write("documents", document)
                else:
                    writer.reject(_duplicate(document))
                writer.next_input()
            position += 1
    for reject in iter_records([done.rejects], Reject):
        totals.rejected[reject.reason] += 1
        if position >= writer.cursor:
            writer.reject(reject)
            writer.next_input()
        position += 1
    if position >= writer.cursor:
        if done.num_short:
            writer.leave_out("too-short", done.num_short)
        writer.next_input(done.num_short)
    return position + 1


def _first(doc_id: str, num_tokens: int, seen: set[bytes], totals: _Totals) -> bool:
    key = bytes.fromhex(doc_id)
    if key in seen:
        totals.rejected["duplicate"] += 1
        return False
    seen.add(key)
    totals.lengths.append(num_tokens)
    return True


def _duplicate(document: Document) -> Reject:
    detail = f"{document.source}:{document.source_ref}: the same text as a document before it"
    return Reject(id=document.doc_id, stage=STAGE, reason="duplicate", detail=detail)
