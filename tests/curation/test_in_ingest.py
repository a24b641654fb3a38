"""Curation as a part of the stage: counts, names, ids of the final text, and that no number of workers changes a row."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from longalign_data.curation.decontamination import write_index
from longalign_data.engine import RunOptions, Silent
from longalign_data.errors import SourceError
from longalign_data.identity import document_id
from longalign_data.recipe import LoadedRecipe, load_recipe
from longalign_data.records import Document, Reject
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_records
from longalign_data.shards.stage import StageReport
from longalign_data.sources.ingest import ingest
from longalign_data.tokenizers import load_tokenizer

TOKEN = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
NOUNS = [
    "harbour",
    "lantern",
    "river",
    "winter",
    "engine",
    "letter",
    "garden",
    "mountain",
    "copper",
    "sailor",
    "market",
    "window",
    "forest",
    "bridge",
    "candle",
]


def prose(number: int, num_words: int = 400) -> str:
    rng = random.Random(number)
    return " ".join(
        f"the {rng.choice(NOUNS)} near the {rng.choice(NOUNS)}{rng.randrange(90)}" for _ in range(num_words // 5)
    )


def recipe(folder: Path, *sources: dict[str, Any], **more: Any) -> LoadedRecipe:
    defaults = {"title": "S", "lang": "en", "license": "CC0-1.0"}
    content = {
        "name": "test",
        "version": "1.0.0",
        "sources": [defaults | source for source in sources],
        "ingest": {"min_tokens": 50, "max_tokens": 5000},
        "sample": {"count": 1},
        **more,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def run(loaded: LoadedRecipe, root: Path, **options: Any) -> tuple[StageReport, list[Document], list[Reject]]:
    build = BuildFolder(root)
    report = ingest(loaded, build, fingerprint="f", run=RunOptions(**options), progress=Silent())
    assert report.num_in == report.num_out + report.num_rejected + report.num_left_out
    documents = list(iter_records(build.shards("documents"), Document))
    return report, documents, list(iter_records(build.shards("rejects"), Reject))


def lines(path: Path, *texts: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def near_corpus(folder: Path) -> dict[str, Any]:
    """Forty texts in eight files, each of which stands, a little changed, in another file as well, and a mail address."""
    for part in range(8):
        own = [prose(n) for n in range(part * 5, part * 5 + 5)]
        borrowed = [prose((n + 17) % 40).replace("harbour", "haven") for n in range(part * 5, part * 5 + 5)]
        lines(folder / f"{part}.jsonl", *(f"{text} me@here.example" for text in (*own, *borrowed)))
    return {"id": "s", "path": str(folder), "reader": {"kind": "jsonl"}}


def test_near_duplicates_are_rejected_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    loaded = recipe(
        tmp_path, near_corpus(tmp_path / "c"), curate={"near_duplicates": {"action": "reject", "threshold": 0.6}}
    )
    report, documents, rejects = run(loaded, tmp_path / "one")
    assert run(loaded, tmp_path / "two", workers=2, row_group_bytes=3000, shard_bytes=9000)[1:] == (documents, rejects)
    assert len(documents) == 40
    assert report.rejected == {"near-duplicate": 40}
    assert report.details["sources"]["s"]["rejected"] == {"near-duplicate": 40}
    kept = {document.doc_id for document in documents}
    assert all(reject.detail.rpartition(" ")[2] in kept for reject in rejects)
    off, all_documents, _ = run(recipe(tmp_path, near_corpus(tmp_path / "c")), tmp_path / "off")
    assert (off.num_out, off.rejected) == (80, {})
    # Kept is what stands first among those that resemble each other, in the order of the table without the check.
    assert [document for document in all_documents if document.doc_id in kept] == documents


CHILD = """
import sys
from pathlib import Path
from longalign_data.engine import RunOptions, Silent
from longalign_data.recipe import load_recipe
from longalign_data.shards import stage
from longalign_data.shards.folder import BuildFolder
from longalign_data.sources.ingest import ingest
if __name__ == "__main__":
    save, saved = stage.StageWriter._save, []
    def stop(self):
        save(self)
        saved.append(1)
        if len(saved) == 3:
            import os
            os._exit(9)
    stage.StageWriter._save = stop
    options = RunOptions(row_group_bytes=3000, shard_bytes=9000)
    ingest(load_recipe(Path(sys.argv[1])), BuildFolder(Path(sys.argv[2])), fingerprint="f", run=options, progress=Silent())
"""


def test_a_cut_in_the_middle_changes_no_decision(tmp_path: Path) -> None:
    curate = {"near_duplicates": {"action": "reject", "threshold": 0.6}, "personal": {"action": "mask"}}
    loaded = recipe(tmp_path, near_corpus(tmp_path / "c"), curate=curate)
    whole = run(loaded, tmp_path / "whole", row_group_bytes=3000, shard_bytes=9000)
    (tmp_path / "child.py").write_text(CHILD)
    child = [sys.executable, str(tmp_path / "child.py"), str(loaded.path), str(tmp_path / "cut")]
    root = Path(__file__).parents[2]
    assert subprocess.run(child, check=False, env={"PYTHONPATH": str(root)}, timeout=300).returncode == 9
    assert (tmp_path / "cut/state/ingest.progress.json").exists()
    again = run(loaded, tmp_path / "cut", row_group_bytes=3000, shard_bytes=9000)
    assert again[1:] == whole[1:]
    assert again[0].details == whole[0].details
    assert whole[0].details["sources"]["s"]["masked"] == {"documents-with-personal": 40, "personal-email": 40}


def test_secrets_in_code_are_masked_by_default_and_counted(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    body = "\n".join(f"def function_{n}(value):\n    return value + {n}\n" for n in range(60))
    (tmp_path / "code/a.py").write_text(f'TOKEN = "{TOKEN}"\n{body}')
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text(f"{prose(1)} {TOKEN} me@here.example")
    sources = [
        {"id": "code", "path": str(tmp_path / "code"), "reader": {"kind": "code", "unit": "entry"}},
        {"id": "text", "path": str(tmp_path / "text"), "reader": {"kind": "text"}},
    ]
    report, (code, text), _ = run(recipe(tmp_path, *sources), tmp_path / "b")
    assert TOKEN not in code.text
    assert 'TOKEN = "[SECRET]"' in code.text
    assert TOKEN in text.text
    assert report.details["sources"]["code"]["masked"] == {"documents-with-secret": 1, "secret-github-token": 1}
    assert report.details["sources"]["text"]["masked"] == {}
    tokenizer = load_tokenizer("qwen")
    for document in (code, text):
        assert document.doc_id == document_id(document.text)
        assert document.num_tokens == len(tokenizer.encode(document.text))
        assert (document.num_chars, document.num_bytes) == (len(document.text), len(document.text.encode()))

    strict = {"secrets": {"action": "reject", "where": "all"}}
    report, documents, rejects = run(recipe(tmp_path, *sources, curate=strict), tmp_path / "r")
    assert documents == []
    assert [reject.reason for reject in rejects] == ["secret", "secret"]
    personal = {"secrets": {"action": "keep"}, "personal": {"action": "mask"}}
    report, (code, text), _ = run(recipe(tmp_path, *sources, curate=personal), tmp_path / "p")
    assert TOKEN in code.text
    assert text.text.endswith(f"{TOKEN} [MAIL]")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_masked_is_counted_in_the_documents_that_came_out(tmp_path: Path, workers: int) -> None:
    mails = " a@b.example, c@d.example"
    # In this order: without a finding, kept, nearly the same, the same, withdrawn, kept; and copies in another partition.
    first = [
        prose(1),
        prose(2) + mails,
        prose(2) + " now" + mails,
        prose(2) + mails,
        prose(3) + mails,
        prose(4) + mails,
    ]
    lines(tmp_path / "c/a.jsonl", *first)
    lines(tmp_path / "c/b.jsonl", *first, prose(5) + " x@y.example")
    source = {"id": "s", "path": str(tmp_path / "c"), "reader": {"kind": "jsonl"}}
    curate = {"personal": {"action": "mask"}, "near_duplicates": {"action": "reject", "threshold": 0.6}}
    withdrawn = document_id(prose(3) + " [MAIL], [MAIL]")
    loaded = recipe(tmp_path, source, curate=curate, exclude={"documents": [withdrawn]})
    report, documents, _ = run(loaded, tmp_path / "b", workers=workers)
    assert report.rejected == {"near-duplicate": 2, "duplicate": 5, "withdrawn": 2}
    assert [document.text.count("[MAIL]") for document in documents] == [0, 2, 2, 1]
    assert report.details["sources"]["s"]["masked"] == {"documents-with-personal": 3, "personal-email": 5}


def test_texts_that_masking_makes_equal_are_duplicates(tmp_path: Path) -> None:
    lines(tmp_path / "c/a.jsonl", prose(1) + " a.b@c.example", prose(1) + " d@e.example")
    source = {"id": "s", "path": str(tmp_path / "c"), "reader": {"kind": "jsonl"}}
    report, (document,), (reject,) = run(
        recipe(tmp_path, source, curate={"personal": {"action": "mask"}}), tmp_path / "b"
    )
    assert (reject.reason, reject.id) == ("duplicate", document.doc_id)
    assert f"as document {document.doc_id} before it" in reject.detail
    assert report.rejected == {"duplicate": 1}


def test_benchmark_texts_are_kept_out_by_name_and_a_missing_index_is_said(tmp_path: Path) -> None:
    lines(tmp_path / "c/a.jsonl", prose(1), prose(2) + prose(3, 100) + prose(4), prose(5))
    (tmp_path / "bench.txt").write_text(prose(3, 100))
    write_index([tmp_path / "bench.txt"], tmp_path / "bench.npz")
    source = {"id": "s", "path": str(tmp_path / "c"), "reader": {"kind": "jsonl"}}
    loaded = recipe(tmp_path, source, curate={"decontaminate": {"index": "bench.npz"}})
    _, documents, (reject,) = run(loaded, tmp_path / "b", workers=2)
    assert len(documents) == 2
    assert reject.reason == "contaminated"
    assert "bench.txt" in reject.detail
    with pytest.raises(SourceError, match="longalign decontam index"):
        run(recipe(tmp_path, source, curate={"decontaminate": {"index": "none.npz"}}), tmp_path / "x")
