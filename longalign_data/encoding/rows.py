"""Segments to rows of the table `sequences`, many at a time: columns are built by numpy, without an object for each token.

In: for each sequence its ids and segments. Out: `Encoded`, an Arrow table in the schema of `sequences`, and rejects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longalign_data.encoding.templates import Segment
from longalign_data.records import SEQUENCES, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What became of some inputs, in order: rows of `sequences`, and rejects. `num_in` is how many things came in, counted
    so that rows and rejects make up for them; `answers_cut` is how many of the rows have fewer targets than before they
    were shortened, which no row may have."""

    table: pa.Table
    rejects: Sequence[Reject]
    num_in: int
    answers_cut: int = 0

    def figures(self) -> dict[str, int]:
        """What the stage's report says of all of these together."""
        truncated = self.table.column("truncated_tokens")
        return {
            "num_targets": pc.sum(self.table.column("num_targets")).as_py() or 0,
            "truncated_samples": pc.sum(pc.greater(truncated, 0)).as_py() or 0,
            "truncated_tokens": pc.sum(truncated).as_py() or 0,
            "answers_cut": self.answers_cut,
        }


@dataclass(slots=True, kw_only=True)
class Labels:
    """The columns of the rows that are not tokens, one entry a sequence."""

    sequence_ids: list[str]
    sample_ids: list[str]
    sources: list[str]
    tasks: list[str]
    truncated_tokens: list[int]


def count_targets(segments: Sequence[Segment]) -> int:
    """N_i: the targets; one on the first token has no logits before it and is none."""
    num_targets = sum(len(segment.ids) for segment in segments if segment.is_target)
    first = next((segment for segment in segments if len(segment.ids)), None)
    return num_targets - (first is not None and first.is_target)


def assemble(labels: Labels, sequences: Sequence[Sequence[Segment]]) -> pa.Table:
    """The rows; `target_spans` are the targets with touching ones joined, the first token of a sequence left out."""
    arrays = [ids for segments in sequences for ids, _ in segments]
    is_target = np.fromiter((target for segments in sequences for _, target in segments), np.bool_, len(arrays))
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    segment_counts = np.fromiter(map(len, sequences), np.int64, len(sequences))
    owner = np.repeat(np.arange(len(sequences)), segment_counts)
    num_tokens = np.bincount(owner, lengths, minlength=len(sequences)).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(num_tokens)))
    ends = np.cumsum(lengths) - starts[owner]
    begins = np.maximum(ends - lengths, 1)

    chosen = np.flatnonzero(is_target & (begins < ends))
    begins, ends, owner = begins[chosen], ends[chosen], owner[chosen]
    opens = np.ones(len(chosen), np.bool_)
    opens[1:] = (owner[1:] != owner[:-1]) | (begins[1:] != ends[:-1])
    closes = np.ones(len(chosen), np.bool_)
    closes[:-1] = opens[1:]
    num_targets = np.bincount(owner, ends - begins, minlength=len(sequences))
    spans_of = np.bincount(owner[opens], minlength=len(sequences))
    spans = pa.StructArray.from_arrays(
        [pa.array(begins[opens], pa.int32()), pa.array(ends[closes], pa.int32())], names=["start", "end"]
    )
    flat = np.concatenate([np.zeros(0, np.int32), *arrays])
    return pa.Table.from_arrays(
        [
            pa.array(labels.sequence_ids, pa.string()),
            pa.array(labels.sample_ids, pa.string()),
            pa.array(labels.sources, pa.string()),
            pa.array(labels.tasks, pa.string()),
            pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(flat, pa.int32())),
            pa.ListArray.from_arrays(pa.array(np.concatenate(([0], np.cumsum(spans_of))), pa.int32()), spans),
            pa.array(num_tokens, pa.int32()),
            pa.array(num_targets.astype(np.int64), pa.int32()),
            pa.array(labels.truncated_tokens, pa.int32()),
        ],
        schema=SEQUENCES,
    )
