"""The command line as a person meets it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import longalign_data

COMMANDS = [
    "build",
    "ingest",
    "sample",
    "generate",
    "encode",
    "pack",
    "estimate",
    "doctor",
    "ledger",
    "stats",
    "sql",
    "show",
    "diff",
    "report",
    "view",
    "plan",
    "weights",
    "verify",
    "why",
    "remove",
    "publish",
    "rehydrate",
    "catalog",
    "export",
    "fake-provider",
]


def longalign(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "longalign_data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_help_names_every_command_in_one_line_each() -> None:
    said = longalign("--help").stdout
    for command in COMMANDS:
        line = next(line for line in said.splitlines() if line.strip().startswith(command))
        assert len(line.split()) > 2, f"{command} has no summary"


def test_every_command_explains_its_arguments() -> None:
    for command in COMMANDS:
        done = longalign(command, "--help")
        assert done.returncode == 0
        assert "--help" in done.stdout
        assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['longalign', '--help']\n"
        "try:\n    from longalign_data.cli.main import main; main()\nexcept SystemExit: pass\n"
        "heavy = {'pyarrow', 'duckdb', 'datasets', 'polars', 'numpy', 'anthropic', 'openai', 'transformers', 'torch', 'pydantic'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_version_is_printed() -> None:
    assert longalign("--version").stdout == f"longalign-data {longalign_data.__version__}\n"


def test_a_missing_recipe_names_the_ones_beside_it() -> None:
    done = longalign("build", "recipes/quickstrat.yaml")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "quickstart.yaml" in done.stderr


def test_a_folder_that_is_no_build_is_said_to_be_none() -> None:
    for command in ("stats", "sql", "show"):
        done = longalign(command, "recipes")
        assert done.returncode == 2, done.stderr
        assert "no build stands here" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_catalog_lists_its_cards_and_prints_one() -> None:
    listed = longalign("catalog").stdout
    assert "python-stdlib" in listed
    assert "books-public-domain" in listed
    assert "LicenseRef-Books-all-rights-reserved" in listed
    assert "reader:" in longalign("catalog", "show", "python-stdlib").stdout
    assert "the catalog has" in longalign("catalog", "show", "nothing").stderr


def test_the_fake_provider_says_how_to_reach_it_and_what_was_spent(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("seed: 1\nlimits: {concurrent: 4}\n", encoding="utf-8")
    command = [sys.executable, "-m", "longalign_data", "fake-provider", "--port", "0", "--scenario", str(scenario)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    url = first.split()[3]
    with urllib.request.urlopen(f"{url}/fake/scenario", timeout=300) as response:
        assert json.load(response)["limits"]["concurrent"] == 4
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert "0 replies, 0.0000 dollars" in out
    assert "Traceback" not in err


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    command = [
        sys.executable,
        "-m",
        "longalign_data",
        "build",
        str(recipe),
        "--output",
        str(tmp_path),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("ingest")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "stopped; the same command goes on where this one was" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [["catalog"], ["catalog", "show", "python-stdlib"], ["--help"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "longalign_data", *arguments]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["build"], "Missing argument"),
        (["build", "x.yaml", "--worker", "2"], "No such option"),
        (["build", "x.yaml", "--workers", "many"], "--workers"),
        (["biuld"], "No such command"),
    ],
)
def test_a_command_that_is_spelt_wrong_is_told_so(arguments: list[str], word: str) -> None:
    done = longalign(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help_are_no_errors() -> None:
    assert [longalign(option).returncode for option in ("--version", "--help")] == [0, 0]
