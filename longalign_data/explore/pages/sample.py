"""One sample, whole: its documents with their evidence, what was asked and answered, and its place in training.

In: a connection of `sql.connect` and a sample's id. Out: `Whole`. Tables that the build did not keep leave their part
empty; the sample itself always says where its documents stand in its messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longalign_data.explore.pages.text import Span
from longalign_data.explore.sql import quoted, reading
from longalign_data.records import Sample
from longalign_data.shards.parquet import from_row

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDocument:
    """One document of a sample. `facts` are what the table `documents` says of it, empty where it was not kept;
    `evidence` are characters of `text`."""

    doc_id: str
    text: str
    facts: Sequence[tuple[str, str]]
    evidence: Sequence[Span]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One sequence of a pack, as the tokens that it takes there. `is_shown` marks that of the sample; `weight` is the most
    that one of its targets weighs."""

    sequence_id: str
    sample_id: str
    start: int
    num_tokens: int
    num_targets: int
    weight: float
    is_shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Where a sample stands in training: its sequence, and the pack and the step that hold it."""

    sequence_id: str
    num_tokens: int
    num_targets: int
    truncated_tokens: int
    pack_id: str
    num_pack_tokens: int
    capacity: int
    step: int
    position: int
    num_step_sequences: int
    normalizer: float
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """`turns` are role and words of the messages, those that hold a document without it."""

    sample: Sample
    documents: Sequence[ShownDocument]
    turns: Sequence[tuple[str, str]]
    sequence: tuple[str, int, int, int] | None
    training: Training | None


def whole_sample(connection: "duckdb.DuckDBPyConnection", sample_id: str, *, table: str = "samples") -> Whole | None:
    """The sample of this id, or None. Wide columns are read of single rows alone: what they are chosen by is compared with
    one value each time, which DuckDB does before it reads anything else. Raises BuildError on a damaged shard, naming it."""
    with reading(connection):
        rows = _rows(connection, f"select * from {quoted(table)} where sample_id = $1", [sample_id])  # noqa: S608
        if not rows:
            return None
        sample = from_row(Sample, rows[0])
        kept = {
            doc_id: found[0]
            for doc_id in sample.doc_ids
            if (found := _rows(connection, "select * exclude (text) from documents where doc_id = $1", [doc_id]))
        }
        return _whole(connection, sample, kept)


def _rows(connection: "duckdb.DuckDBPyConnection", query: str, values: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(query, params=values).to_arrow_table().to_pylist()
    return found


def _whole(connection: "duckdb.DuckDBPyConnection", sample: Sample, kept: dict[str, dict[str, Any]]) -> Whole:
    documents = []
    for doc_id, span in zip(sample.doc_ids, sample.document_spans, strict=False):
        text = sample.messages[span.message_index].content[span.start : span.end]
        documents.append(
            ShownDocument(
                doc_id=doc_id,
                text=text,
                facts=_facts(kept[doc_id]) if doc_id in kept else (),
                evidence=[(place.start, place.end) for place in sample.checks.evidence if place.doc_id == doc_id],
            )
        )
    turns = []
    for index, message in enumerate(sample.messages):
        words = message.content
        for span in sorted(sample.document_spans, key=lambda span: -span.start):
            if span.message_index == index:
                words = words[: span.start] + words[span.end :]
        turns.append((message.role, words.strip("\n")))
    found = _rows(
        connection,
        "select sequence_id, num_tokens, num_targets, truncated_tokens from sequences where sample_id = $1",
        [sample.sample_id],
    )
    sequence = tuple(found[0].values()) if found else None
    return Whole(
        sample=sample,
        documents=documents,
        turns=turns,
        sequence=sequence,
        training=None if sequence is None else _training(connection, sequence),
    )


def _facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("title", row["title"] or "(none)"),
        ("source", row["source"]),
        ("comes from", row["source_ref"]),
        ("licence", row["license"]),
        ("language", row["lang"]),
        ("length", f"{row['num_tokens']:,} tokens, {row['num_chars']:,} characters, {row['num_bytes']:,} bytes"),
    ]


def _training(connection: "duckdb.DuckDBPyConnection", sequence: tuple[str, int, int, int]) -> Training | None:
    sequence_id, num_tokens, num_targets, truncated = sequence
    found = _rows(
        connection,
        "select pack_id from packs join plan using (pack_id) where list_contains(sequence_ids, $1) order by step limit 1",
        [sequence_id],
    )
    if not found:
        return None
    packs = _rows(
        connection,
        """
        select pack_id, packs.num_tokens, cu_seqlens, sequence_ids, loss_weights, step, position, plan.num_sequences,
               normalizer, capacity
        from packs join plan using (pack_id) where packs.pack_id = $1
        """,
        [found[0]["pack_id"]],
    )
    pack = packs[0]
    members = {
        row["sequence_id"]: row
        for row in _rows(
            connection,
            "select sequence_id, sample_id, num_targets from sequences where sequence_id in (select unnest($1))",
            [pack["sequence_ids"]],
        )
    }
    borders = pack["cu_seqlens"]
    blocks = [
        Block(
            sequence_id=member,
            sample_id=members[member]["sample_id"] if member in members else "",
            start=start,
            num_tokens=end - start,
            num_targets=members[member]["num_targets"] if member in members else 0,
            weight=max(pack["loss_weights"][start:end], default=0.0),
            is_shown=member == sequence_id,
        )
        for member, start, end in zip(pack["sequence_ids"], borders, borders[1:], strict=False)
    ]
    return Training(
        sequence_id=sequence_id,
        num_tokens=num_tokens,
        num_targets=num_targets,
        truncated_tokens=truncated,
        pack_id=pack["pack_id"],
        num_pack_tokens=pack["num_tokens"],
        capacity=pack["capacity"],
        step=pack["step"],
        position=pack["position"],
        num_step_sequences=pack["num_sequences"],
        normalizer=pack["normalizer"],
        blocks=blocks,
    )
