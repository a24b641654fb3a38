import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longalign_data.errors import BuildError, UserError
from longalign_data.explore import prompt, results, sql
from longalign_data.explore.figures import collect
from longalign_data.records import TABLES
from longalign_data.shards.folder import BuildFolder


def answer(build: BuildFolder, query: str) -> list[tuple[object, ...]]:
    return list(sql.run_query(sql.connect(build), query).rows())


def printed(build: BuildFolder, query: str, *, width: int = 80, **options: object) -> str:
    out = io.StringIO()
    results.render(sql.run_query(sql.connect(build), query), format="table", out=out, width=width, **options)  # type: ignore[arg-type] # options of render
    return out.getvalue()


def test_every_table_is_a_view_with_the_columns_of_its_schema_and_all_its_rows(build: BuildFolder) -> None:
    connection = sql.connect(build)
    for table, (_, schema) in TABLES.items():
        assert [name for name, _ in sql.schema_of(connection, table)] == schema.names
        stored = sum(pq.read_metadata(path).num_rows for path in build.shards(table))
        assert answer(build, f"select count(*) from {table}") == [(stored,)]
        assert stored > 0


def test_a_table_that_does_not_stand_is_empty_and_has_the_types_of_one_that_does(
    build: BuildFolder, tmp_path: Path
) -> None:
    full, empty = sql.connect(build), sql.connect(BuildFolder(tmp_path))
    for table in TABLES:
        assert sql.schema_of(empty, table) == sql.schema_of(full, table)
        assert list(sql.run_query(empty, f"from {table}").rows()) == []


def test_a_question_imports_no_table_library(tmp_path: Path) -> None:
    """DuckDB imports pandas for some of its calls, which takes longer than most answers."""
    program = (
        "import io, sys; from pathlib import Path; from longalign_data.explore import prompt, results, sql;"
        "from longalign_data.shards.folder import BuildFolder;"
        "asked = sql.run_query(sql.connect(BuildFolder(Path(sys.argv[1]))), 'select count(*) from samples');"
        "results.render(asked, format='table', out=io.StringIO());"
        "print(*sorted({'duckdb', 'pandas', 'polars', 'datasets'}.intersection(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "duckdb\n"


@pytest.mark.parametrize("name", ["x[1]", "y*", "we?", "it's", "lang=zh", "{a,b}", 'say "hi"', "back\\slash", "字 据"])
def test_a_folder_may_have_any_name(build: BuildFolder, tmp_path: Path, name: str) -> None:
    for decoy in ("x1", "yes", "wet", "a"):
        shutil.copytree(build.root / "plan", tmp_path / decoy / "plan")
    shutil.copytree(build.root / "samples", tmp_path / name / "samples")
    shutil.copytree(build.root / "plan", tmp_path / name / "plan")
    there = BuildFolder(tmp_path / name)
    assert answer(there, "select count(*) from plan") == [(9,)]
    assert answer(there, "select distinct lang from samples order by all") == [("en",), ("zh",)]


def test_several_builds_are_asked_together_and_apart(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root / "samples", tmp_path / "samples")
    connection = sql.connect({"first": build, "the second": BuildFolder(tmp_path)})
    together = sql.run_query(connection, "select build, count(*) from samples group by build order by build")
    assert list(together.rows()) == [("first", 18), ("the second", 18)]
    assert list(sql.run_query(connection, 'select count(*) from "the second".documents').rows()) == [(0,)]
    assert list(sql.run_query(connection, "select count(*) from documents").rows()) == [(24,)]
    with pytest.raises(UserError, match=r"'temp'.*choose another"):
        sql.connect({"temp": build})


def test_a_question_about_lengths_reads_no_texts(build: BuildFolder, tmp_path: Path) -> None:
    """The bytes of the text column are destroyed on disk; only a query that needs them notices."""
    shutil.copytree(build.root / "documents", tmp_path / "documents")
    damaged = BuildFolder(tmp_path)
    (path,) = damaged.shards("documents")
    metadata = pq.read_metadata(path)
    index = metadata.schema.names.index("text")
    data = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(index)
        data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = (
            b"\xff" * column.total_compressed_size
        )
    path.write_bytes(data)
    assert answer(damaged, "select count(*), sum(num_tokens) from documents") == answer(
        build, "select count(*), sum(num_tokens) from documents"
    )
    with pytest.raises(UserError):
        answer(damaged, "select sum(length(text)) from documents")


def test_a_torn_shard_is_named(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root / "plan", tmp_path / "plan")
    (tmp_path / "plan" / "00000.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(BuildError, match=r"plan/00000\.parquet: .*remove \S+/plan and run `longalign build` again"):
        sql.connect(BuildFolder(tmp_path))


def overwrite(path: Path, column: str) -> None:
    """Destroys up to 60 bytes in the middle of a column's first page; the size of the file stays."""
    metadata = pq.read_metadata(path)
    chunk = metadata.row_group(0).column(
        next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    )
    data = bytearray(path.read_bytes())
    end = chunk.data_page_offset + chunk.total_compressed_size
    begin = max(chunk.data_page_offset, end - 60)
    data[begin:end] = b"\xa5" * (end - begin)
    path.write_bytes(data)


@pytest.mark.parametrize(("table", "column"), [("samples", "task"), ("plan", "step"), ("documents", "source")])
def test_a_damaged_shard_of_unchanged_size_is_named_with_what_to_remove(
    build: BuildFolder, tmp_path: Path, table: str, column: str
) -> None:
    shutil.copytree(build.root, tmp_path / "build")
    damaged = BuildFolder(tmp_path / "build")
    (shard,) = damaged.shards(table)
    overwrite(shard, column)
    words = rf"^{re.escape(str(shard))}: .*remove {re.escape(str(shard.parent))} and run `longalign build` again"
    with pytest.raises(BuildError, match=words):
        answer(damaged, f"select {column}, count(*) from {table} group by all")
    with pytest.raises(BuildError, match=words):
        collect(damaged)
    assert answer(damaged, "select count(*) from packs") == [(9,)]


def test_of_damaged_rejects_it_is_the_report_of_their_stage_that_has_to_go(build: BuildFolder, tmp_path: Path) -> None:
    shutil.copytree(build.root, tmp_path / "build")
    damaged = BuildFolder(tmp_path / "build")
    overwrite(damaged.root / "rejects" / "generate-00000.parquet", "reason")
    with pytest.raises(BuildError, match=r"rejects/generate-00000\.parquet: .*remove \S+/state/generate\.json and run"):
        collect(damaged)


def test_an_error_of_a_query_over_sound_shards_is_no_damage(build: BuildFolder) -> None:
    with pytest.raises(UserError, match="boom") as caught:
        answer(build, "select error('boom') from samples")
    assert not isinstance(caught.value, BuildError)


def test_an_unknown_table_is_answered_with_the_known_ones(build: BuildFolder) -> None:
    with pytest.raises(UserError, match=r'(?s)sampels.*Did you mean "samples".*Tables: documents, selection, samples'):
        answer(build, "select * from sampels")


def test_an_unknown_column_is_answered_with_those_of_the_tables_that_are_named(build: BuildFolder) -> None:
    with pytest.raises(UserError, match=r"(?s)num_tonkens.*Columns of plan: step, position") as caught:
        answer(build, "select num_tonkens from plan")
    assert "Columns of documents" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["selec 1", "select", "select 'x'::int", "", "-- only a remark", "select 1/", "x" * 5000]
)
def test_what_is_no_query_is_a_user_error(build: BuildFolder, text: str) -> None:
    with pytest.raises(UserError):
        answer(build, text)


def test_an_error_in_the_middle_of_the_rows_is_a_user_error(build: BuildFolder) -> None:
    query = "select case when i = 5000 then error('boom') else i end from range(9000) as t(i)"
    with pytest.raises(UserError, match="boom"):
        answer(build, query)


@pytest.mark.parametrize(
    "statement",
    [
        "copy plan to '{out}'",
        "COPY (select 1) TO '{out}' (format parquet)",
        "explain analyze copy plan to '{out}'",
        "explain /* x */ analyze /* y */ copy plan to '{out}'",
        "explain analyze /* /* */ select */ copy plan to '{out}'",
        "explain -- /* select\n analyze /* 字 -- */ copy plan to '{out}' -- */ select",
        "explain (analyze, format json) copy plan to '{out}'",
        "copy (pivot plan on step using count(*)) to '{out}'",
        "/* x */ copy (pivot plan on step using count(*)) to '{out}'",
        "explain analyze copy (pivot plan on step using count(*)) to '{out}'",
        "select 1; copy plan to '{out}'",
        "prepare p as copy plan to '{out}'",
        "attach '{out}' as other",
        "export database '{out}'",
        "install httpfs",
        "load httpfs",
    ],
)
def test_statements_that_write_are_refused_before_anything_runs(
    build: BuildFolder, tmp_path: Path, statement: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="only read here"):
        answer(build, statement.format(out=out))
    assert not out.exists()


def test_tables_in_memory_pivots_and_plans_are_allowed(build: BuildFolder) -> None:
    assert answer(build, "create table t as select 7 as x; insert into t values (8); select sum(x)::int from t") == [
        (15,)
    ]
    assert answer(build, "pivot samples on lang using count(*) group by task order by task limit 1") == [
        ("extraction", 3, 1)
    ]
    assert answer(build, "explain select 1") != []
    assert answer(build, "/* /* */ copy */ explain -- 字\n analyze /* copy */ select '/*' as x") != []
    assert answer(build, "summarize plan")[0][0] == "step"


def test_the_terminal_table_groups_numbers_and_cuts_texts(build: BuildFolder) -> None:
    table = printed(build, "select title, num_chars, text from documents order by num_chars desc limit 1", width=100)
    assert re.search(r"Document \d+ +\d\d,\d{3}  Document \d+ Line 0 tells of rivers.*…", table)
    assert max(len(line) for line in table.splitlines()) <= 100
    whole = printed(build, "select text from documents order by num_chars limit 1", full=True)
    assert "Line 39 tells of rivers, hills and the weather." in whole


def test_numbers_stand_to_the_right_under_their_heads(build: BuildFolder) -> None:
    table = printed(build, "select * from (values ('a', 1234567), ('b', 5)) as t(name, tokens)")
    lines = table.splitlines()
    assert lines[0].rstrip().endswith("tokens")
    assert lines[2].rstrip().endswith("1,234,567")
    assert lines[3].rstrip().endswith("        5")
    assert len({len(line.rstrip()) for line in (lines[0], lines[2], lines[3])}) == 1


def test_a_row_that_is_too_wide_is_printed_field_by_field(build: BuildFolder) -> None:
    table = printed(build, "select * from samples order by sample_id limit 2")
    assert "row 1\n" in table
    assert "row 2\n" in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_what_a_document_holds_cannot_steer_the_terminal(build: BuildFolder) -> None:
    for full in (False, True):
        table = printed(build, "select title, text from documents where title like '%bold%'", full=full, width=120)
        assert "[bold red]A title[/bold red]␛[2J␇" in table
        assert not any(mark in table for mark in ("\x1b", "\x07", "\u202e"))


def test_a_long_result_says_that_there_is_more(build: BuildFolder) -> None:
    assert "the first 200 rows; there are more" in printed(build, "from range(201)")
    assert "(200 rows)" in printed(build, "from range(200)")
    assert "(1 row)" in printed(build, "select 1")
    assert "(0 rows)" in printed(build, "select * from plan where false")


def test_csv_json_and_parquet_hold_the_same_whole_values(build: BuildFolder, tmp_path: Path) -> None:
    query = (
        "select sample_id, num_tokens, cost_usd, questions, teacher, sum(num_tokens) over () as total, 'a\"b,c\n' as odd "
        "from samples order by sample_id"
    )
    connection = sql.connect(build)
    text = io.StringIO()
    assert results.render(sql.run_query(connection, query), format="csv", out=text) == 18
    rows = list(csv.DictReader(io.StringIO(text.getvalue(), newline="")))
    text = io.StringIO()
    assert results.render(sql.run_query(connection, query), format="json", out=text) == 18
    objects = json.loads(text.getvalue())
    path = tmp_path / "out" / "result.parquet"
    assert results.render(sql.run_query(connection, query), format="parquet", out=path) == 18
    stored = pq.read_table(path).to_pylist()
    assert [row["sample_id"] for row in rows] == [o["sample_id"] for o in objects] == [r["sample_id"] for r in stored]
    assert objects[0]["questions"] == stored[0]["questions"] == json.loads(rows[0]["questions"])
    assert objects[0]["total"] == int(stored[0]["total"]) == int(rows[0]["total"])
    assert {o["cost_usd"] for o in objects} == {None, 0.25} == {r["cost_usd"] for r in stored}
    assert rows[0]["odd"] == objects[0]["odd"] == 'a"b,c\n'


def test_two_columns_of_one_name_stay_two(build: BuildFolder, tmp_path: Path) -> None:
    connection, query = sql.connect(build), "select 1 as x, 2 as x, 3 as x_1"
    text = io.StringIO()
    results.render(sql.run_query(connection, query), format="json", out=text)
    assert sorted(json.loads(text.getvalue())[0].values()) == [1, 2, 3]
    results.render(sql.run_query(connection, query), format="parquet", out=tmp_path / "r.parquet")
    assert sorted(pq.read_table(tmp_path / "r.parquet").to_pylist()[0].values()) == [1, 2, 3]


def test_a_result_that_fails_half_way_leaves_no_file(build: BuildFolder, tmp_path: Path) -> None:
    query = "select case when i = 5000 then error('boom') else i end as i from range(9000) as t(i)"
    for format_ in ("csv", "json", "parquet"):
        with pytest.raises(UserError, match="boom"):
            results.render(sql.run_query(sql.connect(build), query), format=format_, out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_parquet_needs_a_file(build: BuildFolder) -> None:
    with pytest.raises(UserError, match="--out FILE"):
        results.render(sql.run_query(sql.connect(build), "select 1"), format="parquet", out=io.StringIO())


def test_the_prompt_reads_piped_statements_and_counts_what_failed(build: BuildFolder) -> None:
    source = io.StringIO(
        ".tables\n.schema plan\n\nselect count(*)\n  from samples;\nselect ';\n' as odd; -- done\nselect nope;\n.what\n"
        "select 41 + 1 as last"
    )
    out, errors = io.StringIO(), io.StringIO()
    failed = prompt.prompt(sql.connect(build), source=source, out=out, errors=errors)
    said = out.getvalue()
    assert failed == 2
    assert said.startswith("documents\nselection\n")
    assert "position       INTEGER" in said
    assert "18" in said
    assert "42" in said
    assert '"nope"' in errors.getvalue()
    assert "no command '.what'" in errors.getvalue()


def test_the_prompt_stops_at_quit(build: BuildFolder) -> None:
    out = io.StringIO()
    assert prompt.prompt(sql.connect(build), source=io.StringIO("select 1;\n.quit\nselect 99;\n"), out=out) == 0
    assert "99" not in out.getvalue()


def test_the_prompt_answers_a_person_at_a_terminal(build: BuildFolder) -> None:
    """A real terminal: what is typed over two lines is one statement, and .quit ends the process."""
    program = (
        "import sys; from pathlib import Path; from longalign_data.explore import prompt, results, sql;"
        "from longalign_data.shards.folder import BuildFolder;"
        "sys.exit(prompt.prompt(sql.connect(BuildFolder(Path(sys.argv[1]))), source=sys.stdin, out=sys.stdout))"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(build.root)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    os.write(ours, b"select 6 *\n 7 as answer;\n.quit\n")
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:
        pass  # Linux says EIO when the other side has closed
    finally:
        os.close(ours)
    assert process.wait(timeout=300) == 0
    assert b"longalign> " in said
    assert b"...> " in said
    assert b"42" in said
