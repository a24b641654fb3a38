import base64
import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from longalign_data.build.fingerprints import fingerprints
from longalign_data.encoding.encode import make_encoder
from longalign_data.errors import RecipeError
from longalign_data.recipe import Recipe, WorkModel, load_recipe, schema_json
from longalign_data.tokenizers import load_tokenizer

NOTES = "{id: notes, title: N, lang: en, license: CC0-1.0, path: ../notes, reader: {kind: text}}"
HEAD = "name: x\nversion: 1.0.0\nsample: {count: 1}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipes" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def complaint(tmp_path: Path, text: str) -> str:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value).replace(str(path), "FILE")


TAIL = f"sources: [{NOTES}]\n"
START = f"name: x\nversion: 1.0.0\n{TAIL}"
SAMPLE = f"{START}sample:\n  count: 1\n"


def test_the_schema_for_editors_is_in_step() -> None:
    """After a change of the recipe or the catalog:
    python -c "from longalign_data.recipe import schema_json; print(schema_json(), end='')" > recipes/schema.json"""
    stored = Path(__file__).parents[1] / "recipes" / "schema.json"
    assert stored.read_text(encoding="utf-8") == schema_json()
    assert json.loads(schema_json())["properties"]["sample"]


def test_every_recipe_that_comes_with_the_package_is_sound() -> None:
    recipes = Path(__file__).parents[1] / "recipes"
    for path in sorted([*recipes.glob("*.yaml"), *recipes.glob("mix/*.yaml")]):
        loaded = load_recipe(path)
        assert loaded.sources or loaded.mix


def test_paths_are_seen_from_the_file_that_names_them(tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "a.yaml").write_text(
        "id: a\ntitle: A\nlang: en\nlicense: CC0-1.0\npath: data/*.jsonl\nreader: {kind: jsonl}\n"
    )
    (cards / "b.yaml").write_text("id: b\ntitle: B\nlang: en\nlicense: CC0-1.0\nreader: {kind: jsonl}\n")
    (cards / "c.yaml").write_text(
        "id: c\ntitle: C\nlang: en\nlicense: CC0-1.0\npath: 'python:stdlib'\nreader: {kind: code}\n"
    )
    (cards / "d.yaml").write_text(
        f"id: d\ntitle: D\nlang: en\nlicense: CC0-1.0\nreader: {{kind: hub, dataset: o/d, revision: {'a' * 40}}}\n"
    )
    sources = (
        "sources:\n- card: ../cards/a.yaml\n- card: ../cards/b.yaml\n  path: mine.jsonl\n- card: ../cards/c.yaml\n"
    )
    loaded = load_recipe(write(tmp_path, f"{HEAD}{sources}- card: ../cards/d.yaml\n- {NOTES}\n"))
    # Compared without following `..`, which stays in the path.
    places = [Path(s.path).as_posix() if s.path else None for s in loaded.sources]
    recipes = (tmp_path / "recipes").resolve()
    assert places == [
        f"{recipes}/../cards/data/*.jsonl".replace(f"{recipes}/../", f"{tmp_path.resolve()}/"),
        f"{recipes}/mine.jsonl",
        "python:stdlib",
        None,
        f"{recipes}/../notes",
    ]
    assert loaded.relative("prompt.yaml") == tmp_path / "recipes" / "prompt.yaml"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, f"{HEAD}sources: [{NOTES.replace('../notes', '/data/x')}]\n"))
    assert loaded.sources[0].path == "/data/x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD}sources: []\n", "FILE:4: sources: list should have at least 1 item"),
        (f"{HEAD}sources:\n- card: no-such\n", "FILE:5: sources[0].card: unknown source 'no-such'; the catalog has: "),
        (
            f"{HEAD}sources:\n- {NOTES}\n- {NOTES}\n",
            "FILE:6: sources[1]: the source 'notes' stands twice in this recipe; ids must differ",
        ),
        (
            f"{HEAD}sources:\n- {NOTES.replace('path: ../notes, ', '')}\n",
            "FILE:5: sources[0].path: missing: the source 'notes' is read from local files.",
        ),
        (
            f"{HEAD}sources:\n- {NOTES.replace('../notes', '~nobody-here/x')}\n",
            "FILE:5: sources[0].path: '~nobody-here/x': no such user",
        ),
        (
            f"{SAMPLE}  sources:\n    note: 0.5\n",
            "FILE:7: sample.sources.note: no such source in this recipe; it has: notes",
        ),
        (
            f"{SAMPLE}  languages: {{en: 0.7, zh: 0.5}}\n",
            "FILE:4: sample: languages are shares of the count and add up to 1.2, more than 1",
        ),
        (
            f"{SAMPLE}  languages: {{en: -0.5}}\n",
            "FILE:6: sample.languages.en: input should be greater than or equal to 0; found -0.5",
        ),
        (f"{SAMPLE}  languages: {{en: .nan}}\n", "FILE:6: sample.languages.en: "),
        (
            f"{START}sample: {{count: 1, edges: [5, 5]}}\n",
            "FILE:4: sample: edges must rise from one to the next; found [5, 5]",
        ),
        (
            f"{START}sample: {{count: 1, edges: [5, 6], shares: [1, 1]}}\n",
            "FILE:4: sample: 2 edges make 1 buckets, but there are 2 shares",
        ),
        (f"{START}sample: {{count: 1, edges: [5, 6], shares: [0]}}\n", "FILE:4: sample: shares must not all be 0"),
        (
            f"{START}sample: {{count: 1, beta: 100}}\n",
            "FILE:4: sample.beta: input should be less than or equal to 8; found 100",
        ),
        (f"{START}sample: {{count: 0}}\n", "FILE:4: sample.count: input should be greater than 0; found 0"),
        (
            f"{HEAD}{TAIL}ingest: {{min_tokens: 9, max_tokens: 8}}\n",
            "FILE:5: ingest: min_tokens (9) is greater than max_tokens (8)",
        ),
        (
            f"{HEAD}{TAIL}generate: {{tasks: {{summary: 0}}}}\n",
            "FILE:5: generate: tasks: at least one share must be greater than 0",
        ),
        (
            f"{HEAD}{TAIL}encode: {{max_tokens: 70000}}\n",
            "FILE:1: file: encode.max_tokens (70000) is greater than pack.capacity (65536)",
        ),
        (
            f"{HEAD}{TAIL}keep: [pack]\n",
            "FILE:5: keep[0]: input should be 'documents', 'selection', 'samples', 'chats', 'sequences', "
            "'packs' or 'plan'; found 'pack'",
        ),
        (
            HEAD.replace("1.0.0", "1.0") + f"sources: [{NOTES}]\n",
            "FILE:2: version: input should be a valid string; found 1.0",
        ),
        (HEAD.replace("1.0.0", "v1") + f"sources: [{NOTES}]\n", "FILE:2: version: string should match pattern"),
    ],
    ids=lambda value: value[-60:] if value.startswith("FILE") else "",
)
def test_a_wrong_recipe_is_told_where_and_what(tmp_path: Path, text: str, says: str) -> None:
    assert says in complaint(tmp_path, text)


def test_a_mistake_in_a_card_names_the_card_too(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text("id: a\n")
    message = complaint(tmp_path, f"{HEAD}sources:\n- card: ../card.yaml\n")
    assert message.startswith("FILE:5: sources[0].card: ")
    assert "card.yaml:1: title: missing" in message


def test_the_defaults_are_those_of_the_paper() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "version": "1.0.0", "sample": {"count": 10}, "sources": [{"card": "a"}]}
    )
    assert (recipe.ingest.min_tokens, recipe.ingest.max_tokens) == (8_000, 64_000)
    assert recipe.sample.languages == {"zh": 0.1}
    assert sorted(recipe.generate.tasks) == ["extraction", "general", "reasoning", "summary"]
    assert recipe.pack.alpha == 1


def test_tokenizer_files_are_seen_from_the_recipe_and_their_place_is_no_identity(tmp_path: Path) -> None:
    ranks = "".join(f"{base64.b64encode(bytes([n])).decode()} {n}\n" for n in range(256))
    text = f"{HEAD}{TAIL}tokenizer: tiktoken:v/a.tiktoken\nencode: {{tokenizer: 'tiktoken:v/a.tiktoken'}}\n"
    first = write(tmp_path / "one", text)
    (first.parent / "v").mkdir()
    (first.parent / "v" / "a.tiktoken").write_text(ranks)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    prints = []
    for folder in ("one", "two"):
        recipe = load_recipe(tmp_path / folder / "recipes" / "mine.yaml").recipe
        place = f"tiktoken:{(tmp_path / folder / 'recipes' / 'v' / 'a.tiktoken').resolve()}"
        assert (recipe.tokenizer, recipe.encode.tokenizer) == (place, place)
        tokenizer = load_tokenizer(recipe.tokenizer).identity
        encoder = make_encoder(recipe.encode, recipe.tokenizer).identity
        parts = {"inputs": [], "curation": [], "mix_inputs": []}
        prints.append(fingerprints(recipe, **parts, prompts="p", tokenizer=tokenizer, encoder=encoder))
    assert prints[0] == prints[1]


@pytest.mark.parametrize("spec", ["qwen", "tiktoken:cl100k_base", "hf:Qwen/Qwen2.5-7B@main"])
def test_a_tokenizer_that_is_no_file_keeps_its_name(tmp_path: Path, spec: str) -> None:
    assert load_recipe(write(tmp_path, f"{HEAD}{TAIL}tokenizer: '{spec}'\n")).recipe.tokenizer == spec


def test_a_sentencepiece_model_and_a_folder_of_a_model_are_seen_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipes" / "llama").mkdir(parents=True)
    path = write(tmp_path, f"{HEAD}{TAIL}tokenizer: 'sentencepiece:a.model'\nencode: {{tokenizer: 'hf:llama'}}\n")
    recipe, folder = load_recipe(path).recipe, path.parent.resolve()
    assert recipe.tokenizer == f"sentencepiece:{folder}/a.model"
    assert recipe.encode.tokenizer == f"hf:{folder}/llama"


def test_a_bare_name_is_a_recipe_that_comes_along_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("quickstart")).recipe.name == "quickstart"
    with pytest.raises(RecipeError, match=r"quickstrat: no such file.*quickstart"):
        load_recipe(Path("quickstrat"))
    (tmp_path / "quickstart").write_text(f"{HEAD}{TAIL}")
    assert load_recipe(Path("quickstart")).recipe.name == "x"


def test_a_work_model_without_any_work_is_refused() -> None:
    for given in ({"linear": 0}, {"quadratic": 0}):
        WorkModel.model_validate(given)
    with pytest.raises(ValidationError, match="both 0"):
        WorkModel.model_validate({"linear": 0, "quadratic": 0})
