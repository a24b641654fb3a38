"""Recipes: what to build. Everything in a recipe is identity; how it is run is on the command line and changes no data.

In: `recipes/<name>.yaml`. Out: a `Recipe` and, for each source, its card and the place of its files. The smallest recipe:

    name: my-first
    version: 1.0.0
    sources: [{id: notes, title: My notes, lang: en, license: LicenseRef-mine, path: ../notes, reader: {kind: text}}]
    sample: {count: 100}

`recipes/schema.json` is the JSON schema of `Recipe`, for editors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from longalign_data import yamlfile
from longalign_data.catalog import Card, builtin_cards, load_card
from longalign_data.errors import RecipeError
from longalign_data.yamlfile import Strict

Share = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class CardRef(Strict):
    """A source by its card: `card` is an id of the catalog or the path of a card file; `path` says where your copy of
    the corpus is, when that is not where the card says."""

    card: str
    path: str | None = None


def _source_form(value: Any) -> str:
    """The name of the model: `yamlfile` finds it again in the JSON schema. What names neither a card nor itself is taken
    for a misspelt reference, the smaller of the two."""
    if isinstance(value, Card):
        return "Card"
    inline = isinstance(value, dict) and "card" not in value and not value.keys().isdisjoint(("id", "title", "reader"))
    return "Card" if inline else "CardRef"


Source = Annotated[
    Annotated[CardRef, Tag("CardRef")] | Annotated[Card, Tag("Card")],
    Discriminator(_source_form),
]


class Ingest(Strict):
    """The window of document lengths, in tokens of the recipe's tokenizer, both ends included."""

    min_tokens: Positive = 8_000
    max_tokens: Positive = 64_000

    @model_validator(mode="after")
    def _ordered(self) -> "Ingest":
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is greater than max_tokens ({self.max_tokens})")
        return self


class SampleDocuments(Strict):
    """Which documents to take, and how many.

    `buckets`: `shares` of the count per length bucket between `edges` (flat when no shares are given; a bucket includes
    its lower edge, the last bucket both). `power`: chance proportional to tokens^`beta`. `none`: every document alike.
    `languages` and `sources` give shares of the count to some; what is left is open to the others. Where the corpus
    cannot fill a bucket, `shortfall: fill` takes other documents in its place, the longest first, and `leave` takes fewer.
    """

    count: Positive
    strategy: Literal["buckets", "power", "none"] = "buckets"
    edges: Annotated[list[Positive], Field(min_length=2)] = [
        8_000,
        16_000,
        24_000,
        32_000,
        40_000,
        48_000,
        56_000,
        64_000,
    ]
    shares: list[Share] | None = None
    beta: float = 1.0
    languages: dict[str, Share] = {"zh": 0.1}
    sources: dict[str, Share] = {}
    shortfall: Literal["fill", "leave"] = "fill"

    @model_validator(mode="after")
    def _consistent(self) -> "SampleDocuments":
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges must rise from one to the next; found {self.edges}")
        if self.shares is not None and len(self.shares) != len(self.edges) - 1:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) - 1} buckets, but there are {len(self.shares)} shares"
            )
        if self.shares is not None and sum(self.shares) <= 0:
            raise ValueError("shares must not all be 0")
        for name, quota in (("languages", self.languages), ("sources", self.sources)):
            if sum(quota.values()) > 1 + 1e-9:
                raise ValueError(f"{name} are shares of the count and add up to {sum(quota.values()):g}, more than 1")
        return self


class TeacherChoice(Strict):
    """Who asks and answers. `model` is the provider's name for it; `parameters` go into every request as they are.
    `terms` is what the provider's terms say of the output's use; it goes into every sample and onto the card."""

    provider: Literal["extractive", "anthropic", "openai"] = "extractive"
    model: str = "extractive-1"
    max_question_tokens: Positive = 1_024
    max_answer_tokens: Positive = 2_048
    parameters: dict[str, JsonValue] = {}
    terms: str | None = None


class Generate(Strict):
    """Task types with their shares, the prompt files, and the teacher. `templates` are prompt files of your own, relative
    to the recipe; a task they name replaces or joins the built-in ones."""

    tasks: Annotated[dict[str, Share], Field(min_length=1)] = {
        "general": 1.0,
        "summary": 1.0,
        "reasoning": 1.0,
        "extraction": 1.0,
    }
    templates: list[str] = []
    teacher: TeacherChoice = TeacherChoice()

    @model_validator(mode="after")
    def _some_task(self) -> "Generate":
        if sum(self.tasks.values()) <= 0:
            raise ValueError("tasks: at least one share must be greater than 0")
        return self


class Encode(Strict):
    """The trainee's tokenizer (the recipe's own when none is given) and chat template; `tokenizer` as the template takes
    the one that a Hugging Face tokenizer carries. Samples longer than `max_tokens` lose the middle of their document
    (`cut-document`), or are rejected (`reject`)."""

    tokenizer: str | None = None
    template: str = "chatml"
    max_tokens: Positive = 65_536
    overlong: Literal["cut-document", "reject"] = "cut-document"


class WorkModel(Strict):
    """Modelled cost of a sequence of l tokens: `linear` * l + `quadratic` * l^2. The default is that of a 7B model."""

    linear: Annotated[float, Field(ge=0)] = 24_576.0
    quadratic: Annotated[float, Field(ge=0)] = 1.0


class PackSequences(Strict):
    """How sequences share packs and packs share steps. `packs_per_step` is K = ranks x accumulation; `alpha` is the
    exponent of the loss weight N_i^-alpha (1: every sequence counts the same; 0: every token does)."""

    strategy: Literal["balanced", "random"] = "balanced"
    capacity: Positive = 65_536
    packs_per_step: Positive = 8
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    work: WorkModel = WorkModel()


TableName = Literal["documents", "selection", "samples", "sequences", "packs", "plan"]


class Recipe(Strict):
    """One data set, wholly described."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", description="Semantic version, such as 1.0.0.")]
    description: str = ""
    seed: int = 0
    tokenizer: str = Field(
        default="qwen", description="Measures all lengths: qwen, mistral-v1, tiktoken:..., sentencepiece:..., hf:..."
    )
    sources: Annotated[list[Source], Field(min_length=1)]
    ingest: Ingest = Ingest()
    sample: SampleDocuments
    generate: Generate = Generate()
    encode: Encode = Encode()
    pack: PackSequences = PackSequences()
    keep: list[TableName] = Field(
        default=["documents", "selection", "samples", "sequences", "packs", "plan"],
        description="Tables that stay in the build; rejects always do.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.encode.max_tokens > self.pack.capacity:
            raise ValueError(
                f"encode.max_tokens ({self.encode.max_tokens}) is greater than pack.capacity ({self.pack.capacity}): "
                "such sequences would fit no pack"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSource:
    """A card with the place of its files: `path` is absolute (a glob stays one), `python:...` as written, or None for a
    corpus that is streamed from the Hub."""

    card: Card
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe with everything that it names: the file it came from, its text, and its sources in order."""

    recipe: Recipe
    path: Path
    text: str
    sources: Sequence[PlacedSource]

    def relative(self, name: str) -> Path:
        """A path that the recipe names, seen from the recipe's folder."""
        return self.path.parent / name


def load_recipe(path: Path) -> LoadedRecipe:
    """The recipe and its cards. Raises RecipeError naming file, line, key, what was expected and what is known."""
    text = yamlfile.read_text(path)
    recipe = yamlfile.parse(text, path, Recipe)
    placed: list[PlacedSource] = []

    def wrong(what: str, *location: str | int) -> RecipeError:
        return RecipeError(f"{path}:{yamlfile.line_of(text, location)}: {what}")

    seen: set[str] = set()
    for index, source in enumerate(recipe.sources):
        if isinstance(source, CardRef):
            try:
                card, card_file = load_card(source.card, relative_to=path.parent)
            except RecipeError as error:
                raise wrong(f"sources[{index}].card: {error}", "sources", index, "card") from None
            place = source.path if source.path is not None else card.path
            base = path.parent if source.path is not None else card_file.parent
        else:
            card, place, base = source, source.path, path.parent
        if card.id in seen:
            raise wrong(
                f"sources[{index}]: the source {card.id!r} stands twice in this recipe; ids must differ",
                "sources",
                index,
            )
        seen.add(card.id)
        if place is None and not (card.reader.kind == "hub" and card.reader.dataset):
            hint = f" {card.obtain.strip()}" if card.obtain else ""
            raise wrong(
                f"sources[{index}].path: missing: the source {card.id!r} is read from local files.{hint}",
                "sources",
                index,
            )
        if place is not None and not place.startswith("python:"):
            try:
                place = str(base.resolve() / Path(place).expanduser())
            except RuntimeError:
                raise wrong(f"sources[{index}].path: {place!r}: no such user", "sources", index, "path") from None
        placed.append(PlacedSource(card=card, path=place))
    for name in recipe.sample.sources:
        if name not in seen:
            raise wrong(
                f"sample.sources.{name}: no such source in this recipe; it has: {', '.join(sorted(seen))}",
                "sample", "sources", name,
            )  # fmt: skip
    return LoadedRecipe(recipe=_with_placed_tokenizers(recipe, path.parent), path=path, text=text, sources=placed)


def _with_placed_tokenizers(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the files that its tokenizers name seen from `folder`."""
    trainee = recipe.encode.tokenizer
    encode = recipe.encode.model_copy(update={"tokenizer": trainee and _placed_tokenizer(trainee, folder)})
    return recipe.model_copy(update={"tokenizer": _placed_tokenizer(recipe.tokenizer, folder), "encode": encode})


def _placed_tokenizer(spec: str, folder: Path) -> str:
    """`spec` with an absolute path where it names a file or folder; a name that tiktoken or the Hub knows stays."""
    kind, _, name = spec.partition(":")
    if not name or name.startswith("~"):
        return spec
    path = folder.resolve() / name
    local = {"sentencepiece": True, "tiktoken": path.is_file() or name.endswith(".tiktoken"), "hf": path.is_dir()}
    return f"{kind}:{path}" if local.get(kind) else spec


def schema_json() -> str:
    """The JSON schema of a recipe as it stands in `recipes/schema.json`."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "longalign-data recipe"
    schema["$defs"]["CardRef"]["properties"]["card"]["examples"] = sorted(builtin_cards())
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
