"""The stage on real files, and the faults of the original packing scripts, each as a test that ours has not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import BuildError
from longalign_data.packing.pack import pack
from longalign_data.packing.reader import open_packs
from longalign_data.records import Pack, PlanEntry
from longalign_data.shards.parquet import iter_records


class CutError(Exception):
    """Power goes off."""


class CutAfter(Silent):
    def __init__(self, packs: int) -> None:
        self.left = packs

    def advance(self, items: int = 0, tokens: int = 0, note: str = "") -> None:
        self.left -= tokens > 0
        if self.left < 0:
            raise CutError


def packs_of(build: Any) -> list[Pack]:
    return list(iter_records(build.shards("packs"), Pack))


def rows_of(build: Any) -> list[tuple[Any, Any]]:
    return list(zip(packs_of(build), iter_records(build.shards("plan"), PlanEntry), strict=True))


def test_every_token_and_weight_of_a_sequence_is_in_its_pack(packing: Any, tmp_path: Path) -> None:
    sequences = {item.sequence_id: item for item in packing.some_sequences(300, 64)}
    build = packing.store(tmp_path, list(sequences.values()))
    report = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=4))
    found = set()
    for row in packs_of(build):
        for at, name in enumerate(row.sequence_ids):
            item = sequences[name]
            start, end = row.cu_seqlens[at : at + 2]
            assert list(row.input_ids[start:end]) == list(item.input_ids)
            weights = np.zeros(item.num_tokens)
            for span in item.target_spans:
                weights[span.start : span.end] = 1 / item.num_targets
            assert np.array_equal(np.array(row.loss_weights[start:end]), weights)
            found.add(name)
    assert found == set(sequences)
    assert (report.num_in, report.num_out, report.num_rejected) == (300, 300, 0)
    assert report.num_tokens == sum(item.num_tokens for item in sequences.values())


def test_the_plan_stands_row_for_row_beside_the_packs_and_tells_true_numbers(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, packing.some_sequences(200, 64))
    packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=4, alpha=0.5))
    steps: dict[int, list[Any]] = {}
    for row, entry in rows_of(build):
        assert row.pack_id == entry.pack_id
        assert entry.position == len(steps.setdefault(entry.step, []))
        steps[entry.step].append((row, entry))
    assert list(steps) == list(range(len(steps)))
    for rows in steps.values():
        works = [row.work for row, _ in rows]
        assert works == sorted(works, reverse=True)
        totals = [
            np.count_nonzero(row.loss_weights[start:end]) ** 0.5
            for row, _ in rows
            for start, end in zip(row.cu_seqlens[:-1], row.cu_seqlens[1:], strict=True)
        ]
        for _, entry in rows:
            assert entry.num_sequences == len(totals)
            assert entry.normalizer == pytest.approx(sum(totals), rel=1e-12)


def test_token_id_0_inside_a_text_ends_nothing(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, [packing.sequence("zeros", [0, 5, 0, 0, 7, 0], [(3, 6)])])
    packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=2))
    (row,) = packs_of(build)
    assert list(row.input_ids) == [0, 5, 0, 0, 7, 0]
    assert np.count_nonzero(row.loss_weights) == 3


def test_a_sequence_of_exactly_the_capacity_is_kept_whole(packing: Any, tmp_path: Path) -> None:
    build = packing.store(
        tmp_path, [packing.sequence("full", range(64), [(60, 64)]), packing.sequence("b", [1, 2], [(1, 2)])]
    )
    packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=2))
    assert [row.num_tokens for row in packs_of(build)] == [64, 2]


@pytest.mark.parametrize("strategy", ["balanced", "random", "sorted", "naive"])
def test_the_last_pack_is_kept_though_it_is_not_full(strategy: str, packing: Any, tmp_path: Path) -> None:
    sequences = [packing.sequence(f"s{number}", range(40), [(39, 40)]) for number in range(9)]
    build = packing.store(tmp_path, sequences)
    report = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=8, strategy=strategy))
    rows = rows_of(build)
    assert len(rows) == 9
    assert sorted(entry.num_sequences for _, entry in rows if entry.position == 0) in ([1, 8], [4, 5])
    assert report.details["num_steps"] == 2


def test_the_first_packs_are_as_long_and_weigh_as_much_as_all_others(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, [packing.sequence(f"s{n}", range(64), [(32, 64)]) for n in range(40)])
    packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=1))
    assert {(row.num_tokens, round(sum(row.loss_weights), 6)) for row in packs_of(build)} == {(64, 1.0)}


def test_sequences_that_fit_no_pack_or_teach_nothing_are_rejects(packing: Any, tmp_path: Path) -> None:
    sequences = [
        packing.sequence("long", range(65), [(64, 65)]),
        packing.sequence("good", range(5), [(4, 5)]),
        packing.sequence("mute", range(5), [(0, 1)]),
    ]
    build = packing.store(tmp_path, sequences)
    report = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=1))
    assert report.rejected == {"no-targets": 1, "over-capacity": 1}
    assert (report.num_in, report.num_out, report.num_rejected) == (3, 1, 2)


def test_no_sequences_make_empty_tables_that_can_be_read(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, [])
    report = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=1))
    assert packs_of(build) == []
    assert report.details["num_packs"] == 0


def test_a_table_that_contradicts_itself_is_refused_by_name(packing: Any, tmp_path: Path) -> None:
    wrong = packing.sequence("wrong", range(9), [(4, 6)])
    object.__setattr__(wrong, "num_targets", 3)
    build = packing.store(tmp_path, [wrong])
    with pytest.raises(BuildError, match=r"'wrong'.*2 targets but num_targets says 3"):
        packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=1))


@pytest.mark.parametrize("strategy", ["balanced", "random"])
def test_a_cut_at_any_pack_gives_the_same_rows_in_the_end(strategy: str, packing: Any, tmp_path: Path) -> None:
    sequences = [*packing.some_sequences(60, 64), packing.sequence("long", range(70), [(64, 65)])]
    loaded = packing.recipe(capacity=64, packs_per_step=3, strategy=strategy)
    whole = packing.store(tmp_path / "whole", sequences)
    report = packing.run_pack(whole, loaded)
    # Small shards, so that some are closed before the cut.
    cut = packing.store(tmp_path / "cut", sequences, shard_bytes=3_000)
    run = RunOptions(shard_bytes=2_000, row_group_bytes=500, workers=2)
    for packs in range(0, report.details["num_packs"], 5):
        with pytest.raises(CutError):
            pack(loaded, cut, fingerprint="packed", run=run, progress=CutAfter(3 + packs % 2))
    again = pack(loaded, cut, fingerprint="packed", run=run, progress=Silent())
    assert rows_of(cut) == rows_of(whole)
    assert len(cut.shards("packs")) > 3
    assert (again.num_in, again.num_out, again.rejected) == (report.num_in, report.num_out, report.rejected)
    assert again.details == report.details
    assert not list(cut.work("pack").glob("*"))


def test_another_seed_or_order_of_sequences_is_another_or_the_same_plan(packing: Any, tmp_path: Path) -> None:
    sequences = packing.some_sequences(80, 64)
    loaded = packing.recipe(capacity=64, packs_per_step=4)
    one = packing.store(tmp_path / "one", sequences)
    packing.run_pack(one, loaded)
    two = packing.store(tmp_path / "two", sequences[::-1])
    packing.run_pack(two, loaded)
    assert rows_of(one) == rows_of(two)
    three = packing.store(tmp_path / "three", sequences)
    packing.run_pack(three, packing.recipe(seed=1, capacity=64, packs_per_step=4))
    assert rows_of(one) != rows_of(three)


def test_packs_lie_in_small_row_groups(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, [packing.sequence(f"s{n}", [n] * 60_000, [(1, 9)]) for n in range(12)])
    packing.run_pack(build, packing.recipe(capacity=60_000, packs_per_step=4))
    (path,) = build.shards("packs")
    with pq.ParquetFile(path) as file:
        assert max(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)) <= 3


def test_the_report_shows_the_figures_of_the_plan(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, packing.some_sequences(500, 64))
    details = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=8)).details
    assert details["lower_bound"] <= details["num_packs"] == 8 * details["num_steps"]
    assert 0.9 < details["fill"] <= 1
    assert details["sequences_per_step"]["mean"] * details["num_steps"] == pytest.approx(500, rel=1e-4)
    assert set(details["effective_weight"]) == {"p1", "p50", "p99"}
    assert [(split["ranks"], split["accumulation"]) for split in details["modelled_idle"]] == [
        (1, 8),
        (2, 4),
        (4, 2),
        (8, 1),
    ]


def test_epochs_are_stored_one_after_the_other_and_count_each_sequence_once(packing: Any, tmp_path: Path) -> None:
    sequences = packing.some_sequences(120, 64)
    build = packing.store(tmp_path, sequences)
    report = packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=4, epochs=2))
    assert (report.num_in, report.num_out) == (120, 120)
    assert report.details["num_epochs"] == 2
    rows = rows_of(build)
    assert [entry.epoch for _, entry in rows] == sorted(entry.epoch for _, entry in rows)
    assert [entry.step for _, entry in rows] == sorted(entry.step for _, entry in rows)
    for epoch in (0, 1):
        names = [name for row, entry in rows if entry.epoch == epoch for name in row.sequence_ids]
        assert sorted(names) == sorted(item.sequence_id for item in sequences)
    ids = [row.pack_id for row, _ in rows]
    assert len(set(ids)) == len(ids)
    first, second = ([row.sequence_ids for row, entry in rows if entry.epoch == epoch] for epoch in (0, 1))
    assert first != second
    once = packing.store(tmp_path / "once", sequences)
    packing.run_pack(once, packing.recipe(capacity=64, packs_per_step=4))
    assert [row for row, entry in rows if entry.epoch == 0] == packs_of(once)


def test_a_step_says_which_capacity_its_packs_have(packing: Any, tmp_path: Path) -> None:
    build = packing.store(tmp_path, packing.some_sequences(200, 64))
    packing.run_pack(build, packing.recipe(capacity=64, smaller_capacities=[16], packs_per_step=4))
    found = {entry.capacity: max(0, row.num_tokens) for row, entry in rows_of(build)}
    assert set(found) == {16, 64}
    assert all(row.num_tokens <= entry.capacity for row, entry in rows_of(build))


def test_nothing_but_packs_per_step_speaks_of_hardware(packing: Any, tmp_path: Path) -> None:
    """The original scripts count the GPUs of the machine that packs, and sum M over so many packs."""
    build = packing.store(tmp_path, packing.some_sequences(60, 64))
    packing.run_pack(build, packing.recipe(capacity=64, packs_per_step=6))
    reader = open_packs(tmp_path)
    for ranks in (1, 2, 3, 6):
        for step in range(reader.num_steps):
            counted = sum(
                batch.num_sequences
                for rank in range(ranks)
                for micro in range(6 // ranks)
                if (batch := reader.batch(step, rank, ranks, micro, 6 // ranks)) is not None
            )
            assert counted == reader.step(step).num_sequences
