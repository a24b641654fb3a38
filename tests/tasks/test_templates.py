"""Prompt files: the built-in ones stay what they are, and one's own are read strictly."""

from pathlib import Path

import pytest

from longalign_data.errors import RecipeError
from longalign_data.identity import digest
from longalign_data.recipe import Generate
from longalign_data.tasks.templates import load_templates

SNAPSHOT = {
    "extraction": (1, "9e4a22552888a30bba9e9d1d655699ce"),
    "general": (1, "0f37b39ce2de8d8a945211eb9fc8528d"),
    "reasoning": (1, "8a5b3d32e925493be1d243b1323cc03a"),
    "summary": (1, "36ea3d023205b36a4fb8c75624303fd7"),
}
"""Version and digest of the instructions. A changed text needs a raised version, and then a new digest here."""

OWN = """\
task: glossary
version: 3
instructions:
  de: |
    Schreibe fünf Fragen nach Begriffen.
    1: erste Frage
    2: zweite Frage
"""


def own_file(folder: Path, text: str = OWN, name: str = "glossary.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_texts_are_those_of_their_versions() -> None:
    found = {
        task: (template.version, digest(template.instructions)) for task, template in load_templates().by_task.items()
    }
    assert found == SNAPSHOT


def test_every_task_of_the_default_recipe_is_there_in_english_and_chinese() -> None:
    templates = load_templates()
    for task in Generate().tasks:
        assert set(templates.by_task[task].instructions) == {"en", "zh"}


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("task", ["general", "summary", "reasoning", "extraction"])
def test_every_built_in_instruction_asks_for_five_numbered_lines_from_all_over_the_document(
    task: str, lang: str
) -> None:
    text = load_templates().instruction(task, lang)
    words = {"en": ["five", "beginning", "middle", "end", "English"], "zh": ["五个", "开头", "中间", "结尾", "中文"]}
    assert all(word in text for word in words[lang])
    assert "\n1: " in text
    assert "\n2: " in text
    assert text == text.strip()


def test_a_file_of_ones_own_joins_the_built_in_tasks_or_replaces_one(tmp_path: Path) -> None:
    templates = load_templates([own_file(tmp_path)])
    assert sorted(templates.by_task) == ["extraction", "general", "glossary", "reasoning", "summary"]
    replaced = load_templates([own_file(tmp_path, OWN.replace("glossary", "general"))])
    assert "Begriffen" in replaced.instruction("general", "de")


def test_a_language_without_an_instruction_gets_english_or_the_first_of_the_file(tmp_path: Path) -> None:
    templates = load_templates([own_file(tmp_path)])
    assert templates.instruction("general", "fr") == templates.instruction("general", "en")
    assert templates.instruction("glossary", "fr") == templates.instruction("glossary", "de")


def test_identity_follows_texts_and_versions_of_the_tasks_in_use_alone(tmp_path: Path) -> None:
    one = load_templates([own_file(tmp_path)])
    other = load_templates([own_file(tmp_path, OWN.replace("version: 3", "version: 4"))])
    assert one.identity != other.identity
    assert (
        one.only(["general"]).identity
        == other.only(["general"]).identity
        == load_templates().only(["general"]).identity
    )
    assert one.only(["general", "summary"]).identity == one.only(["summary", "general"]).identity


def test_a_task_without_a_file_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        RecipeError, match="no prompt file for 'poetry'; known tasks: extraction, general, reasoning, summary"
    ):
        load_templates().only(["general", "poetry"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("version: 3", "version: three"), r"glossary.yaml:2: version: .*valid integer"),
        (OWN.replace("task: glossary\n", ""), r"glossary.yaml:1: task: missing"),
        (OWN.replace("version", "verison"), r"glossary.yaml:2: verison: unknown key"),
        ("task: x\nversion: 1\ninstructions: {}\n", r"glossary.yaml:3: instructions: .*at least 1 item"),
        ("task: x\nversion: 1\ninstructions: {en: '  '}\n", r"glossary.yaml:3: instructions: .*'en' is blank"),
        ("task: x\nversion: 1\ninstructions: {English: 'hi'}\n", r"glossary.yaml:3: instructions.English"),
    ],
)
def test_a_file_that_is_wrong_is_told_with_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_templates([own_file(tmp_path, text)])


def test_two_files_for_one_task_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    first, second = own_file(tmp_path), own_file(tmp_path, name="again.yaml")
    with pytest.raises(RecipeError, match=r"again.yaml: task 'glossary' is already in .*glossary.yaml"):
        load_templates([first, second])
    with pytest.raises(RecipeError, match=r"nowhere.yaml: no such file"):
        load_templates([tmp_path / "nowhere.yaml"])
