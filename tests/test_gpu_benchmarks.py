"""The GPU benchmarks, in tiny sizes on whatever there is: their code must run where no GPU is lent."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.gpu import attention, common, methods, offload, step, work
from benchmarks.gpu.common import Place, paper_mix, run
from longalign_data.errors import UserError
from tests.trainer.processes import finish, start
from trainer.attention import BACKENDS, sdpa_by_sequence
from trainer.config import TrainConfig

pytestmark = pytest.mark.torch

TINY = Place(device=torch.device("cpu"), tiny=True)


@pytest.mark.parametrize("module", [attention, step, work, methods], ids=lambda module: module.__name__)
def test_a_benchmark_runs_in_tiny_sizes_and_finds_nothing_wrong(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    name = module.__name__.rsplit(".", 1)[-1]
    assert run(name, "", module.benchmark, ["--tiny"]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) >= 3
    assert "ok=False" not in told


def offload_in_tiny_sizes(told: Path) -> None:
    """In a process of its own, because it joins a process group."""
    with told.open("w") as sys.stdout:
        code = run("offload", "", offload.benchmark, ["--tiny"])
    sys.exit(code)


def test_the_benchmark_that_needs_deepspeed_runs_in_tiny_sizes(tmp_path: Path) -> None:
    assert finish(start(offload_in_tiny_sizes, [(tmp_path / "told",)])) == [0]
    assert re.match(r"parameters=\d+  .*tokens=512  seconds=", (tmp_path / "told").read_text())


@pytest.mark.parametrize("compiles", [True, False])
def test_the_optimizer_of_offload_is_deepspeeds_unless_that_cannot_be_compiled(
    monkeypatch: pytest.MonkeyPatch, compiles: bool
) -> None:
    """The compiler is stood in for, and nothing of the GPU is used but its name."""

    def load(settings: dict[str, Any], file: str, *, tell: bool) -> None:
        assert settings["optimizer"]["params"]["torch_adam"] is False
        if not compiles:
            raise UserError("c++: not found")

    monkeypatch.setattr(offload, "load_adam", load)
    place = Place(device=torch.device("cuda"), tiny=True)
    settings, adam = offload.settings_of(place, TrainConfig(engine="deepspeed", zero_stage=2))
    assert adam == ("DeepSpeed's" if compiles else "torch's: c++: not found")
    assert settings["optimizer"]["params"]["torch_adam"] is not compiles
    assert settings["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def test_the_goal_of_every_table_of_methods_is_judged_on_its_last_row() -> None:
    *others, naive = methods.benchmark(TINY)
    assert naive["reached"] == (naive["against_balanced"] > 2)
    assert not any("reached" in row for row in others)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_benchmark_says_that_it_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("step", "", step.benchmark, []) == 0
    assert capsys.readouterr().out == "step: skipped: it needs an NVIDIA GPU, and torch sees none here\n"


def test_every_row_is_stored_before_the_next_one_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is stood in for: nothing of it is used but its name."""
    stored: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 2**30))
    monkeypatch.setattr(common, "write", lambda name, rows, packages: stored.append(rows))

    def benchmark(place: Place) -> Iterator[dict[str, Any]]:
        yield {"seconds": 1.0}
        yield {"seconds": 2.0}
        raise torch.OutOfMemoryError("in the third row")

    with pytest.raises(torch.OutOfMemoryError):
        run("x", "", benchmark, [])
    first = [{"gpu": "a GPU", "memory_gib": 1.0}, {"seconds": 1.0}]
    assert stored == [first, [*first, {"seconds": 2.0}]]


def test_a_backend_that_ignores_borders_is_found_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(*tensors: Any, **options: Any) -> Any:
        ends = options.pop("cu_seq_lens_q")
        whole = torch.tensor([0, int(ends[-1])], dtype=torch.int32)
        return sdpa_by_sequence(*tensors, **options | {"cu_seq_lens_q": whole, "max_length_q": int(ends[-1])})

    monkeypatch.setitem(BACKENDS, "leaky", ("leaky", leaky))
    right, wrong = (attention.correctness(TINY, name, 4, 2, [20, 12], None) for name in ("sdpa-by-sequence", "leaky"))
    assert right["ok"]
    assert not wrong["ok"]


def test_the_mix_is_a_tenth_long_and_never_longer_than_a_pack() -> None:
    lengths = paper_mix(2000, longest=65_536)
    assert (lengths[:200] >= 8192).all()
    assert lengths.max() <= 65_536
    assert 800 < float(sorted(lengths[200:])[900]) < 1200
