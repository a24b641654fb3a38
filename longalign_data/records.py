"""What travels between the stages: seven records, each with the Arrow schema of its table.

    documents -> selection -> samples -> sequences -> packs + plan          (rejects may come from every stage)
                                chats -^

One sample, as JSON (shortened):

    {"sample_id": "9f0c...", "doc_ids": ["41aa..."], "source": "wikipedia-en", "lang": "en", "task": "summary",
     "messages": [{"role": "user", "content": "<document>\\n\\nWhat ...?"}, {"role": "assistant", "content": "..."}],
     "document_spans": [{"message_index": 0, "start": 0, "end": 31207}], "questions": ["...", ...], "question_index": 3, ...}

Every schema stands beside its dataclass, with the fields in the same order; a test compares them one by one. A change of
a field raises `SCHEMA_VERSION`, which is part of every stage's fingerprint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 3

TOKEN_IDS = pa.list_(pa.int32())


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as ingested. `text` has Unix line ends; lengths are of exactly this text.

    `source_ref` says where it came from, precisely enough to read it again: `file:start-end` (bytes), `file#row`,
    `folder`, or `hub-id@revision#row`. `num_tokens` is measured with the recipe's tokenizer, without special tokens.
    """

    doc_id: str
    source: str
    source_ref: str
    lang: str
    license: str
    title: str
    text: str
    num_chars: int
    num_bytes: int
    num_tokens: int


DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("source_ref", pa.string()),
        ("lang", pa.string()),
        ("license", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("num_chars", pa.int64()),
        ("num_bytes", pa.int64()),
        ("num_tokens", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """One document that the sampler took, and why: its length `bucket`, the exponential-clock `key` (smaller is earlier)
    and its `rank` in the order in which the selected documents are used, from 0."""

    doc_id: str
    bucket: str
    key: float
    rank: int


SELECTION = pa.schema([("doc_id", pa.string()), ("bucket", pa.string()), ("key", pa.float64()), ("rank", pa.int64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSpan:
    """Where a document stands inside a message: characters `start` (inclusive) to `end` (exclusive) of
    `messages[message_index].content`. The only part of a sample that may be shortened when it is too long."""

    message_index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Who wrote the answer, and under which terms its output may be used."""

    provider: str
    model: str
    terms: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider billed them. `input_tokens` excludes cache writes and reads; thinking is part of output."""

    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Characters `start` (inclusive) to `end` (exclusive) of a document's text that support the answer."""

    doc_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One named measurement of a sample, such as `grounding` in [0, 1]; `detail` holds a judge's reasons."""

    name: str
    value: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What is known about an answer's support in its documents."""

    evidence: Sequence[Evidence] = ()
    scores: Sequence[Score] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation to learn from. General short instruction data stands in the table `chats`, with
    `task="general-chat"`, no documents and no questions (`question_index` is then -1).

    `num_tokens` counts the contents of all messages and `num_answer_tokens` those of the assistant's, both with the
    recipe's tokenizer and without any template. `cost_usd` is None where no price is known.
    """

    sample_id: str
    doc_ids: Sequence[str]
    source: str
    lang: str
    task: str
    messages: Sequence[Message]
    document_spans: Sequence[DocumentSpan]
    questions: Sequence[str]
    question_index: int
    teacher: Teacher
    usage: Usage
    cost_usd: float | None
    stop_reason: str
    request_ids: Sequence[str]
    num_tokens: int
    num_answer_tokens: int
    checks: Checks
    license: str


SAMPLES = pa.schema(
    [
        ("sample_id", pa.string()),
        ("doc_ids", pa.list_(pa.string())),
        ("source", pa.string()),
        ("lang", pa.string()),
        ("task", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        (
            "document_spans",
            pa.list_(pa.struct([("message_index", pa.int32()), ("start", pa.int64()), ("end", pa.int64())])),
        ),
        ("questions", pa.list_(pa.string())),
        ("question_index", pa.int32()),
        ("teacher", pa.struct([("provider", pa.string()), ("model", pa.string()), ("terms", pa.string())])),
        (
            "usage",
            pa.struct(
                [
                    ("input_tokens", pa.int64()),
                    ("cache_write_tokens", pa.int64()),
                    ("cache_read_tokens", pa.int64()),
                    ("output_tokens", pa.int64()),
                    ("thinking_tokens", pa.int64()),
                ]
            ),
        ),
        ("cost_usd", pa.float64()),
        ("stop_reason", pa.string()),
        ("request_ids", pa.list_(pa.string())),
        ("num_tokens", pa.int64()),
        ("num_answer_tokens", pa.int64()),
        (
            "checks",
            pa.struct(
                [
                    (
                        "evidence",
                        pa.list_(pa.struct([("doc_id", pa.string()), ("start", pa.int64()), ("end", pa.int64())])),
                    ),
                    (
                        "scores",
                        pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64()), ("detail", pa.string())])),
                    ),
                ]
            ),
        ),
        ("license", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpan:
    """Tokens `start` (inclusive) to `end` (exclusive) of a sequence's `input_ids` that carry loss, as *labels*."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """One sample as token ids, or one window of a plain document; `sample_id` is then the document's id. `source` and
    `task` are the sample's (the task of a plain document is empty). `num_targets` is N_i: the targets that have a token
    before them, after truncation; each target span is one turn. `truncated_tokens` were cut out of the middle of the
    document."""

    sequence_id: str
    sample_id: str
    source: str = ""
    task: str = ""
    input_ids: Sequence[int]
    target_spans: Sequence[TargetSpan]
    num_tokens: int
    num_targets: int
    truncated_tokens: int


SEQUENCES = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("input_ids", TOKEN_IDS),
        ("target_spans", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))),
        ("num_tokens", pa.int32()),
        ("num_targets", pa.int32()),
        ("truncated_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Several whole sequences end to end, without padding.

    `input_ids` and `loss_weights` have length T = `num_tokens`; `cu_seqlens` has length `num_sequences` + 1, starts with
    0 and ends with T; sequence j occupies [cu_seqlens[j], cu_seqlens[j+1]).

    `loss_weights[t]` belongs to the *label* at t, like Hugging Face `labels`: it weighs the cross entropy between
    `input_ids[t]` and the logits at t - 1. It is u * N_i^-alpha on the N_i targets of sequence i (of a turn, with turns as
    the unit; u is the multiplier of its source, most often 1) and 0 elsewhere, and always
    0 on the first token of a sequence, so that `loss_weights[1:]` against `logits[:-1]` never crosses a border. Weights
    are not scaled by the step: divide the summed loss of a whole step by the plan's `normalizer` (Z; equal to M, the
    number of sequences, for alpha = 1). Source: LongAlign, Eq. 2 and 4. Stored in double precision, because 1/3 in single
    precision is wrong by 3e-8 and would be the largest error of a step; there are few distinct values, so Parquet's
    dictionaries store them in hardly more space.

    `work` is the modelled cost of the pack, sum over its sequences of c1*l + c2*l^2.
    """

    pack_id: str
    input_ids: Sequence[int]
    loss_weights: Sequence[float]
    cu_seqlens: Sequence[int]
    sequence_ids: Sequence[str]
    num_tokens: int
    num_sequences: int
    num_targets: int
    work: float


PACKS = pa.schema(
    [
        ("pack_id", pa.string()),
        ("input_ids", TOKEN_IDS),
        ("loss_weights", pa.list_(pa.float64())),
        ("cu_seqlens", pa.list_(pa.int32())),
        ("sequence_ids", pa.list_(pa.string())),
        ("num_tokens", pa.int32()),
        ("num_sequences", pa.int32()),
        ("num_targets", pa.int32()),
        ("work", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """The place of one pack in training: optimizer step `step`, `position` in [0, K) within it. Packs are stored in plan
    order, so row n of packs is row n of plan.

    `num_sequences` (M) and `normalizer` (Z = sum over the step's sequences of N_i^(1-alpha)) are of the whole step and
    repeat on each of its rows. A step may hold fewer than K packs: the last one, or any that has fewer than K sequences;
    the positions that are filled come first. `epoch` counts from 0, while steps count on over epochs; every epoch holds
    every sequence once. `capacity` is the most tokens that a pack of this step may hold.
    """

    step: int
    position: int
    pack_id: str
    num_sequences: int
    normalizer: float
    epoch: int
    capacity: int


PLAN = pa.schema(
    [
        ("step", pa.int64()),
        ("position", pa.int32()),
        ("pack_id", pa.string()),
        ("num_sequences", pa.int64()),
        ("normalizer", pa.float64()),
        ("epoch", pa.int32()),
        ("capacity", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One thing that did not go on: the `id` it had by then (a document id, or where it stands in its file), the
    `stage` that refused it, a `reason` out of a small set, and a `detail` for a person."""

    id: str
    stage: str
    reason: str
    detail: str


REJECTS = pa.schema([("id", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])

Record = Document | Selected | Sample | TokenSequence | Pack | PlanEntry | Reject

TABLES: dict[str, tuple[type[Any], pa.Schema]] = {
    "documents": (Document, DOCUMENTS),
    "selection": (Selected, SELECTION),
    "samples": (Sample, SAMPLES),
    "chats": (Sample, SAMPLES),
    "sequences": (TokenSequence, SEQUENCES),
    "packs": (Pack, PACKS),
    "plan": (PlanEntry, PLAN),
    "rejects": (Reject, REJECTS),
}
"""Every table of a build, in the order of the stages that write them."""
