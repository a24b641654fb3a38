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


SOURCE_SUFFIXES = (
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
    ".mjs",
    ".jsx",
    ".ts",
    ".tsx",
    ".vue",
    ".cs",
    ".kt",
    ".swift",
    ".scala",
    ".dart",
    ".php",
    ".rb",
    ".pl",
    ".lua",
    ".R",
    ".jl",
    ".hs",
    ".ml",
    ".ex",
    ".erl",
    ".clj",
    ".sh",
    ".sql",
    ".md",
    ".rst",
    ".toml",
)
"""Files of a source tree that are read when a card names none."""


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
    extensions: list[str] = Field(default_factory=lambda: list(SOURCE_SUFFIXES))
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


class WikipediaReader(Strict):
    """A MediaWiki `pages-articles` dump: XML, plain or .bz2, multistream or not. Articles alone: redirects, disambiguation
    pages and other namespaces are left out. Of Chinese pages `variant` says which form their own markers choose, and with
    `convert` all other characters are brought into that form too, by OpenCC."""

    kind: Literal["wikipedia"]
    variant: Literal["zh-cn", "zh-tw", "zh-hk", "zh-sg"] = "zh-cn"
    convert: bool = False


class FilesReader(Strict):
    """A folder of office files: .pdf, .docx, .pptx, .html, .epub, .md, .txt; one file a document."""

    kind: Literal["files"]
    extensions: list[Literal[".pdf", ".docx", ".pptx", ".html", ".htm", ".xhtml", ".epub", ".md", ".rst", ".txt"]] = [
        ".pdf",
        ".docx",
        ".pptx",
        ".html",
        ".htm",
        ".xhtml",
        ".epub",
        ".md",
        ".rst",
        ".txt",
    ]


class StackExchangeReader(Strict):
    """A Stack Exchange dump: `Posts.xml`, as a file or inside a .7z; one thread a document, answers by score."""

    kind: Literal["stackexchange"]
    min_score: int = Field(default=-1_000_000, description="Answers with a lower score are left out.")


class GithubReader(Strict):
    """Repositories: each folder, .tar.gz or .zip below the source's folder is one, and each Parquet file holds rows of
    many, grouped by `repository`. A document is a repository, or with `unit: folder` each folder of one.

    Rows of a repository that stand in several Parquet files make a document in each: bring them into one file first.
    `licenses` lists the SPDX ids that are taken; a repository with another licence, or none that is known, is a reject.
    Of `MIT OR GPL-3.0-only` one must be listed, of `MIT AND GPL-3.0-only` both. Without it everything is taken, and what
    has no known licence is called `NOASSERTION`.
    """

    kind: Literal["github"]
    unit: Literal["repository", "folder"] = "repository"
    licenses: list[str] | None = None
    extensions: list[str] = Field(default_factory=lambda: list(SOURCE_SUFFIXES))
    exclude: list[str] = []
    max_file_bytes: Annotated[int, Field(gt=0)] = 1_000_000
    repository: str = Field(default="repo_name", description="Parquet column with the repository's name.")
    file: str = Field(default="path", description="Parquet column with the file's path.")
    content: str = Field(default="content", description="Parquet column with the file's text.")
    license: str | None = Field(
        default="license", description="Parquet column with the SPDX id, or a list of them; null when there is none."
    )


class ArxivReader(Strict):
    """arXiv's bulk source tars: gzipped TeX, or gzipped tars of it; one submission a document."""

    kind: Literal["arxiv"]


class WarcReader(Strict):
    """Common Crawl: WARC responses with HTML, or WET with plain text; one page a document."""

    kind: Literal["warc"]
    main_content: bool = Field(default=True, description="Leave out menus, side bars and footers of HTML pages.")


class BooksReader(RecordFields):
    """Books, one file a document (.txt, .epub), one record a line (.jsonl), or both kinds of files inside a tar."""

    kind: Literal["books"]


class BlocksReader(Strict):
    """Text files with a blank line between documents, as CLUECorpus2020 is distributed."""

    kind: Literal["blocks"]


class JsonReader(RecordFields):
    """JSON files that are one array of objects each, as WuDaoCorpora is distributed; or JSON lines."""

    kind: Literal["json"]


Reader = Annotated[
    JsonlReader
    | ParquetReader
    | TextReader
    | CodeReader
    | PydocTopicsReader
    | HubReader
    | WikipediaReader
    | FilesReader
    | StackExchangeReader
    | GithubReader
    | ArxivReader
    | WarcReader
    | BooksReader
    | BlocksReader
    | JsonReader,
    Field(discriminator="kind"),
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
    revision: str | None = Field(
        default=None,
        description=(
            "The commit or edition that `obtain` speaks of. Where a corpus comes anew each month none is named; what was "
            "read is known by the hashes of its files in any case."
        ),
    )
    gated: str | None = Field(
        default=None,
        description=(
            "What a person must be able to say before using the source. A recipe that names the card then needs "
            "`acknowledge` with the card's licence, which the manifest and the dataset card keep."
        ),
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
