"""How much sequences of each length pull at the weights, with loss weights and without: one step of a build, looked at.

In: a build, a model, a step. Out: for every bucket of length the norm of its part of the step's gradient, as a share of the
sum of all norms, under the build's weights and under plain packing (LongAlign, Eq. 3: the mean over packs of the mean over a
pack's targets). Sequences of a pack are independent, so a bucket's part costs no more than its own sequences, and the whole
two passes over the step. Nothing is trained. The model must fit on one device, gradients included.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from longalign_data.errors import UserError
from longalign_data.packing.reader import PackBatch, PackReader, open_packs
from longalign_data.shards.files import write_json
from trainer.options import Parser, check_new_file, exit_code, natural
from trainer.tools.plain import DEFAULT, config_or_default, one_device

if TYPE_CHECKING:
    import torch

    from trainer.objective import Objective

WEIGHTINGS = ("weighted", "unweighted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One bucket of length. Shares are of the sum over all buckets: of what targets weigh in the loss, and of the norms of
    the gradients."""

    length: str
    num_sequences: int
    weighted_loss: float
    weighted_gradient: float
    unweighted_loss: float
    unweighted_gradient: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and tells; returns the exit code."""
    asked = _parser().parse_args(arguments)
    return exit_code(lambda: _look(asked))


def _look(asked: argparse.Namespace) -> None:
    if asked.output:
        check_new_file(asked.output)
    config = config_or_default(asked.config)
    reader = open_packs(asked.build)
    if asked.step >= reader.num_steps:
        raise UserError(f"--step {asked.step}: the plan has steps 0 to {reader.num_steps - 1}")
    whole = config.model_copy(update={"lora": None})
    objective, device = one_device(asked.model, whole, random_init=asked.random_init, capacity=reader.capacity)
    rows = shares(objective, reader, asked.step, device)
    if asked.output:
        write_json(asked.output, [asdict(row) for row in rows])
    _print(rows)


def shares(objective: "Objective", reader: PackReader, step: int, device: "torch.device") -> list[Share]:
    """The rows, shortest sequences first. The objective's gradients are overwritten."""
    from trainer.measure.metrics import LENGTHS, length_buckets

    k, info = reader.packs_per_step, reader.step(step)
    found = [reader.batch(step, position, k, 0, 1) for position in range(info.num_packs)]
    packs = [pack for pack in found if pack is not None]
    of_packs = [length_buckets(np.diff(pack.cu_seqlens)) for pack in packs]
    buckets = sorted({int(bucket) for of_pack in of_packs for bucket in of_pack})
    loss, norm = np.zeros((2, len(buckets))), np.zeros((2, len(buckets)))
    for way, weighting in enumerate(WEIGHTINGS):
        weights = [step_weights(pack, weighting, info.normalizer, info.num_packs) for pack in packs]
        for place, bucket in enumerate(buckets):
            chosen = [of_pack == bucket for of_pack in of_packs]
            parts = [
                part(pack, which, weight)
                for pack, which, weight in zip(packs, chosen, weights, strict=True)
                if which.any()
            ]
            loss[way, place] = sum(float(p.loss_weights.sum()) for p in parts)
            norm[way, place] = gradient_norm(objective, parts, device)
    loss, norm = (values / np.maximum(values.sum(axis=1, keepdims=True), 1e-300) for values in (loss, norm))
    return [
        Share(
            length=LENGTHS[bucket],
            num_sequences=sum(int((of_pack == bucket).sum()) for of_pack in of_packs),
            weighted_loss=float(loss[0, place]),
            weighted_gradient=float(norm[0, place]),
            unweighted_loss=float(loss[1, place]),
            unweighted_gradient=float(norm[1, place]),
        )
        for place, bucket in enumerate(buckets)
    ]


def step_weights(pack: PackBatch, weighting: str, normalizer: float, num_packs: int) -> npt.NDArray[np.float64]:
    """float64[T]: what each token's cross entropy counts in the loss of the step."""
    if weighting == "weighted":
        return pack.loss_weights.astype(np.float64) / normalizer
    targets = pack.loss_weights > 0
    return targets / (max(int(targets.sum()), 1) * num_packs)


def part(pack: PackBatch, chosen: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> PackBatch:
    """The chosen sequences of a pack, with these weights."""
    lengths = np.diff(pack.cu_seqlens)
    kept = np.repeat(chosen, lengths)
    return replace(
        pack,
        input_ids=pack.input_ids[kept],
        position_ids=pack.position_ids[kept],
        loss_weights=weights[kept],
        cu_seqlens=np.concatenate(([0], np.cumsum(lengths[chosen]))).astype(np.int32),
        max_seqlen=int(lengths[chosen].max()),
        num_tokens=int(kept.sum()),
        num_sequences=int(chosen.sum()),
    )


def gradient_norm(objective: "Objective", parts: Sequence[PackBatch], device: "torch.device") -> float:
    """Of the sum of w * CE over these packs, over all parameters."""
    import torch

    from trainer.batch import micro_batch

    vocabulary = objective.model.config.get_text_config().vocab_size
    objective.zero_grad(set_to_none=True)
    for pack in parts:
        torch.autograd.backward(objective(micro_batch(pack, device, vocabulary)))
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    return float(torch.stack(norms).norm())


def _print(rows: Sequence[Share]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("length")
    for heading in ("sequences", "loss", "gradient", "loss (Eq. 3)", "gradient (Eq. 3)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        values = (row.weighted_loss, row.weighted_gradient, row.unweighted_loss, row.unweighted_gradient)
        table.add_row(row.length, f"{row.num_sequences:,}", *(f"{value:.1%}" for value in values))
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    found = Parser("trainer.tools.gradients", __doc__)
    found.add_build()
    found.add_model()
    found.add_config(DEFAULT)
    add = found.add_argument
    add("--step", type=natural, default=0, metavar="S", help="of the plan (default: 0)")
    add("--output", type=Path, metavar="JSON", help="file for the same numbers")
    return found


if __name__ == "__main__":
    sys.exit(main())
