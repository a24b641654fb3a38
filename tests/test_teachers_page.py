"""docs/teachers.md: its recipes are recipes, its commands exist, and it names everything that there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from longalign_data.cli.main import app
from longalign_data.generation.exchange import REASONS
from longalign_data.recipe import Generate, PaidChecks
from longalign_data.teachers.fake.scenario import FaultKind
from longalign_data.teachers.table import PROVIDERS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "teachers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_its_recipes_are_recipes(block: str) -> None:
    given = yaml.safe_load(block)["generate"]
    Generate.model_validate({"teacher": {"provider": "anthropic", "model": "m"}} | given)


def test_its_commands_and_options_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined] - a group
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    ours = [line.partition("#")[0].split() for line in lines if line.startswith("longalign ")]
    assert len(ours) >= 5
    for _, name, *words in ours:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, name


def test_it_names_every_teacher_every_reject_and_every_paid_check() -> None:
    others = ["no-questions", "too-few-questions", "empty-answer", "bad-request", "teacher-error", "document-cut"]
    judged = ["known-without-document", "judged-low"]
    for name in (*PROVIDERS, *REASONS.values(), *others, *judged, *PaidChecks.model_fields):
        assert f"`{name}`" in PAGE, name


def test_the_figures_of_the_page_are_those_that_are_stored() -> None:
    script = DOCS.parent / "benchmarks" / "teachers_page.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == PAGE


def test_the_shares_of_the_bill_that_the_page_rounds_are_those_that_are_stored() -> None:
    stored = json.loads((DOCS.parent / "benchmarks/results/bill.json").read_text(encoding="utf-8"))
    share = {row["way"]: row["of_naive_per_sample"] for row in stored["rows"]}
    assert f"about {share['live with cache']:.2f} |" in PAGE
    assert f"{share['batch']:.2f} ({share['batch']:.4f} on fifty documents," in PAGE
    assert f"| {share['batch, five answers a document']:.2f} a sample |" in PAGE


def test_the_page_of_the_fake_provider_names_every_fault() -> None:
    page = (DOCS / "fake-provider.md").read_text(encoding="utf-8")
    assert not [kind for kind in FaultKind.__args__ if f"`{kind}`" not in page]  # type: ignore[attr-defined] - a Literal
