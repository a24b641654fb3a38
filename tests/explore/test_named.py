import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from longalign_data.cli.main import app
from longalign_data.errors import UserError
from longalign_data.explore import named, sql
from longalign_data.explore.figures import collect
from longalign_data.shards.folder import BuildFolder

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
NAMES = list(named.questions())
READS_TEXTS = {"duplicate-questions"}


def rows(build: BuildFolder, name: str) -> list[dict[str, object]]:
    result = named.answer(sql.connect(build), name)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]


@pytest.mark.parametrize("name", NAMES)
def test_every_question_is_answered_on_a_build_and_on_an_empty_one(
    name: str, build: BuildFolder, tmp_path: Path
) -> None:
    assert rows(build, name)
    assert len(rows(BuildFolder(tmp_path), name)) == 0
    assert len(named.questions()[name].asks) > 20


@pytest.mark.parametrize("name", NAMES)
def test_every_question_tells_several_builds_apart(name: str, build: BuildFolder) -> None:
    connection = sql.connect({"old": build, "new": build})
    result = named.answer(connection, name, ["old", "new"])
    assert result.columns[0] == "build"
    found = list(result.rows())
    alone = rows(build, name)
    assert [row[0] for row in found] == ["old"] * len(alone) + ["new"] * len(alone)
    assert sorted(map(repr, (row[1:] for row in found if row[0] == "new"))) == sorted(
        repr(tuple(row.values())) for row in alone
    )


def test_the_page_names_every_question_and_no_other() -> None:
    listed = re.findall(
        r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8").partition("## By name")[2], re.MULTILINE
    )
    assert listed == NAMES


def test_no_question_about_figures_reads_texts_or_token_ids(build: BuildFolder, tmp_path: Path) -> None:
    copy = BuildFolder(tmp_path / "build")
    shutil.copytree(build.root, copy.root)
    spoiled = 0
    for table, columns in {"documents": ("text",), "samples": ("messages.",), "sequences": ("input_ids",)}.items():
        for shard in copy.shards(table):
            content = bytearray(shard.read_bytes())
            footer = pq.ParquetFile(shard).metadata
            for group in range(footer.num_row_groups):
                for number in range(footer.num_columns):
                    chunk = footer.row_group(group).column(number)
                    if chunk.path_in_schema.startswith(columns):
                        start = chunk.dictionary_page_offset or chunk.data_page_offset
                        content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
                        spoiled += 1
            shard.write_bytes(content)
    assert spoiled > 5
    with pytest.raises(UserError, match="damaged"):
        list(sql.run_query(sql.connect(copy), "select max(length(text)) from documents").rows())
    for name in set(NAMES) - READS_TEXTS:
        assert rows(copy, name) == rows(build, name)
    assert collect(copy) == collect(build)


def test_the_weights_of_the_plan_make_every_sequence_count_the_same(build: BuildFolder, tmp_path: Path) -> None:
    copy = BuildFolder(tmp_path / "build")
    shutil.copytree(build.root, copy.root)
    copy.manifest.write_text(json.dumps({"pack": {"alpha": 1.0, "unit": "sequence", "source_weights": {}}}))
    found = rows(copy, "weights-by-length")
    assert sum(row["sequences"] for row in found) == 18
    assert {row["with_weights"] for row in found} == {1.0}
    # In plain packing a sequence moves its step by its part of the targets of its pack.
    pulls: dict[int, list[float]] = {}
    sequences = {
        row["sequence_id"]: row for shard in copy.shards("sequences") for row in pq.read_table(shard).to_pylist()
    }
    for pack in (row for shard in copy.shards("packs") for row in pq.read_table(shard).to_pylist()):
        for member in (sequences[sequence_id] for sequence_id in pack["sequence_ids"]):
            bucket = 1 << (member["num_tokens"].bit_length() - 1)
            pulls.setdefault(bucket, []).append(member["num_targets"] / (pack["num_targets"] * 3))
    mean = sum(map(sum, pulls.values())) / 18
    expected = [pytest.approx(sum(pulls[bucket]) / len(pulls[bucket]) / mean, abs=1e-3) for bucket in sorted(pulls)]
    assert [row["without_weights"] for row in found] == expected
    assert {row["without_weights"] for row in found} != {1.0}
    # A source that counts double takes from the others.
    settings = {"alpha": 1.0, "unit": "sequence", "source_weights": {"hills": 2.0}}
    copy.manifest.write_text(json.dumps({"pack": settings}))
    assert len({row["with_weights"] for row in rows(copy, "weights-by-length")}) > 1
    # Whether turns weigh alike cannot be told from these columns, so nothing is said.
    copy.manifest.write_text(json.dumps({"pack": {"alpha": 1.0, "unit": "turn"}}))
    assert {row["with_weights"] for row in rows(copy, "weights-by-length")} == {None}


def test_an_unknown_question_is_answered_with_the_known_ones(build: BuildFolder) -> None:
    with pytest.raises(UserError, match=r"no question is called 'lengths'; there are: answer-lengths"):
        named.answer(sql.connect(build), "lengths")


def test_what_a_build_says_of_itself_can_be_asked(build: BuildFolder) -> None:
    connection = sql.connect(build)

    def ask(query: str) -> list[tuple[object, ...]]:
        return list(sql.run_query(connection, query).rows())

    assert ask("select stage, num_in, num_out from stages limit 1") == [("ingest", 29, 24)]
    assert ask("select reason, number from left_out order by number") == [("too-short", 3), ("not-drawn", 4)]
    assert ask("select lang, bucket, target, achieved, available from targets where target > 2") == [
        ("en", "1024-4096", 10, 9, 9)
    ]
    assert ask("select count(*), bool_and(depth between 0.4 and 1) from evidence") == [(18, True)]


def longalign(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "longalign_data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_command_line_takes_several_builds_and_every_format(build: BuildFolder, tmp_path: Path) -> None:
    pair = (f"a={build.root}", f"b={build.root}")
    done = longalign("sql", *pair, "select build, count(*) as n from samples group by 1 order by 1", "-f", "csv")
    assert done.stdout == "build,n\na,18\nb,18\n"
    done = longalign("sql", *pair, "--named", "funnel", "--format", "json")
    assert [(row["build"], row["stage"]) for row in json.loads(done.stdout)][::6] == [("a", "ingest"), ("b", "ingest")]
    done = longalign("sql", build.root, "-n", "rejects", "-f", "parquet", "--out", tmp_path / "rejects.parquet")
    assert done.returncode == 0, done.stderr
    assert set(pq.read_table(tmp_path / "rejects.parquet")["reason"].to_pylist()) >= {
        "duplicate",
        "refused",
        "too-short",
    }
    assert "evidence-depth" in longalign("sql", "--list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a build"),
        (("BUILD", "from samples", "from packs"), "one query at a time"),
        (("a=BUILD", "a=BUILD"), "two builds have one name"),
        (("BUILD", "from samples", "--named", "rejects"), "give one of them"),
        (("main=BUILD", "from samples"), "choose another"),
        (("BUILD", "--named", "lengths"), "lengths-by-source"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: tuple[str, ...], words: str, build: BuildFolder) -> None:
    given = [argument.replace("BUILD", str(build.root)) for argument in arguments]
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(app, ["sql", *given], catch_exceptions=False)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_file_is_written_whole_in_the_format_of_its_ending(build: BuildFolder, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"texts.{ending}"
    CliRunner().invoke(
        app, ["sql", str(build.root), "select text from documents", "--out", str(out)], catch_exceptions=False
    )
    if ending == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            found = [row["text"] for row in csv.DictReader(file)]
    else:
        rows = json.loads(out.read_bytes()) if ending == "json" else pq.read_table(out).to_pylist()
        found = [row["text"] for row in rows]
    stored = [row["text"] for path in build.shards("documents") for row in pq.read_table(path).to_pylist()]
    assert found == stored


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["from plan", "--out", "x.xlsx"], r"x\.xlsx: its ending .* use \.csv, \.json, \.parquet, or give --format"),
        (["from plan", "--out", "x"], "its ending does not say"),
        (["from plan", "--out", "x.csv", "--format", "json"], r"x\.csv is to be \.csv, but --format says json"),
        (["from plan", "--out", "x.csv", "--format", "table"], "but --format says table"),
        (["--out", "x.csv"], "give a QUERY or --named"),
    ],
)
def test_a_file_whose_format_is_in_doubt_is_not_written(
    build: BuildFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(app, ["sql", str(build.root), *given], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
