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
from longalign_data.identity import Plain, digest, uniform
from longalign_data.packing.figures import figures
from longalign_data.packing.fill import Floats, Ints
from longalign_data.packing.plan import plan_epochs
from longalign_data.packing.steps import Plan, Shape
from longalign_data.packing.weights import count_targets, loss_weights, sequence_totals, turn_totals
from longalign_data.recipe import LoadedRecipe, PackSequences
from longalign_data.records import Pack, PlanEntry, Reject
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches
from longalign_data.shards.stage import StageReport, StageWriter, require, work_folder

ROW_GROUP_BYTES = 3 << 19
"""At most about two packs of 64k tokens a row group, so that reading one pack at random reads little more than it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """What is held of all sequences, in stored order: id, tokens, targets, and tokens cut out of the document; source s of
    a sequence is `source_names[sources[s]]`; `turn_targets` are the targets of all turns, `turns_of` the turns of each."""

    ids: pa.ChunkedArray
    num_tokens: Ints
    num_targets: Ints
    truncated_tokens: Ints
    sources: Ints
    source_names: list[str]
    turn_targets: Ints
    turns_of: Ints

    def totals(self, choice: PackSequences) -> Floats:
        """What each sequence adds to Z."""
        if choice.unit == "turn":
            totals = turn_totals(self.turn_targets, self.turns_of, choice.alpha)
        else:
            totals = sequence_totals(self.num_targets, choice.alpha)
        return totals * self.multipliers(choice)

    def multipliers(self, choice: PackSequences) -> Floats:
        """u of each sequence, 1 where the recipe gives its source none."""
        by_source = np.asarray([choice.source_weights.get(name, 1.0) for name in self.source_names], np.float64)
        return by_source[self.sources]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan over the sequences that can be packed. `members` are their places among all; the plan, `lengths`,
    `num_targets` and `totals` (what each adds to Z) count in members."""

    plan: Plan
    shape: Shape
    members: Ints
    lengths: Ints
    num_targets: Ints
    totals: Floats

    def figures(self) -> dict[str, object]:
        """The numbers of the plan, see `figures.figures`."""
        return figures(self.plan, self.lengths, self.totals, self.shape)


def pack(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Writes `packs` and `plan`. Every epoch has every sequence in exactly one pack, save those that are rejected:
    `over-capacity` (more tokens than a pack holds) and `no-targets` (nothing to learn from); encode makes neither. The
    packs of one epoch lie behind those of the other, each with its tokens, so that row n of the one table is always row n
    of the other and reading goes straight on.

    Raises BuildError when encode is not complete or its table contradicts itself.
    """
    encoded = require(build, "encode")
    choice = loaded.recipe.pack
    paths = build.shards("sequences")
    progress.start("pack", encoded.num_out * choice.epochs, "sequences")
    sequences = read_sequences(paths)
    planned = plan_sequences(sequences, choice, loaded.recipe.seed)
    refused = np.setdiff1d(np.arange(len(sequences.num_tokens)), planned.members)

    run = dataclasses.replace(run, row_group_bytes=min(run.row_group_bytes, ROW_GROUP_BYTES))
    with StageWriter(build, "pack", fingerprint=fingerprint, run=run) as writer:
        for index in refused[writer.cursor :]:
            writer.reject(_reject(sequences, int(index), choice.capacity))
            writer.next_input()
        first = writer.cursor - len(refused)
        progress.advance(items=writer.counts.num_in)
        if first < planned.plan.num_packs:
            scratch = work_folder(build, "pack") / "tokens.int32"
            _spill(paths, scratch, expected=int(sequences.num_tokens.sum()))
            tokens = np.memmap(scratch, np.int32, mode="r")
            for row, entry in _rows(planned, first, sequences, tokens, choice):
                # A sequence comes in and goes out once, however many epochs hold it.
                counted = 0 if entry.epoch else row.num_sequences
                writer.write("packs", row, num_out=counted)
                writer.write("plan", entry)
                writer.next_input(num_in=counted)
                progress.advance(items=row.num_sequences, tokens=row.num_tokens)
            del tokens
            scratch.unlink()
        details = {
            "strategy": choice.strategy,
            "alpha": choice.alpha,
            "unit": choice.unit,
            "source_weights": choice.source_weights,
            "num_targets": int(planned.num_targets.sum()),
            "tokens_cut": int(sequences.truncated_tokens[planned.members].sum()),
            **planned.figures(),
        }
        return writer.finish(details)


def read_sequences(paths: list[Path]) -> Sequences:
    """Everything but the tokens of the table `sequences`."""
    names = ["num_tokens", "num_targets", "truncated_tokens"]
    ids: list[pa.Array] = []
    numbers: dict[str, list[Ints]] = {name: [np.zeros(0, np.int64)] for name in names}
    for batch in iter_batches(paths, columns=["sequence_id", *names]):
        ids.append(batch.column("sequence_id"))
        for name in names:
            numbers[name].append(batch.column(name).to_numpy().astype(np.int64))
    columns = {name: np.concatenate(parts) for name, parts in numbers.items()}
    names_of, codes, turn_targets, turns_of = _read_labels(paths)
    return Sequences(
        ids=pa.chunked_array(ids, pa.string()).combine_chunks(),
        sources=codes,
        source_names=names_of,
        turn_targets=turn_targets,
        turns_of=turns_of,
        **columns,
    )


def _read_labels(paths: list[Path]) -> tuple[list[str], Ints, Ints, Ints]:
    """The names of the sources, the source of each sequence, the targets of all turns, the turns of each sequence."""
    names: dict[str, int] = {}
    codes, targets, turns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in iter_batches(paths, columns=["source", "target_spans"]):
        encoded = batch.column("source").dictionary_encode()
        numbers = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
        codes.append(np.asarray(numbers, np.int64)[encoded.indices.to_numpy()])
        spans = batch.column("target_spans")
        flat = spans.flatten()
        starts, ends = (flat.field(name).to_numpy().astype(np.int64) for name in ("start", "end"))
        targets.append(ends - np.maximum(starts, 1))
        turns.append(spans.value_lengths().to_numpy().astype(np.int64))
    return list(names), np.concatenate(codes), np.concatenate(targets), np.concatenate(turns)


def shape_of(choice: PackSequences) -> Shape:
    """What a step of `choice` may hold."""
    linear, quadratic = choice.work.cost
    return Shape(
        capacity=choice.capacity,
        packs_per_step=choice.packs_per_step,
        linear=linear,
        quadratic=quadratic,
        max_sequences=choice.max_sequences,
        smaller_capacities=tuple(choice.smaller_capacities),
    )


def plan_sequences(sequences: Sequences, choice: PackSequences, seed: int) -> Planned:
    """The plan that `choice` makes of those sequences that it can pack."""
    shape = shape_of(choice)
    members = np.flatnonzero((sequences.num_tokens <= shape.capacity) & (sequences.num_targets > 0))
    lengths, num_targets = sequences.num_tokens[members], sequences.num_targets[members]
    names: list[str] = sequences.ids.take(pa.array(members)).to_pylist()
    purposes = ["pack", *(f"pack epoch {epoch}" for epoch in range(1, choice.epochs))]
    draws = [
        np.fromiter((uniform(seed, purpose, name) for name in names), np.float64, len(names)) for purpose in purposes
    ]
    return Planned(
        plan=plan_epochs(choice.strategy, lengths, draws, shape),
        shape=shape,
        members=members,
        lengths=lengths,
        num_targets=num_targets,
        totals=sequences.totals(choice)[members],
    )


def _reject(sequences: Sequences, index: int, capacity: int) -> Reject:
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
    planned: Planned, first: int, sequences: Sequences, tokens: npt.NDArray[np.int32], choice: PackSequences
) -> Iterator[tuple[Pack, PlanEntry]]:
    """The packs from number `first` on with their places."""
    plan, shape = planned.plan, planned.shape
    offsets = np.concatenate(([0], np.cumsum(sequences.num_tokens)))
    normalizers = plan.step_sums(planned.totals)
    in_step = plan.sequences_in_steps()
    multipliers = sequences.multipliers(choice)
    weighing: dict[str, Plain] = {"alpha": choice.alpha}
    if choice.unit != "sequence" or choice.source_weights:
        weighing |= {"unit": choice.unit, "source_weights": choice.source_weights}
    for number in range(first, plan.num_packs):
        step = int(np.searchsorted(plan.step_starts, number, side="right")) - 1
        chosen = planned.members[plan.sequences[plan.pack_starts[number] : plan.pack_starts[number + 1]]]
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
        epoch = int(plan.step_epoch[step])
        # A long sequence is a pack by itself in every epoch; its packs are told apart.
        pack_id = digest({"sequence_ids": sequence_ids} | weighing | ({"epoch": epoch} if epoch else {}))
        weights = loss_weights(is_target, cu_seqlens, choice.alpha, unit=choice.unit, multipliers=multipliers[chosen])
        row = Pack(
            pack_id=pack_id,
            input_ids=_array(np.where(is_target, ~marked, marked)),
            loss_weights=_array(weights),
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
            epoch=epoch,
            capacity=int(plan.step_capacity[step]),
        )
        yield row, entry


def _array(values: npt.NDArray[Any]) -> Any:
    # The records speak of sequences; Arrow takes an array of numbers whole, without a Python object for each.
    return cast(Any, values)
