"""Every command of the README runs, in order, as a reader would type it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.strip().splitlines()]


def test_the_readme_still_shows_the_two_commands() -> None:
    assert COMMANDS[:2] == ["make quickstart", "make test"]


@pytest.mark.torch
@pytest.mark.timeout(3000)
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    """The repository's files stand in a fresh folder with this environment as its `.venv`, marked as installed, so that
    make goes straight to its job. `make test` and the installation are left out: the one is what runs this test, the
    other is what made this environment."""
    for name in ("longalign_data", "trainer", "catalog", "pyproject.toml", "Makefile", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for tool in Path(sys.executable).parent.iterdir():
        (scripts / tool.name).symlink_to(tool)
    (tmp_path / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", tmp_path / ".venv")
    (tmp_path / ".venv" / ".base").touch()
    (tmp_path / "my-reports").mkdir()
    for number in range(12):
        text = "\n\n".join(
            f"Section {n} of report {number} says that unit {n * number} was inspected." for n in range(150)
        )
        (tmp_path / "my-reports" / f"{number}.txt").write_text(text, encoding="utf-8")
    recipe = next(block for kind, block in BLOCKS if kind == "yaml" and block.startswith("name: mine"))
    (tmp_path / "recipes" / "mine.yaml").write_text(recipe, encoding="utf-8")

    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }
    for command in COMMANDS:
        if command == "make test" or command.startswith((". .venv", "pip install")):
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2000,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "builds" / "mine" / "1.0.0" / "manifest.json").is_file()
    assert (tmp_path / "runs" / "tiny").is_dir()
