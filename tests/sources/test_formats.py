"""Every reader over the table: its own format, damage, order, cuts, links, and every card."""

import gzip
import io
import pickle
import random
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_data.catalog import builtin_cards, load_card
from longalign_data.errors import SourceError
from longalign_data.sources import reading
from longalign_data.sources.readers import (
    blocks,
    jsonl,
    parquet,
    partitions,
    read,
    row_batches,
    wikipedia,
)
from longalign_data.sources.reading import RawDocument, RawReject
from tests.fixtures import corpora
from tests.sources.reads import FORMATS, docs, everything, placed, reasons

PLAIN = (".txt", ".py", ".html", ".md")


ARCHIVES = ("arxiv", "books", "github")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus in each format, in folders named like the readers."""
    root = tmp_path_factory.mktemp("corpora")
    texts = [(title, text[:12_000]) for title, text in corpora.topics()[:6]]
    for kind in FORMATS:
        corpora.write_corpus(kind, root / kind, texts)
    return root


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_without_a_reject_and_keeps_its_words(corpus: Path, kind: str) -> None:
    found = everything(placed(corpus / kind, kind))
    assert reasons(found) == []
    assert len(docs(found)) >= 6
    assert len({raw.source_ref for raw in found}) == len(found)
    words = "".join("".join(raw.text.split()) for raw in docs(found))
    assert "specialmethodnames" in words.lower()


@pytest.mark.parametrize("kind", FORMATS)
def test_reading_again_or_elsewhere_gives_the_same_documents(corpus: Path, kind: str, tmp_path: Path) -> None:
    shutil.copytree(corpus / kind, tmp_path / "copy")
    assert everything(placed(tmp_path / "copy", kind)) == everything(placed(corpus / kind, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_damage_is_a_reject_or_a_clear_error(corpus: Path, kind: str, tmp_path: Path) -> None:
    """Each file of each corpus cut off, with bytes changed, emptied, and with bytes of no format, by a fixed seed."""
    draw = random.Random(f"damage {kind}")
    for source in sorted(path for path in (corpus / kind).rglob("*") if path.is_file()):
        data = source.read_bytes()
        spoiled = [b"", data[: len(data) // 3], data[:-20], draw.randbytes(3000), b"\xff\xfe" + data, b"[" * 9000]
        for _ in range(4):
            changed = bytearray(data)
            for _ in range(max(1, len(changed) // 4000)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            spoiled.append(bytes(changed))
        for bad in spoiled:
            folder = tmp_path / "bad"
            shutil.rmtree(folder, ignore_errors=True)
            in_repository = kind == "github" and source.parent != corpus / kind
            place = folder / "repo" / source.name if in_repository else folder / source.name
            place.parent.mkdir(parents=True)
            place.write_bytes(bad)
            try:
                everything(placed(folder, kind))
            except SourceError as error:
                assert source.name in str(error)  # noqa: PT017 - a reject is as good
                assert "make it readable" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", FORMATS)
def test_partitions_read_in_any_order_give_the_same_documents(
    corpus: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (blocks, jsonl, parquet, wikipedia):
        monkeypatch.setattr(module, "RANGE_BYTES", 5000)
    monkeypatch.setattr(reading, "GROUP_UNITS", 1)
    found = partitions(placed(corpus / kind, kind))
    assert len({partition.key for partition in found}) == len(found)
    forwards = [list(read(partition)) for partition in found]
    backwards = [list(read(pickle.loads(pickle.dumps(partition)))) for partition in reversed(found)]
    assert backwards[::-1] == forwards
    monkeypatch.undo()
    assert [raw for part in forwards for raw in part] == everything(placed(corpus / kind, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_that_is_cut_off_gives_what_came_before_and_nothing_else(
    corpus: Path, kind: str, tmp_path: Path
) -> None:
    """A cut is told of by a reject or an error, but for plain text, which has no end of its own: its document is shorter."""
    whole = {raw.source_ref: raw.text for raw in docs(everything(placed(corpus / kind, kind)))}
    for source in sorted(path for path in (corpus / kind).rglob("*") if path.is_file()):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(corpus / kind, tmp_path / "cut")
        cut = tmp_path / "cut" / source.relative_to(corpus / kind)
        cut.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5])
        try:
            found = everything(placed(tmp_path / "cut", kind))
        except SourceError as error:
            assert source.name in str(error)  # noqa: PT017 - a reject is as good
            continue
        for raw in docs(found):
            assert whole[raw.source_ref].startswith(raw.text[: len(raw.text) * 9 // 10 - 200])
        if source.suffix in PLAIN:
            assert sum(len(raw.text) for raw in docs(found)) < sum(map(len, whole.values())), source.name
        elif source.name != "LICENSE":
            assert reasons(found), source.name


@pytest.mark.parametrize("kind", FORMATS)
def test_links_that_lead_nowhere_in_a_circle_or_outside_stop_no_reader(corpus: Path, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus / kind, folder)
    place = folder / "repo0" if kind == "github" else folder
    suffix = next("".join(path.suffixes) for path in sorted(place.rglob("*")) if path.is_file())
    before = everything(placed(folder, kind))
    (tmp_path / f"secret{suffix}").write_bytes(b"secret")
    (place / f"zz-nowhere{suffix}").symlink_to(tmp_path / "nothing")
    (place / f"zz-self{suffix}").symlink_to(place / f"zz-self{suffix}")
    (place / "zz-circle").symlink_to(folder, target_is_directory=True)
    found = everything(placed(folder, kind))
    assert [raw for raw in found if isinstance(raw, RawDocument)] == before
    # Links inside source trees, and beside the one file of topics, are none of the source's files.
    told = [] if kind in ("code", "github", "pydoc-topics") else [f"zz-nowhere{suffix}", f"zz-self{suffix}"]
    if kind == "stackexchange":
        told = [name for name in told if name.endswith(".7z")]
    assert [(raw.source_ref, raw.reason) for raw in found if isinstance(raw, RawReject)] == [
        (name, "link-broken") for name in told
    ]
    if kind in ("text", "code", "files", "books", "github"):
        # Where a file is (part of) a document by its name alone, what it links to must not get into a data set.
        (place / f"zz-outside{suffix}").symlink_to(tmp_path / f"secret{suffix}")
        found = everything(placed(folder, kind))
        assert docs(found) == docs(before)
        assert set(reasons(found)) <= {"link-outside", "link-broken"}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_names_in_archives_reach_nothing_outside(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "corpus"
    folder.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../climb", "/etc/absolute", "a/../../b"):
            for suffix in (".txt", ".py", ".gz"):
                data = (
                    gzip.compress(b"\\documentclass{a}\\begin{document}x\\end{document}")
                    if suffix == ".gz"
                    else b"x = 1\n"
                )
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        for name, target in (("link.txt", "../secret.txt"), ("link.py", str(tmp_path / "secret.txt"))):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    (folder / "a.tar").write_bytes(buffer.getvalue())
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = everything(placed(folder, kind))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert docs(found) == []
    assert set(reasons(found)) <= {"bad-archive", "empty"}
    assert reasons(found).count("bad-archive") == 9


def test_every_card_says_how_its_corpus_is_had_and_under_which_terms() -> None:
    kinds = set()
    for name in builtin_cards():
        card, _ = load_card(name, relative_to=Path())
        kinds.add(card.reader.kind)
        assert card.obtain, name
        assert card.notes, name
    assert set(FORMATS) - kinds == {"text", "parquet", "hub"}, "the general formats alone have no corpus of their own"


def test_a_number_is_a_title(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "title": 1984}\n{"content": "y", "title": 7.5}\n')
    found = docs(everything(placed(tmp_path, "jsonl", text="content", title="title")))
    assert [raw.title for raw in found] == ["1984", "7.5"]


def test_rows_that_share_a_large_text_are_not_all_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text stands once in the dictionary of a Parquet file, however many rows name it."""
    texts = [f"{number % 3} " + "word " * 20_000 for number in range(300)]
    columns = {"text": texts, "repo_name": ["o/r"] * 300, "path": [f"{number}.py" for number in range(300)]}
    pq.write_table(pa.table(columns | {"content": texts}), tmp_path / "a.parquet", row_group_size=100)
    expected = everything(placed(tmp_path, "parquet", title=None))
    assert len(docs(expected)) == 300
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        (first,) = row_batches.footer(tmp_path / "a.parquet", file, [0], ["text"])
        assert row_batches.rows_at_once(tmp_path / "a.parquet", file, first, ["text"]) == row_batches.BATCH_ROWS
        monkeypatch.setattr(row_batches, "BATCH_BYTES", 1 << 20)
        assert row_batches.rows_at_once(tmp_path / "a.parquet", file, first, ["text"]) == 3
        sizes = [len(batch) for batch in row_batches.row_batches(tmp_path / "a.parquet", file, [0, 2], ["text"])]
    assert sum(sizes) == 200
    assert max(sizes) == 3
    assert everything(placed(tmp_path, "parquet", title=None)) == expected
    (repository,) = docs(everything(placed(tmp_path, "github", license=None)))
    assert repository.text.count("==> ") == 300


def test_texts_beyond_all_sizes_in_parquet_are_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 1 << 20)
    monkeypatch.setattr(row_batches, "FREE_BYTES", 1 << 20)
    columns = {"title": ["a", "b"], "text": ["x" * ((1 << 20) + 1), "fits"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="none")
    found = everything(placed(tmp_path, "parquet"))
    assert reasons(found) == ["too-large"]
    assert [raw.text for raw in docs(found)] == ["fits"]
    columns["text"] = ["x" * (4 << 20), "y" * (4 << 20)]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    (bomb,) = everything(placed(tmp_path, "parquet"))
    assert isinstance(bomb, RawReject)
    assert bomb.reason == "damaged-file"
    assert "expected text" in bomb.detail
