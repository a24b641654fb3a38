"""The stage `pack`: sequences in, packs and their plan out.

In: the table `sequences` and the recipe's `pack`. Out: `packs`, in the order of training, and `plan`, row for row beside
it. Lengths and target counts stay in memory (some 100 bytes a sequence); tokens go through one flat scratch file, from
which each pack is gathered, so the memory does not grow with the corpus. Packs come out the same for every way of running.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError
from longalign_data.identity import digest, uniform
from longalign_data.packing.figures import figures
from longalign_data.packing.fill import Ints
from longalign_data.packing.plan import Plan, Shape, make_plan
from longalign_data.packing.weights import count_targets, loss_weights, sequence_totals
from longalign_data.recipe import LoadedRecipe
from longalign_data.records import Pack, PlanEntry, Reject
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.shards.stage import StageReport, StageWriter, require, work_folder

ROW_GROUP_BYTES = 1 << 20
"""At most about two packs of 64k tokens a row group, so that reading one pack at random reads little more than it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Sequences:
    """What is held of all sequences: ids, tokens and targets of each, in stored order."""

    ids: pa.ChunkedArray
    num_tokens: Ints
    num_targets: Ints


def pack(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Writes `packs` and `plan`. Every sequence is in exactly one pack, save those that are rejected: `over-capacity`
    (more tokens than a pack holds) and `no-targets` (nothing to learn from); encode makes neither.

    Raises BuildError when encode is not complete or its table contradicts itself.
    """
    encoded = require(build, "encode")
    choice = loaded.recipe.pack
    shape = Shape(
        capacity=choice.capacity,
        packs_per_step=choice.packs_per_step,
        linear=choice.work.linear,
        quadratic=choice.work.quadratic,
    )
    paths = build.shards("sequences")
    progress.start("pack", encoded.num_out, "sequences")
    sequences = _read_lengths(paths)
    admitted = (sequences.num_tokens <= shape.capacity) & (sequences.num_targets > 0)
    members = np.flatnonzero(admitted)
    lengths, num_targets = sequences.num_tokens[members], sequences.num_targets[members]
    seed = loaded.recipe.seed
    draws = np.fromiter((uniform(seed, "pack", sequences.ids[i].as_py()) for i in members), np.float64, len(members))
    plan = make_plan(choice.strategy, lengths, draws, shape)
    totals = sequence_totals(num_targets, choice.alpha)

    run = dataclasses.replace(run, row_group_bytes=min(run.row_group_bytes, ROW_GROUP_BYTES))
    with StageWriter(build, "pack", fingerprint=fingerprint, run=run) as writer:
        refused = np.flatnonzero(~admitted)
        for index in refused[writer.cursor :]:
            writer.reject(_reject(sequences, int(index), shape.capacity))
            writer.next_input()
        first = writer.cursor - len(refused)
        progress.advance(items=writer.counts.num_in)
        if first < plan.num_packs:
            scratch = work_folder(build, "pack") / "tokens.int32"
            _spill(paths, scratch, expected=int(sequences.num_tokens.sum()))
            tokens = np.memmap(scratch, np.int32, mode="r")
            offsets = np.concatenate(([0], np.cumsum(sequences.num_tokens)))
            for row, entry, num_sequences in _rows(
                plan, first, members, sequences, tokens, offsets, shape, choice.alpha, totals
            ):
                writer.write("packs", row, num_out=num_sequences)
                writer.write("plan", entry)
                writer.next_input(num_in=num_sequences)
                progress.advance(items=num_sequences, tokens=row.num_tokens)
            del tokens
            scratch.unlink()
        details = {
            "strategy": choice.strategy,
            "alpha": choice.alpha,
            "num_targets": int(num_targets.sum()),
            **figures(plan, lengths, totals, shape),
        }
        return writer.finish(details)


def _read_lengths(paths: list[Path]) -> _Sequences:
    ids: list[pa.Array] = []
    tokens: list[Ints] = [np.zeros(0, np.int64)]
    targets: list[Ints] = [np.zeros(0, np.int64)]
    for batch in iter_batches(paths, columns=["sequence_id", "num_tokens", "num_targets"]):
        ids.append(batch.column("sequence_id"))
        tokens.append(batch.column("num_tokens").to_numpy().astype(np.int64))
        targets.append(batch.column("num_targets").to_numpy().astype(np.int64))
    return _Sequences(
        ids=pa.chunked_array(ids, pa.string()).combine_chunks(),
        num_tokens=np.concatenate(tokens),
        num_targets=np.concatenate(targets),
    )


def _reject(sequences: _Sequences, index: int, capacity: int) -> Reject:
    num_tokens = int(sequences.num_tokens[index])
    over = num_tokens > capacity
    return Reject(
        id=sequences.ids[index].as_py(),
        stage="pack",
        reason="over-capacity" if over else "no-targets",
        detail=f"{num_tokens} tokens; a pack holds {capacity}" if over else "no token of it carries loss",
    )


def _spill(paths: list[Path], scratch: Path, *, expected: int) -> None:
    """Writes all tokens end to end as int32; a target is stored as its complement (~id, negative), so that one gathering
    brings both."""
    written = 0
    with scratch.open("wb") as file:
        for batch in iter_batches(paths, columns=["input_ids", "target_spans"]):
            ids, spans = batch.column("input_ids"), batch.column("target_spans")
            flat = ids.flatten().to_numpy().copy()
            lengths = ids.value_lengths().to_numpy()
            base = np.repeat(np.cumsum(lengths) - lengths, spans.value_lengths().to_numpy())
            flat_spans = spans.flatten()
            edges = np.zeros(len(flat) + 1, np.int32)
            np.add.at(edges, base + flat_spans.field("start").to_numpy(), 1)
            np.add.at(edges, base + flat_spans.field("end").to_numpy(), -1)
            is_target = np.cumsum(edges[:-1]) > 0
            np.invert(flat, out=flat, where=is_target)
            flat.tofile(file)
            written += len(flat)
    if written != expected:
        raise BuildError(
            f"{scratch.parent}: the sequences hold {written} tokens but count {expected}; run encode again"
        )


def _rows(
    plan: Plan,
    first: int,
    members: Ints,
    sequences: _Sequences,
    tokens: npt.NDArray[np.int32],
    offsets: Ints,
    shape: Shape,
    alpha: float,
    totals: npt.NDArray[np.float64],
) -> Iterator[tuple[Pack, PlanEntry, int]]:
    """The packs from number `first` on with their places."""
    normalizers = plan.step_sums(totals)
    in_step = np.diff(plan.pack_starts[plan.step_starts])
    for number in range(first, plan.num_packs):
        step = int(np.searchsorted(plan.step_starts, number, side="right")) - 1
        chosen = members[plan.sequences[plan.pack_starts[number] : plan.pack_starts[number + 1]]]
        marked = np.concatenate([tokens[offsets[i] : offsets[i + 1]] for i in chosen])
        is_target = marked < 0
        cu_seqlens = np.concatenate(([0], np.cumsum(sequences.num_tokens[chosen])))
        counted = count_targets(is_target, cu_seqlens)
        wrong = np.flatnonzero(counted != sequences.num_targets[chosen])
        sequence_ids = sequences.ids.take(pa.array(chosen)).to_pylist()
        if len(wrong):
            raise BuildError(
                f"sequence {sequence_ids[wrong[0]]!r}: its target_spans hold {counted[wrong[0]]} targets but num_targets says "
                f"{sequences.num_targets[chosen[wrong[0]]]}; run encode again"
            )
        pack_id = digest({"sequence_ids": sequence_ids, "alpha": alpha})
        row = Pack(
            pack_id=pack_id,
            input_ids=_array(np.where(is_target, ~marked, marked)),
            loss_weights=_array(loss_weights(is_target, cu_seqlens, alpha).astype(np.float32)),
            cu_seqlens=_array(cu_seqlens.astype(np.int32)),
            sequence_ids=sequence_ids,
            num_tokens=len(marked),
            num_sequences=len(chosen),
            num_targets=int(counted.sum()),
            work=float(shape.work(sequences.num_tokens[chosen]).sum()),
        )
        entry = PlanEntry(
            step=step,
            position=number - int(plan.step_starts[step]),
            pack_id=pack_id,
            num_sequences=int(in_step[step]),
            normalizer=float(normalizers[step]),
        )
        yield row, entry, len(chosen)


def _array(values: npt.NDArray[Any]) -> Any:
    # The records speak of sequences; Arrow takes an array of numbers whole, without a Python object for each.
    return cast(Any, values)
