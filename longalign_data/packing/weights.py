"""Loss weights: how much each target of a sequence counts.

For one optimizer step with the sequences S, N_i targets and summed cross entropy L_i of sequence i, the wanted loss is

    (1 / Z) * sum over S of N_i^-alpha * L_i,    Z = sum over S of N_i^(1 - alpha)

With alpha = 1 this is the mean over sequences (LongAlign, Eq. 2; packs bias it, Eq. 3, and these weights repair it,
Eq. 4), with alpha = 0 the mean over tokens, with 0.5 in between. The weight of a target is N_i^-alpha, unscaled; Z
belongs to the whole step, and for alpha = 1 it is M, the number of its sequences.
"""

import numpy as np
import numpy.typing as npt

from longalign_data.packing.fill import Floats, Ints


def count_targets(is_target: npt.NDArray[np.bool_], cu_seqlens: Ints) -> Ints:
    """N_i of each sequence of a pack: its targets, save one on its first token, which no logits predict."""
    return np.add.reduceat(_with_logits(is_target, cu_seqlens), cu_seqlens[:-1], dtype=np.int64)


def loss_weights(is_target: npt.NDArray[np.bool_], cu_seqlens: Ints, alpha: float) -> Floats:
    """float64[T]: the weight of each token of a pack *as a label*: N_i^-alpha on the targets of sequence i, else 0.

    `is_target` is bool[T]; `cu_seqlens` are the borders of the sequences, from 0 to T. The first token of a sequence
    weighs 0, so that the weights of a sequence sum to N_i^(1 - alpha) and no loss crosses a border.
    """
    targets = _with_logits(is_target, cu_seqlens)
    num_targets = np.add.reduceat(targets, cu_seqlens[:-1], dtype=np.int64)
    weights = np.maximum(num_targets, 1).astype(np.float64) ** -alpha
    return np.where(targets, np.repeat(weights, np.diff(cu_seqlens)), 0.0)


def sequence_totals(num_targets: Ints, alpha: float) -> Floats:
    """What each sequence adds to Z: N_i^(1 - alpha), and 0 without targets."""
    totals = np.maximum(num_targets, 1).astype(np.float64) ** (1.0 - alpha)
    return np.where(num_targets > 0, totals, 0.0)


def _with_logits(is_target: npt.NDArray[np.bool_], cu_seqlens: Ints) -> npt.NDArray[np.bool_]:
    targets = is_target.copy()
    targets[cu_seqlens[:-1]] = False
    return targets
