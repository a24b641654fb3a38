"""Published without documents, and made whole again by who has the corpus."""

import json
import shutil
from pathlib import Path

import pytest

from longalign_data.build.rehydrate import Rehydrated, rehydrate
from longalign_data.engine import Silent
from longalign_data.errors import BuildError, UserError
from longalign_data.publish.contents import prepare_publication
from longalign_data.publish.verify import verify
from longalign_data.shards.folder import BuildFolder
from tests.publish.builds import RUN, hold, make, rows, write_corpus


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> BuildFolder:
    """A build whose second source may not be redistributed."""
    folder = tmp_path_factory.mktemp("closed")
    return make(write_corpus(folder / "corpus", closed="false"), folder / "builds")


@pytest.fixture
def copy(closed: BuildFolder, tmp_path: Path) -> BuildFolder:
    """What somebody downloads of it."""
    found = prepare_publication(closed, "org/towns", tables=None, without_documents=True, staging=tmp_path / "staging")
    assert found.refusals == []
    for file in found.files:
        place = tmp_path / "copy" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        content = file.content if file.source is None else file.source.read_bytes()
        assert content is not None
        assert len(content) == file.size
        place.write_bytes(content)
    return BuildFolder(tmp_path / "copy")


def back(copy: BuildFolder, corpus: Path, output: Path, **options: bool) -> Rehydrated:
    places = {name: str(corpus / f"{name}.jsonl") for name in ("open", "closed")}
    return rehydrate(copy, places, output, run=RUN, progress=Silent(), **options)


def test_no_line_of_a_document_is_published(closed: BuildFolder, copy: BuildFolder) -> None:
    # Answers and questions may quote; what no conversation quotes must be nowhere.
    spoken = [m["content"][-2000:] for row in rows(closed, "samples") for m in row["messages"][1:]]
    spoken += [question for row in rows(closed, "samples") for question in row["questions"]]
    checked = 0
    for document in rows(closed, "documents"):
        lines = [line for line in document["text"].splitlines() if len(line) > 40]
        for line in lines[:: max(1, len(lines) // 3)]:
            if not any(line[:40] in text or line[-40:] in text for text in spoken):
                assert hold(copy.root, line) == []
                checked += 1
    assert checked > 20
    tables = {path.parent.name for path in copy.root.glob("*/*.parquet")}
    assert tables == {"references", "selection", "samples", "chats"}
    assert verify(copy, Silent()).faults == []
    assert "longalign rehydrate" in copy.card.read_text()


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "../../outside"), ("version", "../1.0.0"), ("version", "1.0.0\n"), ("name", "/outside")],
)
def test_a_stranger_s_manifest_names_no_place_outside(
    field: str, value: str, copy: BuildFolder, closed: BuildFolder, tmp_path: Path
) -> None:
    copy.manifest.write_text(json.dumps(json.loads(copy.manifest.read_text()) | {field: value}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BuildError, match=rf"the {field} .* is not one that a build can have"):
        back(copy, closed.root.parent.parent.parent / "corpus", tmp_path / "a" / "b" / "builds")
    assert sorted(tmp_path.rglob("*")) == before


def test_with_the_corpus_it_is_the_build_again_to_the_byte(
    closed: BuildFolder, copy: BuildFolder, tmp_path: Path
) -> None:
    corpus = closed.root.parent.parent.parent / "corpus"
    done = back(copy, corpus, tmp_path / "builds")
    assert done.missing == {}
    for table in ("samples", "chats", "sequences", "packs", "plan"):
        assert rows(done.folder, table) == rows(closed, table), table
    used = {doc_id for row in rows(closed, "samples") for doc_id in row["doc_ids"]}
    assert rows(done.folder, "documents") == [row for row in rows(closed, "documents") if row["doc_id"] in used]
    assert done.same_bytes == dict.fromkeys(("packs", "plan", "samples", "sequences"), True)
    assert verify(done.folder, Silent()).faults == []
    assert json.loads(done.folder.manifest.read_text())["version"] == "1.0.0"


def test_a_corpus_that_was_sorted_anew_is_found_by_its_hashes(
    closed: BuildFolder, copy: BuildFolder, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(closed.root.parent.parent.parent / "corpus", corpus)
    for name in ("open", "closed"):
        lines = (corpus / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (corpus / f"{name}.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    done = back(copy, corpus, tmp_path / "builds")
    assert rows(done.folder, "packs") == rows(closed, "packs")


def test_a_document_that_differs_in_a_letter_is_not_taken(
    closed: BuildFolder, copy: BuildFolder, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(closed.root.parent.parent.parent / "corpus", corpus)
    (gone,) = rows(closed, "samples")[0]["doc_ids"]
    document = next(row for row in rows(closed, "documents") if row["doc_id"] == gone)
    file = corpus / f"{document['source']}.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert document["text"] in [line["text"] for line in lines]
    changed = [
        {"text": line["text"].replace("1", "2") if line["text"] == document["text"] else line["text"]} for line in lines
    ]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in changed), encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of \d+ documents are not in the corpora as they were.*--partial"):
        back(copy, corpus, tmp_path / "builds")
    assert not list((tmp_path / "builds").glob("*/*"))
    done = back(copy, corpus, tmp_path / "builds", partial=True)
    assert sum(done.missing.values()) == 1
    kept = [row for row in rows(closed, "samples") if gone not in row["doc_ids"]]
    assert rows(done.folder, "samples") == kept
    assert verify(done.folder, Silent()).faults == []


def test_what_is_missing_is_said(closed: BuildFolder, copy: BuildFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source 'open' \(Reports\): say where your copy is: --source open=PATH"):
        rehydrate(copy, {}, tmp_path / "builds", run=RUN, progress=Silent())
    with pytest.raises(UserError, match="no such source; the build was made of: open, closed"):
        rehydrate(copy, {"other": "x"}, tmp_path / "builds", run=RUN, progress=Silent())
    with pytest.raises(UserError, match=r"not the vocabulary.*--tokenizer"):
        rehydrate(copy, {}, tmp_path / "builds", tokenizer="mistral-v1", run=RUN, progress=Silent())
    with pytest.raises(BuildError, match="nothing to put back"):
        rehydrate(closed, {}, tmp_path / "builds", run=RUN, progress=Silent())
    with pytest.raises(UserError, match="its token ids are the documents"):
        prepare_publication(closed, "org/towns", tables=["packs", "plan"], without_documents=True, staging=tmp_path)
