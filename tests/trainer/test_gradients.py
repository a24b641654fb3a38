"""Who pulls at the weights: gradients by length, with loss weights and without."""

import json
from pathlib import Path

import pytest
import torch

from longalign_data.packing.reader import open_packs
from tests.trainer.builds import tiny_llama, write_build, write_model_config
from trainer import attention
from trainer.batch import micro_batch
from trainer.objective import Objective
from trainer.tools.gradients import main, shares

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LONG, SHORT = (1100, 4), (40, 20)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step: a long sequence with a short answer beside one short sequence, and a pack of ten short ones."""
    return write_build(tmp_path_factory.mktemp("gradients"), [[[LONG, SHORT], [SHORT] * 10]], packs_per_step=2)


def objective() -> Objective:
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    return Objective(tiny_llama(registered, max_position_embeddings=2048), chunk_rows=64)


def test_shares_of_the_loss_are_those_of_eq_2_and_eq_3(build: Path) -> None:
    short, long = shares(objective(), open_packs(build), 0, CPU)
    assert (short.length, short.num_sequences) == ("0k to 1k", 11)
    assert (long.length, long.num_sequences) == ("1k to 2k", 1)
    # Eq. 2: each of twelve sequences alike. Eq. 3: 4 of the 24 targets of one of two packs.
    assert long.weighted_loss == pytest.approx(1 / 12)
    assert long.unweighted_loss == pytest.approx(4 / 24 / 2)
    assert short.weighted_gradient + long.weighted_gradient == pytest.approx(1)
    assert short.unweighted_gradient + long.unweighted_gradient == pytest.approx(1)


def test_a_buckets_gradient_is_that_of_its_sequences_in_the_step(build: Path) -> None:
    reader, model = open_packs(build), objective()
    rows = shares(model, reader, 0, CPU)
    norms = []
    for wanted in (0, 1):
        model.zero_grad()
        for position in range(2):
            batch = micro_batch(reader.batch(0, position, 2, 0, 1), CPU, 97)
            lengths = batch.cu_seqlens.diff()[batch.sequences]
            batch.weights[(lengths >= 1024) != bool(wanted)] = 0
            model(batch).backward()
        norms.append(sum(float(p.grad.double().square().sum()) for p in model.parameters()) ** 0.5)
    assert [row.weighted_gradient for row in rows] == pytest.approx([n / sum(norms) for n in norms], rel=1e-4)


def test_the_command_tells_the_shares_and_stores_them(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model_config(tmp_path / "model")
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 2048}))
    options = ["--build", str(build), "--model", str(model), "--random-init"]
    assert main([*options, "--output", str(tmp_path / "shares.json")]) == 0
    assert [row["num_sequences"] for row in json.loads((tmp_path / "shares.json").read_text())] == [11, 1]
    assert "1k to 2k" in capsys.readouterr().out
    assert main([*options, "--output", str(tmp_path / "new" / "shares.json")]) == 0
    assert (tmp_path / "new" / "shares.json").read_bytes() == (tmp_path / "shares.json").read_bytes()
    capsys.readouterr()
    for output, told in (("shares.json", "exists already"), ("shares.json/x.json", "is a file; a folder was expected")):
        assert main([*options, "--output", str(tmp_path / output)]) == 2
        assert told in capsys.readouterr().err
    assert main([*options, "--step", "1"]) == 2
    assert "--step 1: the plan has steps 0 to 0" in capsys.readouterr().err
