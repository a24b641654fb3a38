"""Whether a build is what its manifest says: every hash, every count, every reference, every weight.

In: a build folder, or a published copy of one. Out: faults, each naming the file, what is wrong and what to do.

| looked at     | what must hold                                                                                         |
|---------------|--------------------------------------------------------------------------------------------------------|
| files         | each is there with its size, SHA-256, rows, tokens and columns; no other lies in a table's folder      |
| manifest      | name and version are the recipe's, or the version is that of the last removal                          |
| stages        | in = out + rejected + left out; rows, tokens and rejects are as many as counted                        |
| documents     | ids are hashes of the texts; lengths are of the texts; no id twice                                     |
| selection     | names documents, each once; ranks run from 0                                                           |
| samples       | ids are unique; documents exist and stand where `document_spans` say; evidence lies inside them        |
| sequences     | ids are unique; of samples that exist; counts are of the tokens and spans                              |
| packs         | borders fit; each sequence in one pack of each epoch, token for token; weights are the recipe's        |
| plan          | runs with the packs; M and Z are the sums over each step; no pack over its capacity                    |
| figures       | what the stages encode and pack say of themselves is what their tables give                            |

Memory holds ids, hashes of tokens and counts (some 200 bytes a row), and one row group of each table.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longalign_data.engine import Progress
from longalign_data.identity import document_id, file_sha256
from longalign_data.packing.weights import loss_weights, sequence_totals
from longalign_data.publish.recount import Recount
from longalign_data.publish.withheld import REFERENCES
from longalign_data.recipe import PackSequences, name_without_limit
from longalign_data.records import TABLES
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.manifest import Manifest, recipe_of, require_manifest, shards_of, stage_of
from longalign_data.shards.parquet import ShardInfo, iter_batches

SCHEMAS: Mapping[str, pa.Schema] = {name: schema for name, (_, schema) in TABLES.items()} | {"references": REFERENCES}

MOST_FAULTS = 50
"""Faults of one table that are told one by one."""

_MAKE_AGAIN = "remove state/{stage}.json and run longalign build RECIPE, or fetch the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is not as it must be: `where` (a file, and the row in it), `what` is wrong, and what to do."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at, and the faults: none, when the build is whole."""

    files: int
    bytes: int
    rows: Mapping[str, int]
    faults: Sequence[Fault]


def verify(build: BuildFolder, progress: Progress) -> Verified:
    """Looks through the whole build. What rows say of each other is only looked at where all files are as they should be.
    Raises BuildError where there is no manifest."""
    manifest = require_manifest(build)
    faults: list[Fault] = []
    shards = {table: shards_of(manifest, table) for table in manifest["tables"]}
    progress.start("files", sum(map(len, shards.values())), "files")
    for table, found in shards.items():
        for shard in found:
            faults += _file(build, table, shard)
            progress.advance(items=1)
    faults += _strangers(build, shards)
    if not faults:
        check = _Rows(build, manifest, progress)
        check.run()
        faults += check.faults
    return Verified(
        files=sum(map(len, shards.values())),
        bytes=sum(shard.bytes for found in shards.values() for shard in found),
        rows={table: sum(shard.rows for shard in found) for table, found in shards.items()},
        faults=faults,
    )


def _remedy(table: str) -> str:
    stage = next((name for name, tables in STAGES.items() if table in tables), None)
    return _MAKE_AGAIN.format(stage=stage or "<stage>")


def _file(build: BuildFolder, table: str, shard: ShardInfo) -> Iterator[Fault]:
    path, remedy = build.root / shard.path, _remedy(table)
    if not path.is_file():
        yield Fault(where=shard.path, what="is missing", remedy=remedy)
        return
    size = path.stat().st_size
    if size != shard.bytes:
        yield Fault(where=shard.path, what=f"has {size:,} bytes, not {shard.bytes:,}", remedy=remedy)
        return
    if (found := file_sha256(path)) != shard.sha256:
        yield Fault(where=shard.path, what=f"has SHA-256 {found[:16]}…, not {shard.sha256[:16]}…", remedy=remedy)
        return
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            names = schema.names
            tokens = 0
            if "num_tokens" in names:
                tokens = sum(
                    pc.sum(batch.column(0)).as_py() or 0 for batch in file.iter_batches(columns=["num_tokens"])
                )
    except (pa.ArrowException, OSError) as error:
        yield Fault(where=shard.path, what=f"cannot be read as Parquet: {error}", remedy=remedy)
        return
    if not schema.equals(SCHEMAS[table]):
        yield Fault(where=shard.path, what=f"has not the columns of {table}", remedy=remedy)
    if (rows, tokens) != (shard.rows, shard.tokens):
        what = f"holds {rows:,} rows and {tokens:,} tokens, not {shard.rows:,} and {shard.tokens:,}"
        yield Fault(where=shard.path, what=what, remedy=remedy)


def _strangers(build: BuildFolder, shards: Mapping[str, Sequence[ShardInfo]]) -> Iterator[Fault]:
    """Files that a reader would take for a part of a table, and the manifest does not name."""
    known = {shard.path for found in shards.values() for shard in found}
    for table in SCHEMAS:
        for path in sorted((build.root / table).glob("*.parquet")):
            if (name := path.relative_to(build.root).as_posix()) not in known:
                yield Fault(
                    where=name, what="is not in the manifest", remedy="remove it; readers would take it for data"
                )


class _Rows:
    """Checks rows against each other, table by table in the order of the flow."""

    def __init__(self, build: BuildFolder, manifest: Manifest, progress: Progress) -> None:
        self._build = build
        self._manifest = manifest
        self._progress = progress
        self._pack = PackSequences.model_validate(manifest["pack"])
        self._without_documents = bool((manifest.get("published") or {}).get("without_documents"))
        self.faults: list[Fault] = []
        self._told: Counter[str] = Counter()

    def run(self) -> None:
        """Fills `faults`."""
        self._identity()
        self._stages()
        documents = self._documents()
        self._selection(documents)
        samples = self._samples(documents)
        sequences = self._sequences(samples, documents)
        self._packs(sequences)

    def _has(self, table: str) -> bool:
        return table in self._manifest["tables"]

    def _paths(self, table: str) -> list[Path]:
        return [self._build.root / shard.path for shard in shards_of(self._manifest, table)]

    def _batches(self, table: str, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.RecordBatch]]:
        self._progress.start(table, None, "rows")
        for path in self._paths(table):
            for batch in iter_batches([path], columns=columns):
                yield path.relative_to(self._build.root).as_posix(), batch
                self._progress.advance(items=batch.num_rows)

    def _rows(self, table: str, columns: Sequence[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        for file, batch in self._batches(table, columns):
            for row in batch.to_pylist():
                yield file, row

    def _fault(self, table: str, where: str, what: str, remedy: str = "") -> None:
        self._told[table] += 1
        if self._told[table] <= MOST_FAULTS:
            self.faults.append(Fault(where=where, what=what, remedy=remedy or _remedy(table)))

    def _identity(self) -> None:
        recipe, removed = recipe_of(self._manifest), self._manifest.get("removed")
        # A trial stands under a name of its own; a removal makes a version that the recipe does not know.
        name = name_without_limit(self._manifest["name"])
        version = removed[-1]["version"] if removed else recipe.version
        for field, said, wanted in (
            ("name", name, recipe.name),
            ("version", self._manifest["version"], version),
        ):
            if said != wanted:
                of = "the last removal" if removed and field == "version" else "the recipe"
                self._said(f"{field} is {said!r}; that of {of} is {wanted!r}")

    def _said(self, what: str) -> None:
        self._fault("manifest", "manifest.json", what, "fetch manifest.json again, or run longalign build RECIPE")

    def _details(self, stage: str, found: Mapping[str, int]) -> None:
        """Holds the stage's own figures against those counted."""
        details = (stage_of(self._manifest, stage) or {}).get("details", {})
        for name, value in found.items():
            if name in details and details[name] != value:
                self._said(f"the stage {stage} says {name} {details[name]:,}; counted it is {value:,}")

    def _stages(self) -> None:
        rejects: dict[str, Counter[str]] = {}
        for _, row in self._rows("rejects", ["stage", "reason"]) if self._has("rejects") else ():
            rejects.setdefault(row["stage"], Counter())[row["reason"]] += 1
        for report in self._manifest["stages"]:
            stage = report["stage"]
            said = f"the stage {stage} says"
            if report["num_in"] != report["num_out"] + report["num_rejected"] + report["num_left_out"]:
                what = f"{said} in {report['num_in']:,}, which is not out + rejected + left out"
                self._fault("manifest", "manifest.json", what, "run longalign build RECIPE")
            counted = dict(rejects.get(stage, {}))
            if self._has("rejects") and counted != report["rejected"]:
                what = f"{said} it rejected {report['rejected']}; the table holds {counted}"
                self._fault("rejects", "rejects/", what, _MAKE_AGAIN.format(stage=stage))
            table = STAGES[stage][0]
            if self._has(table) and stage != "pack":
                rows = sum(shard.rows for shard in shards_of(self._manifest, table))
                if rows != report["num_out"]:
                    what = f"{said} that {report['num_out']:,} came out; the table {table} holds {rows:,}"
                    self._fault(table, f"{table}/", what)
            if self._has(table) and "num_tokens" in SCHEMAS[table].names:
                tokens = sum(shard.tokens for shard in shards_of(self._manifest, table))
                if tokens != report["num_tokens"]:
                    self._said(f"{said} {report['num_tokens']:,} tokens came out; the table {table} holds {tokens:,}")

    def _documents(self) -> dict[str, int] | None:
        """Characters of each document, by id; None where the build does not hold them."""
        table = "references" if self._has("references") else "documents"
        if not self._has(table):
            return None
        known: dict[str, int] = {}
        for file, row in self._rows(table):
            doc_id = row["doc_id"]
            where = f"{file}: document {doc_id}"
            if doc_id in known:
                self._fault(table, where, "stands twice")
            known[doc_id] = row["num_chars"]
            if table == "references":
                continue
            text = row["text"]
            if document_id(text) != doc_id:
                self._fault(table, where, "its id is not the hash of its text")
            if (len(text), len(text.encode())) != (row["num_chars"], row["num_bytes"]):
                self._fault(table, where, "num_chars or num_bytes is not the length of its text")
        return known

    def _selection(self, documents: Mapping[str, int] | None) -> None:
        if not self._has("selection"):
            return
        seen: set[str] = set()
        ranks: set[int] = set()
        # What was published without documents refers to those alone that samples were made of.
        look_up = documents is not None and not self._without_documents
        for file, row in self._rows("selection"):
            where = f"{file}: document {row['doc_id']}"
            if row["doc_id"] in seen or row["rank"] in ranks:
                self._fault("selection", where, "its id or its rank stands twice")
            seen.add(row["doc_id"])
            ranks.add(row["rank"])
            if look_up and documents is not None and row["doc_id"] not in documents:
                self._fault("selection", where, "is not among the documents")
        if ranks and max(ranks) != len(ranks) - 1:
            self._fault("selection", "selection/", "the ranks do not run from 0 without a gap")

    def _samples(self, documents: Mapping[str, int] | None) -> set[str] | None:
        """The ids of samples and chats; None where the build holds neither."""
        tables = [table for table in ("samples", "chats") if self._has(table)]
        known: set[str] = set()
        for table in tables:
            for file, row in self._rows(table):
                where = f"{file}: sample {row['sample_id']}"
                if row["sample_id"] in known:
                    self._fault(table, where, "its id stands twice")
                known.add(row["sample_id"])
                for what in self._sample(row, documents, withheld=self._without_documents and table == "samples"):
                    self._fault(table, where, what)
        made = {"samples": "generate", "chats": "mix"}
        complete = all(self._has(table) for table, stage in made.items() if stage_of(self._manifest, stage))
        return known if tables and complete else None

    def _sample(self, row: dict[str, Any], documents: Mapping[str, int] | None, *, withheld: bool) -> Iterator[str]:
        if row["questions"] and not 0 <= row["question_index"] < len(row["questions"]):
            yield f"question_index {row['question_index']} is none of its {len(row['questions'])} questions"
        for doc_id in row["doc_ids"]:
            if documents is not None and doc_id not in documents:
                yield f"its document {doc_id} is not among the documents"
        if row["doc_ids"] and len(row["doc_ids"]) != len(row["document_spans"]):
            yield "it does not say where each of its documents stands"
            return
        for number, span in enumerate(row["document_spans"]):
            doc_id = row["doc_ids"][number] if row["doc_ids"] else None
            if withheld:
                if (
                    doc_id is not None
                    and documents is not None
                    and documents.get(doc_id) != span["end"] - span["start"]
                ):
                    yield f"its document_spans are not as long as document {doc_id}"
                continue
            if not 0 <= span["message_index"] < len(row["messages"]):
                yield f"document_spans name message {span['message_index']}, and there is none"
                continue
            content = row["messages"][span["message_index"]]["content"]
            if not 0 <= span["start"] <= span["end"] <= len(content):
                yield f"document_spans {span['start']}-{span['end']} lie outside the message"
            elif doc_id is not None and document_id(content[span["start"] : span["end"]]) != doc_id:
                yield f"what stands at {span['start']}-{span['end']} is not document {doc_id}"
        for evidence in row["checks"]["evidence"]:
            length = (documents or {}).get(evidence["doc_id"])
            if length is not None and not 0 <= evidence["start"] <= evidence["end"] <= length:
                yield f"evidence {evidence['start']}-{evidence['end']} lies outside document {evidence['doc_id']}"

    def _sequences(
        self, samples: set[str] | None, documents: Mapping[str, int] | None
    ) -> "dict[str, _Sequence] | None":
        """What is known of each sequence, by id; None where the build does not hold them."""
        if not self._has("sequences"):
            return None
        known: dict[str, _Sequence] = {}
        plain = not self._manifest["teacher"] and not self._manifest["mix"]
        owners = set(documents) if plain and documents is not None else None if plain else samples
        for file, batch in self._batches("sequences"):
            ids = batch.column("sequence_id").to_pylist()
            labels = zip(
                *(batch.column(name).to_pylist() for name in ("sample_id", "source", "num_tokens", "num_targets")),
                strict=True,
            )
            cut = batch.column("truncated_tokens").to_pylist()
            spans = batch.column("target_spans").to_pylist()
            for row, (sequence_id, (owner, source, num_tokens, num_targets)) in enumerate(
                zip(ids, labels, strict=True)
            ):
                where = f"{file}: sequence {sequence_id}"
                tokens = batch.column("input_ids")[row].values.to_numpy()
                pairs = [(span["start"], span["end"]) for span in spans[row]]
                if sequence_id in known:
                    self._fault("sequences", where, "its id stands twice")
                if owners is not None and owner not in owners:
                    self._fault("sequences", where, f"its sample {owner} does not exist")
                if len(tokens) != num_tokens:
                    self._fault("sequences", where, f"has {len(tokens):,} tokens, not {num_tokens:,}")
                if any(not 0 <= start < end <= len(tokens) for start, end in pairs):
                    self._fault("sequences", where, "target_spans lie outside its tokens")
                    continue
                if sum(end - max(start, 1) for start, end in pairs) != num_targets or not num_targets:
                    self._fault("sequences", where, f"num_targets {num_targets:,} is not that of its target_spans")
                known[sequence_id] = _Sequence(
                    tokens=_hash(tokens),
                    targets=_hash(_mask(len(tokens), pairs)),
                    num_targets=num_targets,
                    truncated_tokens=cut[row],
                    source=source,
                )
        counted = {
            "num_targets": sum(one.num_targets for one in known.values()),
            "truncated_samples": sum(one.truncated_tokens > 0 for one in known.values()),
            "truncated_tokens": sum(one.truncated_tokens for one in known.values()),
        }
        self._details("encode", counted)
        return known

    def _packs(self, sequences: "dict[str, _Sequence] | None") -> None:
        if not (self._has("packs") and self._has("plan")):
            return
        plan = [row for _, row in self._rows("plan")]
        steps, recount, num_targets = _Steps(), Recount(), 0
        told = len(self.faults)
        used: Counter[tuple[int, str]] = Counter()
        number = -1
        for file, batch in self._batches("packs"):
            for row in _pack_rows(batch):
                number += 1
                where = f"{file}: pack {row.pack_id}"
                if number >= len(plan) or plan[number]["pack_id"] != row.pack_id:
                    self._fault("packs", where, f"is not pack {number} of the plan")
                    return
                entry = plan[number]
                if row.num_tokens > entry["capacity"]:
                    self._fault(
                        "packs", where, f"has {row.num_tokens:,} tokens; its step has room for {entry['capacity']:,}"
                    )
                for what in self._pack_row(row, sequences):
                    self._fault("packs", where, what)
                totals = list(self._totals(row, sequences))
                for name, _, _ in totals:
                    used[entry["epoch"], name] += 1
                steps.add(entry, row.num_sequences, sum(total for _, _, total in totals))
                recount.add(entry, totals)
                num_targets += row.num_targets if entry["epoch"] == 0 else 0
        if number + 1 != len(plan):
            self._fault("plan", "plan/", f"has {len(plan):,} entries and there are {number + 1:,} packs")
        for what in steps.faults(plan):
            self._fault("plan", "plan/", what)
        self._each_once(used, sequences, max((entry["epoch"] for entry in plan), default=0) + 1)
        packed = stage_of(self._manifest, "pack")
        if len(self.faults) > told or packed is None:
            return  # the figures would be wrong for what was told
        for what in recount.wrong(packed["details"], self._pack):
            self._said(f"the stage pack says {what}")
        counted = {"num_targets": num_targets}
        if sequences is not None:
            counted["tokens_cut"] = sum(sequences[name].truncated_tokens for epoch, name in used if epoch == 0)
        self._details("pack", counted)

    def _pack_row(self, row: "_Pack", sequences: "dict[str, _Sequence] | None") -> Iterator[str]:
        borders = row.cu_seqlens
        if (
            len(borders) != row.num_sequences + 1
            or len(row.sequence_ids) != row.num_sequences
            or borders[0] != 0
            or borders[-1] != row.num_tokens
            or (np.diff(borders) <= 0).any()
            or not len(row.input_ids) == len(row.loss_weights) == row.num_tokens
        ):
            yield "its lengths, borders and counts do not fit each other"
            return
        is_target = row.loss_weights > 0
        if int(np.count_nonzero(is_target)) != row.num_targets:
            yield f"{int(np.count_nonzero(is_target)):,} tokens carry loss, not {row.num_targets:,}"
        multipliers = np.ones(row.num_sequences)
        for index, name in enumerate(row.sequence_ids):
            part = slice(borders[index], borders[index + 1])
            if sequences is None:
                continue
            known = sequences.get(name)
            if known is None:
                yield f"its sequence {name} does not exist"
                continue
            multipliers[index] = self._pack.source_weights.get(known.source, 1.0)
            if known.tokens != _hash(row.input_ids[part]) or known.targets != _hash(is_target[part]):
                yield f"its sequence {name} has other tokens or targets than the table sequences"
        if sequences is None and self._pack.source_weights:
            return
        wanted = loss_weights(is_target, borders, self._pack.alpha, unit=self._pack.unit, multipliers=multipliers)
        if not np.array_equal(wanted.astype(row.loss_weights.dtype), row.loss_weights):
            yield "its loss weights are not those of the recipe's pack"

    def _totals(self, row: "_Pack", sequences: "dict[str, _Sequence] | None") -> Iterator[tuple[str, int, float]]:
        """Name and tokens of each sequence of a pack, and what it adds to Z: the sum of its weights, which is
        u * N^(1 - alpha) for each unit."""
        for index, name in enumerate(row.sequence_ids):
            part = row.loss_weights[row.cu_seqlens[index] : row.cu_seqlens[index + 1]]
            total = float(part.sum(dtype=np.float64))
            if sequences is not None and name in sequences and self._pack.unit == "sequence":
                known = sequences[name]
                each = sequence_totals(np.asarray([known.num_targets]), self._pack.alpha)
                total = float(each[0]) * self._pack.source_weights.get(known.source, 1.0)
            yield name, len(part), total

    def _each_once(self, used: Counter[tuple[int, str]], sequences: "dict[str, _Sequence] | None", epochs: int) -> None:
        for (epoch, name), times in used.items():
            if times > 1:
                self._fault("packs", "packs/", f"sequence {name} stands in {times} packs of epoch {epoch}")
        if sequences is None:
            return
        refused = set()
        if self._has("rejects"):
            refused = {row["id"] for _, row in self._rows("rejects", ["id", "stage"]) if row["stage"] == "pack"}
        for epoch in range(epochs):
            for name in sequences:
                if (epoch, name) not in used and name not in refused:
                    self._fault("packs", "packs/", f"sequence {name} stands in no pack of epoch {epoch}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    tokens: bytes
    targets: bytes
    num_targets: int
    truncated_tokens: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pack:
    pack_id: str
    input_ids: npt.NDArray[np.int32]
    loss_weights: npt.NDArray[np.floating[Any]]
    cu_seqlens: npt.NDArray[np.int64]
    sequence_ids: list[str]
    num_tokens: int
    num_sequences: int
    num_targets: int


class _Steps:
    """M and Z of each step, summed over its packs."""

    def __init__(self) -> None:
        self._m: Counter[int] = Counter()
        self._z: dict[int, float] = {}

    def add(self, entry: Mapping[str, Any], num_sequences: int, total: float) -> None:
        self._m[entry["step"]] += num_sequences
        self._z[entry["step"]] = self._z.get(entry["step"], 0.0) + total

    def faults(self, plan: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What the plan says otherwise, and where it does not run step by step."""
        step, position = 0, -1
        for entry in plan:
            step, position = (step, position + 1) if entry["step"] == step else (step + 1, 0)
            if (entry["step"], entry["position"]) != (step, position):
                yield f"pack {entry['pack_id']}: step {entry['step']}, position {entry['position']} is out of turn"
                return
            if entry["num_sequences"] != self._m[step]:
                yield f"step {step} says {entry['num_sequences']:,} sequences and holds {self._m[step]:,}"
            if not np.isclose(entry["normalizer"], self._z.get(step, 0.0), rtol=1e-5):
                yield f"step {step} says the normalizer {entry['normalizer']:g}; its weights sum to {self._z.get(step, 0.0):g}"


def _pack_rows(batch: pa.RecordBatch) -> Iterator[_Pack]:
    plain = {name: batch.column(name).to_pylist() for name in ("pack_id", "sequence_ids")}
    counts = {name: batch.column(name).to_pylist() for name in ("num_tokens", "num_sequences", "num_targets")}
    for row in range(batch.num_rows):
        yield _Pack(
            pack_id=plain["pack_id"][row],
            sequence_ids=plain["sequence_ids"][row],
            input_ids=batch.column("input_ids")[row].values.to_numpy(),
            loss_weights=batch.column("loss_weights")[row].values.to_numpy(),
            cu_seqlens=batch.column("cu_seqlens")[row].values.to_numpy().astype(np.int64),
            **{name: found[row] for name, found in counts.items()},
        )


def _mask(length: int, spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(length, np.bool_)
    for start, end in spans:
        mask[max(start, 1) : end] = True
    return mask


def _hash(values: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()
