"""Whole runs by the real command: one process in this one, two gloo ranks through the launchers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer import runs
from tests.trainer.builds import VOCABULARY, write_build, write_model_config
from tests.trainer.processes import free_port
from tests.trainer.runs import NUM_STEPS, STEP, losses, metrics
from trainer.__main__ import main
from trainer.options import check_folder
from trainer.tools import compare

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]


def arguments(place: Path, output: Path, *extra: str, **changes: Any) -> list[str]:
    return runs.options(place / "build", place / "model", output, *extra, **changes)


def launch(command: list[str], *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """A launcher with its ranks, in a session of their own so that all of them end with it."""
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        pytest.fail(f"no end after {timeout} s:\n{errors[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def test_the_loss_falls_and_every_step_leaves_a_line_with_its_facts(reference: Path) -> None:
    lines = metrics(reference)
    assert [line["step"] for line in lines] == list(range(NUM_STEPS))
    assert sum(losses(reference)[-3:]) < 0.85 * sum(losses(reference)[:3])
    assert (lines[0]["num_tokens"], lines[0]["num_sequences"], lines[0]["num_packs"]) == (206, 7, 4)
    assert (lines[-1]["num_tokens"], lines[-1]["num_sequences"], lines[-1]["normalizer"]) == (142, 6, 6.0)
    assert lines[0]["grad_norm"] > 0
    assert lines[0]["learning_rate"] == 0.005


@pytest.mark.parametrize(("asked", "steps"), [({}, 6), ({"epochs": 1}, 3), ({"epochs": 2}, 6), ({"epochs": 5}, 15)])
def test_epochs_are_passes_over_the_data_whether_the_plan_holds_them_or_is_begun_anew(
    place: Path, tmp_path: Path, asked: dict[str, int], steps: int
) -> None:
    build = write_build(tmp_path / "build", [STEP] * 6, packs_per_step=4, epochs=2)
    options = runs.options(build, place / "model", tmp_path / "run", "--max-steps", "1", peak_tflops=1, **asked)
    assert main(options, {}) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["num_steps"] == steps


def test_the_trained_model_is_a_folder_that_transformers_loads(place: Path, reference: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(reference / "model")
    ids = (torch.arange(40) * 7 % VOCABULARY)[None]
    trained = float(model(input_ids=ids, labels=ids).loss.detach())
    assert trained < losses(reference)[0]
    start = AutoModelForCausalLM.from_config(model.config)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in start.state_dict().items()}


def test_a_run_that_stopped_goes_on_to_the_same_losses_to_the_bit(place: Path, reference: Path) -> None:
    output = place / "stopped"
    assert main(arguments(place, output, "--max-steps", "7"), {}) == 0
    assert len(losses(output)) == 7
    assert main(arguments(place, output, "--resume"), {}) == 0
    assert losses(output) == losses(reference)
    ours, theirs = (folder / "model" / "model.safetensors" for folder in (output, reference))
    assert ours.read_bytes() == theirs.read_bytes()
    kept = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000012"]


UNTIL_IT_IS_KILLED = """
import os, sys, time
from trainer import loop
from trainer.__main__ import main

take = loop.train_step

def train_step(*given, step, **named):
    if step > 7:
        time.sleep(600)
    return take(*given, step=step, **named)

loop.train_step = train_step
sys.exit(main(sys.argv[1:], os.environ))
"""
"""Training that does not come to its end however late it is killed."""


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(place: Path, reference: Path) -> None:
    output = place / "killed"
    command = [sys.executable, "-c", UNTIL_IT_IS_KILLED, *arguments(place, output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 400
    try:
        while not (output / "checkpoints" / "step-00000005" / "trainer.json").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (output / "model").exists()
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # a line cut off by the kill
    assert main(arguments(place, output, "--resume"), {}) == 0
    # The same thread count would give the same bits; the killed process had one thread, this one has what it has.
    assert losses(output) == pytest.approx(losses(reference), rel=1e-5)
    assert [line["step"] for line in metrics(output)] == list(range(NUM_STEPS))


def checkpoint(output: Path, step: int) -> Path:
    return output / "checkpoints" / f"step-{step:08d}"


def test_a_torn_checkpoint_is_written_anew_without_the_files_of_the_first_try(place: Path) -> None:
    output = place / "torn"
    assert main(arguments(place, output, "--max-steps", "2"), {}) == 0
    wanted = sorted(path.name for path in checkpoint(output, 2).iterdir())
    # As two sharded ranks leave it that are killed before the note; one goes on.
    (checkpoint(output, 2) / "trainer.json").unlink()
    (checkpoint(output, 2) / "deepspeed").mkdir()
    (checkpoint(output, 2) / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").write_bytes(b"of another try")
    assert main(arguments(place, output, "--resume", "--max-steps", "2"), {}) == 0
    assert sorted(path.name for path in checkpoint(output, 2).iterdir()) == wanted


@pytest.mark.parametrize("kept", [None, 0, 5000])
def test_a_checkpoint_whose_files_are_torn_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], kept: int | None
) -> None:
    output = place / f"spoilt-{kept}"
    assert main(arguments(place, output, "--max-steps", "2", checkpoint_every=1), {}) == 0
    file = checkpoint(output, 2) / "torch.pt"
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:kept])
    resume = arguments(place, output, "--resume", "--max-steps", "3", checkpoint_every=1)
    capsys.readouterr()
    message = refused(capsys, resume)
    assert message.startswith(f"error: {checkpoint(output, 2)}: cannot be read: ")
    assert message.endswith("; remove this folder, and --resume goes on from the checkpoint before it\n")
    shutil.rmtree(checkpoint(output, 2))
    assert main(resume, {}) == 0
    assert [line["step"] for line in metrics(output)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name.*"),
        ("[]", "step was expected in it"),
        ('{"step": 2, "ranks": 1}', "recent_losses .*"),
    ],
)
def test_a_checkpoint_whose_note_is_torn_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    (checkpoint(tmp_path, 2)).mkdir(parents=True)
    note = checkpoint(tmp_path, 2) / "trainer.json"
    note.write_text(text)
    message = refused(capsys, arguments(place, tmp_path, "--resume"))
    assert re.fullmatch(
        f"error: {note}: cannot be read: {reason}; remove its folder, and --resume goes on from the checkpoint before it\n",
        message,
    )


def test_a_checkpoint_that_cannot_be_written_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = place / "unwritable"
    output.mkdir()
    (output / "checkpoints").write_text("in the way")
    assert main(arguments(place, output, "--max-steps", "2"), {}) == 2
    message = capsys.readouterr().err
    assert f"error: {checkpoint(output, 2)}: cannot be written: " in message
    assert re.search(
        r"; \d+\.\d GiB are free there; mend this and go on with --resume from the checkpoint before it\n$", message
    )


def test_a_note_of_a_run_that_cannot_be_written_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = place / "unnotable"
    (output / "run.json").mkdir(parents=True)
    assert main(arguments(place, output, "--max-steps", "2"), {}) == 2
    assert f"error: {output / 'run.json'}: cannot be written: Is a directory; " in capsys.readouterr().err


def test_torchrun_and_deepspeed_take_the_same_steps_as_one_process(place: Path, reference: Path) -> None:
    output = place / "torchrun"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    options = arguments(place, output, "--max-steps", "3", engine="deepspeed", zero_stage=2)
    ended = launch([*launcher, "--master_port", str(free_port()), "-m", "trainer", *options])
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert losses(output) == pytest.approx(losses(reference)[:3], rel=1e-5)


def test_the_deepspeed_launcher_and_ddp_start_the_same_run(place: Path, reference: Path) -> None:
    output = place / "launched"
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "--master_port", str(free_port())]
    options = arguments(place, output, "--max-steps", "3")
    ended = launch([*launcher, "--module", "trainer", *options])
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert losses(output) == pytest.approx(losses(reference)[:3], rel=1e-5)


def refused(capsys: pytest.CaptureFixture[str], options: list[str], environment: dict[str, str] | None = None) -> str:
    """The one message of a command that must end with exit code 2."""
    assert main(options, environment or {}) == 2
    message = capsys.readouterr().err
    assert message.startswith("error")
    assert "Traceback" not in message
    return message


def test_a_misspelt_key_ends_with_its_file_and_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = arguments(place, place / "misspelt")
    (place / "misspelt.yaml").write_text("engine: torch\ndytpe: fp32\n")
    assert "misspelt.yaml:2: dytpe: unknown key; did you mean 'dtype'?" in refused(capsys, options)


def test_a_warm_up_longer_than_the_run_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, arguments(place, place / "warm", warmup_steps=13))
    assert (
        "warmup_steps: 13: this run has 12 steps, by the build's plan, epochs and max_steps, and would never reach"
        in message
    )
    assert not (place / "warm").exists()


def test_ranks_that_do_not_divide_a_step_are_refused_with_those_that_do(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, arguments(place, place / "three"), {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0"})
    assert "a step has 4 packs" in message
    assert "1 x 4, 2 x 2, 4 x 1" in message


@pytest.mark.parametrize(
    ("parts", "ranks", "told"),
    [
        (3, 4, "sequence_parallel: 3: does not divide the 4 ranks of this run"),
        (8, 8, "4 attention heads and 2 key-value heads cannot be dealt to 8 ranks; sizes that fit: 1, 2, 4"),
        (2, 6, "a step has 4 packs, but 3 ranks x 1 accumulation"),
    ],
)
def test_ranks_that_cannot_share_packs_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], parts: int, ranks: int, told: str
) -> None:
    options = arguments(place, place / "shared-badly", sequence_parallel=parts)
    assert told in refused(capsys, options, {"RANK": "0", "WORLD_SIZE": str(ranks), "LOCAL_RANK": "0"})


def test_a_shard_that_was_changed_is_named_before_the_first_step(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "build", place / "changed")
    shard = next((place / "changed" / "packs").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    options = arguments(place, place / "changed-run")
    options[1] = str(place / "changed")
    assert f"{shard}: is not the file that the build wrote" in refused(capsys, options)
    assert not (place / "changed-run").exists()


def test_a_folder_that_is_no_build_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = arguments(place, place / "nothing")
    options[1] = str(place / "model")
    assert "no packs/*.parquet here" in refused(capsys, options)


def test_an_output_that_is_a_file_or_in_one_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "file"
    file.write_text("mine")
    for output in (file, file / "run"):
        options = ["--build", str(place / "build"), "--model", str(place / "model"), "--random-init"]
        told = refused(capsys, [*options, "--config", str(place / "no.yaml"), "--output", str(output)])
        assert told == f"error: --output {output}: {file} is a file; a folder was expected, or a name for one\n"
    assert file.read_text() == "mine"
    link = place / "link"
    link.symlink_to(place / "unmounted")
    told = refused(capsys, [*options, "--config", str(place / "no.yaml"), "--output", str(link / "run")])
    assert (
        told
        == f"error: --output {link / 'run'}: {link} is a link to nothing; a folder was expected, or a name for one\n"
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here, in which nobody can write")
@pytest.mark.parametrize("command", [main, compare.main], ids=["train", "compare"])
def test_an_output_that_nobody_can_write_is_refused_before_anything_is_read(
    place: Path, capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int]
) -> None:
    options = ["--build", str(place / "build"), "--model", str(place / "model"), "--config", str(place / "no.yaml")]
    assert command([*options, "--output", "/proc/longalign/run"]) == 2
    wanted = (
        "error: --output /proc/longalign/run: nothing can be written there: .*; give another folder, or mend this one\n"
    )
    assert re.fullmatch(wanted, capsys.readouterr().err)


def test_an_output_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_into_the_same_folder_is_refused(
    place: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (reference / "metrics.jsonl").read_bytes()
    assert "holds a run already; go on with --resume" in refused(capsys, arguments(place, reference))
    assert (reference / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_plan_is_not_resumed(
    place: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Other packs of the same sizes and normalizers.
    write_build(place / "other", [*[STEP] * (NUM_STEPS - 1), STEP[:3]], packs_per_step=4, first=100)
    options = arguments(place, reference, "--resume")
    options[1] = str(place / "other")
    assert "was written with plan" in refused(capsys, options)


@pytest.mark.parametrize(
    ("name", "before", "value"),
    [("rope_base_factor", 1.0, 2.0), ("max_positions", None, 512), ("dtype", "fp32", "bf16")],
)
def test_a_checkpoint_of_another_model_is_not_resumed(
    place: Path, reference: Path, capsys: pytest.CaptureFixture[str], name: str, before: object, value: object
) -> None:
    message = refused(capsys, arguments(place, reference, "--resume", **{name: value}))
    assert f"was written with {name} {before!r}, this run has {value!r}" in message


def test_a_checkpoint_of_a_model_from_elsewhere_is_not_resumed(
    place: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = arguments(place, reference, "--resume")
    options[3] = str(write_model_config(place / "other-model"))
    message = refused(capsys, options)
    assert f"was written with model '{place / 'model'}', this run has '{place / 'other-model'}'" in message


def test_a_model_folder_may_be_written_in_another_way_at_a_resume(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = place / "spelled"
    assert main(arguments(place, output, "--max-steps", "1"), {}) == 0
    options = arguments(place, output, "--resume", "--max-steps", "1")
    options[3] = f"{place / 'model'}/"
    assert main(options, {}) == 0
    monkeypatch.chdir(place)
    options[3] = "./model"
    assert main(options, {}) == 0


def test_steps_that_a_run_is_past_are_refused_in_place_of_its_later_model(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = place / "past"
    assert main(arguments(place, output, "--max-steps", "3"), {}) == 0
    shutil.rmtree(output / "model")
    capsys.readouterr()
    told = refused(capsys, arguments(place, output, "--resume", "--max-steps", "2"))
    assert told.startswith(f"error: --max-steps 2: the run in {output} has taken 3 steps already; give a larger number")
    assert not (output / "model").exists()


def test_packs_longer_than_the_models_positions_or_of_another_vocabulary_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, change, told in (
        ("short", {"max_position_embeddings": 32}, "up to 64 tokens but the model has 32 positions"),
        ("few", {"vocab_size": 50}, "but the model has 50 tokens"),
    ):
        folder = write_model_config(place / name)
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | change))
        options = arguments(place, place / f"{name}-run")
        options[3] = str(folder)
        assert told in refused(capsys, options)


def test_a_wrong_option_is_one_line_and_help_needs_no_torch() -> None:
    wrong = launch([sys.executable, "-m", "trainer", "--biuld", "x"])
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    code = "import sys, trainer.__main__ as m\ntry: m.main(['--help'])\nfinally: sys.stderr.write(str('torch' in sys.modules))"
    told = launch([sys.executable, "-c", code])
    assert "--max-steps" in told.stdout
    assert told.stderr == "False"
