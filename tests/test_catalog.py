import re
from pathlib import Path

import pytest

from longalign_data.catalog import builtin_cards, load_card
from longalign_data.errors import RecipeError

CARD = "id: notes\ntitle: Notes\nlang: en\nlicense: CC0-1.0\nreader: {kind: text}\n"


def test_every_card_that_comes_with_the_package_is_sound_and_named_like_its_file() -> None:
    for name, path in builtin_cards().items():
        card, found = load_card(name, relative_to=Path("/nowhere"))
        assert (card.id, found) == (name, path)
        assert card.title
        assert card.license


def test_an_unknown_source_lists_the_catalog(tmp_path: Path) -> None:
    known = ", ".join(builtin_cards()) or "nothing"
    with pytest.raises(
        RecipeError, match=rf"unknown source 'wikipedia-xx'; the catalog has: {re.escape(known)}\. A card of your own"
    ):
        load_card("wikipedia-xx", relative_to=tmp_path)


def test_a_card_of_ones_own_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(CARD)
    card, path = load_card("cards/mine.yaml", relative_to=tmp_path)
    assert (card.id, path) == ("notes", tmp_path / "cards" / "mine.yaml")
    with pytest.raises(RecipeError, match=r"mien\.yaml: no such file; beside it stand: mine\.yaml"):
        load_card("cards/mien.yaml", relative_to=tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("lang: en", "lang: English"), r"mine\.yaml:3: lang: .*pattern"),
        (("id: notes", "id: My Notes"), r"mine\.yaml:1: id: .*pattern"),
        (("license: CC0-1.0\n", ""), r"mine\.yaml:1: license: missing; it must be given"),
        (("{kind: text}", "{kind: word}"), r"mine\.yaml:5: reader: .*'word'.*'jsonl', 'parquet', 'text', 'code'"),
        (("{kind: text}", "{kind: hub, dataset: a/b}"), r"mine\.yaml:5: reader: a hub dataset needs `revision`"),
        (("{kind: text}", "{kind: hub, dataset: a/b, revision: main}"), r"mine\.yaml:5: reader\.revision: .*pattern"),
        (("{kind: text}", "{kind: code, max_file_bytes: 0}"), r"mine\.yaml:5: reader\.max_file_bytes: .*greater than 0"),
        (("{kind: text}", "{kind: code, unit: file}"), r"mine\.yaml:5: reader\.unit: .*'tree', "),
    ],
)  # fmt: skip
def test_a_wrong_card_is_told_where(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    (tmp_path / "mine.yaml").write_text(CARD.replace(*change))
    with pytest.raises(RecipeError, match=says):
        load_card("mine.yaml", relative_to=tmp_path)
