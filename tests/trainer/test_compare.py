"""The comparison of batch methods: the same sequences, packed again, trained and put beside each other."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longalign_data.errors import LongAlignError
from longalign_data.packing.again import pack_again, take_apart
from longalign_data.packing.reader import PackReader, open_packs
from tests.trainer.builds import write_build, write_model_config
from trainer.tools import compare
from trainer.tools.compare import METHODS, deal, main, replan, replay, split, summary, works

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
LONG, SHORT = (60, 5), (12, 6)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of four packs: one long sequence or five short ones."""
    root = tmp_path_factory.mktemp("compare")
    write_build(root / "build", [[[LONG], [SHORT] * 5, [LONG], [SHORT] * 5]] * 4, packs_per_step=4)
    write_model_config(root / "model")
    return root


def sequences_of(reader: PackReader) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    loose = take_apart(reader, range(reader.num_steps))
    pairs = zip(loose.input_ids, loose.loss_weights, strict=True)
    values = [(tuple(ids.tolist()), tuple(weights.tolist())) for ids, weights in pairs]
    return dict(zip(loose.sequence_ids, values, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_packs_the_same_tokens_with_the_same_weights_and_its_own_divisor(
    place: Path, tmp_path: Path, name: str
) -> None:
    reader = open_packs(place / "build")
    loose = take_apart(reader, range(reader.num_steps))
    replan(METHODS[name], reader, loose, tmp_path, num_steps=4, ranks=2)
    again = open_packs(tmp_path)
    ours, theirs = sequences_of(again), sequences_of(reader)
    assert again.num_steps == 4
    assert {key: ids for key, (ids, _) in ours.items()} == {key: ids for key, (ids, _) in theirs.items()}
    assert sum(again.step(s).num_sequences for s in range(4)) == 48
    if name != "unweighted":
        assert ours == theirs
        assert [again.step(s).normalizer for s in range(4)] == [
            pytest.approx(again.step(s).num_sequences) for s in range(4)
        ]
    if METHODS[name].packed:
        assert again.packs_per_step == 4
    else:
        assert (again.packs_per_step, again.step(0).num_packs) == (12, 12)
        assert again.batch(0, 0, 12, 0, 1).num_sequences == 1


def test_unweighted_packs_count_the_same_whatever_they_hold(place: Path, tmp_path: Path) -> None:
    """Eq. 3: each pack is the mean over its targets, the step the mean over its packs."""
    reader = open_packs(place / "build")
    loose = take_apart(reader, range(4))
    pack_again(loose, tmp_path, strategy="random", capacity=64, packs_per_step=4, pack_means=True)
    again = open_packs(tmp_path)
    for step in range(again.num_steps):
        info = again.step(step)
        assert info.normalizer == info.num_packs
        for position in range(info.num_packs):
            weights = again.batch(step, position, 4, 0, 1).loss_weights
            assert float(weights.sum()) == pytest.approx(1.0)
            assert len(set(weights[weights > 0].tolist())) == 1


def test_held_out_sequences_are_of_every_length_and_not_trained_on(place: Path) -> None:
    train, held_out = split(open_packs(place / "build"), 4, held_out=6)
    assert sorted([*train.sequence_ids, *held_out.sequence_ids]) == sorted(sequences_of(open_packs(place / "build")))
    assert sorted(held_out.lengths.tolist()) == [12, 12, 12, 12, 12, 60]


def test_a_replayed_step_lasts_as_long_as_the_slowest_pack_of_each_micro_batch() -> None:
    step = {"step": 0, "pack_seconds": [[4.0], [1.0], [2.0], [2.0]], "seconds": 10.0, "num_tokens": 100}
    step |= {"num_packs": 4, "loss": 1.0}
    dealt = deal(np.ravel(step["pack_seconds"]), 2)
    assert dealt.tolist() == [[4.0, 1.0], [2.0, 2.0]]
    assert replay(step, dealt) == 4 + 2 + (10 - 9)
    row = summary("x", [step, step | {"step": 1}], [[3.0, 1.0, 1.0, 1.0]], held_out_loss=0.5, ranks=2, readers=2)
    assert (row.step_seconds, row.seconds, row.tokens_per_second) == (7.0, 14.0, 100 / 7)
    assert (row.idle, row.modelled_idle) == (pytest.approx(1 - 9 / 12), pytest.approx(1 - 6 / 8))
    as_run = summary("x", [step], [[1.0]], held_out_loss=0.5, ranks=1, readers=1)
    assert (as_run.seconds, as_run.idle) == (10.0, 0.0)


def test_in_several_processes_steps_last_as_long_as_they_did_and_those_that_are_timed_give_the_idle() -> None:
    step = {"seconds": 2.0, "num_tokens": 100, "num_packs": 2, "loss": 1.0}
    steps = [step | {"step": 0, "seconds": 3.0}, step | {"step": 1, "pack_seconds": [[3.0, 1.0]], "seconds": 4.0}]
    row = summary("x", [*steps, step | {"step": 2}], [[1.0, 1.0]], held_out_loss=0.5, ranks=2, readers=2)
    assert (row.step_seconds, row.seconds, row.idle) == (3.0, 9.0, pytest.approx(1 - 4 / 6))


def test_ranks_that_share_packs_are_one_to_the_model_of_idle() -> None:
    """Two ranks share every pack, so nobody waits for a longer one, whatever is measured within a pack."""
    step = {"step": 0, "seconds": 9.0, "num_tokens": 100, "num_packs": 2, "loss": 1.0}
    step |= {"pack_seconds": [[4.0, 4.0], [1.0, 1.0]]}
    row = summary("x", [step], [[4.0, 1.0]], held_out_loss=0.5, ranks=2, readers=1)
    assert (row.idle, row.modelled_idle) == (0.0, 0.0)


@pytest.mark.parametrize("order", [[1000, 100, 100], [100, 100, 1000]])
def test_a_methods_time_does_not_depend_on_the_lengths_that_its_first_step_drew(order: list[int]) -> None:
    """A second a step and a millisecond a token, as where an optimizer costs what it costs."""
    step = {"num_packs": 1, "loss": 1.0}
    of_tokens = [{"num_tokens": n, "seconds": 1 + n / 1000, "pack_seconds": [[n / 1000]]} for n in order]
    steps = [step | times | {"step": number} for number, times in enumerate(of_tokens)]
    row = summary("sorted", steps, [[1.0]] * 3, held_out_loss=0.5, ranks=1, readers=1)
    assert row.seconds == pytest.approx(4.2)
    assert row.tokens_per_second == pytest.approx(1200 / 4.2)


def test_the_modelled_work_of_a_plan_stands_in_its_order(place: Path, tmp_path: Path) -> None:
    reader = open_packs(place / "build")
    replan(METHODS["naive"], reader, take_apart(reader, [0]), tmp_path, num_steps=1, ranks=1)
    [of_step] = works(open_packs(tmp_path))
    assert of_step == sorted(of_step, reverse=True)
    assert of_step[0] == 24576 * 60 + 60**2


def test_one_command_trains_every_method_on_the_same_data(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--build", str(place / "build"), "--model", str(place / "model"), "--random-init", "--steps", "4"]
    output = tmp_path / "out"
    config = tmp_path / "config.yaml"
    config.write_text("engine: torch\ndtype: fp32\nlearning_rate: 1e-2\nactivation_checkpointing: false\n")
    options += ["--held-out", "4", "--replay-ranks", "4", "--config", str(config), "--output", str(output)]
    assert main([*options, "--methods", "balanced", "naive"]) == 0
    balanced, naive = json.loads((output / "compare.json").read_text())
    assert (balanced["num_steps"], naive["num_steps"]) == (4, 4)
    assert (balanced["num_packs"], naive["num_packs"]) == (16, 44)
    assert balanced["modelled_idle"] < naive["modelled_idle"]
    for row in (balanced, naive):
        assert 0 < row["idle"] < 1
        assert row["held_out_loss"] < 4.5  # log of the vocabulary is 4.57
    told = capfd.readouterr().out
    assert [line.split()[0] for line in told.splitlines()] == ["method", "balanced", "naive"]
    assert sorted(path.name for path in output.rglob("*") if path.is_file()) == sorted(
        ["asked.json", "compare.json", "config.yaml", *["metrics.jsonl", "run.json"] * 2]
    )


def test_a_method_that_fails_loses_no_row_and_the_rest_is_done_when_asked_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is stood in for: one method is killed, as a machine that goes down would kill it."""
    trained = []

    def train_on(build: Path, output: Path, config: Path, asked: argparse.Namespace) -> None:
        trained.append(output.name)
        (output / "model").mkdir(parents=True)
        if trained == ["balanced", "random"]:
            raise LongAlignError("random: training ended with exit code 1")
        step = {"num_packs": 1, "num_tokens": 10, "seconds": 1.0, "loss": 2.0, "pack_seconds": [[1.0]]}
        steps = [step | {"step": number} for number in range(open_packs(build).num_steps)]
        (output / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))

    monkeypatch.setattr(compare, "train_on", train_on)
    monkeypatch.setattr(compare, "held_out_loss", lambda *arguments: 2.5)
    output = tmp_path / "out"
    options = [
        "--build",
        str(place / "build"),
        "--model",
        str(place / "model"),
        "--random-init",
        "--output",
        str(output),
    ]
    options += ["--methods", "balanced", "random", "naive"]
    assert main(options) == 1
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == ["method", "balanced"]
    assert "random: training ended" in told.err
    assert [row["method"] for row in json.loads((output / "compare.json").read_text())] == ["balanced"]
    assert main([*options, "--resume", "--steps", "3"]) == 2
    assert "compared with another steps (see asked.json" in capsys.readouterr().err
    assert main([*options, "--resume"]) == 0
    assert trained == ["balanced", "random", "random", "naive"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "method",
        "balanced",
        "random",
        "naive",
    ]
    assert (
        sorted(path.name for path in output.rglob("*") if path.name in ("model", "metrics.jsonl"))
        == ["metrics.jsonl"] * 3
    )
    (output / "asked.json").unlink()
    assert main([*options, "--resume"]) == 2
    assert "no comparison to go on with" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--build", str(place / "build"), "--model", str(place / "model"), "--output", str(tmp_path / "out")]
    assert main(options) == 2
    assert "holds no weights; add --random-init" in capsys.readouterr().err
    options.append("--random-init")
    assert main([*options, "--steps", "1", "--held-out", "8"]) == 2
    assert "the first 1 steps have 12 sequences, too few to hold out 8" in capsys.readouterr().err
    assert main([*options, "--ranks", "2", "--replay-ranks", "2"]) == 2
    (tmp_path / "out").mkdir()
    assert main(options) == 2
    assert "exists already; give another --output" in capsys.readouterr().err


def test_ranks_that_cannot_share_packs_are_refused_before_anything_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("engine: torch\ndtype: fp32\nsequence_parallel: 2\n")
    options = ["--build", str(place / "build"), "--model", str(place / "model"), "--random-init", "--steps", "4"]
    options += ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out"), "--ranks", "3"]
    assert main(options) == 2
    assert "sequence_parallel: 2: does not divide --ranks 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--ranks", "--replay-ranks"])
def test_ranks_that_a_steps_packs_cannot_be_dealt_to_are_refused_before_anything_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    options = ["--build", str(place / "build"), "--model", str(place / "model"), "--random-init", "--steps", "4"]
    options += ["--output", str(tmp_path / "out"), option, "8"]
    assert main([*options, "--methods", "naive", "balanced"]) == 2
    assert "a step has 4 packs, but 8 ranks x 1 accumulation steps take 8; splits that fit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["trainer.compare", "trainer.fit_work_model", "trainer.tools.gradients"])
def test_every_command_tells_what_it_does_under_its_name(command: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith(f"usage: python -m {command} ")
    assert "--model" in told.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", command, "--nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
