"""The gradient of a packed, accumulated, dealt-out step against LongAlign's Eq. 2, sequence by sequence."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longalign_data.packing.reader import PackReader, open_packs
from tests.exactness.reference import distance, unpacked_gradient
from tests.trainer.builds import VOCABULARY, tiny_llama, write_build
from trainer import attention, loop
from trainer.batch import micro_batch
from trainer.config import TrainConfig
from trainer.engine import TorchEngine
from trainer.guard import Guard
from trainer.measure.metrics import Meter
from trainer.model import checkpoint_activations
from trainer.objective import Objective
from trainer.world import World

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
FP64 = TrainConfig(engine="torch", dtype="fp32", peak_tflops=1)
ALONE = World(rank=0, ranks=1, device=CPU)
STEP = [
    [(30, 8), (20, 4)],
    [(50, 16)],
    [(10, 2), (12, 4), (20, 1)],
    [(9, 8), (3, 1), (2, 1), (40, 32)],
    [(64, 4)],
    [(5, 4), (6, 2)],
]
# Any counts, one of them without a target, and a last step that leaves places empty.
ROUGH_STEP = [[(30, 7), (20, 3)], [(50, 49)], [(10, 0), (12, 11), (20, 1)], [(33, 5)]]


def packed_gradient(
    reader: PackReader, *, ranks: int, step: int = 0, chunk_rows: int = 7, checkpointing: bool = False
) -> dict[str, torch.Tensor]:
    """What an engine that averages over `ranks` makes of the step: the trainer's own batches, model call, loss and scale."""
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    objective = Objective(tiny_llama(registered, torch.float64), chunk_rows=chunk_rows)
    if checkpointing:
        checkpoint_activations(objective.model)
    engine = TorchEngine(objective, FP64, World(rank=0, ranks=1, device=CPU))
    info = reader.step(step)
    accumulation = reader.packs_per_step // ranks
    for rank in range(ranks):
        for micro in range(accumulation):
            batch = micro_batch(reader.batch(step, rank, ranks, micro, accumulation), CPU, VOCABULARY)
            engine.accumulate(batch, ranks / info.normalizer, last=micro == accumulation - 1)
    return {name: p.grad / ranks for name, p in objective.model.named_parameters()}


@pytest.mark.parametrize("ranks", [6, 3, 2, 1])
def test_a_packed_step_has_the_gradient_of_the_mean_over_unpacked_sequences(tmp_path: Path, ranks: int) -> None:
    reader = open_packs(write_build(tmp_path, [STEP], packs_per_step=6))
    assert distance(packed_gradient(reader, ranks=ranks), unpacked_gradient(reader)) <= 1e-10


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("ranks", [3, 2])
def test_sequence_square_root_and_token_means_hold_in_a_short_last_step(
    tmp_path: Path, ranks: int, alpha: float
) -> None:
    full = [*STEP]
    reader = open_packs(write_build(tmp_path, [full, ROUGH_STEP], packs_per_step=6, alpha=alpha))
    found, wanted = packed_gradient(reader, ranks=ranks, step=1), unpacked_gradient(reader, step=1, alpha=alpha)
    assert distance(found, wanted) <= 1e-10


def test_chunks_and_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    reader = open_packs(write_build(tmp_path, [STEP], packs_per_step=6))
    whole = packed_gradient(reader, ranks=2, chunk_rows=10_000)
    assert distance(packed_gradient(reader, ranks=2, chunk_rows=1, checkpointing=True), whole) <= 1e-12


class Accumulates(TorchEngine):
    """Keeps the gradient of the step, and changes nothing."""

    def step(self, learning_rate: float) -> float | None:
        return None


def step_gradient(reader: PackReader) -> dict[str, torch.Tensor]:
    """That of the loop's own step, in one process."""
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    objective = Objective(tiny_llama(registered, torch.float64), chunk_rows=100)
    engine, world = Accumulates(objective, FP64, ALONE), ALONE
    meter = Meter(objective, reader, world, FP64)
    loop.train_step(engine, reader, world, Guard(FP64), meter, step=0, rate=0.0, seed=0, vocabulary=VOCABULARY)
    return {name: p.grad for name, p in objective.model.named_parameters() if p.grad is not None}


def test_the_loop_takes_a_step_of_the_mean_over_unpacked_sequences(tmp_path: Path) -> None:
    reader = open_packs(write_build(tmp_path, [STEP], packs_per_step=6))
    assert distance(step_gradient(reader), unpacked_gradient(reader)) <= 1e-10


@pytest.mark.parametrize("fault", ["mean of packs", "M over ranks", "divided by accumulation"])
def test_a_faulty_scale_put_into_the_loop_is_far_from_it(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults of other trainers; those that need ranks are in test_ranks."""
    reader = open_packs(write_build(tmp_path, [STEP], packs_per_step=6))
    micros = itertools.count()

    def faulty(world: World, normalizer: float) -> float:
        if fault == "mean of packs":
            return 1 / 6 / len(STEP[next(micros)])
        return 2 / normalizer if fault == "M over ranks" else 1 / normalizer / 6

    monkeypatch.setattr(loop, "loss_scale", faulty)
    assert distance(step_gradient(reader), unpacked_gradient(reader)) > 1e-2


def test_a_micro_batch_without_targets_reaches_every_parameter_with_zero() -> None:
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    objective = Objective(tiny_llama(registered, tie_word_embeddings=False), chunk_rows=4)
    loss = objective(micro_batch(None, CPU, VOCABULARY))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


def test_target_rows_are_the_positions_before_the_targets(tmp_path: Path) -> None:
    pack = open_packs(write_build(tmp_path, [[[(4, 2), (3, 1)]]], packs_per_step=1)).batch(0, 0, 1, 0, 1)
    batch = micro_batch(pack, CPU, VOCABULARY)
    assert batch.target_rows.tolist() == [1, 2, 5]
    assert batch.labels.tolist() == pack.input_ids[[2, 3, 6]].tolist()
    assert batch.weights.tolist() == [0.5, 0.5, 1.0]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2]]


@pytest.mark.parametrize("parts", [2, 3, 4, 8])
def test_every_target_is_on_one_of_the_ranks_that_share_a_pack(tmp_path: Path, parts: int) -> None:
    """Where a part ends inside an answer its last row keeps the label that stands first in the next part."""
    reader = open_packs(write_build(tmp_path, [STEP], packs_per_step=6))
    for position in range(6):
        pack = reader.batch(0, position, 6, 0, 1)
        whole = micro_batch(pack, CPU, VOCABULARY)
        shares = [micro_batch(pack, CPU, VOCABULARY, part=part, parts=parts) for part in range(parts)]
        (length,) = {share.input_ids.shape[1] for share in shares}
        assert (
            torch.cat([share.input_ids[0] for share in shares])[: pack.num_tokens].tolist() == pack.input_ids.tolist()
        )
        rows, labels, weights = [], [], []
        for part, share in enumerate(shares):
            counts = share.weights > 0
            assert share.target_rows.max() < length
            rows += (share.target_rows[counts] + part * length).tolist()
            labels += share.labels[counts].tolist()
            weights += share.weights[counts].tolist()
            assert share.cu_seqlens[-1] == parts * length
        found = (rows, labels, weights)
        assert found == (whole.target_rows.tolist(), whole.labels.tolist(), whole.weights.tolist())


def test_the_loss_never_makes_logits_for_rows_without_a_target(tmp_path: Path) -> None:
    reader = open_packs(write_build(tmp_path, [[[(60, 3)]]], packs_per_step=1))
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    objective = Objective(tiny_llama(registered), chunk_rows=2)
    seen: list[int] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's signature
            if function is F.linear and args[1].shape[0] == VOCABULARY:
                seen.append(args[0].shape[0])
            return function(*args, **(kwargs or {}))

    with Watch():
        objective(micro_batch(reader.batch(0, 0, 1, 0, 1), CPU, VOCABULARY))
    assert seen == [2, 1]


def test_the_head_is_shared_with_the_loss_and_not_copied() -> None:
    model = tiny_llama("eager", tie_word_embeddings=False)
    objective = Objective(model, chunk_rows=4)
    assert objective.loss.weight is model.lm_head.weight
    assert len(list(objective.parameters())) == len(list(model.parameters()))
    assert isinstance(objective.loss.weight, nn.Parameter)


def test_weights_sum_to_the_number_of_sequences(tmp_path: Path) -> None:
    reader = open_packs(write_build(tmp_path, [ROUGH_STEP], packs_per_step=4))
    total = sum(float(reader.batch(0, rank, 4, 0, 1).loss_weights.sum()) for rank in range(4))
    assert np.isclose(total, reader.step(0).num_sequences)
