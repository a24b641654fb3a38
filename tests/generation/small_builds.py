"""Builds that stand ready for the generate stage, and a way to run it; as a script, runs it in a process of its own."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longalign_data.engine import Progress, RunOptions, Silent
from longalign_data.generation.generate import generate
from longalign_data.identity import document_id
from longalign_data.recipe import LoadedRecipe, Recipe
from longalign_data.records import Document, Sample, Selected
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageReport, StageWriter
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers.table import load_teacher
from longalign_data.tokenizers import count_tokens, load_tokenizer

KEY = "sk-test-0123456789-secret"


def recipe(**teacher: Any) -> LoadedRecipe:
    """A recipe whose teacher is given; `tasks`, `templates` and `answers_per_document` go to generate itself."""
    names = ("tasks", "templates", "answers_per_document")
    generate_part = {name: teacher.pop(name) for name in names if name in teacher}
    source = {
        "id": "made",
        "title": "Made",
        "lang": "en",
        "license": "CC0-1.0",
        "path": ".",
        "reader": {"kind": "text"},
    }
    model = "extractive-1" if teacher.get("provider") == "extractive" else "teacher-1"
    data = {
        "name": "small",
        "version": "1.0.0",
        "sources": [source],
        "sample": {"count": 10},
        "generate": {"teacher": {"provider": "anthropic", "model": model} | teacher} | generate_part,
    }
    return LoadedRecipe(recipe=Recipe.model_validate(data), path=Path("small.yaml"), text="", sources=[])


def document(text: str, lang: str = "en") -> Document:
    (num_tokens,) = count_tokens(load_tokenizer("qwen"), [text])
    return Document(
        doc_id=document_id(text),
        source="made",
        source_ref="made.txt",
        lang=lang,
        license="CC0-1.0",
        title="",
        text=text,
        num_chars=len(text),
        num_bytes=len(text.encode()),
        num_tokens=num_tokens,
    )


def some_documents(count: int) -> list[Document]:
    return [document(f"doc{number} is about thing {number}. " + "It has more to say. " * 20) for number in range(count)]


def stand(root: Path, documents: Sequence[Document]) -> BuildFolder:
    """A build with these documents, all selected, the last stored used first."""
    build = BuildFolder(root)
    run = RunOptions(row_group_bytes=2000)
    with StageWriter(build, "ingest", fingerprint="i", run=run) as writer:
        for each in documents:
            writer.write("documents", each)
            writer.next_input()
        writer.finish()
    with StageWriter(build, "sample", fingerprint="s", run=run) as writer:
        for rank, each in enumerate(reversed(documents)):
            writer.write("selection", Selected(doc_id=each.doc_id, bucket="all", key=float(rank), rank=rank))
            writer.next_input()
        writer.finish()
    return build


def run_generate(
    build: BuildFolder,
    loaded: LoadedRecipe,
    url: str | None = None,
    *,
    concurrency: int = 4,
    retry_s: float = 20.0,
    progress: Progress | None = None,
    fingerprint: str = "g",
    **run: Any,
) -> StageReport:
    """The stage with the teacher that the recipe names, reached at `url`."""
    choice = loaded.recipe.generate.teacher
    teacher = load_teacher(choice, api_key=KEY, base_url=url, retry_s=retry_s)
    return generate(
        loaded,
        build,
        fingerprint=fingerprint,
        run=RunOptions(concurrency=concurrency, **run),
        progress=progress or Silent(),
        teacher=teacher,
        templates=load_templates([loaded.relative(name) for name in loaded.recipe.generate.templates]),
    )


def samples_of(build: BuildFolder) -> list[Sample]:
    return list(iter_records(build.shards("samples"), Sample))


def main() -> None:
    """`small_builds.py BUILD URL CONCURRENCY`: generate on a build that stands."""
    root, url, concurrency = sys.argv[1:]
    run_generate(BuildFolder(Path(root)), recipe(), url, concurrency=int(concurrency))


if __name__ == "__main__":
    main()
