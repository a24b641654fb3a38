"""The commands of docs/packing.md are there to be run, and what it shows is what they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
BLOCKS = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(command: str, cwd: Path) -> str:
    words = shlex.split(command)
    program = [sys.executable, "-m", "longalign_data"] if words[0] == "longalign" else [sys.executable]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    done = subprocess.run(
        [*program, *words[1:]], cwd=cwd, env=environment, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def test_the_synthetic_mix_has_the_plan_and_the_bias_that_the_page_shows(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    printed = [run(command, tmp_path) for command in COMMANDS if "builds/mix" in command]
    assert [block.rstrip() for block in BLOCKS[1:]] == printed[1:]


def test_the_figures_of_the_page_are_those_that_are_stored() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "packing_page.py"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert PAGE.endswith(done.stdout)


def test_the_other_commands_name_scripts_and_builds_that_there_are() -> None:
    others = [command for command in COMMANDS if "builds/mix" not in command]
    assert others[0] == "longalign plan builds/quickstart/1.0.0"
    for command in others[1:]:
        program, script, *options = shlex.split(command)
        assert program == "python"
        text = (ROOT / script).read_text(encoding="utf-8")
        assert all(option in text for option in options)
        name = "-".join([Path(script).stem, *(option.strip("-") for option in options)])
        assert (ROOT / "benchmarks" / "results" / f"{name}.json").is_file()


def test_the_reader_of_the_page_is_the_reader_that_there_is() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    compile(block, "packing.md", "exec")
    from longalign_data.packing.reader import PackBatch, PackReader, StepInfo

    assert "reader.stream(" in block
    assert hasattr(PackReader, "stream")
    for name in re.findall(r"`(\w+)`", PAGE.split("`batch` has")[1].split(" or is None")[0]):
        assert name in PackBatch.__dataclass_fields__
    assert {"num_sequences", "normalizer", "epoch", "capacity"} <= set(StepInfo.__dataclass_fields__)
