"""The gradient of a step on real ranks, over engines and layouts, against LongAlign's Eq. 2 sequence by sequence.

LONGALIGN_EXACTNESS=1 (`make exactness`) runs the whole grid; otherwise a part of it that has every value at least once.
"""

import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from longalign_data.packing.reader import open_packs
from tests.exactness import ranks
from tests.exactness.ranks import Case
from tests.exactness.reference import distance, unpacked_gradient
from tests.trainer.builds import tiny_llama, write_build

pytestmark = [pytest.mark.torch, pytest.mark.timeout(3600)]

STAGES = [(-1, ""), (0, ""), (1, ""), (2, ""), (3, ""), (2, "optimizer"), (3, "parameters")]
ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-5}
# Lengths and targets of uneven packs; one without targets, one that is a single sequence, one that fills the window.
PACKS = [
    [(30, 7), (20, 3)],
    [(50, 49)],
    [(10, 0), (12, 11), (20, 1)],
    [(33, 5)],
    [(9, 3), (3, 1), (2, 1), (40, 39)],
    [(64, 6)],
    [(7, 0)],
    [(5, 2), (6, 5)],
]


def whole_grid() -> list[Case]:
    layouts = itertools.product(STAGES, [1, 2, 4], [1, 2], [1, 2, 3, 4], [1.0, 0.5, 0.0])
    return [
        Case(stage=stage, offload=offload, readers=readers, parts=parts, accumulation=accumulation, alpha=alpha)
        for (stage, offload), readers, parts, accumulation, alpha in layouts
    ]


def some_of_the_grid() -> list[Case]:
    """Every layout without DeepSpeed, every kind of ZeRO on two readers and on two ranks that share their packs; both at once on
    four ranks. K = 4 in most, so that the same packs meet many layouts."""
    layouts = [(1, 1, 4), (2, 1, 2), (1, 2, 4), (2, 2, 2), (4, 1, 1), (2, 1, 3)]
    chosen = [(stage, layout, 1.0) for stage in STAGES for layout in layouts if stage[0] < 0 or layout in layouts[1:3]]
    chosen += [(stage, (2, 1, 2), alpha) for stage in ((-1, ""), (3, "")) for alpha in (0.5, 0.0)]
    chosen += [((3, ""), (2, 2, 2), 1.0), ((1, ""), (2, 2, 2), 1.0)]
    return [
        Case(stage=stage, offload=offload, readers=readers, parts=parts, accumulation=accumulation, alpha=alpha)
        for (stage, offload), (readers, parts, accumulation), alpha in chosen
    ]


WHOLE = bool(os.environ.get("LONGALIGN_EXACTNESS"))
GRID = whole_grid() if WHOLE else some_of_the_grid()
FAULTY = [
    Case(stage=-1, readers=2, parts=1, accumulation=2, alpha=1.0, fault="mean of means"),
    Case(stage=-1, readers=2, parts=1, accumulation=2, alpha=1.0, fault="M of the micro-batch"),
    Case(stage=-1, readers=4, parts=1, accumulation=1, alpha=1.0, fault="device_count"),
    Case(stage=3, readers=2, parts=1, accumulation=2, alpha=1.0, fault="divided by accumulation"),
    Case(stage=3, readers=1, parts=2, accumulation=4, alpha=1.0, fault="the P factor"),
    Case(stage=1, readers=1, parts=2, accumulation=4, alpha=1.0, fault="the P factor"),
]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds of two steps for every K and alpha, the second short of a pack, and the gradients that Eq. 2 gives."""
    root = tmp_path_factory.mktemp("exactness")
    for case in {case.build: case for case in [*GRID, *FAULTY]}.values():
        k = case.readers * case.accumulation
        steps = [[PACKS[(place + step) % len(PACKS)] for place in range(max(1, k - step))] for step in range(2)]
        write_build(root / case.build, steps, packs_per_step=k, alpha=case.alpha)
        reader = open_packs(root / case.build)
        torch.save(
            [unpacked_gradient(reader, step=step, alpha=case.alpha) for step in range(2)], root / f"{case.build}.pt"
        )
    return root


@pytest.fixture(scope="session")
def measured(place: Path) -> dict[Case, dict[str, float]]:
    by_ranks = defaultdict(list)
    for case in [*GRID, *FAULTY]:
        by_ranks[case.ranks].append(case)
    found: dict[Case, dict[str, float]] = {}
    for cases in by_ranks.values():
        found |= zip(cases, ranks.run(cases, place), strict=True)
    return found


def test_every_layout_has_the_gradient_of_the_mean_over_sequences(measured: dict[Case, dict[str, float]]) -> None:
    far = {case: found for case in GRID if max((found := measured[case]).values()) > ALLOWED[case.dtype]}
    assert not far
    assert all(len(measured[case]) == 2 for case in GRID)


def test_the_same_packs_on_other_ranks_make_the_same_update(
    measured: dict[Case, dict[str, float]], place: Path
) -> None:
    by_build = defaultdict(list)
    for case in GRID:
        by_build[case.build].append(case)
    for cases in by_build.values():
        first = torch.load(ranks.updated(cases[0], place))
        before = {n: p.detach() for n, p in tiny_llama("sdpa", cases[0].dtype).named_parameters()}
        assert distance(first, before) > 1e-3
        for case in cases[1:]:
            assert distance(torch.load(ranks.updated(case, place)), first) <= 1e-5, case


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: f"{case.fault} at {case.stage}")
def test_each_known_fault_is_far_from_it(case: Case, measured: dict[Case, dict[str, float]]) -> None:
    assert measured[case]["step 0"] > 0.05


@pytest.mark.skipif(
    not WHOLE or shutil.which("g++") is None or shutil.which("ninja") is None,
    reason="compiles DeepSpeed's Adam for a minute; needs g++ and ninja; run: make exactness",
)
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeeds_own_adam_on_the_cpu_makes_the_update_of_torchs(stage: int, place: Path) -> None:
    """The one that a run with `offload_optimizer` takes; the grid uses torch's in its place."""
    torchs, own = (
        Case(stage=stage, offload=offload, readers=2, parts=1, accumulation=2, alpha=1.0)
        for offload in ("optimizer", "deepspeed's adam")
    )
    for found in ranks.run([torchs, own], place):
        assert max(found.values()) <= ALLOWED[own.dtype]
    updates = [torch.load(ranks.updated(case, place)) for case in (own, torchs)]
    assert distance(*updates) <= 1e-5
