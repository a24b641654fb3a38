from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from longalign_data import yamlfile
from longalign_data.errors import RecipeError
from longalign_data.recipe import Recipe
from longalign_data.yamlfile import Strict


class Cat(Strict):
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0)] = 9


class Dog(Strict):
    kind: Literal["dog"]
    tricks: list[str] = []


class House(Strict):
    name: str
    rooms: dict[str, int] = {}
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    garden: "Garden | None" = None

    @field_validator("name")
    @classmethod
    def _capital(cls, name: str) -> str:
        if name[:1].islower():
            raise ValueError("Names begin with a capital letter")
        return name


class Garden(Strict):
    trees: int


House.model_rebuild()


def complaint(tmp_path: Path, text: str | bytes, model: type[Strict] = House) -> str:
    path = tmp_path / "house.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        yamlfile.load(path, model)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.replace(str(path), "FILE")


def test_a_sound_file_becomes_its_model(tmp_path: Path) -> None:
    path = tmp_path / "house.yaml"
    path.write_text("name: Mill\npets: [{kind: cat}, {kind: dog, tricks: [roll]}]\nrooms: {kitchen: 1}\n")
    house = yamlfile.load(path, House)
    assert house == House(name="Mill", pets=[Cat(kind="cat"), Dog(kind="dog", tricks=["roll"])], rooms={"kitchen": 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: Mill\nroms: {}\n", "FILE:2: roms: unknown key; did you mean 'rooms'? Known here: garden, name, pets, rooms"),
        ("name: Mill\nxyz: 1\n", "FILE:2: xyz: unknown key; known here: garden, name, pets, rooms"),
        ("rooms: {}\n", "FILE:1: name: missing; it must be given"),
        ("name: 7\n", "FILE:1: name: input should be a valid string; found 7"),
        ("name: mill\n", "FILE:1: name: names begin with a capital letter; found 'mill'"),
        ("name: Mill\nrooms:\n  kitchen: two\n", "FILE:3: rooms.kitchen: input should be a valid integer; found 'two'"),
        ("name: Mill\nrooms:\n  kitchen: 1.0\n", "FILE:3: rooms.kitchen: input should be a valid integer; found 1.0"),
        ("name: Mill\npets:\n- kind: cat\n  lives: 0\n", "FILE:4: pets[0].lives: input should be greater than 0; found 0"),
        ("name: M\npets:\n- kind: cat\n- kind: dog\n  trick: []\n", "FILE:5: pets[1].trick: unknown key; did you mean 'tricks'?"),
        ("name: Mill\npets:\n- kind: cat\n  kind_: 1\n  cat: 1\n", "FILE:5: pets[0].cat: unknown key; known here: kind, lives"),
        ("name: Mill\ngarden:\n  tree: 3\n", "FILE:3: garden.tree: unknown key; did you mean 'trees'? Known here: trees"),
        ("name: Mill\ngarden:\n  tree: 3\n", "FILE:2: garden.trees: missing; it must be given"),
        ("name: Mill\nname: Barn\n", "FILE:2: name: given twice; keep one"),
        ("name: Mill\nrooms:\n  a: 1\n  b: 2\n  a: 3\n", "FILE:5: rooms.a: given twice; keep one"),
        ("- name\n", "FILE:1: expected keys and values, found list"),
        ("just words\n", "FILE:1: expected keys and values, found 'just words'"),
        ("", "FILE:1: expected keys and values, found nothing"),
        ("name: [a\nrooms: 1\n", "FILE:2: not valid YAML"),
        ("name: !!python/object:os.system x\n", "FILE:1: not valid YAML"),
        ("name: 'a\x00b'\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "FILE:1: not valid YAML"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_key_and_what_is_known(tmp_path: Path, text: str, says: str) -> None:
    assert says in complaint(tmp_path, text)


def test_every_error_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    message = complaint(tmp_path, "nam: Mill\nrooms: {a: x}\n")
    assert len(message.splitlines()) == 3


def test_an_unknown_kind_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = complaint(tmp_path, "name: Mill\npets:\n- kind: cow\n")
    assert "FILE:3: pets[0]" in message
    assert "'cat', 'dog'" in message
    assert "'cow'" in message


def test_a_missing_kind_is_named(tmp_path: Path) -> None:
    message = complaint(tmp_path, "name: Mill\npets:\n- lives: 3\n")
    assert "FILE:3: pets[0]" in message
    assert "kind" in message


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    assert "FILE:2: " in complaint(tmp_path, "name: Mill\nrooms: &a\n  x: *a\n")


def test_a_file_that_is_not_utf8_says_where(tmp_path: Path) -> None:
    assert "not UTF-8 text (byte 6); save the file as UTF-8" in complaint(tmp_path, b"name: \xff\n")


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yml", "three.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(RecipeError, match=r"no such file; beside it stand: one\.yaml, two\.yml$"):
        yamlfile.load(tmp_path / "on.yaml", House)
    with pytest.raises(RecipeError, match=r"no such file$"):
        yamlfile.load(tmp_path / "nowhere" / "on.yaml", House)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder; a file was expected"):
        yamlfile.load(tmp_path, House)
    (tmp_path / "plain").write_text("")
    with pytest.raises(RecipeError, match="cannot be read: Not a directory"):
        yamlfile.load(tmp_path / "plain" / "x.yaml", House)


MINIMAL = "name: x\nversion: 1.0.0\nsample: {count: 1}\nsources:\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("- card: wiki\n  pth: x\n", "FILE:6: sources[0].pth: unknown key; did you mean 'path'? Known here: acknowledge, card"),
        ("- card: 5\n", "FILE:5: sources[0].card: input should be a valid string; found 5"),
        ("- id: a\n  titel: A\n", "FILE:6: sources[0].titel: unknown key; did you mean 'title'? Known here: gated, homepage, id"),
        ("- id: a\n  titel: A\n", "FILE:5: sources[0].license: missing; it must be given"),
        ("- id: a\n  reader: {kind: text, text: b}\n", "FILE:6: sources[0].reader.text: unknown key; known here: extensions, kind"),
        ("- id: a\n  reader: {kind: jsonl, titel: b}\n", "FILE:6: sources[0].reader.titel: unknown key; did you mean 'title'?"),
        ("- wiki\n", "FILE:5: sources[0]: "),
    ],
)  # fmt: skip
def test_errors_inside_the_unions_of_a_recipe_stand_where_they_are(tmp_path: Path, source: str, says: str) -> None:
    assert says in complaint(tmp_path, MINIMAL + source, Recipe)


def test_a_source_that_is_a_bare_word_is_told_what_a_source_looks_like(tmp_path: Path) -> None:
    message = complaint(tmp_path, MINIMAL + "- wiki\n", Recipe)
    assert "instance of" not in message
    assert "keys and values" in message


def test_a_misspelt_card_is_taken_for_a_reference(tmp_path: Path) -> None:
    message = complaint(tmp_path, MINIMAL + "- crad: wikipedia\n", Recipe)
    assert "sources[0].crad: unknown key; did you mean 'card'? Known here: acknowledge, card, path" in message


def test_norwegian_wants_quotes(tmp_path: Path) -> None:
    text = MINIMAL.replace("sample: {count: 1}", "sample:\n  count: 1\n  languages:\n    no: 0.5") + "- card: x\n"
    message = complaint(tmp_path, text, Recipe)
    assert (
        "FILE:5: sample.languages: YAML reads one of these keys as False, which is no text; put that key in quotes"
        in message
    )
