"""Every recipe of `recipes/sources`, the paper's set and the one for a user's own folder, on small corpora in the real formats."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from longalign_data.catalog import load_card
from tests.fixtures import corpora

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(path.stem for path in (ROOT / "recipes" / "sources").glob("*.yaml"))


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "longalign_data", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes, and beside them a corpus for each source, in documents of 8,000 tokens and more."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "recipes", root / "recipes")
    english = corpora.long_texts(corpora.topics(), 7, 45_000)
    for number, name in enumerate(SOURCES):
        chinese = corpora.chinese(3, 380, first=10 * number)
        card, _ = load_card(name, relative_to=root)
        kind = card.reader.kind
        texts = chinese if card.lang == "zh" else english[:3] if kind == "arxiv" else english
        corpora.write_corpus(kind, root / "corpora" / name, texts)
    return root


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_goes_from_its_own_format_to_packs(checkout: Path, source: str) -> None:
    done = run(checkout, "build", f"recipes/sources/{source}.yaml", "--limit", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    build = checkout / "builds" / f"{source}-limit-2" / "1.0.0"
    samples = rows(build, "samples")
    assert len(samples) == 2
    assert {sample["source"] for sample in samples} == {source}
    assert rows(build, "packs")
    assert "--limit 2" in (build / "README.md").read_text(encoding="utf-8")


def test_a_folder_of_ones_own_files_builds(checkout: Path) -> None:
    place = checkout / "corpora" / "files" / "zh.md"
    ((title, text),) = corpora.chinese(1, 380)
    place.write_text(f"# {title}\n\n{text}", encoding="utf-8")
    for time in ("first", "again"):
        done = run(checkout, "build", "recipes/domain.yaml", "--limit", "50", "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert "asked for 50 documents, took " in done.stdout, time
    place.unlink()
    documents = rows(checkout / "builds" / "domain-limit-50" / "1.0.0", "documents")
    assert {row["lang"] for row in documents if row["source_ref"] == "zh.md"} == {"zh"}


def test_the_papers_set_builds_on_local_samples_and_any_workers_give_the_same_documents(checkout: Path) -> None:
    done = run(checkout, "build", "recipes/longalign-10k.yaml", "--limit", "50", "--workers", "3")
    assert done.returncode == 0, done.stderr
    build = checkout / "builds" / "longalign-10k-limit-50" / "1.0.0"
    samples = rows(build, "samples")
    assert len(samples) == 50
    assert sum(sample["lang"] == "zh" for sample in samples) == 5
    done = run(checkout, "ingest", "recipes/longalign-10k.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    documents = rows(checkout / "builds" / "longalign-10k" / "1.0.0", "documents")
    assert documents == rows(build, "documents")
    assert len({row["source"] for row in documents}) == 9


def test_a_chinese_page_of_a_crawl_is_not_taken_for_english(checkout: Path) -> None:
    pages = [corpora.html_response(*text) for text in corpora.chinese(2, 380)]
    html = {"WARC_Identified_Payload_Type": "text/html"}
    records = [corpora.warc_record("response", "https://e.org", page, **html) for page in pages]
    corpora.write_warc(checkout / "corpora" / "commoncrawl" / "zh.warc.gz", records)
    for recipe in ("sources/commoncrawl.yaml", "longalign-10k.yaml"):
        assert "action: relabel" in (checkout / "recipes" / recipe).read_text(encoding="utf-8")
    done = run(checkout, "ingest", "recipes/sources/commoncrawl.yaml", "--output", "labelled", "--workers", "1")
    (checkout / "corpora" / "commoncrawl" / "zh.warc.gz").unlink()
    assert done.returncode == 0, done.stderr
    found = rows(checkout / "labelled" / "commoncrawl" / "1.0.0", "documents")
    assert sorted(row["lang"] for row in found if "zh.warc.gz" in row["source_ref"]) == ["zh", "zh"]
    assert {row["lang"] for row in found if "zh.warc.gz" not in row["source_ref"]} == {"en"}


def test_check_reports_speed_lengths_and_rejects(checkout: Path) -> None:
    place = checkout / "corpora" / "wudao"
    (place / "zz.json").write_text('[{"content": 7}]')
    done = run(checkout, "catalog", "check", "wudao", "--path", "corpora/wudao", "--partitions", "9")
    (place / "zz.json").unlink()
    assert done.returncode == 0, done.stderr
    for words in ("documents", "MB/s", "median", "wrong-type 1", "LicenseRef-WuDaoCorpora"):
        assert words in done.stdout
    assert re.search(r"by their texts +zh \d", done.stdout)
    assert "--path is missing" in run(checkout, "catalog", "check", "wudao").stderr


def rows(build: Path, table: str) -> list[dict[str, Any]]:
    files = sorted((build / table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
