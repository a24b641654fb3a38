"""A build that is not what its manifest says is found out, and the fault names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_data.engine import Silent
from longalign_data.errors import BuildError
from longalign_data.identity import file_sha256
from longalign_data.publish.verify import Fault, verify
from longalign_data.shards.folder import BuildFolder
from tests.hub.server import Hub
from tests.publish.builds import hashes, longalign

Rows = list[dict[str, Any]]


@pytest.fixture
def copy(towns: BuildFolder, tmp_path: Path) -> BuildFolder:
    shutil.copytree(towns.root, tmp_path / "1.0.0")
    return BuildFolder(tmp_path / "1.0.0")


def faults(build: BuildFolder) -> list[Fault]:
    return list(verify(build, Silent()).faults)


def alter(build: BuildFolder, table: str, change: Callable[[Rows], object]) -> str:
    """Changes rows of a table's first file and lets the manifest say that this is right; returns the file."""
    manifest = json.loads(build.manifest.read_text())
    shard = manifest["tables"][table][0]
    path = build.root / shard["path"]
    stored = pq.read_table(path)
    rows = stored.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=stored.schema), path)
    tokens = sum(row.get("num_tokens", 0) for row in rows)
    shard |= {"rows": len(rows), "tokens": tokens, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    build.manifest.write_text(json.dumps(manifest))
    name: str = shard["path"]
    return name


def test_a_build_as_it_was_made_has_no_fault(towns: BuildFolder) -> None:
    found = verify(towns, Silent())
    assert found.faults == []
    assert found.files == len(hashes(towns))
    assert found.bytes == sum((towns.root / path).stat().st_size for path in hashes(towns))


def _stage(name: str, **figures: object) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        report = next(one for one in manifest["stages"] if one["stage"] == name)
        for key, value in figures.items():
            place = report if key in report else report["details"]
            assert place[key] != value
            place[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: manifest.update(version="9.9.9"), "version is '9.9.9'; that of the recipe is '1.0.0'"),
        (lambda manifest: manifest.update(name="cities"), "name is 'cities'"),
        (_stage("pack", fill=0.999), "the stage pack says fill 0.999; counted from the packs it is"),
        (_stage("pack", num_packs=1), "the stage pack says num_packs 1;"),
        (_stage("pack", effective_weight={"p1": 1.0, "p50": 1.0, "p99": 1.0}), "the stage pack says effective_weight"),
        (_stage("pack", num_targets=5), "the stage pack says num_targets 5; counted it is"),
        (_stage("pack", tokens_cut=7), "the stage pack says tokens_cut 7; counted it is"),
        (_stage("pack", num_tokens=8), "the stage pack says 8 tokens came out; the table packs holds"),
        (_stage("encode", truncated_tokens=9), "the stage encode says truncated_tokens 9; counted it is"),
        (_stage("encode", num_tokens=9), "the stage encode says 9 tokens came out; the table sequences holds"),
    ],
)
def test_figures_that_the_tables_do_not_give_are_named(
    change: Callable[[dict[str, Any]], object], words: str, copy: BuildFolder
) -> None:
    manifest = json.loads(copy.manifest.read_text())
    change(manifest)
    copy.manifest.write_text(json.dumps(manifest))
    (fault,) = faults(copy)
    assert fault.where == "manifest.json"
    assert words in fault.what


@pytest.mark.parametrize(
    ("table", "path"),
    [("samples", "../1.0.0/samples/00000.parquet"), ("samples", "packs/00000.parquet"), ("secret", "secret/a.parquet")],
)
def test_a_manifest_that_names_files_elsewhere_is_no_manifest(table: str, path: str, copy: BuildFolder) -> None:
    manifest = json.loads(copy.manifest.read_text())
    shard = manifest["tables"]["samples"][0]
    manifest["tables"][table] = [shard | {"path": path}]
    copy.manifest.write_text(json.dumps(manifest))
    with pytest.raises(BuildError, match=r"names the file|names an unknown table 'secret'"):
        verify(copy, Silent())


def test_files_that_are_damaged_missing_or_too_many_are_named(copy: BuildFolder) -> None:
    damaged, missing = sorted(path for path in hashes(copy) if path.startswith(("samples/", "packs/")))[:2]
    content = bytearray((copy.root / damaged).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.root / damaged).write_bytes(content)
    (copy.root / missing).unlink()
    shutil.copy(copy.root / damaged, copy.root / "samples" / "stray.parquet")
    found = {fault.where: fault for fault in faults(copy)}
    assert set(found) == {damaged, missing, "samples/stray.parquet"}
    assert "SHA-256" in found[damaged].what
    assert found[missing].what == "is missing"
    assert "state/pack.json" in found[missing].remedy
    assert "remove it" in found["samples/stray.parquet"].remedy


def test_a_build_that_is_not_complete_is_none(copy: BuildFolder) -> None:
    copy.manifest.unlink()
    with pytest.raises(BuildError, match=r"not complete.*longalign build"):
        verify(copy, Silent())


def put(name: str, value: Any) -> Callable[[Rows], object]:
    return lambda rows: rows[0].update({name: value})


CHANGES: dict[str, tuple[str, Callable[[Rows], object], str]] = {
    "a text": ("documents", lambda rows: rows[0].update(text=rows[0]["text"] + "!"), "its id is not the hash"),
    "a length": ("documents", put("num_chars", 3), "num_chars or num_bytes"),
    "a document twice": ("documents", lambda rows: rows.append(rows[0]), "stands twice"),
    "a selected stranger": ("selection", put("doc_id", "0" * 32), "is not among the documents"),
    "a gap in the ranks": ("selection", put("rank", 77), "do not run from 0"),
    "an unknown document": ("samples", lambda rows: rows[0]["doc_ids"].__setitem__(0, "0" * 32), "not among the doc"),
    "a moved span": ("samples", lambda rows: rows[0]["document_spans"][0].update(start=5), "is not document"),
    "evidence outside": (
        "samples",
        lambda rows: rows[0]["checks"].update(evidence=[{"doc_id": rows[0]["doc_ids"][0], "start": 0, "end": 10**7}]),
        "lies outside document",
    ),
    "no such question": ("samples", put("question_index", 9), "none of its"),
    "a sample lost": ("samples", lambda rows: rows.pop(), "came out; the table samples holds"),
    "an orphan": ("sequences", put("sample_id", "0" * 32), "does not exist"),
    "a wrong count": ("sequences", put("num_targets", 1), "is not that of its target_spans"),
    "a token of a pack": ("packs", lambda rows: rows[0]["input_ids"].__setitem__(0, 3), "other tokens"),
    "a weight": ("packs", lambda rows: rows[0]["loss_weights"].__setitem__(-1, 0.123), "weights are not those"),
    "a border": ("packs", lambda rows: rows[0]["cu_seqlens"].__setitem__(-1, 1), "do not fit each other"),
    "packs out of order": ("packs", put("pack_id", "0" * 32), "is not pack 0 of the plan"),
    "M": ("plan", lambda rows: [row.update(num_sequences=99) for row in rows], "says 99 sequences and holds"),
    "Z": ("plan", lambda rows: [row.update(normalizer=0.5) for row in rows], "says the normalizer 0.5"),
    "capacity": ("plan", put("capacity", 5), "has room for 5"),
    "a step": ("plan", put("position", 1), "out of turn"),
    "a reject": ("rejects", lambda rows: rows.append({"id": "x", "stage": "ingest", "reason": "odd", "detail": ""}), "it rejected"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_rows_say_of_each_other_is_checked(name: str, copy: BuildFolder) -> None:
    table, change, words = CHANGES[name]
    file = alter(copy, table, change)
    found = faults(copy)
    assert any(words in fault.what for fault in found), [(fault.where, fault.what) for fault in found]
    at = "packs/" if name == "capacity" else f"{file.split('/')[0]}/"
    assert any(fault.where.startswith(at) for fault in found)
    assert all(fault.remedy for fault in found)


def test_a_sequence_in_two_packs_or_in_none_is_found(copy: BuildFolder) -> None:
    """The same sequence under the name of another: all counts still fit."""

    def rename(rows: Rows) -> None:
        names = [name for row in rows for name in row["sequence_ids"]]
        rows[0]["sequence_ids"][0] = names[-1]

    alter(copy, "packs", rename)
    words = [fault.what for fault in faults(copy)]
    assert any("2 packs of epoch 0" in what for what in words) or any("other tokens" in what for what in words)
    assert any("stands in no pack of epoch 0" in what for what in words)


def test_the_command_ends_with_1_and_says_where(copy: BuildFolder, hub: Hub, tmp_path: Path) -> None:
    file = sorted(path for path in hashes(copy) if path.startswith("plan/"))[0]
    (copy.root / file).write_bytes(b"torn")
    done = longalign(hub, "verify", str(copy.root), home=tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 1, err
    assert f"{copy.root}/{file}: has 4 bytes" in out
    assert "1 faults" in out
