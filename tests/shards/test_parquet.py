from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longalign_data.errors import BuildError
from longalign_data.records import REJECTS, Reject
from longalign_data.shards.parquet import KeyedRows, ShardFile, from_row, iter_batches, iter_records


def write(path: Path, numbers: range, *, row_group_bytes: int = 150) -> None:
    file = ShardFile(path, REJECTS, row_group_bytes=row_group_bytes)
    for number in numbers:
        file.write(Reject(id=f"id-{number}", stage="ingest", reason="r", detail="d" * number))
    file.close(path.parent)


def test_a_file_has_its_name_only_when_it_is_closed(tmp_path: Path) -> None:
    file = ShardFile(tmp_path / "x.parquet", REJECTS, row_group_bytes=10)
    file.write(Reject(id="1", stage="s", reason="r", detail="d"))
    assert not (tmp_path / "x.parquet").exists()
    file.close(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_an_abandoned_file_leaves_nothing(tmp_path: Path) -> None:
    ShardFile(tmp_path / "x.parquet", REJECTS, row_group_bytes=10).abandon()
    assert list(tmp_path.iterdir()) == []


def test_row_groups_are_closed_by_bytes(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", range(100))
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes[0] > 2
    assert sizes[-2] < sizes[0]
    assert sum(sizes) == 100


def test_any_row_is_found_by_its_key_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    write(paths[0], range(30))
    write(paths[1], range(30, 60))
    rows = KeyedRows(paths, "id", cached_groups=2)
    assert len(rows) == 60
    assert "id-59" in rows
    assert "id-60" not in rows
    for number in [*range(60), 3, 59, 0, 31, 30, 29, *range(59, -1, -7)]:
        assert rows.row(f"id-{number}") == {
            "id": f"id-{number}",
            "stage": "ingest",
            "reason": "r",
            "detail": "d" * number,
        }
    with pytest.raises(KeyError):
        rows.row("id-60")


def test_only_the_named_columns_are_read(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", range(5))
    rows = KeyedRows([tmp_path / "0.parquet"], "id", columns=["detail"])
    assert rows.row("id-3") == {"detail": "ddd"}
    batches = list(iter_batches([tmp_path / "0.parquet"], columns=["id"]))
    assert [name for batch in batches for name in batch.schema.names] == ["id"] * len(batches)


def test_rows_asked_for_in_stored_order_read_each_row_group_once(tmp_path: Path) -> None:
    """The file is gone after its last row group was read: whatever follows comes out of memory."""
    write(tmp_path / "0.parquet", range(20), row_group_bytes=10_000)
    rows = KeyedRows([tmp_path / "0.parquet"], "id")
    assert rows.row("id-0")["detail"] == ""
    (tmp_path / "0.parquet").unlink()
    assert [len(rows.row(f"id-{number}")["detail"]) for number in range(20)] == list(range(20))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "middle"])
def test_a_torn_file_is_named_and_says_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "0.parquet"
    write(path, range(50))
    data = path.read_bytes()
    middle = data[:4] + b"\xff" * (len(data) // 2) + data[4 + len(data) // 2 :]
    damaged = {"cut": data[:-9], "empty": b"", "text": b"not parquet" * 9, "gone": None, "middle": middle}[damage]
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.raises(BuildError, match=r"0\.parquet: cannot be read"):
        list(iter_records([path], Reject))
    with pytest.raises(BuildError, match=r"0\.parquet: cannot be read"):
        KeyedRows([path], "id").row("id-1")


def test_a_row_of_an_earlier_version_is_said_to_be_one() -> None:
    with pytest.raises(BuildError, match=r"a Reject without 'detail': another version of this package wrote it"):
        from_row(Reject, {"id": "1", "stage": "s", "reason": "r"})
