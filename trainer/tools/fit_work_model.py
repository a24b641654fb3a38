"""Measures what a sequence of l tokens costs to train on, c1 * l + c2 * l^2, with one model on the device at hand.

In: a model's config.json and the configuration it will be trained with. Out: a YAML file for `longalign plan --work-model`,
whose `linear` and `quadratic` are also what a recipe's `pack.work` takes:

    linear: 22731.4
    quadratic: 1.0
    seconds: 8.140000e-12

Packs of one to 64 sequences are run forward and backward, the cheap ones first, for as long as `--seconds` allow. Only shapes
matter, so weights are random. With --layers a model that is too large for this device is measured on so many of its layers,
and on half of them: layers cost alike, so the difference says what all of them take.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longalign_data.errors import UserError
from longalign_data.packing.reader import PackBatch
from longalign_data.shards.files import write_text
from trainer.config import TrainConfig, load_config
from trainer.options import Parser, check_new_file, exit_code, positive

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from trainer.objective import Objective

SEQUENCES = (1, 4, 16, 64)
"""Into how many sequences a pack is divided."""
SMALLEST = 512
"""Tokens of the smallest pack."""
LEAST = 128
"""Tokens of the smallest capacity: below it there are fewer packs than unknowns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The seconds of one pack with sequences of these lengths, in tokens."""

    lengths: tuple[int, ...]
    seconds: float

    @property
    def terms(self) -> tuple[float, float, float]:
        """What the model multiplies: one pack, its tokens, its tokens squared sequence by sequence."""
        return 1.0, float(sum(self.lengths)), float(sum(l * l for l in self.lengths))  # noqa: E741 - as in the formula


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFit:
    """Seconds a token and a token squared; `deviation` is the largest relative error over what was measured."""

    linear: float
    quadratic: float
    deviation: float

    def seconds(self, lengths: Sequence[int]) -> float:
        """The modelled time of a pack."""
        return sum(self.linear * l + self.quadratic * l * l for l in lengths)  # noqa: E741 - as in the formula


def fit(measured: Sequence[Measured], capacity: int) -> WorkFit:
    """Least squares of relative errors over c0 + c1 * sum(l) + c2 * sum(l^2), none of them negative, for the packs of at least
    a quarter of the largest one's tokens. What a pack costs by itself, c0, is laid on the tokens of a full one, since
    nearly all packs are full."""
    most = max(sum(m.lengths) for m in measured)
    measured = [m for m in measured if 4 * sum(m.lengths) >= most]
    seconds = np.array([m.seconds for m in measured])
    relative = np.array([m.terms for m in measured]) / seconds[:, None]
    kept = [0, 1, 2]
    while True:
        found = np.linalg.lstsq(relative[:, kept], np.ones(len(measured)), rcond=None)[0]
        if found.min() >= 0 or len(kept) == 1:
            break
        kept.pop(int(found.argmin()))
    constants = np.zeros(3)
    constants[kept] = np.maximum(found, 0.0)
    return WorkFit(
        linear=float(constants[1] + constants[0] / capacity),
        quadratic=float(constants[2]),
        deviation=float(np.abs(relative @ constants - 1).max()),
    )


def grid(capacity: int) -> list[tuple[int, ...]]:
    """Packs to measure: full ones, halves, quarters and so on, each as one sequence, as four, and so on."""
    packs = []
    tokens = capacity
    while tokens >= min(SMALLEST, capacity):
        packs += [(tokens // count,) * count for count in SEQUENCES if tokens // count >= 8]
        tokens //= 2
    return packs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes the file; returns the exit code."""
    asked = _parser().parse_args(arguments)
    return exit_code(lambda: _measure(asked))


def _measure(asked: argparse.Namespace) -> None:
    config, _ = load_config(asked.config)
    check_new_file(asked.output)
    if asked.capacity < LEAST:
        raise UserError(f"--capacity {asked.capacity}: expected at least {LEAST} tokens; smaller packs say nothing")
    if not 0 < asked.targets <= 1:
        raise UserError(f"--targets {asked.targets:g}: expected a share above 0, of at most 1")
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    total, counts = _layers(asked.model, config, asked.layers)
    by_count: list[dict[tuple[int, ...], float]] = []
    for count in counts:
        objective, backend = random_objective(asked.model, config, device, asked.capacity, layers=count)
        budget = asked.seconds / len(counts)
        by_count.append(dict(measure(objective, device, asked.capacity, seconds=budget, target_share=asked.targets)))
        del objective
        _free(device)
    measured = [
        Measured(lengths=lengths, seconds=of_all_layers([times[lengths] for times in by_count], counts, total))
        for lengths in by_count[0]
        if all(lengths in times for times in by_count)
    ]
    found = fit(measured, asked.capacity)
    longest = max(max(m.lengths) for m in measured)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    on_layers = f" (measured on {' and '.join(map(str, counts))} of {total} layers)" if len(counts) > 1 else ""
    write_text(
        asked.output,
        f"# Seconds of forward and backward on {name}: {asked.model}{on_layers}, {config.dtype}, attention {backend}.\n"
        f"# {len(measured)} packs of up to {longest} tokens a sequence; the model is at most {found.deviation:.1%} off.\n"
        + as_yaml(found),
    )
    sys.stdout.write(asked.output.read_text(encoding="utf-8"))
    if longest < asked.capacity:
        sys.stdout.write(
            f"sequences of {asked.capacity} tokens were not reached in {asked.seconds} s; for more than {longest} this "
            "extrapolates, so give it more --seconds\n"
        )


def as_yaml(found: WorkFit) -> str:
    """The work model in the planner's words: unit costs, and the seconds of a unit."""
    if found.quadratic > 0:
        linear, quadratic, unit = found.linear / found.quadratic, 1.0, found.quadratic
    else:
        linear, quadratic, unit = 1.0, 0.0, found.linear
    return f"linear: {linear:.6f}\nquadratic: {quadratic}\nseconds: {unit:.6e}\n"


def measure(
    objective: "Objective", device: "torch.device", capacity: int, *, seconds: float, target_share: float
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Lengths and time of packs of `grid`, cheap ones first, until the next one would take more than the `seconds` that are
    left; at least four of them."""
    from trainer.measure.flops import model_flops

    counted = model_flops(objective.model)
    cost = {lengths: counted.count(np.array(lengths), 0) for lengths in grid(capacity)}
    began = time.monotonic()
    rate = 0.0
    for number, (lengths, operations) in enumerate(sorted(cost.items(), key=lambda item: item[1])):
        expected = operations * rate
        if number >= 4 and time.monotonic() - began + 2 * expected > seconds:
            return
        taken = min(pack_seconds(objective, device, lengths, target_share=target_share) for _ in range(2))
        rate = taken / operations
        yield lengths, taken


def pack_seconds(
    objective: "Objective", device: "torch.device", lengths: Sequence[int], *, target_share: float
) -> float:
    """The time of forward and backward of one pack of random tokens, the last of each sequence being targets."""
    import torch

    from trainer.batch import micro_batch
    from trainer.measure.flops import synchronize

    vocabulary = objective.model.config.get_text_config().vocab_size
    batch = micro_batch(random_pack(lengths, vocabulary, target_share=target_share), device, vocabulary)
    objective.zero_grad(set_to_none=True)
    # On a CPU others may run beside us; this thread's own time leaves them out.
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    synchronize(device)
    began = clock()
    try:
        torch.autograd.backward(objective(batch))
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory with a pack of {sum(lengths)} tokens; measure on a few layers with --layers 8, set "
            "activation_checkpointing: true, or give a smaller --capacity"
        ) from None
    synchronize(device)
    return clock() - began


def random_pack(lengths: Sequence[int], vocabulary: int, *, target_share: float) -> PackBatch:
    """A pack of random tokens; the last `target_share` of each sequence are targets, at least one, and each sequence
    weighs the same."""
    borders = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    positions = np.concatenate([np.arange(length) for length in lengths])
    counts = np.minimum(np.maximum((np.array(lengths) * target_share).astype(int), 1), np.array(lengths) - 1)
    from_end = np.repeat(borders[1:], lengths) - np.arange(borders[-1])
    weights = np.where(from_end <= np.repeat(counts, lengths), np.repeat(1 / counts, lengths), 0.0)
    return PackBatch(
        pack_id="random",
        input_ids=np.random.default_rng(0).integers(vocabulary, size=int(borders[-1])),
        position_ids=positions.astype(np.int64),
        loss_weights=weights,
        cu_seqlens=borders,
        max_seqlen=max(lengths),
        num_tokens=int(borders[-1]),
        num_sequences=len(lengths),
    )


def random_objective(
    spec: str, config: TrainConfig, device: "torch.device", capacity: int, *, layers: int | None = None
) -> "tuple[Objective, str]":
    """Model and loss with random weights, as training has them but for the optimizer, and the name of the attention; with
    `layers`, of so many of the model's. Raises UserError where the model has fewer positions than `capacity`."""
    import torch

    from trainer.model import check_fits
    from trainer.objective import compute_dtype, load_objective
    from trainer.world import World

    shape, world = _model_config(spec, config, layers), World(rank=0, ranks=1, device=device)
    check_fits(shape, capacity=capacity, parts=1)
    with torch.device(device):
        return load_objective(spec, shape, config, world, dtype=compute_dtype(config), random_init=True)


def _model_config(spec: str, config: TrainConfig, layers: int | None) -> "PretrainedConfig":
    from trainer.objective import load_shape

    found = load_shape(spec, config, weights=False)
    if layers is not None:
        found.num_hidden_layers = layers
        if getattr(found, "layer_types", None):
            found.layer_types = found.layer_types[:layers]
    return found


def _layers(spec: str, config: TrainConfig, asked: int | None) -> tuple[int, list[int]]:
    """The layers that the model has, and those of the models to measure."""
    total = int(_model_config(spec, config, None).num_hidden_layers)
    if asked is None or asked >= total:
        return total, [total]
    if asked < 2:
        raise UserError("--layers: at least 2, of which half are measured as well")
    return total, [asked, asked // 2]


def of_all_layers(times: Sequence[float], counts: Sequence[int], total: int) -> float:
    """The seconds of a pack in a model of `total` layers, from those with `counts` of them: two of these, or `total` alone."""
    if len(times) == 1:
        return times[0]
    each = (times[0] - times[1]) / (counts[0] - counts[1])
    return times[0] + max(each, 0.0) * (total - counts[0])


def _free(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def _parser() -> argparse.ArgumentParser:
    found = Parser("trainer.fit_work_model", __doc__)
    found.add_config()
    add = found.add_argument
    add("--model", required=True, help="a Hugging Face model folder or hub id; its config.json is enough")
    add("--capacity", type=positive, default=65_536, metavar="TOKENS", help="of a pack (default: 65536)")
    add("--targets", type=float, default=0.02, metavar="SHARE", help="of the tokens that are targets (default: 0.02)")
    add("--seconds", type=positive, default=60, metavar="S", help="to measure for, about (default: 60)")
    add("--layers", type=positive, metavar="N", help="measure on N layers of the model (default: all)")
    add("--output", type=Path, default=Path("work.yaml"), metavar="YAML", help="file to write (default: work.yaml)")
    return found
