"""The selected documents of a build, in the order of their ranks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from longalign_data.errors import BuildError
from longalign_data.records import Document, Selected
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import KeyedRows, from_row, iter_batches, iter_records
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
        shards = build.shards("documents")
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
        for doc_id in self._ids[start:]:
            yield self.document(doc_id)

    def without_instruction(self, templates: Templates) -> dict[str, int]:
        """How many selected documents are in a language that some task has no instruction for, by language."""
        languages = Counter(measured.lang for measured in self.measures.values())
        known: Sequence[set[str]] = [set(template.instructions) for template in templates.by_task.values()]
        return {lang: languages[lang] for lang in sorted(languages) if any(lang not in langs for langs in known)}
