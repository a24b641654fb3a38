"""Recipes: what to build. Everything in a recipe is identity; how it is run is on the command line and changes no data.

In: `recipes/<name>.yaml`. Out: a `Recipe` and, for each source, its card and the place of its files. The smallest recipe:

    name: my-first
    version: 1.0.0
    sources: [{id: notes, title: My notes, lang: en, license: LicenseRef-mine, path: ../notes, reader: {kind: text}}]
    sample: {count: 100}

`recipes/schema.json` is the JSON schema of `Recipe`, for editors.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from longalign_data import yamlfile
from longalign_data.catalog import Card, SourceId, load_card
from longalign_data.errors import RecipeError, SourceError, TokenizerError
from longalign_data.yamlfile import Strict

Share = Annotated[float, Field(ge=0)]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,95}$"
VERSION_PATTERN = r"^[0-9]+\.[0-9]+\.[0-9]+$"
"""What a name and a version of a build look like; both become folders."""

DocumentOrSampleId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="A whole id, 32 characters.")]
Positive = Annotated[int, Field(gt=0)]


class CardRef(Strict):
    """A source by its card: `card` is an id of the catalog or the path of a card file; `path` says where your copy of
    the corpus is, when that is not where the card says. A gated source needs `acknowledge`, the licence of its card."""

    card: str
    path: str | None = None
    acknowledge: str | None = None


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


class LanguageCheck(Strict):
    """The language of a document, found in windows spread over it. `reject` refuses one whose language is not the declared
    one in at least `min_share` of the windows; `relabel` puts the found language in its place. Code is left alone."""

    action: Literal["keep", "reject", "relabel"] = "keep"
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.6


class SecretsCheck(Strict):
    """Keys, tokens and passwords are masked, or their documents rejected: in sources that are code, or in `all`. Passwords of
    fewer than 16 characters in an assignment, or 8 in a URL, and such without a digit or without a letter are not looked for."""

    action: Literal["keep", "mask", "reject"] = "mask"
    where: Literal["code", "all"] = "code"


class PersonalCheck(Strict):
    """Personal data is masked: e-mail addresses; telephone numbers with `+` and the country, as `212-555-0187`, `(212) 555-0187`,
    `212.555.0187` and `1-800-555-0187` of North America, as `020 7946 0018` and `(0161) 496 0123` of the United Kingdom,
    mobile ones of China and `010-62345678`; identity numbers, payment cards and accounts (with their checksums); public IP
    addresses."""

    action: Literal["keep", "mask"] = "keep"
    kinds: Annotated[
        list[Literal["email", "phone", "identity-number", "card-number", "account-number", "ip"]], Field(min_length=1)
    ] = ["email", "phone", "identity-number", "card-number", "account-number", "ip"]


UnitShare = Annotated[float, Field(ge=0, le=1)]


class QualityCheck(Strict):
    """Documents that were extracted badly are rejected: the largest shares of a text that may be garbled characters,
    lines that repeat others, 10-token n-grams that repeat others, and lines that read like menus. Code is left alone."""

    action: Literal["keep", "reject"] = "keep"
    max_garbled: UnitShare = 0.005
    max_repeated_lines: UnitShare = 0.5
    max_repeated_ngrams: UnitShare = 0.5
    max_boilerplate: UnitShare = 0.6


class NearDuplicateCheck(Strict):
    """A document is rejected that is `threshold` alike (Jaccard similarity of 5-token shingles, estimated) to one before it,
    in the order of the sources and their partitions."""

    action: Literal["keep", "reject"] = "keep"
    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.8


class Decontaminate(Strict):
    """Documents are rejected that hold at least `overlap` of the n-grams of one benchmark text, or of which so much stands
    in any. `index` is a file of `longalign decontam index`, relative to the recipe; without it nothing is checked."""

    index: str | None = None
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5


class Curate(Strict):
    """What is masked and what is kept out, one switch each. Equal texts are always kept out but for the first."""

    language: LanguageCheck = LanguageCheck()
    secrets: SecretsCheck = SecretsCheck()
    personal: PersonalCheck = PersonalCheck()
    quality: QualityCheck = QualityCheck()
    near_duplicates: NearDuplicateCheck = NearDuplicateCheck()
    decontaminate: Decontaminate = Decontaminate()


class SampleDocuments(Strict):
    """Which documents to take, and how many.

    `buckets`: `shares` of the count per length bucket between `edges` (flat when no shares are given; a bucket includes
    its lower edge, the last bucket both). `power`: chance proportional to tokens^`beta`. `none`: every document alike; both
    take lengths outside the edges too. `languages` and `sources` give shares of the count to some; what is left is open to
    the others. Where the corpus cannot fill a bucket or a share, `shortfall: fill` takes other documents in its place, the
    longest first with `buckets` and by the strategy's chances otherwise, `leave` takes fewer, and `stop` ends the stage with
    an error that names what is missing.
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
    beta: Annotated[float, Field(ge=-8, le=8)] = 1.0
    languages: dict[str, Share] = {"zh": 0.1}
    sources: dict[str, Share] = {}
    shortfall: Literal["fill", "leave", "stop"] = "fill"

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


EXTRACTIVE_MODEL = "extractive-1"
"""The version of the extractive teacher: raised when the same request would get another reply, so that ledgers keep apart."""

_SET_BY_THE_STAGE = ("model", "messages", "max_tokens", "max_completion_tokens", "system", "stream", "n", "tools")


class TeacherChoice(Strict):
    """Who asks and answers. `model` is the provider's name for it; `parameters` go into every request as they are.
    `terms` is what the provider's terms say of the output's use; it goes into every sample and onto the card."""

    provider: Literal["extractive", "anthropic", "openai"] = "extractive"
    model: str = EXTRACTIVE_MODEL
    max_question_tokens: Positive = 1_024
    max_answer_tokens: Positive = 2_048
    parameters: dict[str, JsonValue] = {}
    terms: str | None = None

    @field_validator("parameters")
    @classmethod
    def _not_ours(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in parameters:
            if name in _SET_BY_THE_STAGE:
                raise ValueError(
                    f"{name} is set by the stage itself; take it out (the limits are max_question_tokens and "
                    "max_answer_tokens)"
                )
        return parameters

    @model_validator(mode="after")
    def _model_of_provider(self) -> "TeacherChoice":
        if (self.provider == "extractive") != (self.model == EXTRACTIVE_MODEL):
            expected = (
                f"the extractive teacher of this release is {EXTRACTIVE_MODEL!r}"
                if self.provider == "extractive"
                else f"name the model as {self.provider} knows it"
            )
            raise ValueError(f"model: {self.model!r} with provider {self.provider!r}; {expected}")
        return self


class ReplyChecks(Strict):
    """Checks of every answer that need no teacher. `run` names those that are made; their scores and evidence go into the
    samples. A fault named in `reject` makes a reject of the sample. Answers with three or more numbers, names and
    quotations of which a smaller share than `min_grounding` stands in the document are rejected too."""

    run: list[Literal["wording", "form", "language", "copying", "grounding", "duplicates"]] = [
        "wording",
        "form",
        "language",
        "copying",
        "grounding",
        "duplicates",
    ]
    reject: list[Literal["refusal-text", "repeated-text", "wrong-language", "question-echo", "document-copied"]] = [
        "refusal-text",
        "repeated-text",
        "wrong-language",
        "question-echo",
        "document-copied",
    ]
    min_grounding: Annotated[float, Field(ge=0, le=1)] = 0.0


class ClosedBookCheck(Strict):
    """Asks each question once more without the document. Answers of which a greater share than `max_known` (numbers, names and
    quotations) is in that reply are rejected: the teacher knew them anyway."""

    max_known: Annotated[float, Field(ge=0, le=1)] = 1.0


class JudgeCheck(Strict):
    """Has the teacher judge each answer beside its document, from 1 to 5 with reasons. Answers below `min_score` are
    rejected."""

    min_score: Annotated[int, Field(ge=1, le=5)] = 1


class PaidChecks(Strict):
    """Checks of every answer that ask the teacher again and are paid for: one short call for `closed_book`, one with the whole
    document for `judge`. Write `{}` behind the name for one that scores and rejects nothing."""

    closed_book: ClosedBookCheck | None = None
    judge: JudgeCheck | None = None


class Generate(Strict):
    """Task types with their shares, the prompt files, and the teacher. `templates` are prompt files of your own, relative
    to the recipe; a task they name replaces or joins the built-in ones. `answers_per_document` of the five questions are
    drawn and answered, each a sample of its own (1: LongAlign's own way; more are cheaper, and more alike)."""

    tasks: Annotated[dict[str, Share], Field(min_length=1)] = {
        "general": 1.0,
        "summary": 1.0,
        "reasoning": 1.0,
        "extraction": 1.0,
    }
    templates: list[str] = []
    answers_per_document: Annotated[int, Field(ge=1, le=5)] = 1
    teacher: TeacherChoice = TeacherChoice()
    checks: ReplyChecks = ReplyChecks()
    paid_checks: PaidChecks = PaidChecks()

    @model_validator(mode="after")
    def _can_judge(self) -> "Generate":
        if self.teacher.provider == "extractive" and self.paid_checks != PaidChecks():
            raise ValueError(
                "paid_checks: the extractive teacher quotes and cannot judge; take another teacher for them"
            )
        return self

    @model_validator(mode="after")
    def _some_task(self) -> "Generate":
        if sum(self.tasks.values()) <= 0:
            raise ValueError("tasks: at least one share must be greater than 0")
        return self


class Encode(Strict):
    """The trainee's tokenizer (the recipe's own when none is given) and chat template; `tokenizer` as the template takes
    the one that a Hugging Face tokenizer carries. Samples longer than `max_tokens` lose the middle of their document
    (`cut-document`), or are rejected (`reject`).

    `mode: pretrain` is for continual pre-training: the selected documents themselves become sequences, every token a
    target, long ones cut into windows of `max_tokens`; no teacher, no template."""

    mode: Literal["chat", "pretrain"] = "chat"
    tokenizer: str | None = None
    template: str = "chatml"
    max_tokens: Annotated[int, Field(ge=2)] = 65_536
    overlong: Literal["cut-document", "reject"] = "cut-document"

    @model_validator(mode="after")
    def _one_mode(self) -> "Encode":
        for name in ("template", "overlong"):
            if self.mode == "pretrain" and name in self.model_fields_set:
                raise ValueError(f"{name} says how conversations are encoded; with mode: pretrain there are none")
        return self


class MixSet(Strict):
    """Conversations that exist already, to train on beside the built samples: `messages` or ShareGPT's `conversations`.

    `path` names .jsonl, .json or .parquet files (a file, a folder or a glob, relative to the recipe); or `dataset` a
    dataset of the Hugging Face Hub at the commit `revision`. Without `count` (conversations) or `share` (of those that
    can be used) all are taken. `document` says where a conversation may be shortened when it is too long:
    `before-last-blank-line` of the first user turn, as in LongAlign's data, or nowhere. `terms` are those of whoever wrote
    the answers; `redistribute` says whether the licence lets the conversations be published again."""

    id: SourceId
    lang: Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="ISO 639 code, such as en or zh.")]
    license: str
    path: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: (
        Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A commit hash; a branch would move.")] | None
    ) = None
    count: Positive | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    task: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = "general-chat"
    document: Literal["none", "before-last-blank-line"] = "none"
    terms: str = ""
    redistribute: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "MixSet":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either `path`, local files, or `dataset`, an id of the Hugging Face Hub")
        if self.dataset is not None and self.revision is None:
            raise ValueError(
                "a hub dataset needs `revision`, the full commit hash, so that the same recipe gives the same data"
            )
        if self.count is not None and self.share is not None:
            raise ValueError("give `count` or `share`, not both")
        return self


WORK_LINEAR: dict[str, float] = {"1b": 12_288, "3b": 18_432, "7b": 24_576, "13b": 30_720, "32b": 30_720, "70b": 49_152}
"""The linear part of the work of a token, by model size, when the quadratic part is 1: six times the hidden size (2,048 to
8,192), from 24 h^2 * l multiply-adds of a layer's matrices to 4 h * l^2 of its attention. Causal attention does half of
those, at about half the matrices' speed."""


class WorkModel(Strict):
    """Modelled cost of a sequence of l tokens: `linear` * l + `quadratic` * l^2, in any unit. Without `linear`, that of a
    model of the size `model`. It decides in which order the packs of a step lie, and which sequences share a pack."""

    model: Literal["1b", "3b", "7b", "13b", "32b", "70b"] = "7b"
    linear: Annotated[float | None, Field(ge=0)] = None
    quadratic: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _some_work(self) -> "WorkModel":
        if self.linear == 0 and self.quadratic == 0:
            raise ValueError("`linear` and `quadratic` are both 0, so nothing would be work; give at least one above 0")
        return self

    @property
    def cost(self) -> tuple[float, float]:
        """The linear and the quadratic part."""
        return (WORK_LINEAR[self.model] if self.linear is None else self.linear, self.quadratic)


class MeasuredWork(WorkModel):
    """A work model out of a file of its own, for `longalign plan --work-model`. `seconds` is what one unit of work takes
    on the machine where it was measured."""

    seconds: Annotated[float | None, Field(gt=0)] = None


class PackSequences(Strict):
    """How sequences share packs and packs share steps. `packs_per_step` is K = ranks x accumulation; `alpha` is the
    exponent of the loss weight N_i^-alpha (1: every sequence counts the same; 0: every token does). With `unit: turn` it is
    every answer of a conversation that counts, not every conversation; `source_weights` multiply the weights of some
    sources (of mix sets too), 1 being the others'.

    `balanced` makes steps alike and packs of alike work; `random` shuffles the fullest packs; `sorted` (batches of like
    length) and `naive` put one sequence into a pack. `max_sequences` limits the sequences of a pack. With
    `smaller_capacities`, some steps have packs of at most so many tokens. Each of the `epochs` draws anew which sequences
    come together.
    """

    strategy: Literal["balanced", "random", "sorted", "naive"] = "balanced"
    capacity: Positive = 65_536
    smaller_capacities: list[Positive] = []
    max_sequences: Positive | None = None
    packs_per_step: Positive = 8
    epochs: Positive = 1
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    unit: Literal["sequence", "turn"] = "sequence"
    source_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    work: WorkModel = WorkModel()

    @model_validator(mode="after")
    def _capacities(self) -> "PackSequences":
        if any(smaller >= self.capacity for smaller in self.smaller_capacities):
            raise ValueError(
                f"smaller_capacities must be smaller than capacity ({self.capacity}); found {self.smaller_capacities}"
            )
        if self.smaller_capacities and self.strategy in ("sorted", "naive"):
            raise ValueError(
                f"smaller_capacities: strategy {self.strategy!r} puts one sequence into a pack; remove them"
            )
        return self


class Exclude(Strict):
    """What was withdrawn: documents are rejected when they are read, samples when they are made, both as `withdrawn`.
    `longalign remove` takes things out of a build that stands; these lines keep them out of those to come."""

    documents: list[DocumentOrSampleId] = []
    samples: list[DocumentOrSampleId] = []


TableName = Literal["documents", "selection", "samples", "chats", "sequences", "packs", "plan"]


class Recipe(Strict):
    """One data set, wholly described. Without `sources` it consists of its `mix` alone."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN, description="Semantic version, such as 1.0.0.")]
    description: str = ""
    seed: int = 0
    tokenizer: str = Field(
        default="qwen", description="Measures all lengths: qwen, mistral-v1, tiktoken:..., sentencepiece:..., hf:..."
    )
    sources: Annotated[list[Source], Field(min_length=1, validate_default=False)] = []
    ingest: Ingest = Ingest()
    curate: Curate = Curate()
    sample: SampleDocuments = SampleDocuments(count=1)
    generate: Generate = Generate()
    mix: list[MixSet] = []
    encode: Encode = Encode()
    pack: PackSequences = PackSequences()
    exclude: Exclude = Exclude()
    keep: list[TableName] = Field(
        default=["documents", "selection", "samples", "chats", "sequences", "packs", "plan"],
        description="Tables that stay in the build; rejects always do.",
    )

    @model_validator(mode="after")
    def _has_something_to_build(self) -> "Recipe":
        given = self.model_fields_set
        if not self.sources and not self.mix:
            raise ValueError("sources: missing: where documents come from (or `mix`, conversations that exist already)")
        if self.sources and "sample" not in given:
            raise ValueError("sample: missing: how many documents to take, such as `sample: {count: 100}`")
        if not self.sources and (useless := given & {"ingest", "sample", "generate"}):
            raise ValueError(f"{sorted(useless)[0]} is about documents, and the recipe has no sources")
        if self.encode.mode == "pretrain" and (useless := given & {"mix", "generate"}):
            raise ValueError(f"{sorted(useless)[0]} is about conversations; with encode.mode: pretrain there are none")
        if self.encode.mode == "pretrain" and not self.sources:
            raise ValueError("encode.mode: pretrain is about documents, and the recipe has no sources")
        return self

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
class PlacedMix:
    """A set of conversations with the place of its files, absolute (a glob stays one); None for one of the Hub."""

    set: MixSet
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe with everything that it names: the file it came from, its text, its sources and its mix in order."""

    recipe: Recipe
    path: Path
    text: str
    sources: Sequence[PlacedSource]
    mix: Sequence[PlacedMix] = ()

    def relative(self, name: str) -> Path:
        """A path that the recipe names, seen from the recipe's folder."""
        return self.path.parent / name

    @contextmanager
    def blamed(self, *location: str | int) -> Iterator[None]:
        """Gives an error about what the recipe says at `location`, found out only when it is used, its file, line and key."""
        try:
            yield
        except (RecipeError, SourceError, TokenizerError) as error:
            line = yamlfile.line_of(yamlfile.read_text(self.path), location)
            raise type(error)(f"{self.path}:{line}: {'.'.join(map(str, location))}: {error}") from None


def builtin_recipes() -> dict[str, Path]:
    """Every recipe that comes with the package, by name: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / "_recipes"
    folder = installed if installed.is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _builtin(path: Path) -> Path:
    """`path` itself, unless it is a bare name and no such file exists; then the recipe of that name."""
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path
    known = builtin_recipes()
    if path.name not in known:
        raise RecipeError(f"{path}: no such file, and no recipe that comes along; these do: {', '.join(known)}")
    return known[path.name]


def load_recipe(path: Path) -> LoadedRecipe:
    """The recipe and its cards; a bare name such as `quickstart` is one that comes with the package.

    Raises RecipeError naming file, line, key, what was expected and what is known.
    """
    path = _builtin(path)
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
        if card.gated is not None:
            given = source.acknowledge if isinstance(source, CardRef) else None
            if given != card.license:
                raise wrong(
                    f"sources[{index}].acknowledge: the source {card.id!r} is gated: {card.gated.strip()} If you can say so, "
                    f"write `acknowledge: {card.license}` beside its `card`"
                    + (f"; found {given!r}" if given is not None else ""),
                    "sources",
                    index,
                )
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
    mix: list[PlacedMix] = []
    for index, choice in enumerate(recipe.mix):
        if choice.id in seen:
            raise wrong(
                f"mix[{index}].id: {choice.id!r} stands twice in this recipe; ids must differ", "mix", index, "id"
            )
        seen.add(choice.id)
        where = None
        if choice.path is not None:
            try:
                where = str(path.parent.resolve() / Path(choice.path).expanduser())
            except RuntimeError:
                raise wrong(f"mix[{index}].path: {choice.path!r}: no such user", "mix", index, "path") from None
        mix.append(PlacedMix(set=choice, path=where))
    for name in recipe.pack.source_weights:
        if name not in seen:
            raise wrong(
                f"pack.source_weights.{name}: no such source in this recipe; it has: {', '.join(sorted(seen))}",
                "pack", "source_weights", name,
            )  # fmt: skip
    return LoadedRecipe(
        recipe=_with_placed_tokenizers(recipe, path.parent), path=path, text=text, sources=placed, mix=mix
    )


_TRIAL_STEM = 80


def name_without_limit(name: str) -> str:
    """The name of the whole build that a trial's name is made of (its first 80 characters); any other name as it is."""
    return re.sub(r"-limit-[0-9]+$", "", name)


def limit_words(name: str) -> str:
    """How the commands are told which trial a build is: ` --limit N`, nothing for a whole build."""
    found = re.search(r"-limit-([0-9]+)$", name)
    return f" --limit {found[1]}" if found else ""


def trials_of(name: str) -> str:
    """A pattern, as of `Path.glob`, for the names of the trials of a build, or of a build that is a trial itself."""
    return f"{name_without_limit(name)[:_TRIAL_STEM]}-limit-*"


def limited(loaded: LoadedRecipe, count: int) -> LoadedRecipe:
    """The recipe with at most `count` documents to sample, under a name of its own: a trial never stands where the whole
    build would. Its text says so, because a build keeps the text of its recipe."""
    recipe = loaded.recipe
    sample = recipe.sample.model_copy(update={"count": min(count, recipe.sample.count)})
    name = f"{recipe.name[:_TRIAL_STEM]}-limit-{count}"
    text = f"# A trial: built with --limit {count}, so sample.count is {sample.count}.\n{loaded.text}"
    return dataclasses.replace(loaded, recipe=recipe.model_copy(update={"name": name, "sample": sample}), text=text)


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


def portable(name: str) -> str:
    """A path, or a specification such as `hf:/models/a`, without the place on this machine: of an absolute path, or one
    from the home folder, its last name. Everything else stays as it is."""
    kind, separator, path = name.partition(":")
    if not separator or _is_placed(name):
        kind, path = "", name
    return f"{kind}{separator if kind else ''}{Path(path).name}" if _is_placed(path) else name


def _is_placed(path: str) -> bool:
    return path.startswith("~") or Path(path).is_absolute()


_PLACES = frozenset({"path", "card", "tokenizer", "templates", "index"})
"""Keys of a recipe whose values may name files."""


def without_places(text: str) -> str:
    """A recipe's text with every path `portable`. Everything else stands as it was written."""
    found: list[tuple[int, int, str]] = []
    _find_places(yaml.compose(text, Loader=yaml.SafeLoader), found)
    for start, end, name in sorted(found, reverse=True):
        text = text[:start] + json.dumps(name, ensure_ascii=False) + text[end:]
    return text


def _find_places(node: Any, found: list[tuple[int, int, str]]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _find_places(item, found)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        _find_places(value, found)
        values = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for one in values if key.value in _PLACES else ():
            if isinstance(one, yaml.ScalarNode):
                short = portable(one.value)
                if short != one.value:
                    found.append((one.start_mark.index, one.end_mark.index, short))


def schema_json() -> str:
    """The JSON schema of a recipe as it stands in `recipes/schema.json`."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "longalign-data recipe"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
