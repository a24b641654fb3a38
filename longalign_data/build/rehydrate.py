"""A copy that was published without documents, made whole again from the user's own corpus.

    references: 41aa... open.jsonl:0-1840, SHA-256 9f0c...      your corpus: open.jsonl
                     \\________________ read, cleaned, hashed ________________/
    samples: "\\n\\nWhat ...?"  ->  "<document>\\n\\nWhat ...?"  ->  encode -> pack

A document is looked for where its reference says, and then by its hash in the whole source; it is taken only if its text
is the same to the byte. What comes out is a build like any other, with the documents that its samples need: encoded with
the recipe's tokenizer, packed by the recipe, verifiable.
"""

import dataclasses
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longalign_data.catalog import Card
from longalign_data.curation.curate import Curation, Refused, clean
from longalign_data.encoding.encode import encode
from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError, UserError
from longalign_data.identity import digest, document_id
from longalign_data.packing.pack import pack
from longalign_data.publish.card import write_card
from longalign_data.publish.withheld import put_back
from longalign_data.recipe import LoadedRecipe, PlacedSource, Recipe
from longalign_data.records import DOCUMENTS, Document, Sample, Selected
from longalign_data.shards.files import sync_folder, write_json
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.manifest import Manifest, recipe_of, require_manifest, shards_of
from longalign_data.shards.parquet import KeyedRows, ShardFile, from_row, iter_batches
from longalign_data.shards.stage import StageReport, StageWriter
from longalign_data.sources.ingest import CODE_READERS
from longalign_data.sources.readers import partitions, read
from longalign_data.sources.reading import RawDocument
from longalign_data.tokenizers import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehydrated:
    """The build that was made; the documents that were found and those that were not, by source; and of each table that the
    publisher held back whether it has come out with the same bytes (another version of the Parquet library writes others)."""

    folder: BuildFolder
    found: Mapping[str, int]
    missing: Mapping[str, int]
    same_bytes: Mapping[str, bool]


def rehydrate(
    copy: BuildFolder,
    places: Mapping[str, str],
    output: Path,
    *,
    tokenizer: str | None = None,
    partial: bool = False,
    run: RunOptions,
    progress: Progress,
) -> Rehydrated:
    """Makes `output`/<name>/<version> out of the copy and the corpora at `places` (source id to path). `tokenizer` stands in
    for the trainee's where that is a file. Documents that are not found are an error, or with `partial` go with their samples.

    Raises UserError for a source without a place, another tokenizer or missing documents, SourceError for a corpus that
    cannot be read, and BuildError when the copy is not one that was published without documents.
    """
    manifest = require_manifest(copy)
    if not (manifest.get("published") or {}).get("without_documents"):
        raise BuildError(f"{copy.root}: was not published without documents; there is nothing to put back")
    recipe = _with_tokenizer(recipe_of(manifest), manifest, tokenizer)
    placed = _placed(manifest, places)
    target = BuildFolder(output / manifest["name"] / manifest["version"])
    if target.root.exists():
        raise BuildError(f"{target.root}: stands there already; choose another --output")
    made = BuildFolder(target.root.parent / f".{manifest['version']}.rehydrating")
    shutil.rmtree(made.root, ignore_errors=True)
    loaded = LoadedRecipe(recipe=recipe, path=copy.manifest, text=manifest["recipe"], sources=placed)
    with made.lock():
        texts = _Texts(made)
        found, missing = _find(copy, manifest, recipe, placed, texts, progress)
        if missing and not partial:
            shutil.rmtree(made.root)
            raise UserError(_about_missing(found, missing))
        reports = list(_stages(copy, made, manifest, texts, run, progress))
        old = {report["stage"]: report for report in manifest["stages"]}
        for stage, make in (("encode", encode), ("pack", pack)):
            reports.append(make(loaded, made, fingerprint=_fingerprint(old[stage]), run=run, progress=progress))
        after = _manifest(manifest, reports)
        shutil.rmtree(made.root / "work", ignore_errors=True)
        write_json(made.manifest, after)
        write_card(made, after)
    (made.root / ".lock").unlink()
    made.root.rename(target.root)
    sync_folder(target.root.parent)
    return Rehydrated(
        folder=target,
        found=Counter(row["source"] for row in found),
        missing=Counter(row["source"] for row in missing),
        same_bytes={
            table: [shard["sha256"] for shard in after["tables"].get(table, ())] == hashes
            for table, hashes in manifest["published"]["withheld"].items()
            if table != "documents"
        },
    )


def _with_tokenizer(recipe: Recipe, manifest: Manifest, tokenizer: str | None) -> Recipe:
    """The recipe with the trainee's tokenizer as it can be loaded here. Raises UserError for another vocabulary."""
    spec = tokenizer or recipe.encode.tokenizer or recipe.tokenizer
    if load_tokenizer(spec).identity != manifest["tokenizers"]["trainee"]["identity"]:
        raise UserError(
            f"tokenizer {spec!r}: not the vocabulary that the build was encoded with "
            f"({manifest['tokenizers']['trainee']['spec']}); name its file: --tokenizer"
        )
    return recipe.model_copy(update={"encode": recipe.encode.model_copy(update={"tokenizer": spec})})


def _placed(manifest: Manifest, places: Mapping[str, str]) -> list[PlacedSource]:
    """The sources with the places of their corpora here."""
    cards = [Card.model_validate(card) for card in manifest["cards"]]
    known = [card.id for card in cards]
    for source in places:
        if source not in known:
            raise UserError(f"--source {source}: no such source; the build was made of: {', '.join(known)}")
    placed = []
    for card in cards:
        place = places.get(card.id) or (card.path if (card.path or "").startswith("python:") else None)
        if place is None and not (card.reader.kind == "hub" and card.reader.dataset):
            hint = f" {card.obtain.strip()}" if card.obtain else ""
            raise UserError(
                f"the source {card.id!r} ({card.title}): say where your copy is: --source {card.id}=PATH.{hint}"
            )
        if place is not None and not place.startswith("python:"):
            place = str(Path(place).expanduser().absolute())
        placed.append(PlacedSource(card=card, path=place))
    return placed


class _Texts:
    """Documents that were found, in a scratch file, and then by their ids."""

    def __init__(self, made: BuildFolder) -> None:
        folder = made.root / "work" / "rehydrate"
        self._file = ShardFile(folder / "00000.parquet", DOCUMENTS, row_group_bytes=4 << 20)
        self._folder = folder
        self._rows: KeyedRows | None = None

    def add(self, document: Document) -> None:
        self._file.write(document)

    def close(self) -> None:
        self._file.close(self._folder)
        self._rows = KeyedRows([self._folder / "00000.parquet"], "doc_id")

    def document(self, doc_id: str) -> Document | None:
        """The document, where it was found."""
        assert self._rows is not None
        return from_row(Document, self._rows.row(doc_id)) if doc_id in self._rows else None


def _rows(copy: BuildFolder, manifest: Manifest, table: str) -> Iterator[dict[str, Any]]:
    for batch in iter_batches([copy.root / shard.path for shard in shards_of(manifest, table)]):
        yield from batch.to_pylist()


def _find(
    copy: BuildFolder,
    manifest: Manifest,
    recipe: Recipe,
    placed: Sequence[PlacedSource],
    texts: _Texts,
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads the corpora: what of the references was found, and what was not."""
    references = list(_rows(copy, manifest, "references"))
    open_ = {row["doc_id"]: row for row in references}
    progress.start("documents", len(references), "documents")
    for source in placed:
        is_code = source.card.reader.kind in CODE_READERS
        curation = Curation(wish=recipe.curate, is_code=is_code, index=None)
        for by_hash in (False, True):
            mine = [row for row in open_.values() if row["source"] == source.card.id]
            if not mine:
                break
            references_ = None if by_hash else {row["source_ref"] for row in mine}
            for document in _documents(source, curation, open_, references_):
                del open_[document.doc_id]
                texts.add(document)
                progress.advance(items=1, tokens=document.num_tokens)
                if not any(row["source"] == source.card.id for row in open_.values()):
                    break
    texts.close()
    return [row for row in references if row["doc_id"] not in open_], list(open_.values())


def _documents(
    source: PlacedSource, curation: Curation, open_: Mapping[str, Mapping[str, Any]], at: set[str] | None
) -> Iterator[Document]:
    """The documents of a source that are still looked for: those at the references `at`, or anywhere."""
    for partition in partitions(source):
        for raw in read(partition):
            if not isinstance(raw, RawDocument) or (at is not None and raw.source_ref not in at):
                continue
            cleaned = clean(raw.text, raw.title, curation)
            if isinstance(cleaned, Refused):
                continue
            row = open_.get(document_id(cleaned.text))
            if row is not None and hashlib.sha256(cleaned.text.encode()).hexdigest() == row["text_sha256"]:
                kept = {name: value for name, value in row.items() if name != "text_sha256"}
                yield Document(**kept, text=cleaned.text)


def _about_missing(found: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]]) -> str:
    total = len(found) + len(missing)
    first = missing[0]
    by_source = ", ".join(f"{name} {count:,}" for name, count in Counter(row["source"] for row in missing).items())
    return (
        f"{len(missing):,} of {total:,} documents are not in the corpora as they were ({by_source}; first: {first['source_ref']} "
        f"of {first['source']}); get the version that the card names, or go on without them and their samples: --partial"
    )


def _stages(
    copy: BuildFolder, made: BuildFolder, manifest: Manifest, texts: _Texts, run: RunOptions, progress: Progress
) -> Iterator[StageReport]:
    """Writes the tables before encode, of what was found."""
    ids = [row["doc_id"] for row in _rows(copy, manifest, "references")]
    there = {doc_id for doc_id in ids if texts.document(doc_id) is not None}
    for old in manifest["stages"]:
        stage = old["stage"]
        if stage in ("encode", "pack"):
            continue
        (table,) = STAGES[stage]
        progress.start(stage, None, "rows")
        with StageWriter(made, stage, fingerprint=_fingerprint(old), run=run) as writer:
            if stage == "ingest":
                for doc_id in ids:
                    if (document := texts.document(doc_id)) is not None:
                        writer.write(table, document)
                        writer.next_input()
            elif stage == "sample":
                for row in _rows(copy, manifest, table):
                    if row["doc_id"] in there:
                        writer.write(table, from_row(Selected, row | {"rank": writer.counts.num_out}))
                        writer.next_input()
            else:
                for row in _rows(copy, manifest, table):
                    if there.issuperset(row["doc_ids"]):
                        if stage == "generate":
                            put_back(row, {doc_id: _text(texts, doc_id) for doc_id in row["doc_ids"]})
                        # A record at a time, as the stages write them: the row groups are then the same, too.
                        writer.write(table, from_row(Sample, row))
                        writer.next_input()
            writer.counts.num_in = old["num_in"]
            writer.counts.left_out = Counter(old["left_out"])
            lost = old["num_out"] + old["num_rejected"] - writer.counts.num_out
            if lost:
                writer.leave_out("not-published", lost)
            yield writer.finish(old["details"])


def _text(texts: _Texts, doc_id: str) -> str:
    document = texts.document(doc_id)
    assert document is not None
    return document.text


def _fingerprint(old: Mapping[str, Any]) -> str:
    return digest(["rehydrated", old["fingerprint"]])


def _manifest(manifest: Manifest, reports: Sequence[StageReport]) -> Manifest:
    shards = {
        table: [dataclasses.asdict(shard) for shard in found]
        for report in reports
        for table, found in report.shards.items()
        if table != "rejects"
    }
    shards["rejects"] = [dataclasses.asdict(shard) for report in reports for shard in report.shards["rejects"]]
    kept = {name: value for name, value in manifest.items() if name != "published"}
    return kept | {
        "parent": {"version": manifest["version"], "fingerprint": manifest["stages"][-1]["fingerprint"]},
        "rejects": {report.stage: dict(report.rejected) for report in reports if report.rejected},
        "stages": [
            {name: value for name, value in dataclasses.asdict(report).items() if name != "shards"}
            for report in reports
        ],
        "tables": shards,
    }
