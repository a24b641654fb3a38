"""One pack as tensors.

In: a `PackBatch` of the reader (numpy). Out: a `MicroBatch` on the training device. The shift between hidden states and
labels happens here and nowhere else: the target at t is predicted from the hidden state at t - 1. It happens before a pack
is split over ranks, so that a part keeps the label of its last row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from longalign_data.errors import UserError
from longalign_data.packing.reader import PackBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """`input_ids`, `position_ids`: int64 [1, T], positions restart in every sequence. `target_rows`, `labels`: int64 [R],
    `weights`: float64 [R]: hidden row `target_rows[j]` predicts token `labels[j]`, which counts `weights[j]` in the loss;
    `sequences`, int64 [R]: its place among the pack's sequences. R is at least 1: without targets there is one row of weight
    0, so that every parameter takes part on every rank and collectives stay in step. `cu_seqlens`, int32 [n + 1], `max_seqlen`
    and `pack_tokens` are of the whole pack, also where the rest is a part of it."""

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    pack_tokens: int
    target_rows: Tensor
    labels: Tensor
    weights: Tensor
    sequences: Tensor


def micro_batch(
    pack: PackBatch | None, device: torch.device, vocabulary: int, *, part: int = 0, parts: int = 1
) -> MicroBatch:
    """Part `part` of the pack on `device`; for None (no pack is left for this rank in the plan's last step) a two-token
    batch whose loss is 0. Of several parts each has as many tokens; a pack that does not divide ends in a sequence of
    padding. Raises UserError when a token id is not below `vocabulary`, the model's."""
    if pack is None:
        ids, positions = np.zeros(2, np.int64), np.arange(2)
        weights, borders, longest = np.zeros(2), np.array([0, 2], np.int32), 2
    else:
        ids, positions, weights = pack.input_ids, pack.position_ids, pack.loss_weights
        borders, longest = pack.cu_seqlens, int(pack.max_seqlen)
    if ids.max() >= vocabulary:
        raise UserError(
            f"pack {pack.pack_id if pack else None}: token id {ids.max()}, but the model has {vocabulary} tokens; "
            "the build was encoded for another tokenizer than this model's"
        )
    # A weight on the first token of a sequence would train across the border between two sequences.
    assert not weights[borders[:-1]].any()
    sequences = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
    padding = -len(ids) % parts
    if padding:
        ids, weights = (np.concatenate([array, np.zeros(padding, array.dtype)]) for array in (ids, weights))
        positions = np.concatenate([positions, np.arange(padding)])
        sequences = np.append(sequences, [sequences[-1]] * padding)  # of no weight
        borders, longest = np.append(borders, len(ids)), max(longest, padding)
    start, end = len(ids) * part // parts, len(ids) * (part + 1) // parts
    targets = start + 1 + np.flatnonzero(weights[start + 1 : end + 1])
    if len(targets) == 0:
        targets = np.array([min(start + 1, len(ids) - 1)])

    def put(array: np.ndarray, dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype)).to(device, non_blocking=True)

    return MicroBatch(
        input_ids=put(ids[None, start:end], np.int64),
        position_ids=put(positions[None, start:end], np.int64),
        cu_seqlens=put(borders, np.int32),
        max_seqlen=longest,
        pack_tokens=len(ids),
        target_rows=put(np.maximum(targets - 1 - start, 0), np.int64),
        labels=put(ids[targets], np.int64),
        weights=put(weights[targets], np.float64),
        sequences=put(sequences[targets], np.int64),
    )
