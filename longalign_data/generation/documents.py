"""The selected documents of a build, in the order of their ranks."""

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from longalign_data.errors import BuildError
from longalign_data.generation.exchange import Finished, Plan, Rejected, ending
from longalign_data.generation.ledger import Ledger
from longalign_data.identity import digest
from longalign_data.records import Document, Selected
from longalign_data.shards.files import write_json
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import KeyedRows, from_row, iter_batches, iter_records
from longalign_data.shards.stage import read_report
from longalign_data.tasks.templates import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A selected document without its text."""

    doc_id: str
    source: str
    lang: str
    num_chars: int
    num_tokens: int


class SelectedDocuments:
    """The documents that the sampler took. Raises BuildError when one of them is not in the documents table."""

    def __init__(self, build: BuildFolder) -> None:
        chosen = sorted(iter_records(build.shards("selection"), Selected), key=lambda selected: selected.rank)
        self._ids = [selected.doc_id for selected in chosen]
        self._build = build
        self._shards = shards = build.shards("documents")
        self._rows = KeyedRows(shards, "doc_id")
        missing = [doc_id for doc_id in self._ids if doc_id not in self._rows]
        if missing:
            raise BuildError(
                f"{build.root}: {len(missing)} selected documents are not in the documents table (first: {missing[0]}); "
                "run: longalign ingest RECIPE, then longalign sample RECIPE"
            )
        wanted = set(self._ids)
        columns = ["doc_id", "source", "lang", "num_chars", "num_tokens"]
        found = {
            row["doc_id"]: Measured(**row)
            for batch in iter_batches(shards, columns=columns)
            for row in batch.to_pylist()
            if row["doc_id"] in wanted
        }
        self.measures: Mapping[str, Measured] = {doc_id: found[doc_id] for doc_id in self._ids}

    def __len__(self) -> int:
        return len(self._ids)

    def document(self, doc_id: str) -> Document:
        """One document with its text."""
        return from_row(Document, self._rows.row(doc_id))

    def in_order(self, start: int = 0) -> Iterator[Document]:
        yield from self.documents(self._ids[start:])

    def documents(self, doc_ids: Iterable[str]) -> Iterator[Document]:
        """These documents with their texts."""
        return map(self.document, doc_ids)

    def endings(self, plan: Plan, ledger: Ledger) -> Iterator[tuple[str, Finished | Rejected | None]]:
        """How each document ended, None where something is left to ask; no text is read for it."""
        for measured in self.measures.values():
            blank = Document(
                doc_id=measured.doc_id,
                source=measured.source,
                source_ref="",
                lang=measured.lang,
                license="",
                title="",
                text="",
                num_chars=measured.num_chars,
                num_bytes=0,
                num_tokens=measured.num_tokens,
            )
            yield measured.doc_id, ending(blank, self.text_hashes[measured.doc_id], plan, ledger)

    def num_tokens(self, doc_ids: Iterable[str]) -> int:
        """The tokens of these documents together."""
        return sum(self.measures[doc_id].num_tokens for doc_id in doc_ids)

    def left(self, plan: Plan, ledger: Ledger) -> Sequence[str]:
        """The documents that have something left to ask."""
        return [doc_id for doc_id, ended in self.endings(plan, ledger) if ended is None]

    @functools.cached_property
    def text_hashes(self) -> Mapping[str, str]:
        """`digest` of the text of every selected document. Reading and hashing a gigabyte takes longer than anything else
        that a run does before it asks, so the hashes are kept beside those of the shards that they are of."""
        report = read_report(self._build, "ingest")
        place = self._build.report("text-hashes")
        of = [shard.sha256 for shard in report.shards.get("documents", ())] if report else []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(place.read_text(encoding="utf-8"))
            if of and kept["of"] == of:
                return {doc_id: str(kept["hashes"][doc_id]) for doc_id in self._ids}
        hashes = {
            doc_id.as_py(): digest(text.as_py())
            for batch in iter_batches(self._shards, columns=["doc_id", "text"])
            for doc_id, text in zip(batch.column("doc_id"), batch.column("text"), strict=True)
            if doc_id.as_py() in self.measures
        }
        # In a folder that cannot be written, whoever writes more than this says so.
        with contextlib.suppress(OSError):
            write_json(place, {"of": of, "hashes": hashes})
        return hashes

    def without_instruction(self, templates: Templates) -> dict[str, int]:
        """How many selected documents are in a language that some task has no instruction for, by language."""
        languages = Counter(measured.lang for measured in self.measures.values())
        known: Sequence[set[str]] = [set(template.instructions) for template in templates.by_task.values()]
        return {lang: languages[lang] for lang in sorted(languages) if any(lang not in langs for langs in known)}
