"""Loss weights: how much each target of a sequence counts.

For one optimizer step with the sequences S, N_i targets and summed cross entropy L_i of sequence i, the wanted loss is

    (1 / Z) * sum over S of N_i^-alpha * L_i,    Z = sum over S of N_i^(1 - alpha)

With alpha = 1 this is the mean over sequences (LongAlign, Eq. 2; packs bias it, Eq. 3, and these weights repair it,
Eq. 4), with alpha = 0 the mean over tokens, with 0.5 in between. The weight of a target is N_i^-alpha, unscaled; Z
belongs to the whole step, and for alpha = 1 it is M, the number of its sequences.

Two things can be asked beyond that. With `turn` as the unit, every answer of a conversation counts for itself: N is that
of the turn, and Z sums over turns. A multiplier u of a sequence (its source's) scales its weights and its part of Z:

    w = u_i * N^-alpha,    Z = sum over S of u_i * N^(1 - alpha)
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from longalign_data.packing.fill import Floats, Ints


def count_targets(is_target: npt.NDArray[np.bool_], cu_seqlens: Ints) -> Ints:
    """N_i of each sequence of a pack: its targets, save one on its first token, which no logits predict."""
    return np.add.reduceat(_with_logits(is_target, cu_seqlens), cu_seqlens[:-1], dtype=np.int64)


Unit = Literal["sequence", "turn"]
"""What counts the same at alpha = 1."""


def loss_weights(
    is_target: npt.NDArray[np.bool_],
    cu_seqlens: Ints,
    alpha: float,
    *,
    unit: Unit = "sequence",
    multipliers: Floats | None = None,
) -> Floats:
    """float64[T]: the weight of each token of a pack *as a label*: u_i * N^-alpha on the targets of sequence i, else 0.

    `is_target` is bool[T]; `cu_seqlens` are the borders of the sequences, from 0 to T; `multipliers` hold u of each
    sequence (1 when not given). A turn is a run of targets. The first token of a sequence weighs 0, so that the weights
    of a sequence sum to u_i * N_i^(1 - alpha) (of each turn, for turns) and no loss crosses a border.
    """
    targets = _with_logits(is_target, cu_seqlens)
    weights = np.zeros(len(targets))
    if unit == "turn":
        run = np.cumsum(np.diff(targets, prepend=False) & targets)[targets] - 1
        weights[targets] = (np.bincount(run).astype(np.float64) ** -alpha)[run]
    else:
        num_targets = np.add.reduceat(targets, cu_seqlens[:-1], dtype=np.int64)
        each = np.maximum(num_targets, 1).astype(np.float64) ** -alpha
        weights[targets] = np.repeat(each, np.diff(cu_seqlens))[targets]
    return weights if multipliers is None else weights * np.repeat(multipliers, np.diff(cu_seqlens))


def sequence_totals(num_targets: Ints, alpha: float) -> Floats:
    """What each sequence adds to Z: N_i^(1 - alpha), and 0 without targets."""
    totals = np.maximum(num_targets, 1).astype(np.float64) ** (1.0 - alpha)
    return np.where(num_targets > 0, totals, 0.0)


def turn_totals(turn_targets: Ints, turns_of: Ints, alpha: float) -> Floats:
    """The same with turns as the unit: the sum of N^(1 - alpha) over the turns of each sequence. `turn_targets` are the
    targets of all turns, sequence after sequence; `turns_of` says how many turns each sequence has."""
    owner = np.repeat(np.arange(len(turns_of)), turns_of)
    sums = np.bincount(owner, sequence_totals(turn_targets, alpha), minlength=len(turns_of))
    return sums.astype(np.float64)


def _with_logits(is_target: npt.NDArray[np.bool_], cu_seqlens: Ints) -> npt.NDArray[np.bool_]:
    targets = is_target.copy()
    targets[cu_seqlens[:-1]] = False
    return targets
