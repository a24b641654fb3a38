"""Packs for trainers that index a data set: a sequence of plain numpy arrays in the order of the plan.

In: a `PackReader`. Out: for each of the K places of each step, a dictionary

    input_ids      [5   9   2   7  |  5   3   2]       int64[T]
    position_ids   [0   1   2   3  |  0   1   2]       int64[T]
    labels         [-100 -100 2  7 | -100 -100 2]      int64[T], not shifted: the label at t is of the token at t
    loss_weights   [0   0  w1  w1  |  0   0   w2]      float32[T], of the label at t, divided by the Z of its step

so the gradient of a step is that of the plain sum of loss_weights * cross entropy over all its places. A sampler that goes
through in order, dealing one place to each rank in turn, keeps the steps as they are planned. No torch in here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from longalign_data.packing.reader import PackReader

IGNORED = -100
"""The label that Hugging Face and torch leave out."""


class PlannedPacks:
    """Place i % K of step i // K. A place without a pack (steps may be short) is two tokens that weigh nothing, so that
    every step has K items."""

    def __init__(self, reader: PackReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return self._reader.num_steps * self._reader.packs_per_step

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays at the head of the module. Raises IndexError beyond the last step."""
        if not 0 <= index < len(self):
            raise IndexError(f"place {index} of {len(self)}")
        step, place = divmod(index, self._reader.packs_per_step)
        batch = self._reader.batch(step, place, self._reader.packs_per_step, 0, 1)
        if batch is None:
            two = np.arange(2, dtype=np.int64)
            return {
                "input_ids": np.zeros(2, np.int64),
                "position_ids": two,
                "labels": np.full(2, IGNORED, np.int64),
                "loss_weights": np.zeros(2, np.float32),
            }
        weights = batch.loss_weights / self._reader.step(step).normalizer
        return {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "labels": np.where(batch.loss_weights > 0, batch.input_ids, IGNORED),
            "loss_weights": weights.astype(np.float32),
        }
