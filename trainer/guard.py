"""What a run does about a step that would spoil the weights, or that does not fit into memory.

In: the loss of a step over all of its packs, before the last backward. Out: a verdict, the same on every rank. A step that
is not sound is stopped at or skipped, as configured; either way the weights stay what they were, and its packs are named.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from longalign_data.errors import LongAlignError
from longalign_data.packing.reader import PackBatch
from trainer.config import TrainConfig
from trainer.errors import first_line, out_of_memory

REMEMBERED = 50
"""Losses that a spike is measured against; with fewer than `NEEDED` nothing is one."""
NEEDED = 10
SKIPPED_AT_MOST = 5
"""Steps skipped in a row before the run ends: then it is not the data."""


class BadStepError(LongAlignError):
    """A step that ends the run. Every rank raises it, and the weights are those before the step."""


class Guard:
    """Judges steps. `recent` are the losses of the last sound steps, newest last; a checkpoint keeps them, so that a resumed
    run judges as the uninterrupted one."""

    def __init__(self, config: TrainConfig, recent: Iterable[float] = ()) -> None:
        self.recent = deque(recent, maxlen=REMEMBERED)
        self._factor = config.spike_factor
        self._skip = config.on_bad_step == "skip"
        self._skipped = 0

    def judge(self, step: int, loss: float, pack_ids: Sequence[str], of_packs: Tensor) -> str | None:
        """None for a sound loss; else why the step is to be skipped. `of_packs` [K] are the sums of its packs. Raises
        BadStepError where the run is to stop."""
        reason = self._fault(loss)
        if reason is None:
            return None
        bad = [name for name, total in zip(pack_ids, of_packs.tolist(), strict=False) if not math.isfinite(total)]
        return self.reject(step, reason + (f" because of pack {', '.join(bad)}" if bad else ""), pack_ids)

    def accept(self, loss: float) -> None:
        """Remembers the loss of a step that changed the weights: neither `judge` nor the norm of its gradient spoke against it."""
        self._skipped = 0
        self.recent.append(loss)

    def reject(self, step: int, reason: str, pack_ids: Sequence[str]) -> str:
        """The reason with the step's packs, where the step is to be skipped. Raises BadStepError where the run is to stop."""
        named = f"packs of the step: {', '.join(pack_ids)}"
        self._skipped += 1
        if self._skip and self._skipped <= SKIPPED_AT_MOST:
            return f"{reason}; {named}"
        after = f" after {SKIPPED_AT_MOST} skipped steps" if self._skip else ""
        raise BadStepError(
            f"step {step}: {reason}, so training stops{after}; the weights are still those before this step; {named}. "
            "Look at these packs; then go on with --resume, with a lower learning_rate, with on_bad_step: skip, or with "
            "another spike_factor"
        )

    def _fault(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        usual = statistics.median(self.recent) if len(self.recent) >= NEEDED else math.inf
        if self._factor and loss > self._factor * usual:
            return f"the loss is {loss:.4g}, over {self._factor:g} times the median {usual:.4g} of the last steps"
        return None


WHAT_HELPS = {
    "set-up": "zero_stage: 3, offload_optimizer and offload_param in the DeepSpeed file, more ranks, lora",
    "pack": "activation_checkpointing: true, offload_activations: true, a smaller loss_chunk_rows, zero_stage: 3, "
    "offload_optimizer in the DeepSpeed file, sequence_parallel: 2 or more, packs of smaller capacity",
    "update": "engine: deepspeed with zero_stage: 1 or more, offload_optimizer in the DeepSpeed file, more ranks, lora",
}
"""Where memory ran out -> the knobs, the cheapest first."""


@contextmanager
def memory(place: str, rank: int, step: int | None = None, pack: PackBatch | None = None) -> Iterator[None]:
    """Raises LongAlignError in place of an error that says no more than that memory ran out, on a device or the CPU: where
    (a key of `WHAT_HELPS`), with which pack, what can be done."""
    try:
        yield
    except Exception as error:
        if isinstance(error, LongAlignError) or not out_of_memory(error):
            raise
        when = {
            "set-up": "while the model and its optimizer were set up, before the first pack",
            "pack": f"in step {step}, forward and backward: {_described(pack)}",
            "update": f"in step {step}, where the optimizer updates the weights, for which no pack is needed",
        }[place]
        raise LongAlignError(
            f"out of memory on rank {rank} {when}. What helps, the cheapest first: {WHAT_HELPS[place]} ({first_line(error)})"
        ) from None


def _described(pack: PackBatch | None) -> str:
    if pack is None:
        return "no pack, two tokens in its place"
    longest = sorted((pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist(), reverse=True)
    shown = ", ".join(map(str, longest[:8])) + (f" and {len(longest) - 8} shorter" if len(longest) > 8 else "")
    return f"pack {pack.pack_id} of {pack.num_tokens} tokens, sequences of {shown}"
