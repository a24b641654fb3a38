"""docs/publish.md: its commands are such as there are, and go one after the other."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from longalign_data.cli.main import app
from longalign_data.publish.contents import prepare_publication
from longalign_data.recipe import Exclude
from longalign_data.shards.folder import BuildFolder
from tests.publish.builds import rows

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("longalign ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_is_understood(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    found = group.get_command(typer.Context(group), name)  # type: ignore[attr-defined] # the app has several commands
    assert found is not None
    found.make_context(name, arguments)


def test_the_page_names_every_option_that_there_is() -> None:
    group = typer.main.get_command(app)
    for name in ("publish", "rehydrate", "remove"):
        command = group.get_command(typer.Context(group), name)  # type: ignore[attr-defined] # as above
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in ("--help", "--workers"):
                    assert option in PAGE, (name, option)


def test_the_lines_that_keep_something_out_are_a_recipe_s() -> None:
    import yaml

    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    Exclude.model_validate(yaml.safe_load(blocks[0])["exclude"])


def test_why_remove_and_rehydrate_say_what_they_did(towns: BuildFolder, tmp_path: Path) -> None:
    def longalign(*arguments: str) -> str:
        command = [sys.executable, "-m", "longalign_data", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sample = rows(towns, "samples")[0]
    said = longalign("why", str(towns.root), sample["sample_id"][:8])
    assert re.search(r"^document  \w{32}: \w+\.jsonl:\d+-\d+, ", said, re.MULTILINE)
    assert len(re.findall(r"^pack      ", said, re.MULTILINE)) == 2

    copy = tmp_path / "towns" / "1.0.0"
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", str(towns.root), str(copy)], check=True)
    said = longalign("remove", str(copy), "--sample", sample["sample_id"], "--source", "talk")
    assert "rows taken out: samples 1, chats 9, sequences 10; packs and plan were made anew" in said
    assert f"{copy} still holds it" in said

    found = prepare_publication(towns, "org/towns", tables=None, without_documents=True, staging=tmp_path / "staging")
    for file in found.files:
        place = tmp_path / "copy" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content if file.content is not None else (file.source or place).read_bytes())
    corpus = towns.root.parent.parent.parent / "corpus"
    places = [part for name in ("open", "closed") for part in ("--source", f"{name}={corpus}/{name}.jsonl")]
    said = longalign("rehydrate", str(tmp_path / "copy"), *places, "--output", str(tmp_path / "back"))
    assert re.search(r"^open: \d+ documents put back, 0 not found$", said, re.MULTILINE)
    assert rows(BuildFolder(tmp_path / "back" / "towns" / "1.0.0"), "packs") == rows(towns, "packs")
