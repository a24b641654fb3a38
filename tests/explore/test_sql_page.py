import re
from pathlib import Path

import pytest

from longalign_data.explore import sql
from longalign_data.shards.folder import BuildFolder

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
# On a sound build these find nothing; they are there to show what is wrong with another.
EMPTY_WHEN_SOUND = ("list(sample_id)", "abs(list_sum(loss_weights)", "contains(messages[1]")


@pytest.mark.parametrize("query", QUERIES, ids=[re.sub(r"\s+", " ", query)[:60] for query in QUERIES])
def test_every_query_of_the_page_answers_on_a_real_build(query: str, build: BuildFolder) -> None:
    connection = sql.connect(build)
    rows = list(sql.run_query(connection, query).rows())
    assert bool(rows) is not any(mark in query for mark in EMPTY_WHEN_SOUND)


@pytest.mark.parametrize("query", QUERIES, ids=[re.sub(r"\s+", " ", query)[:60] for query in QUERIES])
def test_every_query_of_the_page_runs_on_a_build_that_holds_nothing(query: str, tmp_path: Path) -> None:
    connection = sql.connect(BuildFolder(tmp_path))
    rows = list(sql.run_query(connection, query).rows())
    assert rows == [] or len(rows) == 1


def test_the_page_holds_queries() -> None:
    assert len(QUERIES) >= 20
