"""The command line as a person meets it."""

import subprocess
import sys

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
    "plan",
    "weights",
    "catalog",
]


def longalign(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "longalign_data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
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
    assert "python-stdlib" in longalign("catalog").stdout
    assert "reader:" in longalign("catalog", "show", "python-stdlib").stdout
    assert "the catalog has" in longalign("catalog", "show", "nothing").stderr
