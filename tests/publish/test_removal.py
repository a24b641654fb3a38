"""What is taken out of a build is gone from every table, and the packs are exact again."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from longalign_data.build.rehydrate import rehydrate
from longalign_data.build.removal import Wish, remove
from longalign_data.engine import Silent
from longalign_data.errors import BuildError, UserError
from longalign_data.explore.why import trace
from longalign_data.packing.reader import open_packs
from longalign_data.publish.contents import prepare_publication
from longalign_data.publish.verify import verify
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.manifest import require_manifest, stage_of
from tests.publish.builds import RUN, hold, make, rows, write_corpus


@pytest.fixture
def copy(towns: BuildFolder, tmp_path: Path) -> BuildFolder:
    shutil.copytree(towns.root, tmp_path / "towns" / "1.0.0")
    return BuildFolder(tmp_path / "towns" / "1.0.0")


def without(build: BuildFolder, **wish: list[str]) -> BuildFolder:
    before = {path: path.read_bytes() for path in build.root.rglob("*") if path.is_file() and path.name != ".lock"}
    made = remove(build, Wish(**wish), run=RUN, progress=Silent()).folder
    assert all(path.read_bytes() == content for path, content in before.items())
    assert verify(made, Silent()).faults == []
    return made


def test_the_new_version_stands_beside_the_old_one_however_that_is_called(
    copy: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Wish(samples=[rows(copy, "samples")[0]["sample_id"]])
    monkeypatch.chdir(copy.root)
    made = remove(BuildFolder(Path()), wish, version="1.0.1", run=RUN, progress=Silent())
    assert made.folder.root == copy.root.parent / "1.0.1"
    assert not (copy.root / "1.0.1").exists()
    renamed = BuildFolder(tmp_path / "elsewhere" / "mybuild")
    shutil.copytree(copy.root, renamed.root)
    made = remove(renamed, wish, run=RUN, progress=Silent())
    assert made.folder.root == tmp_path / "elsewhere" / "1.0.1"
    with pytest.raises(UserError, match=r"is version 1\.0\.0 itself"):
        remove(renamed, wish, version="1.0.0", run=RUN, progress=Silent())


def test_no_byte_of_a_removed_document_stands_in_any_table(copy: BuildFolder) -> None:
    sample = rows(copy, "samples")[3]
    (doc_id,) = sample["doc_ids"]
    document = next(row for row in rows(copy, "documents") if row["doc_id"] == doc_id)
    # Lines that no other document has: the documents of a source are alike otherwise.
    others = "\n".join(row["text"] for row in rows(copy, "documents") if row["doc_id"] != doc_id)
    own = [line for line in document["text"].splitlines() if line.strip() and line not in others]
    assert len(own) > 3
    made = without(copy, documents=[doc_id[:12]])
    assert made.root.name == "1.0.1"
    for table in require_manifest(made)["tables"]:
        for line in own:
            assert hold(made.root / table, line) == []
    assert hold(copy.root / "samples", own[0]) != []
    manifest = require_manifest(made)
    # As a record the id alone remains.
    assert manifest["removed"] == [{"kind": "document", "id": doc_id, "version": "1.0.1"}]
    assert hold(made.root, sample["sample_id"]) == []
    assert not made.ledger.exists()
    assert f"document `{doc_id}` (version 1.0.1)" in made.card.read_text()


def test_its_tokens_are_gone_and_every_other_sequence_is_packed_once_an_epoch(copy: BuildFolder) -> None:
    sample = rows(copy, "samples")[0]
    (sequence,) = [row for row in rows(copy, "sequences") if row["sample_id"] == sample["sample_id"]]
    made = without(copy, samples=[sample["sample_id"]])
    needle = sequence["input_ids"][20:60]
    for row in rows(made, "packs"):
        text = ",".join(map(str, row["input_ids"]))
        assert ",".join(map(str, needle)) not in text
    kept = {row["sequence_id"] for row in rows(copy, "sequences")} - {sequence["sequence_id"]}
    for epoch in (0, 1):
        packed = [
            name
            for pack, entry in zip(rows(made, "packs"), rows(made, "plan"), strict=True)
            if entry["epoch"] == epoch
            for name in pack["sequence_ids"]
        ]
        assert sorted(packed) == sorted(kept)
    reader = open_packs(made.root)
    for step in range(reader.num_steps):
        weights = sum(
            float(batch.loss_weights.sum())
            for rank in range(2)
            if (batch := reader.batch(step, rank, 2, 0, 1)) is not None
        )
        assert weights == pytest.approx(reader.step(step).normalizer, rel=1e-5)
    # The document itself was not asked to go.
    assert sample["doc_ids"][0] in {row["doc_id"] for row in rows(made, "documents")}


def test_a_source_goes_with_all_that_came_of_it(copy: BuildFolder) -> None:
    made = without(copy, sources=["closed", "talk"])
    for table in ("documents", "samples", "chats", "sequences"):
        assert {row["source"] for row in rows(made, table)} <= {"open"}
    assert rows(made, "chats") == []
    kept = [row for row in rows(copy, "sequences") if row["source"] == "open"]
    assert rows(made, "sequences") == kept
    manifest = require_manifest(made)
    ingest, sample, generate = (stage_of(manifest, stage) for stage in ("ingest", "sample", "generate"))
    assert ingest is not None
    assert sample is not None
    assert generate is not None
    assert ingest["details"]["sources"]["closed"]["out"] == 0
    zh = [cell for cell in sample["details"]["cells"] if cell["lang"] == "zh"]
    assert [cell["achieved"] for cell in zh] == [0] * len(zh)
    assert sum(cell["achieved"] for cell in sample["details"]["cells"]) == len(rows(made, "selection"))
    assert sum(generate["details"]["tasks"].values()) == len(rows(made, "samples"))
    assert generate["left_out"]["removed"] == len(rows(copy, "samples")) - len(rows(made, "samples"))


def test_without_the_sources_that_may_not_be_published_the_rest_may(tmp_path: Path) -> None:
    build = make(write_corpus(tmp_path / "corpus", closed="false", mix="false"), tmp_path / "builds")
    made = without(build, sources=["closed", "talk"])
    found = prepare_publication(made, "org/towns", tables=None, without_documents=False, staging=tmp_path / "staging")
    assert found.refusals == []
    front = yaml.safe_load(found.card.split("---")[1])
    assert (front["language"], front["license"]) == (["en"], "cc0-1.0")
    assert "Withdrawn after it was built: source `closed` (version 1.0.1), source `talk` (version 1.0.1)." in found.card


PRETRAIN = """
name: towns
version: VERSION
sources:
  - {id: open, title: Reports, lang: en, license: CC0-1.0, path: open.jsonl, reader: {kind: jsonl}, redistribute: true}
ingest: {min_tokens: 100, max_tokens: 20000}
sample: {count: 9, edges: [100, 20000], languages: {}}
encode: {mode: pretrain, max_tokens: 300}
pack: {capacity: 512, packs_per_step: 2}
"""
CHATS = """
name: towns
version: VERSION
mix:
  - {id: talk, lang: en, license: CC0-1.0, path: talk.jsonl, redistribute: true}
encode: {max_tokens: 256}
pack: {capacity: 256, packs_per_step: 2, alpha: 0.5, unit: turn}
"""


def test_windows_of_plain_documents_are_removed_verified_and_rehydrated(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    recipe.write_text(PRETRAIN.replace("VERSION", "1.0.0"), encoding="utf-8")
    build = make(recipe, tmp_path / "builds")
    assert verify(build, Silent()).faults == []
    selected = [row["doc_id"] for row in rows(build, "selection")]
    made = without(build, documents=[selected[0]])
    assert {row["sample_id"] for row in rows(made, "sequences")} == set(selected[1:])
    assert len(rows(made, "documents")) == len(rows(build, "documents")) - 1

    found = prepare_publication(build, "org/towns", tables=None, without_documents=True, staging=tmp_path / "staging")
    for file in found.files:
        place = tmp_path / "copy" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content if file.content is not None else (file.source or place).read_bytes())
    places = {"open": str(tmp_path / "corpus" / "open.jsonl")}
    done = rehydrate(BuildFolder(tmp_path / "copy"), places, tmp_path / "back", run=RUN, progress=Silent())
    assert rows(done.folder, "packs") == rows(build, "packs")
    assert verify(done.folder, Silent()).faults == []


def test_a_build_of_conversations_alone_is_verified_and_loses_some(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    recipe.write_text(CHATS.replace("VERSION", "1.0.0"), encoding="utf-8")
    build = make(recipe, tmp_path / "builds")
    assert verify(build, Silent()).faults == []
    made = without(build, samples=[rows(build, "chats")[0]["sample_id"]])
    assert len(rows(made, "chats")) == 8
    steps = trace(made, rows(made, "chats")[0]["sample_id"])
    assert [step.stage for step in steps] == ["source", "sample", "encoded", "pack"]


def test_removals_add_up_over_versions(copy: BuildFolder) -> None:
    first, second = (row["sample_id"] for row in rows(copy, "samples")[:2])
    made = without(without(copy, samples=[first]), samples=[second])
    assert made.root.name == "1.0.2"
    manifest = require_manifest(made)
    assert [(entry["id"], entry["version"]) for entry in manifest["removed"]] == [(first, "1.0.1"), (second, "1.0.2")]
    assert manifest["parent"]["version"] == "1.0.1"


def test_unknown_ids_and_empty_versions_are_refused(copy: BuildFolder) -> None:
    for wish, words in (
        (Wish(sources=["opne"]), "no source 'opne'; it was made of: open, closed, talk"),
        (Wish(documents=["zz"]), "0 documents have an id that begins with 'zz'"),
        (Wish(samples=[""]), "0 samples have an id"),
        (Wish(sources=["open", "closed", "talk"]), "nothing would be left to pack"),
    ):
        with pytest.raises(UserError, match=words):
            remove(copy, wish, run=RUN, progress=Silent())
    assert [path.name for path in copy.root.parent.iterdir()] == ["1.0.0"]


def test_a_build_of_the_same_recipe_does_not_bring_it_back(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    output = tmp_path / "builds"
    build = make(recipe, output)
    sample, chat = rows(build, "samples")[2], rows(build, "chats")[0]
    (doc_id,) = sample["doc_ids"]
    made = without(build, documents=[doc_id], samples=[chat["sample_id"]])
    # The old version stands, and a build of it has nothing to do; once it is deleted, it is not made again.
    assert rows(make(recipe, output), "samples") == rows(build, "samples")
    shutil.rmtree(build.root)
    with pytest.raises(BuildError, match=rf"the document {doc_id} \(by version 1\.0\.1\).*exclude"):
        make(recipe, output)
    lines = f"exclude: {{documents: [{doc_id}]}}\n"
    next_ = write_corpus(tmp_path / "corpus", version="1.1.0", extra=lines)
    with pytest.raises(BuildError, match=f"the sample {chat['sample_id']}"):
        make(next_, output)
    lines = f"exclude: {{documents: [{doc_id}], samples: [{chat['sample_id']}]}}\n"
    again = make(write_corpus(tmp_path / "corpus", version="1.1.0", extra=lines), output)
    assert doc_id not in {row["doc_id"] for row in rows(again, "documents")}
    assert chat["sample_id"] not in {row["sample_id"] for row in rows(again, "chats")}
    assert ("ingest", "withdrawn") in {(row["stage"], row["reason"]) for row in rows(again, "rejects")}
    # Over the version that `remove` made nothing is built.
    with pytest.raises(BuildError, match="made by longalign remove"):
        make(write_corpus(tmp_path / "corpus", version="1.0.1", extra=lines), output)
    assert verify(made, Silent()).faults == []


def test_a_source_that_was_removed_must_leave_the_recipe(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    build = make(recipe, tmp_path / "builds")
    without(build, sources=["talk"])
    shutil.rmtree(build.root)
    with pytest.raises(BuildError, match=r"the source 'talk' .*take it out of the recipe"):
        make(recipe, tmp_path / "builds")


def test_a_build_that_keeps_no_sequences_is_packed_anew_from_its_packs(tmp_path: Path) -> None:
    recipe = write_corpus(tmp_path / "corpus")
    whole = make(recipe, tmp_path / "whole")
    small = make(write_corpus(tmp_path / "corpus", extra="keep: [samples, chats, packs, plan]\n"), tmp_path / "small")
    (doc_id,) = rows(whole, "samples")[1]["doc_ids"]
    chat = rows(whole, "chats")[2]["sample_id"]
    made = [without(build, documents=[doc_id], samples=[chat]) for build in (whole, small)]
    for table in ("samples", "chats", "packs", "plan"):
        assert rows(made[0], table) == rows(made[1], table), table
    assert {path.name for path in made[1].root.iterdir() if path.is_dir()} == {
        "samples", "chats", "packs", "plan", "rejects", "state",
    }  # fmt: skip


def test_a_build_that_keeps_too_little_says_what_is_needed(tmp_path: Path) -> None:
    build = make(write_corpus(tmp_path / "corpus", extra="keep: [packs, plan]\n"), tmp_path / "builds")
    with pytest.raises(BuildError, match=r"neither the table sequences nor packs with samples and chats.*`keep`"):
        remove(build, Wish(sources=["open"]), run=RUN, progress=Silent())


def test_why_leads_from_the_bytes_of_the_source_to_the_tokens_of_the_packs(towns: BuildFolder) -> None:
    sample = rows(towns, "samples")[1]
    steps = trace(towns, sample["sample_id"][:10])
    words = {step.stage: step.what for step in steps}
    assert list(dict.fromkeys(step.stage for step in steps if step.stage != "evidence")) == [
        "source",
        "document",
        "drawn",
        "sample",
        "asked",
        "encoded",
        "pack",
    ]
    reference = words["document"].split()[1].rstrip(",")
    file, span = reference.split(":")
    start, end = map(int, span.split("-"))
    corpus = towns.root.parent.parent.parent / "corpus"
    line = json.loads((corpus / file).read_bytes()[start:end])
    content = sample["messages"][0]["content"]
    assert content.startswith(line["text"])
    (sequence,) = [row for row in rows(towns, "sequences") if row["sample_id"] == sample["sample_id"]]
    places = [step.what for step in steps if step.stage == "pack"]
    assert len(places) == 2  # two epochs
    packs = {row["pack_id"]: row for row in rows(towns, "packs")}
    for place in places:
        pack = packs[place.split(":")[0]]
        first, last = (int(number.replace(",", "")) for number in place.split(" tokens ")[1].split(", ")[0].split("-"))
        assert pack["input_ids"][first:last] == sequence["input_ids"]


def test_why_finds_the_packs_of_a_build_that_keeps_no_sequences(towns: BuildFolder, copy: BuildFolder) -> None:
    sample_id = rows(towns, "samples")[1]["sample_id"]
    manifest = require_manifest(towns)

    def told(*left_out: str) -> list[tuple[str, str]]:
        tables = {name: shards for name, shards in manifest["tables"].items() if name not in left_out}
        copy.manifest.write_text(json.dumps(manifest | {"tables": tables}))
        return [(step.stage, step.what) for step in trace(copy, sample_id) if step.stage in ("encoded", "pack")]

    (encoded, *packs) = told()
    assert len(packs) == 2
    sequence_id = encoded[1].split(":")[0]
    missing = ("encoded", f"{sequence_id}: the build does not hold the table sequences")
    assert told("sequences") == [missing, *packs]
    assert told("sequences", "packs", "plan") == [
        missing,
        ("pack", "the build does not hold the tables packs and plan"),
    ]


def test_why_asks_for_one_sample(towns: BuildFolder) -> None:
    with pytest.raises(UserError, match="0 samples have an id that begins with 'zz'"):
        trace(towns, "zz")
