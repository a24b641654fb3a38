"""The gradient of a step, packed and weighted, against LongAlign's Eq. 2 sequence by sequence."""

import itertools

import numpy as np
import pytest

from longalign_data.packing.plan import make_plan
from longalign_data.packing.steps import Shape
from longalign_data.packing.weights import count_targets, loss_weights, sequence_totals

VOCABULARY, WIDTH = 11, 6


class Bigram:
    """Logits of the next token: a row of an embedding times a matrix. The gradient is of the matrix, by hand."""

    def __init__(self) -> None:
        draws = np.random.default_rng(0)
        self.embedding = draws.normal(size=(VOCABULARY, WIDTH))
        self.matrix = draws.normal(size=(WIDTH, VOCABULARY))

    def gradient(self, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of the sum over labels of weight * cross entropy; weight t belongs to label t, logits t - 1."""
        hidden = self.embedding[ids[:-1]]
        logits = hidden @ self.matrix
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(ids) - 1), ids[1:]] -= 1.0
        return hidden.T @ (chances * weights[1:, None])


def sequences() -> list[tuple[np.ndarray, np.ndarray]]:
    """Uneven ones, some with a target on the first token, which no logits predict."""
    draws = np.random.default_rng(4)
    made = []
    for _ in range(61):
        length = int(draws.choice([2, 3, 5, 8, 13, 40, 64]))
        is_target = draws.random(length) < 0.4
        is_target[-1] = True
        made.append((draws.integers(0, VOCABULARY, length), is_target))
    return made


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("strategy", ["balanced", "random", "sorted", "naive"])
@pytest.mark.parametrize(("ranks", "accumulation"), list(itertools.product([1, 2, 3, 4], [1, 2, 3, 4])))
def test_a_packed_step_has_the_gradient_of_its_sequences(
    alpha: float, strategy: str, ranks: int, accumulation: int
) -> None:
    model, data = Bigram(), sequences()
    lengths = np.array([len(ids) for ids, _ in data])
    shape = Shape(capacity=64, packs_per_step=ranks * accumulation, linear=1.0, quadratic=1.0)
    plan = make_plan(strategy, lengths, np.random.default_rng(2).random(len(data)), shape)
    num_targets = np.array([int(is_target[1:].sum()) for _, is_target in data])
    normalizers = plan.step_sums(sequence_totals(num_targets, alpha))
    seen = 0
    for step in range(plan.num_steps):
        first, end = plan.step_starts[step : step + 2]
        of_ranks = np.zeros((ranks, WIDTH, VOCABULARY))
        for rank, micro in itertools.product(range(ranks), range(accumulation)):
            pack = first + micro * ranks + rank
            if pack < end:
                chosen = plan.sequences[plan.pack_starts[pack] : plan.pack_starts[pack + 1]]
                ids = np.concatenate([data[i][0] for i in chosen])
                is_target = np.concatenate([data[i][1] for i in chosen])
                borders = np.concatenate([[0], np.cumsum(lengths[chosen])])
                assert count_targets(is_target, borders).tolist() == num_targets[chosen].tolist()
                of_ranks[rank] += model.gradient(ids, loss_weights(is_target, borders, alpha))
        packed = of_ranks.sum(axis=0) / normalizers[step]

        members = plan.sequences[plan.pack_starts[first] : plan.pack_starts[end]]
        shares = num_targets[members] ** (1.0 - alpha)
        wanted = sum(
            share / shares.sum() * model.gradient(data[i][0], data[i][1] / num_targets[i])
            for i, share in zip(members, shares, strict=True)
        )
        assert np.abs(packed - wanted).max() < 1e-12
        seen += len(members)
    assert seen == len(data)


def test_plain_packing_would_not_pass_this_test() -> None:
    """Eq. 3: the mean over packs of token means. Shown once, so that the tolerance above is known to mean something."""
    model, data = Bigram(), sequences()
    lengths = np.array([len(ids) for ids, _ in data])
    shape = Shape(capacity=64, packs_per_step=100, linear=1.0, quadratic=1.0)
    plan = make_plan("random", lengths, np.random.default_rng(2).random(len(data)), shape)
    gradients = []
    for pack in range(plan.num_packs):
        chosen = plan.sequences[plan.pack_starts[pack] : plan.pack_starts[pack + 1]]
        ids = np.concatenate([data[i][0] for i in chosen])
        is_target = np.concatenate([data[i][1] & (np.arange(lengths[i]) > 0) for i in chosen])
        gradients.append(model.gradient(ids, is_target / is_target.sum()))
    wanted = np.mean([model.gradient(ids, mask / mask[1:].sum()) for ids, mask in data], axis=0)
    assert np.abs(np.mean(gradients, axis=0) - wanted).max() > 1e-3
