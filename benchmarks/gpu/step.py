"""One optimizer step of a model of a billion parameters on a pack of 64k tokens: goal at least half of the matrix peak.

The step is the trainer's own: model, attention, loss, clipping, AdamW, in bf16 with fp32 weights. The loss's memory is what
head and loss add to the peak of a forward and backward over a vocabulary of 152k, with 2% and with all tokens as targets.
"""

import functools
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.common import Place, run
from longalign_data.errors import LongAlignError
from trainer.batch import MicroBatch, micro_batch
from trainer.engine import TorchEngine
from trainer.measure.flops import measure_peak, model_flops
from trainer.measure.metrics import device_memory_peak
from trainer.objective import LOSSES
from trainer.tools.fit_work_model import random_pack
from trainer.world import World

MOST_LOSS_MEMORY = 1.5
"""GiB that the loss may add at 64k tokens and 152k entries."""
SHARE_OF_PEAK = 0.5
LOSSES_APART = 2e-2
"""What rounding to bf16 may put between two losses; tests/trainer/test_fused.py allows as much."""


def benchmark(place: Place) -> Iterator[dict[str, Any]]:
    """The step with one sequence and with sixteen, then the memory of the loss."""
    tokens = place.size(65_536, 256)
    peak = measure_peak(place.device, place.dtype)
    yield {"matrix_tflops": round(peak / 1e12, 1)}
    config = place.one_billion()
    objective = place.objective(config).float()
    engine = TorchEngine(objective, place.config, World(rank=0, ranks=1, device=place.device))
    counted = model_flops(objective.model)
    for parts in (1, 16):
        pack = random_pack([tokens // parts] * parts, config.vocab_size, target_share=0.02)
        batch = micro_batch(pack, place.device, config.vocab_size)
        reset_peak(place)
        taken = place.seconds(functools.partial(one_step, engine, batch))
        used = counted.count((pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).astype("int64"), len(batch.labels))
        share = used / taken / peak
        yield {
            "parameters": sum(p.numel() for p in objective.parameters()),
            "pack": f"{parts} x {tokens // parts}",
            "seconds": round(taken, 3),
            "tokens_per_second": round(tokens / taken),
            "model_tflops": round(used / taken / 1e12, 1),
            "of_matrix_peak": round(share, 3),
            "memory_gib": round(device_memory_peak(place.device), 2),
            "goal": f"of_matrix_peak >= {SHARE_OF_PEAK}",
            "reached": share >= SHARE_OF_PEAK,
        }
    # 26 GiB of weights, gradients and moments are not needed any more.
    del engine, objective
    for name, target_share in itertools.product(filter(functools.partial(can_run, place), LOSSES), (0.02, 1.0)):
        yield loss_memory(place, name, tokens, target_share, peak)


def can_run(place: Place, name: str) -> bool:
    """Whether this loss is installed and runs here."""
    try:
        LOSSES[name].check(place.device)
    except LongAlignError as error:
        print(error, file=sys.stderr)
        return False
    return True


def one_step(engine: TorchEngine, batch: MicroBatch) -> None:
    """As in the loop."""
    engine.accumulate(batch, 1.0, last=True)
    engine.step(1e-5)


def loss_memory(place: Place, name: str, tokens: int, target_share: float, peak: float) -> dict[str, Any]:
    """What head and loss allocate beyond their inputs, their parameters and the gradients of both; of another loss than ours
    also how far its losses and gradients are from ours (Frobenius, the largest)."""
    config = place.one_billion()
    head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=place.device, dtype=place.dtype)
    loss = LOSSES[name](head, chunk_rows=512)
    num_rows = max(1, int(tokens * target_share))
    hidden = torch.randn(num_rows, config.hidden_size, device=place.device, dtype=place.dtype, requires_grad=True)
    labels = torch.randint(config.vocab_size, (num_rows,), device=place.device)
    weights = torch.full((num_rows,), 1 / num_rows, device=place.device, dtype=torch.float64)

    def both() -> None:
        # To gradients that are there already, new ones would be added, and both would exist at once.
        hidden.grad = head.weight.grad = None
        torch.autograd.backward(loss(hidden, labels, weights))

    def outcome(kind: str) -> list[torch.Tensor]:
        found = LOSSES[kind](head, chunk_rows=512)
        gradients = torch.autograd.grad(found(hidden, labels, weights), [hidden, head.weight])
        assert found.row_losses is not None
        return [found.row_losses, *gradients]

    row: dict[str, Any] = {"loss": name, "loss_rows": num_rows, "vocabulary": config.vocab_size}
    if name != "chunked":
        pairs = zip(outcome(name), outcome("chunked"), strict=True)
        farthest = max(float((theirs.float() - ours.float()).norm() / ours.float().norm()) for theirs, ours in pairs)
        row |= {"from_ours": f"{farthest:.2e}", "ok": farthest <= LOSSES_APART}
    both()
    reset_peak(place)
    before = torch.cuda.memory_allocated(place.device) if place.device.type == "cuda" else 0
    taken = place.seconds(both, repeats=1)
    added = device_memory_peak(place.device) - before / 2**30
    return row | {
        "loss_memory_gib": round(added, 3),
        "seconds": round(taken, 3),
        # Forward, recomputation and two products in the backward.
        "of_matrix_peak": round(8 * num_rows * head.weight.numel() / taken / peak, 3),
        "goal": f"loss_memory_gib <= {MOST_LOSS_MEMORY}",
        "reached": added <= MOST_LOSS_MEMORY,
    }


def reset_peak(place: Place) -> None:
    """From here on."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)


if __name__ == "__main__":
    sys.exit(run("step", __doc__, benchmark, sys.argv[1:]))
