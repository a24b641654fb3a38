"""Source cards: what a corpus is, where it is had, how it is read, and under which terms.

In: `catalog/<id>.yaml`, a card of the user's own, or a card written straight into a recipe. Out: a `Card`. Example:

    id: my-reports
    title: Annual reports
    lang: en
    license: LicenseRef-internal
    path: reports/*.jsonl
    reader: {kind: jsonl, text: body, title: heading}
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from longalign_data import yamlfile
from longalign_data.errors import RecipeError
from longalign_data.yamlfile import Strict

SourceId = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Letters, digits, '.', '_' and '-'.")
]


class RecordFields(Strict):
    """Which fields of a record hold what. `text` must exist in every record; the others fall back to the card."""

    text: str = "text"
    title: str | None = None
    lang: str | None = None
    license: str | None = None


class JsonlReader(RecordFields):
    """One JSON object a line; plain, .gz or .zst, told by the file name."""

    kind: Literal["jsonl"]


class ParquetReader(RecordFields):
    """One row a document."""

    kind: Literal["parquet"]


class TextReader(Strict):
    """One file a document: .txt and .md below the folder, or the files that the path names."""

    kind: Literal["text"]
    extensions: list[str] = [".txt", ".md"]


class CodeReader(Strict):
    """A source tree as documents: each file in path order under a header line with its path.

    `unit` says what one document is: `tree`, the whole folder; `entry`, each entry of the folder by itself (a
    single file, or a sub-folder with everything below it); `folder`, each folder with the files directly in it;
    `module`, like `folder`, but each file at the top is a document of its own (a tree of modules and packages).
    """

    kind: Literal["code"]
    unit: Literal["tree", "entry", "folder", "module"] = "tree"
    extensions: list[str] = Field(
        default=[
            ".py",
            ".pyi",
            ".c",
            ".h",
            ".cc",
            ".cpp",
            ".hpp",
            ".rs",
            ".go",
            ".java",
            ".js",
            ".ts",
            ".rb",
            ".sh",
            ".sql",
            ".md",
            ".rst",
            ".toml",
        ]
    )
    exclude: list[str] = Field(
        default=[],
        description=(
            "Glob patterns over paths relative to the source, in which `*` also crosses `/`; matching files and folders "
            "are left out."
        ),
    )
    max_file_bytes: Annotated[int, Field(gt=0)] = 1_000_000


class PydocTopicsReader(Strict):
    """The documentation topics that every Python ships for `help()`: one topic a document."""

    kind: Literal["pydoc-topics"]


class HubReader(RecordFields):
    """A dataset of the Hugging Face Hub, streamed; or local data files through the same library.

    Give `dataset` with the full commit hash as `revision`, or leave `dataset` out and let `path` name local files in
    `format`.
    """

    kind: Literal["hub"]
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: (
        Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A commit hash; a branch would move.")] | None
    ) = None
    format: Literal["json", "parquet", "csv", "text"] = "json"

    @model_validator(mode="after")
    def _pinned(self) -> "HubReader":
        if self.dataset is not None and self.revision is None:
            raise ValueError(
                "a hub dataset needs `revision`, the full commit hash, so that the same recipe gives the same data"
            )
        return self


Reader = Annotated[
    JsonlReader | ParquetReader | TextReader | CodeReader | PydocTopicsReader | HubReader, Field(discriminator="kind")
]


class Card(Strict):
    """One source.

    `path` is a file, a folder or a glob, relative to the YAML file that names it, or `python:stdlib` /
    `python:<package>` for what the running interpreter has. `license` is an SPDX expression or `LicenseRef-...`.
    """

    id: SourceId
    title: str
    lang: Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="ISO 639 code, such as en or zh.")]
    license: str
    reader: Reader
    path: str | None = None
    homepage: str | None = None
    obtain: str | None = Field(
        default=None, description="How a user gets the corpus; shown by `longalign catalog show`."
    )
    redistribute: bool = Field(default=False, description="Whether the licence lets the documents be published again.")
    notes: str | None = None


def builtin_folder() -> Path:
    """The folder of the cards that come with the package: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / "_catalog"
    return installed if installed.is_dir() else package.parent / "catalog"


def builtin_cards() -> dict[str, Path]:
    """Every card that comes with the package, by id (which is its file name)."""
    return {path.stem: path for path in sorted(builtin_folder().glob("*.yaml"))}


def load_card(name: str, *, relative_to: Path) -> tuple[Card, Path]:
    """The card called `name` (an id of the catalog, or a path ending in .yaml relative to the folder `relative_to`), and
    the file it stands in. Raises RecipeError when there is none, with the known ids."""
    if name.endswith((".yaml", ".yml")):
        path = relative_to / name
    else:
        known = builtin_cards()
        if name not in known:
            raise RecipeError(
                f"unknown source {name!r}; the catalog has: {', '.join(known) or 'nothing'}. A card of your own is named by its "
                "path (ending in .yaml), or written into the recipe"
            )
        path = known[name]
    card = yamlfile.load(path, Card)
    if not name.endswith((".yaml", ".yml")) and card.id != name:
        raise RecipeError(f"{path}:1: id: {card.id!r} stands in a file named {name!r}; they must be equal")
    return card, path
