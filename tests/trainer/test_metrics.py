"""What a run says of its steps: losses by group, operations, idle, and where the numbers go."""

import contextlib
import json
import os
import re
import resource
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from longalign_data.errors import UserError
from longalign_data.packing.reader import open_packs
from longalign_data.records import SEQUENCES
from tests.trainer import processes, runs
from tests.trainer.builds import tiny_llama, write_build, write_model_config
from trainer import attention
from trainer.__main__ import main
from trainer.batch import micro_batch
from trainer.measure import logs
from trainer.measure.flops import model_flops
from trainer.measure.metrics import LENGTHS, busy, device_memory_peak, idle, idle_by_rank, length_buckets
from trainer.objective import Objective

pytestmark = pytest.mark.torch

STEP = [[(30, 8), (20, 3)], [(50, 16)], [(10, 2), (12, 4), (20, 1)], [(64, 5)]]
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of two steps whose sequences have sources and tasks, save one that its table does not know."""
    root = tmp_path_factory.mktemp("metrics")
    write_build(root / "build", [STEP, STEP[:3]], packs_per_step=4)
    write_model_config(root / "model")
    rows = []
    for number, pack in enumerate([*STEP, *STEP[:3]]):
        for j, (length, targets) in enumerate(pack):
            rows.append(
                {
                    "sequence_id": f"sequence-{number}-{j}",
                    "sample_id": "s",
                    "source": ["books", "web"][j % 2],
                    "task": "summary" if number % 2 else "",
                    "input_ids": [],
                    "target_spans": [],
                    "num_tokens": length,
                    "num_targets": targets,
                    "truncated_tokens": 0,
                }
            )
    (root / "build" / "sequences").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[1:], SEQUENCES), root / "build" / "sequences" / "00000.parquet")
    return root


def run(place: Path, name: str, *extra: str, config: str = "") -> Path:
    (place / f"{name}.yaml").write_text(
        f"engine: torch\ndtype: fp32\nlearning_rate: 1e-2\nactivation_checkpointing: false\n{config}"
    )
    model = ["--model", str(place / "model"), "--random-init", "--config", str(place / f"{name}.yaml")]
    assert main(["--build", str(place / "build"), *model, "--output", str(place / name), *extra], {}) == 0
    return place / name


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_losses_by_source_and_task_are_those_of_the_sequences_alone(place: Path) -> None:
    output = run(place, "groups", config="loss_chunk_rows: 3\n")
    first = lines(output)[0]
    reader = open_packs(place / "build")
    model = tiny_of(place)
    by: dict[str, dict[str, list[float]]] = {"loss": {}, "loss_by_source": {}, "loss_by_task": {}}
    for position in range(4):
        pack = reader.batch(0, position, 4, 0, 1)
        for j, (start, end) in enumerate(zip(pack.cu_seqlens[:-1], pack.cu_seqlens[1:], strict=True)):
            ids = torch.from_numpy(pack.input_ids[start:end])
            labels = torch.where(torch.from_numpy(pack.loss_weights[start:end] > 0), ids, -100)
            mean = float(F.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], labels[1:]).detach())
            known = (position, j) != (0, 0)
            source = ["books", "web"][j % 2] if known else "unknown"
            task = ("summary" if position % 2 else "none") if known else "unknown"
            for kind, name in (("loss", "all"), ("loss_by_source", source), ("loss_by_task", task)):
                by[kind].setdefault(name, []).append(mean)
    means = {kind: {name: float(np.mean(values)) for name, values in groups.items()} for kind, groups in by.items()}
    assert first["loss"] == pytest.approx(means["loss"]["all"], rel=1e-5)
    assert first["loss_by_source"] == pytest.approx(means["loss_by_source"], rel=1e-5)
    assert first["loss_by_task"] == pytest.approx(means["loss_by_task"], rel=1e-5)
    assert first["loss_by_length"] == {"0k to 1k": pytest.approx(first["loss"], rel=1e-5)}


def tiny_of(place: Path) -> torch.nn.Module:
    """The random model of a run, with stock attention."""
    torch.manual_seed(42)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place / "model"), attn_implementation="sdpa")


def test_every_step_says_how_well_it_used_the_machine_and_timed_steps_how_long_ranks_waited(place: Path) -> None:
    found = lines(run(place, "used", config="time_every: 2\npeak_tflops: 0.01\n"))
    assert all(0 < line["mfu"] < 50 and line["memory_peak_gib"] > 0.05 for line in found)
    assert [("idle" in line) for line in found] == [False, True]
    assert found[1]["idle_by_rank"] == [0.0]
    times = np.array(found[1]["pack_seconds"])
    assert times.shape == (4, 1)
    assert 0 < times.sum() <= found[1]["seconds"] * 1.1
    settings = json.loads((place / "used" / "run.json").read_text())
    assert settings["peak_flops"] == 1e10


def test_the_counted_operations_are_those_that_torch_counts() -> None:
    model = tiny_llama("eager", num_hidden_layers=3)
    length, targets = 40, 40
    with FlopCounterMode(display=False) as counter:
        hidden = model.model(input_ids=torch.arange(length)[None]).last_hidden_state
        model.lm_head(hidden).sum().backward()
    counted = model_flops(model)
    # Eager attention multiplies the masked half as well, and the embedding needs no gradient of its input.
    whole = counted.per_pair * 3 * (length * length - length * (length + 1) / 2)
    ours = counted.count(np.array([length]), targets) + whole
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.02)


def test_attention_is_counted_by_sequence_and_by_window() -> None:
    counted = model_flops(tiny_llama("sdpa"))
    two, one = (counted.count(np.array(lengths), 0) for lengths in ([30, 30], [60]))
    assert one - two == pytest.approx(2 * counted.per_pair * 30 * 30)
    narrow = model_flops(tiny_llama("sdpa", sliding_window=4, layer_types=["sliding_attention", "full_attention"]))
    assert narrow.windows == (4, None)
    assert narrow.count(np.array([6]), 0) == 6 * narrow.per_token + narrow.per_pair * (1 + 2 + 3 + 4 + 4 + 4 + 21)


def test_weights_that_are_frozen_cost_no_gradient_of_their_own() -> None:
    model = tiny_llama("sdpa")
    trained = model_flops(model).per_token
    model.requires_grad_(False)
    assert model_flops(model).per_token == pytest.approx(trained * 4 / 6)


@pytest.mark.parametrize(
    ("length", "bucket"), [(1, 0), (1023, 0), (1024, 1), (2047, 1), (2048, 2), (65536, 7), (1 << 21, 11)]
)
def test_buckets_of_length_begin_at_powers_of_two(length: int, bucket: int) -> None:
    assert length_buckets(np.array([length])).tolist() == [bucket]
    assert LENGTHS[bucket].startswith(f"{0 if not bucket else 2 ** (bucket - 1)}k")


def test_idle_is_the_wait_for_the_slowest_of_each_micro_batch() -> None:
    times = np.array([[4.0, 2.0], [1.0, 3.0]])
    assert idle_by_rank(times).tolist() == pytest.approx([2 / 7, 2 / 7])
    assert idle(np.array([[4.0, 0.0]])) == 0.5
    assert idle(np.zeros((2, 2))) == 0.0


def test_a_rank_that_sleeps_is_not_busy() -> None:
    with busy(CPU, alone=False) as slept:
        time.sleep(0.2)
    with busy(CPU, alone=False) as worked:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
    assert slept[0] < 0.1 <= worked[0]


def test_the_rows_losses_sum_to_the_loss_whatever_the_chunks(place: Path) -> None:
    _, registered = attention.install("sdpa-by-sequence", CPU, torch.float32)
    batch = micro_batch(open_packs(place / "build").batch(0, 0, 4, 0, 1), CPU, 97)
    found = []
    for chunk_rows in (1, 4, 100):
        objective = Objective(tiny_llama(registered), chunk_rows=chunk_rows)
        loss = objective(batch).detach()
        assert float(loss) == pytest.approx(float(objective.loss.row_losses.sum()), rel=1e-6)
        found.append(objective.loss.row_losses)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    assert batch.sequences.tolist() == [0] * 8 + [1] * 3


def read_tensorboard(output: Path, kept: Path) -> list[dict[str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "tensorboard")).Reload()
    found: list[dict[str, float]] = [{}, {}]
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found[event.step][name] = event.value
    return found


def read_wandb(output: Path, kept: Path) -> list[dict[str, float]]:
    """From the file that `wandb sync` sends: names, each followed by its number in JSON, in the order of the steps."""
    (file,) = (output / "wandb").glob("offline-run-*/*.wandb")
    found: list[dict[str, float]] = [{}, {}]
    for name, number in re.findall(
        rb"([a-z_]+(?:/[\w ]+)?)\x82\x01[\x00-\xff](-?[\d.]+(?:e-?\d+)?)", file.read_bytes()
    ):
        found[name.decode() in found[0]][name.decode()] = float(number)
    return found


def read_trackio(output: Path, kept: Path) -> list[dict[str, float]]:
    with contextlib.closing(sqlite3.connect(kept / "longalign.db")) as database:
        rows = database.execute("SELECT step, run_name, metrics FROM metrics ORDER BY step").fetchall()
    assert [row[:2] for row in rows] == [(step, (output / "run-id").read_text().strip()) for step in range(2)]
    return [json.loads(row[2]) for row in rows]


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "trackio": read_trackio}


def train_tracked(kept: Path, mode: str, options: list[str], errors: Path) -> None:
    """A rank whose trackers find nothing of the person's that runs it, and no network."""
    os.environ |= {"WANDB_MODE": mode, "TRACKIO_DIR": str(kept), "HOME": str(kept), "NETRC": str(kept / "netrc")}
    os.environ.pop("WANDB_API_KEY", None)
    processes.train_rank(0, 1, str(processes.free_port()), options, errors)


def track(tracker: str, place: Path, tmp_path: Path, mode: str = "offline") -> tuple[int | None, str]:
    """Exit code and messages of a run of two steps in `tmp_path`/run with one tracker."""
    try:
        logs.check_installed([tracker])
    except UserError as error:
        pytest.skip(str(error))
    kept, errors = tmp_path / "kept", tmp_path / "errors"
    kept.mkdir()
    options = runs.options(
        place / "build", place / "model", tmp_path / "run", "--log", tracker, warmup_steps=0, time_every=1
    )
    (code,) = processes.finish(processes.start(train_tracked, [(kept, mode, options, errors)]))
    return code, errors.read_text()


@pytest.mark.parametrize("tracker", logs.TRACKERS)
def test_a_tracker_gets_every_number_of_every_step(place: Path, tmp_path: Path, tracker: str) -> None:
    code, told = track(tracker, place, tmp_path)
    assert code == 0, told
    assert "Warning" not in told
    for line, found in zip(lines(tmp_path / "run"), READERS[tracker](tmp_path / "run", tmp_path / "kept"), strict=True):
        for name in ("loss", "mfu", "idle_by_rank/0", "loss_by_source/books", "loss_by_length/0k to 1k"):
            group, _, part = name.partition("/")
            wanted = line[group] if not part else line[group][int(part) if part == "0" else part]
            assert found[name] == pytest.approx(wanted, rel=1e-6)


def test_a_tracker_that_nobody_has_logged_in_to_is_said_in_one_line(place: Path, tmp_path: Path) -> None:
    code, told = track("wandb", place, tmp_path, mode="online")
    assert code == 2, told
    assert re.search(
        r"^error: --log wandb: No API key configured\. .*; run `wandb login` once, or set WANDB_MODE=", told, re.M
    )
    assert "Traceback" not in told


def test_a_tracker_that_is_absent_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of its name, as W&B leaves behind where it has run, is no package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"^--log wandb: wandb is not installed; run: pip install wandb$"):
        logs.check_installed(["wandb"])
    with pytest.raises(UserError, match=r"^--log trackio: trackio is not installed; run: pip install trackio$"):
        logs.check_installed(["trackio"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_memory_on_a_cpu_does_not_begin_with_that_of_the_process_that_started_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's count of a process that one of a petabyte has started."""
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2**40))
    assert 0.05 < device_memory_peak(CPU) < 1024


def test_metrics_that_find_a_full_disk_end_the_run_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    metrics = {"step": 0, "loss": 1.0, "tokens_per_second": 1.0, "seconds": 1.0}
    with (
        pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: No space left on device"),
        logs.reporting(tmp_path, trackers=(), described={}, start=0, stop=1) as report,
    ):
        report(metrics)
