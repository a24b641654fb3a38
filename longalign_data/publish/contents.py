"""What of a build is published, and whether it may be.

In: a complete build, and a wish (which tables, with the documents or without). Out: a `Publication`: the files with their
hashes and sizes, a manifest and a card that speak of these tables alone, and the reasons why it may not go out.

| refused                                            | what helps                                               |
|----------------------------------------------------|----------------------------------------------------------|
| a card or mix set says `redistribute: false`       | `--without-documents`, or `longalign remove --source`    |
| something that looks like a key or a password      | `curate.secrets` in the recipe, or `longalign remove`    |
| a rehearsal with `longalign fake-provider`         | a build with the real teacher, into another `--output`   |
| a file that is not what the manifest says          | `longalign verify`                                       |

Nothing is written into the build but scratch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_data.errors import BuildError, UserError
from longalign_data.identity import file_sha256
from longalign_data.publish.card import render_card
from longalign_data.publish.secrets import Leak, find_leaks, leaks_of_text
from longalign_data.publish.withheld import WITHOUT_DOCUMENTS, withhold_documents
from longalign_data.records import TABLES
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import Manifest, require_manifest, rows_of, shards_of, stage_of
from longalign_data.shards.parquet import ShardInfo

TOKENS = frozenset({"sequences", "packs"})
"""Tables that hold the documents and answers as token ids."""

WITH_DOCUMENTS = frozenset({"documents", "samples"}) | TOKENS
"""Tables in which the texts of documents stand, in whatever form."""

_REHEARSED = (
    "the build is a rehearsal: its questions and answers came from longalign fake-provider, not from the model that its tables "
    "name; build with the real teacher into another --output"
)

QUOTING = frozenset({"rejects"})
"""Tables whose details may quote a document or a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """One file as it will stand in the repository: its `content`, or the `source` file that holds it."""

    path: str
    size: int
    sha256: str
    source: Path | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be published as `repo_id`, with `tag` as the version. `card` and `manifest` are among the `files`, last:
    they go out when everything else stands. `refusals` say, each in a sentence, why it may not; `leaks` are findings that
    a person must look at."""

    repo_id: str
    tag: str
    manifest: Manifest
    card: str
    files: Sequence[PublishedFile]
    refusals: Sequence[str]
    leaks: Sequence[Leak]

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)


def prepare_publication(
    build: BuildFolder,
    repo_id: str,
    *,
    tables: Sequence[str] | None,
    without_documents: bool,
    staging: Path,
    workers: int = 1,
) -> Publication:
    """What publishing the build would bring to `repo_id`. Without `tables` everything that the build holds; with
    `without_documents` the tables that hold none of their texts, written into the empty folder `staging`.

    Raises BuildError when the build is not complete or a file is not what the manifest says, and UserError for tables that
    the build does not have.
    """
    manifest = require_manifest(build)
    if "published" in manifest:
        raise BuildError(f"{build.root}: is a copy of something published; publish the build that it was made of")
    chosen = _chosen(build, manifest, tables, without_documents)
    for table in chosen:
        _require_files(build, shards_of(manifest, table))
    shards: dict[str, Sequence[ShardInfo]] = {table: shards_of(manifest, table) for table in chosen}
    roots = dict.fromkeys(shards, build.root)
    if without_documents:
        written = withhold_documents(build, manifest, chosen, staging)
        kept = {table: found for table, found in shards.items() if table not in {"documents", *written}}
        shards = {**kept, **written}
        roots |= dict.fromkeys(written, staging)
    published = _manifest(manifest, shards, without_documents)
    card = render_card(published, repo_id=repo_id)
    files = [
        PublishedFile(path=shard.path, size=shard.bytes, sha256=shard.sha256, source=roots[table] / shard.path)
        for table, found in shards.items()
        for shard in found
    ]
    text = json.dumps(published, indent=2, ensure_ascii=False) + "\n"
    # In the manifest the recipe stands as one string; looked at by itself, its lines are lines.
    told = leaks_of_text("README.md", card) + leaks_of_text("manifest.json", text, published["recipe"])
    return Publication(
        repo_id=repo_id,
        tag=manifest["version"],
        manifest=published,
        card=card,
        files=[*files, _written("README.md", card), _written("manifest.json", text)],
        refusals=[*_rehearsal(manifest), *_refusals(manifest, shards)],
        leaks=[*told, *_leaks(build, manifest, shards, roots, workers)],
    )


def _chosen(build: BuildFolder, manifest: Manifest, tables: Sequence[str] | None, without_documents: bool) -> list[str]:
    """The build's tables to publish, in the order of `TABLES`."""
    there = [table for table in TABLES if shards_of(manifest, table)]
    unknown = [table for table in tables or () if table not in there]
    if unknown:
        raise UserError(f"{build.root}: has no table {unknown[0]!r}; it holds: {', '.join(there)}")
    if tables and "packs" in tables and "plan" not in tables:
        raise UserError("--tables: packs are of no use without their plan; add it: --tables packs,plan,...")
    if not without_documents:
        return [table for table in there if tables is None or table in tables]
    if "documents" not in there:
        raise UserError(
            f"{build.root}: --without-documents publishes where each document stood, and the build does not hold the table "
            "documents; add it to the recipe's `keep` and build again"
        )
    impossible = [table for table in tables or () if table in TOKENS]
    if impossible:
        raise UserError(
            f"--tables {impossible[0]}: its token ids are the documents; --without-documents publishes of: "
            f"{', '.join(table for table in there if table in WITHOUT_DOCUMENTS)}"
        )
    # References go with whatever is chosen: without them nothing could be put back.
    return [
        table for table in there if table in WITHOUT_DOCUMENTS and (tables is None or table in {*tables, "documents"})
    ]


def _require_files(build: BuildFolder, shards: Sequence[ShardInfo]) -> None:
    for shard in shards:
        path = build.root / shard.path
        if not path.is_file() or path.stat().st_size != shard.bytes or file_sha256(path) != shard.sha256:
            raise BuildError(f"{path}: is not what the manifest says; see: longalign verify {build.root}")


def _manifest(manifest: Manifest, shards: Mapping[str, Sequence[ShardInfo]], without_documents: bool) -> Manifest:
    """The manifest of what is published: the build's own, with the published tables alone."""
    listed = {
        table: [
            {name: getattr(shard, name) for name in ("path", "rows", "tokens", "bytes", "sha256")} for shard in found
        ]
        for table, found in shards.items()
    }
    left_out = [table for table in TABLES if rows_of(manifest, table) and table not in shards]
    return manifest | {
        "tables": listed,
        "published": {
            "without_documents": without_documents,
            "left_out": left_out,
            # What a rehydrated copy can be compared with.
            "withheld": {
                table: [shard.sha256 for shard in shards_of(manifest, table)]
                for table in (*sorted(WITH_DOCUMENTS), "plan")
                if without_documents and shards_of(manifest, table)
            },
        },
    }


def _written(path: str, text: str) -> PublishedFile:
    import hashlib

    content = text.encode()
    return PublishedFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def _rehearsal(manifest: Manifest) -> list[str]:
    generated = stage_of(manifest, "generate") or {}
    return [_REHEARSED] if (generated.get("details") or {}).get("rehearsed") else []


def _refusals(manifest: Manifest, shards: Mapping[str, Sequence[ShardInfo]]) -> list[str]:
    """A sentence for each licence that forbids what would be published."""
    documents = sorted((WITH_DOCUMENTS | QUOTING) & shards.keys()) if "references" not in shards else []
    chats = sorted(({"chats"} | TOKENS | QUOTING) & shards.keys())
    return [
        f"the source {card['id']!r} ({card['license']}) may not be redistributed, and its documents stand in "
        f"{', '.join(documents)}; publish with --without-documents, or without it: longalign remove BUILD --source "
        f"{card['id']}. Where the licence does allow it, say `redistribute: true` on its card and build again"
        for card in manifest["cards"]
        if documents and not card["redistribute"]
    ] + [
        f"the mix set {choice['id']!r} ({choice['license']}) may not be redistributed, and its conversations stand in "
        f"{', '.join(chats)}; leave these tables out (--tables), or the set: longalign remove BUILD --source "
        f"{choice['id']}. Where the licence does allow it, say `redistribute: true` in the recipe's mix and build again"
        for choice in manifest["mix"]
        if chats and not choice["redistribute"]
    ]


def _leaks(
    build: BuildFolder,
    manifest: Manifest,
    shards: Mapping[str, Sequence[ShardInfo]],
    roots: Mapping[str, Path],
    workers: int,
) -> list[Leak]:
    """Findings in everything that is published as text, and for tokens in the conversations or documents they are of."""
    looked_at = {table: roots[table] for table in shards if table not in TOKENS | {"plan", "selection"}}
    if TOKENS & shards.keys():
        texts = ["samples", "chats"] if manifest["teacher"] or manifest["mix"] else ["documents"]
        there = [table for table in texts if shards_of(manifest, table)]
        if not there:
            raise UserError(
                f"{build.root}: packs and sequences cannot be looked through for keys and passwords, because the build does "
                f"not keep {' and '.join(texts)}; add them to the recipe's `keep` and build again"
            )
        looked_at |= {table: build.root for table in there if table not in looked_at}
    files = [
        (root, shard.path)
        for table, root in looked_at.items()
        for shard in shards.get(table) or shards_of(manifest, table)
    ]
    return find_leaks(files, workers=workers)
