"""Where a sample comes from and where it went: from the bytes of its source to the tokens of its packs.

In: a complete build and the beginning of a sample's id. Out: one `Step` for each stage, in order:

    source    open: Reports (CC0-1.0), read as jsonl
    document  41aa...: open.jsonl:0-1840, 1,840 bytes, 402 tokens
    ...
    pack      2c9e...: packs/00000.parquet, row 3, tokens 512-914; step 1, position 1
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longalign_data.errors import UserError
from longalign_data.identity import digest
from longalign_data.records import Sample
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import Manifest, require_manifest, shards_of, stage_of
from longalign_data.shards.parquet import from_row, iter_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one stage did with the sample, for a person."""

    stage: str
    what: str


def trace(build: BuildFolder, sample_id: str) -> list[Step]:
    """The way of one sample. Steps whose tables the build does not hold say so. Raises UserError where no id, or more than
    one, begins so, and BuildError where the build is not complete."""
    return list(_Trace(build).of(sample_id))


class _Trace:
    def __init__(self, build: BuildFolder) -> None:
        self._build = build
        self._manifest: Manifest = require_manifest(build)

    def of(self, beginning: str) -> Iterator[Step]:
        table, sample = self._sample(beginning)
        yield from self._sources(sample)
        for doc_id in sample.doc_ids:
            yield from self._document(doc_id)
        teacher = sample.teacher
        yield Step(
            stage="sample",
            what=f"{sample.sample_id} in {table}: task {sample.task}, {sample.num_tokens:,} tokens "
            f"({sample.num_answer_tokens:,} of the answer), by {teacher.model} ({teacher.provider})",
        )
        if sample.request_ids:
            names = ("question", "answer") if len(sample.request_ids) == 2 else ("request",) * len(sample.request_ids)
            asked = ", ".join(f"{name} {id_}" for name, id_ in zip(names, sample.request_ids, strict=True))
            cost = "no price known" if sample.cost_usd is None else f"{sample.cost_usd:.6f} USD"
            yield Step(
                stage="asked", what=f"{asked}; {cost}; the replies stand in ledger.sqlite of the folder that was built"
            )
        for evidence in sample.checks.evidence:
            yield Step(stage="evidence", what=f"characters {evidence.start:,}-{evidence.end:,} of {evidence.doc_id}")
        yield from self._training(sample.sample_id)

    def _rows(
        self, table: str, columns: Sequence[str], key: str, values: set[str]
    ) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """File, row in it, and the row, of the rows whose `key` is one of the values; only their row groups are read whole."""
        for shard in shards_of(self._manifest, table):
            at = 0
            for batch in iter_batches([self._build.root / shard.path], columns=[key, *columns]):
                for row, value in enumerate(batch.column(0).to_pylist()):
                    if value in values:
                        yield shard.path, at + row, batch.slice(row, 1).to_pylist()[0]
                at += batch.num_rows

    def _sample(self, beginning: str) -> tuple[str, Sample]:
        wanted = beginning.strip().lower()
        found: list[tuple[str, str]] = []
        for table in ("samples", "chats"):
            for shard in shards_of(self._manifest, table):
                for batch in iter_batches([self._build.root / shard.path], columns=["sample_id"]):
                    found += [(table, one) for one in batch.column(0).to_pylist() if one.startswith(wanted)]
        exact = [pair for pair in found if pair[1] == wanted]
        found = exact or found
        if len(found) != 1:
            raise UserError(
                f"{self._build.root}: {len(found)} samples have an id that begins with {beginning!r}; expected one. "
                f"longalign sql {self._build.root} shows them"
            )
        table, sample_id = found[0]
        names = [name for name in Sample.__slots__ if name != "sample_id"]
        _, _, row = next(self._rows(table, names, "sample_id", {sample_id}))
        return table, from_row(Sample, row)

    def _sources(self, sample: Sample) -> Iterator[Step]:
        for card in self._manifest["cards"]:
            if card["id"] == sample.source:
                place = card.get("path") or card["reader"].get("dataset", "")
                yield Step(
                    stage="source",
                    what=f"{card['id']}: {card['title']} ({card['license']}), read as {card['reader']['kind']} from {place}",
                )
        for choice in self._manifest["mix"]:
            if choice["id"] == sample.source:
                place = choice.get("path") or f"{choice.get('dataset')}@{choice.get('revision')}"
                yield Step(stage="source", what=f"{choice['id']}: conversations ({choice['license']}) from {place}")

    def _document(self, doc_id: str) -> Iterator[Step]:
        columns = ["source_ref", "title", "num_bytes", "num_chars", "num_tokens"]
        table = "documents" if shards_of(self._manifest, "documents") else "references"
        found = next(self._rows(table, columns, "doc_id", {doc_id}), None)
        if found is None:
            yield Step(stage="document", what=f"{doc_id}: the build does not hold the table documents")
        else:
            file, number, row = found
            title = f" {row['title']!r}," if row["title"] else ""
            yield Step(
                stage="document",
                what=f"{doc_id}: {row['source_ref']},{title} {row['num_bytes']:,} bytes, {row['num_chars']:,} characters, "
                f"{row['num_tokens']:,} tokens; {file}, row {number:,}",
            )
        drawn = next(self._rows("selection", ["bucket", "key", "rank"], "doc_id", {doc_id}), None)
        if drawn is not None:
            _, _, row = drawn
            yield Step(
                stage="drawn", what=f"rank {row['rank']:,} by the key {row['key']:.6g}, in the bucket {row['bucket']}"
            )

    def _training(self, sample_id: str) -> Iterator[Step]:
        columns = ["sequence_id", "num_tokens", "num_targets", "truncated_tokens"]
        sequences: dict[str, Mapping[str, Any]] = {}
        encoded = (stage_of(self._manifest, "encode") or {}).get("details", {})
        for file, number, row in self._rows("sequences", columns, "sample_id", {sample_id}):
            sequences[row["sequence_id"]] = row
            cut = f", {row['truncated_tokens']:,} cut out of the document" if row["truncated_tokens"] else ", whole"
            yield Step(
                stage="encoded",
                what=f"{row['sequence_id']}: {row['num_tokens']:,} tokens, {row['num_targets']:,} of them targets{cut}; template "
                f"{encoded.get('template')}, tokenizer {encoded.get('tokenizer')}; {file}, row {number:,}",
            )
        wanted = set(sequences)
        if not wanted and not shards_of(self._manifest, "sequences") and "encoding" in encoded:
            # The table is not kept; what the sequence is called in the packs is known all the same.
            wanted = {digest([sample_id, encoded["encoding"]])}
            yield Step(stage="encoded", what=f"{min(wanted)}: the build does not hold the table sequences")
        if not wanted:
            yield Step(stage="encoded", what="no sequence of it stands in this build")
            return
        missing = [table for table in ("packs", "plan") if not shards_of(self._manifest, table)]
        if missing:
            yield Step(
                stage="pack",
                what=f"the build does not hold the table{'s' * (len(missing) > 1)} {' and '.join(missing)}",
            )
        plan = [
            row
            for batch in iter_batches([self._build.root / shard.path for shard in shards_of(self._manifest, "plan")])
            for row in batch.to_pylist()
        ]
        packs = list(self._packs(wanted, plan))
        if not packs and "packs" not in missing:
            yield Step(stage="pack", what="it stands in no pack; see the table rejects")
        yield from packs

    def _packs(self, wanted: set[str], plan: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
        number = 0
        for shard in shards_of(self._manifest, "packs"):
            at = 0
            columns = ["pack_id", "sequence_ids", "cu_seqlens", "loss_weights"]
            for batch in iter_batches([self._build.root / shard.path], columns=columns):
                for row, names in enumerate(batch.column("sequence_ids").to_pylist()):
                    for place in [place for place, name in enumerate(names) if name in wanted]:
                        start, end = batch.column("cu_seqlens")[row].as_py()[place : place + 2]
                        weights = batch.column("loss_weights")[row].values.to_numpy()[start:end]
                        entry = plan[number + row] if number + row < len(plan) else None
                        yield Step(
                            stage="pack", what=_place(batch, row, shard.path, at + row, (start, end), weights, entry)
                        )
                at += batch.num_rows
                number += batch.num_rows


def _place(
    batch: Any, row: int, file: str, number: int, tokens: tuple[int, int], weights: Any, entry: Mapping[str, Any] | None
) -> str:
    targets = weights[weights > 0]
    each = f"{targets.min():.6g}" if len(targets) and np.isclose(targets.min(), targets.max()) else "several weights"
    words = (
        f"{batch.column('pack_id')[row].as_py()}: {file}, row {number:,}, tokens {tokens[0]:,}-{tokens[1]:,}, "
        f"{len(targets):,} targets of {each} each"
    )
    if entry is None:
        return words
    return (
        f"{words}; step {entry['step']:,}, position {entry['position']:,}, epoch {entry['epoch']}, with "
        f"{entry['num_sequences']:,} sequences in the step (Z = {entry['normalizer']:g})"
    )
