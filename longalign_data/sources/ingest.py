"""The stage `ingest`: corpora in, the table `documents` out.

    partition --read--> texts --clean, measure, judge--> documents within the window, rejects, a count of what is too short
    all partitions, in the order of the recipe --merge--> documents and rejects of the build, without duplicates

Partitions run on any number of processes. Each leaves its result in the work folder, under a name made of everything
that decides about it, and writes it whole; a run that was cut off reads again only what was not finished.
"""

import dataclasses
import itertools
import json
import os
import shutil
import socket
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longalign_data.curation.curate import Curation, Refused, clean, curation_identity, judge
from longalign_data.curation.decontamination import load_index
from longalign_data.curation.near import PLACES, NearDuplicates, Signature, signature
from longalign_data.engine import Progress, RunOptions, map_ordered
from longalign_data.identity import Plain, digest, document_id
from longalign_data.recipe import Ingest, LoadedRecipe, PlacedSource, Recipe
from longalign_data.records import DOCUMENTS, REJECTS, SCHEMA_VERSION, Document, Reject
from longalign_data.shards.files import sync_folder, whole_file, write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import ShardFile, iter_batches, iter_records
from longalign_data.shards.stage import StageReport, StageWriter, work_folder
from longalign_data.sources.places import storable
from longalign_data.sources.readers import partitions, read, skipped
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


CODE_READERS = frozenset({"code", "github"})
"""Readers whose documents are program text."""

MAX_DETAIL = 1000
"""Characters of a reject's detail that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    partition: Partition
    window: Ingest
    curation: Curation
    tokenizer: str
    result: Path
    row_group_bytes: int


Masked = Mapping[str, int]
"""Of one document: findings masked, by rule, 1 at `documents-with-...` for their kind, and 1 at `relabelled` where it was
given another language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What a partition came to; `docs`, `rejects` and `signatures` are files. `masked` holds the place in `docs` of
    each document in which something was masked, and how often by rule."""

    docs: Path
    rejects: Path
    signatures: Path
    num_docs: int
    num_rejects: int
    num_short: int
    num_tokens: int
    masked: Sequence[tuple[int, Masked]]


def ingest(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Makes the table `documents`: every text of every source with `min_tokens` <= tokens <= `max_tokens`, in the order of
    the sources, their partitions and the places therein; of equal texts the first. What is too short is counted, all else
    that does not come out is a stored reject. Raises SourceError for a corpus that is not there or in another format.

    `details` of the report hold, for each source, `partitions`, `in`, `out`, `rejected`, `left_out`, `tokens`, the
    `lengths` of its documents in tokens (least, quartiles, greatest), what was `masked` in them, by rule, and the files of
    its folder that were `skipped` because its reader does not take them, by suffix.
    """
    found = {placed.card.id: _partitions(placed) for placed in loaded.sources}
    jobs = _jobs(loaded, found, build, run)
    progress.start(STAGE, len(jobs), "partitions")
    totals = {placed.card.id: _Totals(skipped=skipped(placed, found[placed.card.id])) for placed in loaded.sources}
    with StageWriter(build, STAGE, fingerprint=fingerprint, run=run) as writer:
        seen = _Seen(loaded.recipe)
        position = 0
        workers = min(run.workers, len(jobs))
        for job, done in zip(
            jobs, map_ordered(_partition, jobs, workers=workers, ray_address=run.ray_address), strict=True
        ):
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


def _jobs(
    loaded: LoadedRecipe, found: Mapping[str, Sequence[Partition]], build: BuildFolder, run: RunOptions
) -> list[_Job]:
    recipe = loaded.recipe
    hashes = Hashes(build)
    # Workers on other machines have another working folder.
    work = work_folder(build, STAGE).resolve()
    index = decontamination_index(loaded)
    settings: list[Plain] = [
        SCHEMA_VERSION,
        recipe.ingest.model_dump(),
        curation_identity(recipe.curate, index),
        load_tokenizer(recipe.tokenizer).identity,
    ]
    jobs = []
    for placed in loaded.sources:
        identity = card_identity(placed.card)
        for partition in found[placed.card.id]:
            names = [unit.name for unit in partition.units]
            part: list[Plain] = [partition.key, partition.start, partition.end, names]
            content = [] if is_remote(placed.card) else hashes.partition(partition)
            jobs.append(
                _Job(
                    partition=partition,
                    window=recipe.ingest,
                    curation=Curation(wish=recipe.curate, is_code=placed.card.reader.kind in CODE_READERS, index=index),
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
    docs, rejects, signatures = _places(job.result)
    if not job.result.exists():
        _measure_partition(job)
    counts = json.loads(job.result.read_text(encoding="utf-8"))
    return _Done(docs=docs, rejects=rejects, signatures=signatures, **counts)


def _places(result: Path) -> tuple[Path, Path, Path]:
    return result.with_suffix(".docs.parquet"), result.with_suffix(".rejects.parquet"), result.with_suffix(".near.npy")


def _measure_partition(job: _Job) -> None:
    # A worker that is taken for dead may still be at work beside the one that took its place. Each writes files of its
    # own name and gives them the common one at the end; both hold the same.
    own = job.result.with_name(f"{job.result.stem}-{socket.gethostname()}-{os.getpid()}.json")
    source = job.partition.card.id
    docs, rejects, signatures = _places(own)
    accepted = ShardFile(docs, DOCUMENTS, row_group_bytes=job.row_group_bytes)
    refused = ShardFile(rejects, REJECTS, row_group_bytes=job.row_group_bytes)
    near: list[Signature] | None = [] if job.curation.wish.near_duplicates.action == "reject" else None
    masked: list[Masked | None] = []
    num_short = 0
    try:
        for found in _measured(job, load_tokenizer(job.tokenizer), masked):
            if found is None:
                num_short += 1
            elif isinstance(found, RawReject):
                # What a reject quotes comes from the corpus: it may be endless, or hold what no table can.
                place, detail = storable(f"{source}:{found.source_ref}"), storable(found.detail)[:MAX_DETAIL]
                refused.write(Reject(id=place, stage=STAGE, reason=found.reason, detail=detail))
            else:
                accepted.write(found)
                if near is not None:
                    near.append(signature(found.text))
    except BaseException:
        # Even a keyboard interrupt must not leave half a file open; it goes on its way.
        accepted.abandon()
        refused.abandon()
        raise
    accepted.close(docs.parent)
    refused.close(rejects.parent)
    if near is not None:
        with whole_file(signatures) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(near, dtype=np.uint32).reshape(len(near), PLACES))
    counts = {
        "num_docs": accepted.num_rows,
        "num_rejects": refused.num_rows,
        "num_short": num_short,
        "num_tokens": accepted.num_tokens,
        "masked": [(place, found) for place, found in enumerate(masked) if found],
    }
    write_json(own, counts)
    for written, wanted in zip(_places(own), _places(job.result), strict=True):
        if near is not None or written.suffix != signatures.suffix:
            written.replace(wanted)
    sync_folder(own.parent)
    own.replace(job.result)


def _measured(job: _Job, tokenizer: Tokenizer, masked: list[Masked | None]) -> Iterator[Document | RawReject | None]:
    """Documents within the window, rejects, and None for each text that is too short. Rejects may overtake documents.
    `masked` grows with each document by what was masked in it."""
    batch: list[_Cleaned] = []
    size = 0
    for raw in read(job.partition):
        if isinstance(raw, RawReject):
            yield raw
            continue
        num_bytes = raw.num_bytes
        if surely_short(tokenizer, num_bytes, job.window.min_tokens):
            # Exact before cleaning too: what takes the place of a finding is never longer.
            yield None
            continue
        cleaned = _clean(raw, job.curation)
        refusal = (
            cleaned if isinstance(cleaned, RawReject) else _unmeasurable(cleaned.raw, num_bytes, tokenizer, job.window)
        )
        if refusal is not None or isinstance(cleaned, RawReject):
            yield refusal
            continue
        batch.append(cleaned)
        size += num_bytes
        if size >= BATCH_BYTES or len(batch) >= BATCH_TEXTS:
            yield from _count(batch, job, tokenizer, masked)
            batch, size = [], 0
    yield from _count(batch, job, tokenizer, masked)


@dataclass(frozen=True, slots=True)
class _Cleaned:
    raw: RawDocument
    masked: Masked


def _clean(raw: RawDocument, curation: Curation) -> _Cleaned | RawReject:
    found = clean(raw.text, raw.title, curation)
    if isinstance(found, Refused):
        return _refusal(raw, found)
    if not found.masked and found.title == raw.title:
        return _Cleaned(raw, {})
    num_bytes = len(found.text.encode())
    return _Cleaned(dataclasses.replace(raw, text=found.text, title=found.title, num_bytes=num_bytes), found.masked)


def _refusal(raw: RawDocument, refused: Refused) -> RawReject:
    return RawReject(source_ref=raw.source_ref, reason=refused.reason, detail=f"{raw.source_ref}: {refused.detail}")


def _count(
    batch: Sequence[_Cleaned], job: _Job, tokenizer: Tokenizer, masked: list[Masked | None]
) -> Iterator[Document | RawReject | None]:
    counts = count_tokens(tokenizer, [cleaned.raw.text for cleaned in batch])
    for cleaned, num_tokens in zip(batch, counts, strict=True):
        raw = cleaned.raw
        if num_tokens < job.window.min_tokens:
            yield None
        elif num_tokens > job.window.max_tokens:
            yield _too_long(raw, f"{num_tokens} tokens", job.window)
        elif isinstance(judged := judge(raw.text, raw.lang, job.curation), Refused):
            yield _refusal(raw, judged)
        else:
            relabelled = {"relabelled": 1} if judged.lang != raw.lang else {}
            masked.append({**cleaned.masked, **relabelled} or None)
            yield Document(
                doc_id=document_id(raw.text),
                source=job.partition.card.id,
                source_ref=raw.source_ref,
                lang=judged.lang,
                license=raw.license,
                title=raw.title,
                text=raw.text,
                num_chars=len(raw.text),
                num_bytes=raw.num_bytes,
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
    masked: Counter[str] = field(default_factory=Counter)
    skipped: Mapping[str, int] = field(default_factory=dict)
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
            "masked": {name: count for name, count in sorted(self.masked.items()) if count},
            "skipped": dict(self.skipped),
        }


class _Seen:
    """The documents taken over so far: the hash of each, and where asked for its signature."""

    def __init__(self, recipe: Recipe) -> None:
        wish = recipe.curate.near_duplicates
        self._near = NearDuplicates(wish.threshold) if wish.action == "reject" else None
        self._withdrawn = {bytes.fromhex(doc_id) for doc_id in recipe.exclude.documents}
        self._ids: set[bytes] = set()
        self._order: list[bytes] = []

    def __len__(self) -> int:
        return len(self._ids)

    def refusal(self, doc_id: str, found: Signature | None) -> Refused | None:
        """Why the next document is not taken: it is the same as one before it, or nearly so."""
        key = bytes.fromhex(doc_id)
        if key in self._withdrawn:
            return Refused(reason="withdrawn", detail="named in the recipe's exclude.documents")
        if key in self._ids:
            return Refused(reason="duplicate", detail=f"the same text as document {doc_id} before it")
        if self._near is not None:
            assert found is not None
            like = self._near.add(found)
            if like is not None:
                first, similarity = like
                return Refused(
                    reason="near-duplicate",
                    detail=f"about {similarity:.0%} alike to document {self._order[first].hex()}",
                )
            self._order.append(key)
        self._ids.add(key)
        return None


def _merge(done: _Done, writer: StageWriter, position: int, seen: _Seen, totals: _Totals) -> int:
    """Takes over one partition: its documents, its rejects, and one input that stands for all that is too short. Inputs
    before `writer.cursor` were taken over before a cut: of them only the ids and figures are read."""
    totals.num_in += done.num_docs + done.num_rejects + done.num_short
    totals.num_short += done.num_short
    masked = dict(done.masked)
    places, signatures = itertools.count(), _signatures(done)
    if position + done.num_docs <= writer.cursor:
        for batch in iter_batches([done.docs], columns=["doc_id", "num_tokens"]):
            for doc_id, num_tokens in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                _taken(doc_id, num_tokens, next(signatures), masked.get(next(places)), seen, totals)
        position += done.num_docs
    else:
        for document in iter_records([done.docs], Document):
            found = masked.get(next(places))
            refused = _taken(document.doc_id, document.num_tokens, next(signatures), found, seen, totals)
            if position >= writer.cursor:
                if refused is None:
                    writer.write("documents", document)
                else:
                    detail = f"{document.source}:{document.source_ref}: {refused.detail}"
                    writer.reject(Reject(id=document.doc_id, stage=STAGE, reason=refused.reason, detail=detail))
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


def _signatures(done: _Done) -> Iterator[Signature | None]:
    if not done.signatures.exists():
        return itertools.repeat(None, done.num_docs)
    stored: npt.NDArray[np.uint32] = np.load(done.signatures, allow_pickle=False)
    return iter(stored)


def _taken(
    doc_id: str, num_tokens: int, found: Signature | None, masked: Masked | None, seen: _Seen, totals: _Totals
) -> Refused | None:
    refused = seen.refusal(doc_id, found)
    if refused is None:
        totals.lengths.append(num_tokens)
        totals.masked.update(masked or {})
    else:
        totals.rejected[refused.reason] += 1
    return refused


def decontamination_index(loaded: LoadedRecipe) -> Path | None:
    """The file of `curate.decontaminate.index`, checked. Raises SourceError when it is no index."""
    name = loaded.recipe.curate.decontaminate.index
    if name is None:
        return None
    path = loaded.relative(name).resolve()
    load_index(path)
    return path
