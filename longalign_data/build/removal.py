"""A new version of a build without some of its documents, samples or sources: for what has to be taken down.

    builds/towns/1.0.0  --remove --doc 41aa...-->  builds/towns/1.0.1

Every table is filtered, packs are filled anew, so that steps, weights and the plan are exact again. Nothing is asked and
nothing is encoded again. The new manifest says under `removed` what was taken out; a later `longalign build` of a recipe
that would bring it back is refused until the recipe says `exclude`. The old version and its ledger stay: whoever has to
be rid of the text deletes that folder.
"""

import dataclasses
import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longalign_data.build.recovered import sequences_of
from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import BuildError, UserError
from longalign_data.generation.generate import recounted
from longalign_data.identity import digest
from longalign_data.packing.pack import pack
from longalign_data.publish.card import write_card
from longalign_data.recipe import LoadedRecipe, Recipe, name_without_limit
from longalign_data.records import Reject, Selected
from longalign_data.sampling.partial import OTHER
from longalign_data.shards.files import sync_folder, write_json
from longalign_data.shards.folder import STAGES, BuildFolder
from longalign_data.shards.manifest import Manifest, read_manifest, recipe_of, require_manifest, shards_of, stage_of
from longalign_data.shards.parquet import from_row, iter_batches
from longalign_data.shards.stage import StageReport, StageWriter, write_report


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What goes: whole sources or mix sets by id, documents and samples by their ids or unique beginnings of these."""

    sources: Sequence[str] = ()
    documents: Sequence[str] = ()
    samples: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The new version, and how many rows each table has lost (those of packs and plan are made anew)."""

    folder: BuildFolder
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gone:
    """Ids of everything that goes. `samples` hold chats too, and of plain windows the documents' ids."""

    sources: frozenset[str]
    documents: frozenset[str]
    samples: frozenset[str]
    sequences: frozenset[str]

    def rejected(self, reject: Mapping[str, str]) -> bool:
        """Whether a reject speaks of something that goes."""
        ids = self.documents | self.samples | self.sequences
        begins = tuple(f"{source}{mark}" for source in self.sources for mark in (":", "/"))
        return reject["id"] in ids or reject["id"].startswith(begins) or reject["detail"].startswith(begins)


def remove(
    build: BuildFolder, wish: Wish, *, version: str | None = None, run: RunOptions, progress: Progress
) -> Removed:
    """Makes the new version beside the old one (`version`, or the next free patch number). It appears whole, or not at all.

    Raises UserError for ids that the build does not know and where nothing would be left, and BuildError when the build is
    not complete or does not hold a table that is needed.
    """
    manifest = require_manifest(build)
    if manifest.get("published"):
        raise BuildError(f"{build.root}: a published copy; remove from the build itself, and publish the new version")
    gone = _find(build, manifest, wish)
    # `.` and links have the folder beside which the new version belongs only when they are followed.
    root = build.root.resolve()
    version = version or _next_version(root.parent, manifest["version"])
    if version == manifest["version"]:
        raise UserError(f"{build.root}: is version {version} itself; name another: --version")
    target = BuildFolder(root.parent / version)
    if target.root.exists():
        raise BuildError(f"{target.root}: stands there already; name another version: --version")
    made = BuildFolder(root.parent / f".{version}.removing")
    with build.lock():
        shutil.rmtree(made.root, ignore_errors=True)
        recipe = recipe_of(manifest)
        entries = _entries(wish, gone, version)
        with made.lock():
            reports = list(_filtered(build, made, manifest, gone, entries, run, progress))
            if not reports[-1].num_out:
                shutil.rmtree(made.root)
                raise UserError(f"{build.root}: nothing would be left to pack; no version was made")
            reports.append(_packed(made, manifest, recipe, entries, run, progress))
            for table in (name for tables in STAGES.values() for name in tables):
                if not shards_of(manifest, table):
                    shutil.rmtree(made.root / table, ignore_errors=True)
            after = _manifest(build, manifest, reports, entries, version)
            write_json(made.manifest, after)
            write_card(made, after)
            shutil.rmtree(made.root / "work", ignore_errors=True)
        (made.root / ".lock").unlink()
        made.root.rename(target.root)
        sync_folder(target.root.parent)
    lost = {
        table: sum(s.rows for s in shards_of(manifest, table)) - sum(s.rows for s in shards_of(after, table))
        for table in manifest["tables"]
    }
    return Removed(folder=target, rows=lost)


def _need(build: BuildFolder, manifest: Manifest, table: str, why: str) -> None:
    if not shards_of(manifest, table):
        raise BuildError(
            f"{build.root}: does not hold the table {table} ({why}); add it to the recipe's `keep` and build again"
        )


def _next_version(folder: Path, version: str) -> str:
    """The first patch number behind `version` under which nothing stands in the folder."""
    major, minor, patch = (int(part) for part in version.split("."))
    return next(
        name for number in itertools.count(patch + 1) if not (folder / (name := f"{major}.{minor}.{number}")).exists()
    )


def _rows(
    build: BuildFolder, manifest: Manifest, table: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    paths = [build.root / shard.path for shard in shards_of(manifest, table)]
    for batch in iter_batches(paths, columns=columns):
        yield from batch.to_pylist()


def _tables(build: BuildFolder, manifest: Manifest, table: str) -> Iterator[pa.Table]:
    for batch in iter_batches([build.root / shard.path for shard in shards_of(manifest, table)]):
        yield pa.Table.from_batches([batch])


def _find(build: BuildFolder, manifest: Manifest, wish: Wish) -> _Gone:
    """The ids of everything that the wish concerns. Raises UserError for what is not known, with what is."""
    known = [source["id"] for source in (*manifest["cards"], *manifest["mix"])]
    for source in wish.sources:
        if source not in known:
            raise UserError(f"{build.root}: no source {source!r}; it was made of: {', '.join(known)}")
    sources = frozenset(wish.sources)
    samples = {row["sample_id"]: row for t in ("samples", "chats") for row in _ids(build, manifest, t)}
    all_documents = {row["doc_id"]: row["source"] for row in _rows(build, manifest, "documents", ["doc_id", "source"])}
    all_documents |= {doc_id: row["source"] for row in samples.values() for doc_id in row["doc_ids"]}
    if wish.documents and manifest["teacher"] is not None:
        _need(build, manifest, "samples", "it says which samples are of which document")
    documents = {_unique(build, "document", one, all_documents) for one in wish.documents}
    documents |= {doc_id for doc_id, source in all_documents.items() if source in sources}
    taken = {_unique(build, "sample", one, samples) for one in wish.samples}
    taken |= {
        sample_id
        for sample_id, row in samples.items()
        if row["source"] in sources or not documents.isdisjoint(row["doc_ids"])
    }
    sequences = set()
    labels = ["sequence_id", "sample_id", "source"]
    for row in (row for found in sequences_of(build, manifest) for row in found.select(labels).to_pylist()):
        if row["source"] in sources or row["sample_id"] in taken or row["sample_id"] in documents:
            sequences.add(row["sequence_id"])
            taken.add(row["sample_id"])
    return _Gone(
        sources=sources,
        documents=frozenset(documents),
        samples=frozenset(taken),
        sequences=frozenset(sequences),
    )


def _ids(build: BuildFolder, manifest: Manifest, table: str) -> Iterator[dict[str, Any]]:
    return _rows(build, manifest, table, ["sample_id", "doc_ids", "source"])


def _unique(build: BuildFolder, kind: str, beginning: str, known: Mapping[str, Any]) -> str:
    found = [one for one in known if one.startswith(beginning)] if beginning else []
    if beginning in known:
        return beginning
    if len(found) != 1:
        raise UserError(
            f"{build.root}: {len(found)} {kind}s have an id that begins with {beginning!r}; expected one. "
            f"longalign sql {build.root} shows them"
        )
    return found[0]


def _entries(wish: Wish, gone: _Gone, version: str) -> list[dict[str, str]]:
    """What the manifest says of the removal, in whole ids."""
    named = [("source", source) for source in sorted(wish.sources)]
    named += [("document", one) for one in sorted(gone.documents) if any(map(one.startswith, wish.documents))]
    named += [("sample", one) for one in sorted(gone.samples) if any(map(one.startswith, wish.samples))]
    return [{"kind": kind, "id": id_, "version": version} for kind, id_ in named]


def _filtered(
    build: BuildFolder,
    made: BuildFolder,
    manifest: Manifest,
    gone: _Gone,
    entries: Sequence[Mapping[str, str]],
    run: RunOptions,
    progress: Progress,
) -> Iterator[StageReport]:
    """Writes the tables of every stage but pack, filtered; what is taken out counts as left out, `removed`."""
    keep = {
        "documents": ("doc_id", gone.documents),
        "selection": ("doc_id", gone.documents),
        "samples": ("sample_id", gone.samples),
        "chats": ("sample_id", gone.samples),
        "sequences": ("sequence_id", gone.sequences),
    }
    rejects: dict[str, list[Reject]] = {}
    for row in _rows(build, manifest, "rejects"):
        if not gone.rejected(row):
            rejects.setdefault(row["stage"], []).append(from_row(Reject, row))
    lengths = _Lengths(build, manifest, gone)
    for old in manifest["stages"]:
        stage = old["stage"]
        if stage == "pack":
            continue
        (table,) = STAGES[stage]
        progress.start(stage, old["num_out"], "rows")
        with StageWriter(made, stage, fingerprint=_fingerprint(old, entries), run=run) as writer:
            column, ids = keep[table]
            for rows in sequences_of(build, manifest) if stage == "encode" else _tables(build, manifest, table):
                num_rows = rows.num_rows
                rows = rows.filter(pc.invert(pc.is_in(rows.column(column), pa.array(sorted(ids), pa.string()))))
                if table == "selection":
                    for row in rows.to_pylist():
                        # Ranks run on without a gap, as in any build.
                        writer.write(table, from_row(Selected, row | {"rank": writer.counts.num_out}))
                elif rows.num_rows:
                    writer.write_table(table, rows)
                writer.next_input()
                progress.advance(items=num_rows)
            for reject in rejects.get(stage, ()):
                writer.reject(reject)
            _count(writer, old, kept=stage == "encode" or bool(shards_of(manifest, table)))
            if stage == "sample":
                writer.counts.num_tokens = old["num_tokens"] - lengths.num_tokens
            report = writer.finish()
        # Some figures are counted in the shards, which are closed only now.
        report = dataclasses.replace(report, details=_details(made, manifest, old, gone, lengths))
        write_report(made, report)
        yield report


def _count(writer: StageWriter, old: Mapping[str, Any], *, kept: bool) -> None:
    """The counts of the stage as it was, less what goes. Of a table that the build does not hold nobody knows how much."""
    if not kept:
        writer.counts.num_out, writer.counts.num_tokens = old["num_out"], old["num_tokens"]
    writer.counts.num_in = old["num_in"]
    writer.counts.left_out = Counter(old["left_out"])
    lost = old["num_out"] - writer.counts.num_out + old["num_rejected"] - writer.counts.rejected.total()
    if lost:
        writer.leave_out("removed", lost)


def _fingerprint(old: Mapping[str, Any], entries: Sequence[Mapping[str, str]]) -> str:
    return digest(["removed", old["fingerprint"], [[entry["kind"], entry["id"]] for entry in entries]])


class _Lengths:
    """Tokens, language, source and bucket of the selected documents that go."""

    def __init__(self, build: BuildFolder, manifest: Manifest, gone: _Gone) -> None:
        columns = ["doc_id", "lang", "source", "num_tokens"]
        documents = {row["doc_id"]: row for row in _rows(build, manifest, "documents", columns)}
        self.selected = [
            documents[row["doc_id"]] | {"bucket": row["bucket"]}
            for row in _rows(build, manifest, "selection", ["doc_id", "bucket"])
            if row["doc_id"] in gone.documents and row["doc_id"] in documents
        ]
        self.num_tokens: int = sum(row["num_tokens"] for row in self.selected)
        self.kept: dict[str, list[int]] = {}
        for row in documents.values():
            kept = self.kept.setdefault(row["source"], [])
            if row["doc_id"] not in gone.documents:
                kept.append(row["num_tokens"])


def _details(
    made: BuildFolder, manifest: Manifest, old: Mapping[str, Any], gone: _Gone, lengths: _Lengths
) -> dict[str, Any]:
    """A stage's own figures, counted anew where what goes has a part in them."""
    details: dict[str, Any] = dict(old["details"])
    if old["stage"] == "ingest" and lengths.kept:
        details["sources"] = {
            name: found | _source_figures(lengths.kept.get(name, []), gone=name in gone.sources)
            for name, found in details["sources"].items()
        }
    if old["stage"] == "sample":
        details["cells"] = [_cell(cell, details["cells"], lengths) for cell in details["cells"]]
        details["sources"] = [_cell(cell, details["sources"], lengths) for cell in details["sources"]]
    if old["stage"] == "generate" and shards_of(manifest, "samples"):
        now = recounted(made)
        details |= now | {"cost": details["cost"] | now["cost"]}
    if old["stage"] == "mix" and shards_of(manifest, "chats"):
        taken = Counter(
            source
            for batch in iter_batches(made.shards("chats"), columns=["source"])
            for source in batch.column(0).to_pylist()
        )
        details["sets"] = [found | {"taken": taken[found["id"]]} for found in details["sets"]]
    if old["stage"] == "encode" and shards_of(manifest, "sequences"):
        columns = ["num_targets", "truncated_tokens"]
        parts = [pa.table({name: pa.array([], pa.int32()) for name in columns})]
        parts += [pa.Table.from_batches([batch]) for batch in iter_batches(made.shards("sequences"), columns=columns)]
        rows = pa.concat_tables(parts)
        details["num_targets"] = pc.sum(rows.column("num_targets")).as_py() or 0
        details["truncated_samples"] = pc.sum(pc.greater(rows.column("truncated_tokens"), 0)).as_py() or 0
        details["truncated_tokens"] = pc.sum(rows.column("truncated_tokens")).as_py() or 0
    return details


def _source_figures(tokens: Sequence[int], *, gone: bool) -> dict[str, Any]:
    import numpy as np

    names = ("min", "p25", "p50", "p75", "max")
    values = np.percentile(tokens, (0, 25, 50, 75, 100), method="nearest") if tokens else ()
    figures: dict[str, Any] = {
        "out": len(tokens),
        "tokens": sum(tokens),
        "lengths": {name: int(value) for name, value in zip(names, values, strict=False)},
    }
    return figures | ({"masked": {}, "skipped": {}} if gone else {})


def _cell(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], lengths: _Lengths) -> dict[str, Any]:
    """A line of target against achieved, without the documents that go."""

    def same(name: str, value: str) -> bool:
        named = {other[name] for other in cells}
        return cell[name] in ("", value) or (cell[name] == OTHER and value not in named)

    lost = sum(
        same("lang", row["lang"]) and same("source", row["source"]) and cell["bucket"] in ("", row["bucket"])
        for row in lengths.selected
    )
    return {**cell, "achieved": cell["achieved"] - lost}


def _packed(
    made: BuildFolder,
    manifest: Manifest,
    recipe: Recipe,
    entries: Sequence[Mapping[str, str]],
    run: RunOptions,
    progress: Progress,
) -> StageReport:
    old = stage_of(manifest, "pack")
    assert old is not None
    loaded = LoadedRecipe(recipe=recipe, path=made.manifest, text=manifest["recipe"], sources=[])
    return pack(loaded, made, fingerprint=_fingerprint(old, entries), run=run, progress=progress)


def _manifest(
    build: BuildFolder,
    manifest: Manifest,
    reports: Sequence[StageReport],
    entries: Sequence[Mapping[str, str]],
    version: str,
) -> Manifest:
    generate = next((report for report in reports if report.stage == "generate"), None)
    sources = {entry["id"] for entry in entries if entry["kind"] == "source"}
    shards = {
        table: [dataclasses.asdict(shard) for shard in found]
        for report in reports
        for table, found in report.shards.items()
        if table in manifest["tables"] and table != "rejects"
    }
    shards["rejects"] = [dataclasses.asdict(shard) for report in reports for shard in report.shards["rejects"]]
    return manifest | {
        "version": version,
        "parent": {"version": manifest["version"], "fingerprint": manifest["stages"][-1]["fingerprint"]},
        "removed": [*manifest.get("removed", []), *entries],
        "cards": [card for card in manifest["cards"] if card["id"] not in sources],
        "mix": [choice for choice in manifest["mix"] if choice["id"] not in sources],
        "cost": generate.details["cost"] if generate is not None else manifest["cost"],
        "rejects": {report.stage: dict(report.rejected) for report in reports if report.rejected},
        "stages": [
            {name: value for name, value in dataclasses.asdict(report).items() if name != "shards"}
            for report in reports
        ],
        "tables": shards,
    }


def refuse_to_bring_back(folder: BuildFolder, loaded: LoadedRecipe) -> None:
    """Called where a stage has something to do. Raises BuildError where a build of the recipe could bring back what was
    removed from any version of the same name, or would build over a version that `remove` made. What the recipe's
    `exclude` names stays out by itself."""
    recipe = loaded.recipe
    own = read_manifest(folder)
    if own is not None and any(entry["version"] == own["version"] for entry in own.get("removed") or ()):
        raise BuildError(
            f"{folder.root}: this version was made by longalign remove, not from the recipe; raise the recipe's `version`"
        )
    sources = {placed.card.id for placed in loaded.sources} | {placed.set.id for placed in loaded.mix}
    open_: dict[tuple[str, str], str] = {}
    # A trial (`--limit`) stands under a name of its own.
    names = {recipe.name, name_without_limit(recipe.name)}
    for path in sorted(path for name in names for path in folder.root.parent.parent.glob(f"{name}/*/manifest.json")):
        found = read_manifest(BuildFolder(path.parent)) or {}
        for entry in found.get("removed") or ():
            open_[entry["kind"], entry["id"]] = entry["version"]
    named = {"document": set(recipe.exclude.documents), "sample": set(recipe.exclude.samples)}
    lines = []
    for (kind, id_), version in open_.items():
        if kind == "source" and id_ in sources:
            lines.append(f"the source {id_!r} (by version {version}): take it out of the recipe")
        elif kind != "source" and id_ not in named[kind]:
            lines.append(
                f"the {kind} {id_} (by version {version}): name it in the recipe, exclude: {{{kind}s: [{id_}]}}"
            )
    if lines:
        raise BuildError(
            f"{folder.root}: something was removed from this data set, and the recipe {recipe.version} could bring it "
            "back:\n"
            + "\n".join(f"- {line}" for line in lines)
            + "\nThen build it as a new version. To have it back on "
            "purpose, delete the versions that removed it"
        )
