"""The measured work model: the fit, and the file that the planner reads."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from longalign_data import yamlfile
from longalign_data.recipe import MeasuredWork, WorkModel
from tests.trainer.builds import write_model_config
from trainer.tools import fit_work_model
from trainer.tools.fit_work_model import Measured, as_yaml, fit, grid, main, of_all_layers, random_pack

pytestmark = pytest.mark.torch


def test_a_cost_that_follows_the_model_is_found_whatever_a_pack_costs_by_itself() -> None:
    packs = grid(4096)
    measured = [Measured(lengths=p, seconds=0.5 + 2e-4 * sum(p) + 3e-7 * sum(n * n for n in p)) for p in packs]
    found = fit(measured, 4096)
    assert found.linear == pytest.approx(2e-4 + 0.5 / 4096)
    assert found.quadratic == pytest.approx(3e-7)
    assert found.deviation < 1e-9
    assert found.seconds((2048, 2048)) == pytest.approx(0.5 + 2e-4 * 4096 + 3e-7 * 2 * 2048**2)


def test_noise_never_makes_a_cost_negative() -> None:
    measured = [Measured(lengths=(n,), seconds=s) for n, s in [(1000, 1.0), (2000, 1.9), (3000, 2.7), (4000, 3.5)]]
    found = fit(measured, 4000)
    assert found.linear > 0
    assert found.quadratic == 0
    assert as_yaml(found).startswith("linear: 1.0")


def test_the_packs_measured_are_of_one_to_many_sequences_and_of_several_sizes() -> None:
    packs = grid(65_536)
    assert (65_536,) in packs
    assert (1024,) * 64 in packs
    assert {sum(pack) for pack in packs} == {65_536 >> i for i in range(8)}


def test_a_random_pack_weighs_its_sequences_alike() -> None:
    pack = random_pack((100, 50, 2), 97, target_share=0.1)
    sums = [float(pack.loss_weights[a:b].sum()) for a, b in [(0, 100), (100, 150), (150, 152)]]
    assert sums == pytest.approx([1.0, 1.0, 1.0])
    assert [int((pack.loss_weights[a:b] > 0).sum()) for a, b in [(0, 100), (100, 150), (150, 152)]] == [10, 5, 1]
    assert pack.loss_weights[[0, 100, 150]].tolist() == [0, 0, 0]


def test_the_planner_reads_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model_config(tmp_path / "model")
    config = tmp_path / "config.yaml"
    config.write_text("engine: torch\ndtype: fp32\nactivation_checkpointing: false\nmax_positions: 2048\n")
    output = tmp_path / "new" / "work.yaml"
    options = ["--model", str(model), "--config", str(config), "--capacity", "2048", "--seconds", "60"]
    assert main([*options, "--output", str(output)]) == 0
    read = yamlfile.load(output, MeasuredWork)
    assert read.seconds is not None
    assert read.seconds * sum(read.cost) > 0
    # A recipe takes the same two numbers.
    assert WorkModel(linear=read.cost[0], quadratic=read.cost[1]).cost == read.cost
    assert "attention sdpa-by-sequence" in output.read_text()
    assert main([*options, "--output", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*options, "--output", str(config / "work.yaml")]) == 2
    assert "config.yaml is a file; a folder was expected" in capsys.readouterr().err


def test_the_seconds_of_the_file_are_those_that_packs_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes as long as the model says."""

    def takes(objective: object, device: object, lengths: Sequence[int], *, target_share: float) -> float:
        return 1e-2 + 2e-4 * sum(lengths) + 3e-7 * sum(n * n for n in lengths)

    monkeypatch.setattr(fit_work_model, "pack_seconds", takes)
    model = write_model_config(tmp_path / "model")
    (tmp_path / "config.yaml").write_text("engine: torch\ndtype: fp32\nmax_positions: 2048\n")
    options = ["--model", str(model), "--config", str(tmp_path / "config.yaml"), "--capacity", "2048"]
    # What is asked of the clock is whether another pack fits into the time; this is time for any number of them.
    assert main([*options, "--seconds", "1000000", "--output", str(tmp_path / "work.yaml")]) == 0
    read = yamlfile.load(tmp_path / "work.yaml", MeasuredWork)
    assert read.seconds is not None
    full = read.seconds * (read.cost[0] * 2048 + read.cost[1] * 2048**2)
    assert full == pytest.approx(1e-2 + 2e-4 * 2048 + 3e-7 * 2048**2, rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--capacity", "4"], "--capacity 4: expected at least 128 tokens"),
        (["--targets", "nan"], "--targets nan: expected a share above 0, of at most 1"),
        (["--targets", "-3"], "--targets -3: expected a share"),
        (["--capacity", "512"], "sequences of up to 512 tokens but the model has 256 positions"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], told: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("engine: torch\ndtype: fp32\n")
    model = write_model_config(tmp_path / "model")
    options = ["--model", str(model), "--config", str(config), "--output", str(tmp_path / "work.yaml"), *wrong]
    assert main(options) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "work.yaml").exists()


def test_a_few_layers_stand_for_all_of_them(tmp_path: Path) -> None:
    """Here that it is told; `benchmarks.gpu.work` says how near it comes."""
    import json

    model = write_model_config(tmp_path / "model")
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 8, "vocab_size": 64}))
    config = tmp_path / "config.yaml"
    config.write_text("engine: torch\ndtype: fp32\nactivation_checkpointing: false\nmax_positions: 2048\n")
    seconds = []
    for layers in ("8", "4"):
        output = tmp_path / f"work-{layers}.yaml"
        options = ["--model", str(model), "--config", str(config), "--capacity", "1024", "--seconds", "4"]
        assert main([*options, "--layers", layers, "--output", str(output)]) == 0
        read = yamlfile.load(output, MeasuredWork)
        assert read.seconds is not None
        seconds.append(read.seconds * (read.cost[0] * 1024 + read.cost[1] * 1024**2))
    assert "measured on 4 and 2 of 8 layers" in (tmp_path / "work-4.yaml").read_text()
    assert all(found > 0 for found in seconds)


def test_what_all_layers_take_follows_from_what_half_as_many_save() -> None:
    assert of_all_layers([10.0, 6.0], [8, 4], 32) == pytest.approx(34.0)  # 2 beside the layers, 1 for each
    assert of_all_layers([10.0], [32], 32) == 10.0
    assert of_all_layers([5.9, 6.0], [8, 4], 32) == 5.9  # noise never makes a layer cheaper than none
