"""The sequences of some steps, packed again in another way: no tokenizer, no recipe, nothing encoded anew.

In: an open reader. Out: folders with tables packs/ and plan/ that `open_packs` reads. Loss weights are unscaled, so they are
the same in any pack; Z is summed anew for every step. This is how batch methods are compared on the same data.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_data.identity import uniform
from longalign_data.packing.fill import Floats, Ints
from longalign_data.packing.plan import make_plan
from longalign_data.packing.reader import PackReader
from longalign_data.packing.steps import Plan, Shape
from longalign_data.recipe import WorkModel
from longalign_data.records import PACKS, PLAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """Sequences out of their packs: ids, and for each its tokens and the loss weights of these as labels."""

    sequence_ids: list[str]
    input_ids: list[npt.NDArray[np.int32]]
    loss_weights: list[npt.NDArray[np.float64]]

    @property
    def lengths(self) -> Ints:
        """In tokens."""
        return np.array([len(ids) for ids in self.input_ids], np.int64)

    def some(self, chosen: Iterable[int]) -> "Loose":
        """Those at these places."""
        places = list(chosen)
        return Loose(
            sequence_ids=[self.sequence_ids[i] for i in places],
            input_ids=[self.input_ids[i] for i in places],
            loss_weights=[self.loss_weights[i] for i in places],
        )

    def without_every(self, distance: int) -> "tuple[Loose, Loose]":
        """All but every so manieth by length, and these: of both, lengths are spread as in the whole."""
        order = np.argsort(self.lengths, kind="stable")
        apart = set(order[distance // 2 :: distance].tolist())
        places = range(len(self.sequence_ids))
        return self.some(i for i in places if i not in apart), self.some(sorted(apart))


def take_apart(reader: PackReader, steps: Iterable[int]) -> Loose:
    """The sequences of these steps, each once."""
    table = reader.columns("packs", ["pack_id", "sequence_ids"])
    assert table is not None
    names = dict(zip(table.column("pack_id").to_pylist(), table.column("sequence_ids").to_pylist(), strict=True))
    found: dict[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]] = {}
    k = reader.packs_per_step
    for step in steps:
        for position in range(reader.step(step).num_packs):
            pack = reader.batch(step, position, k, 0, 1)
            assert pack is not None
            borders = pack.cu_seqlens.tolist()
            for name, start, end in zip(names[pack.pack_id], borders[:-1], borders[1:], strict=True):
                found[name] = pack.input_ids[start:end].astype(np.int32), pack.loss_weights[start:end]
    return Loose(
        sequence_ids=list(found),
        input_ids=[ids for ids, _ in found.values()],
        loss_weights=[weights for _, weights in found.values()],
    )


def pack_again(
    loose: Loose,
    folder: Path,
    *,
    strategy: str,
    capacity: int,
    packs_per_step: int,
    work: dict[str, float] | None = None,
    seed: int = 0,
    pack_means: bool = False,
) -> None:
    """Plans `loose` by a strategy of `plan.STRATEGIES` and writes packs, plan and what the reader must be told.

    With `pack_means` a step's loss is the mean over its packs of the mean over a pack's targets, as plain packing trains
    (LongAlign, Eq. 3): a target weighs 1 / (targets of its pack), and Z is the number of packs."""
    linear, quadratic = WorkModel.model_validate(work or {}).cost
    shape = Shape(capacity=capacity, packs_per_step=packs_per_step, linear=linear, quadratic=quadratic)
    draws = np.array([uniform(seed, "pack", name) for name in loose.sequence_ids])
    plan = make_plan(strategy, loose.lengths, draws, shape)
    packs, entries = [], []
    normalizers = _normalizers(plan, loose, pack_means=pack_means)
    for number in range(plan.num_packs):
        step = int(np.searchsorted(plan.step_starts, number, side="right")) - 1
        chosen = plan.sequences[plan.pack_starts[number] : plan.pack_starts[number + 1]].tolist()
        weights = np.concatenate([loose.loss_weights[i] for i in chosen])
        num_targets = int(np.count_nonzero(weights))
        if pack_means:
            weights = np.where(weights > 0, 1.0 / max(num_targets, 1), 0.0)
        lengths = loose.lengths[chosen]
        packs.append(
            {
                "pack_id": f"{strategy}-{number}",
                "input_ids": np.concatenate([loose.input_ids[i] for i in chosen]),
                "loss_weights": weights,
                "cu_seqlens": np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
                "sequence_ids": [loose.sequence_ids[i] for i in chosen],
                "num_tokens": int(lengths.sum()),
                "num_sequences": len(chosen),
                "num_targets": num_targets,
                "work": float(shape.work(lengths).sum()),
            }
        )
        entries.append(
            {
                "step": step,
                "position": number - int(plan.step_starts[step]),
                "pack_id": f"{strategy}-{number}",
                "num_sequences": int(plan.sequences_in_steps()[step]),
                "normalizer": float(normalizers[step]),
                "epoch": 0,
                "capacity": capacity,
            }
        )
    declared = {
        "stage": "pack",
        "details": {
            "packs_per_step": packs_per_step,
            "capacity": capacity,
            "work": {"linear": linear, "quadratic": quadratic},
        },
    }
    for name in ("packs", "plan", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "state" / "pack.json").write_text(json.dumps(declared), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(packs, PACKS), folder / "packs" / "00000.parquet", row_group_size=2)
    pq.write_table(pa.Table.from_pylist(entries, PLAN), folder / "plan" / "00000.parquet")


def _normalizers(plan: Plan, loose: Loose, *, pack_means: bool) -> Floats | Ints:
    if pack_means:
        return plan.packs_in_steps()
    return plan.step_sums(np.array([weights.sum(dtype=np.float64) for weights in loose.loss_weights]))
