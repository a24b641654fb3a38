import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.records import TABLES, Pack, Sample
from longalign_data.shards.folder import STAGES
from longalign_data.shards.parquet import ShardFile, from_row, iter_records, to_row

INTEGERS = (pa.int32(), pa.int64())
FLOATS = (pa.float32(), pa.float64())


def assert_alike(where: str, hint: Any, kind: pa.DataType) -> None:
    """The Arrow type can hold exactly what the annotation says."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        assert pa.types.is_struct(kind), where
        assert [field.name for field in kind] == list(hints), where
        for field in kind:
            assert_alike(f"{where}.{field.name}", hints[field.name], field.type)
    elif origin is Sequence:
        assert pa.types.is_list(kind), where
        assert_alike(f"{where}[]", typing.get_args(hint)[0], kind.value_type)
    elif origin is types.UnionType:
        (inner,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        assert_alike(where, inner, kind)
    else:
        assert kind in {str: (pa.string(),), int: INTEGERS, float: FLOATS}[hint], where


@pytest.mark.parametrize("table", TABLES)
def test_every_schema_has_the_fields_of_its_dataclass_in_the_same_order(table: str) -> None:
    cls, schema = TABLES[table]
    hints = typing.get_type_hints(cls)
    assert schema.names == list(hints) == [field.name for field in dataclasses.fields(cls)]
    for field in schema:
        assert_alike(f"{table}.{field.name}", hints[field.name], field.type)


def test_every_record_is_frozen_slotted_and_keyword_only() -> None:
    for cls, _ in TABLES.values():
        assert cls.__dataclass_params__.frozen
        assert "__slots__" in vars(cls)
        assert all(field.kw_only for field in dataclasses.fields(cls))


def test_every_table_belongs_to_one_stage_but_rejects() -> None:
    assert [table for tables in STAGES.values() for table in tables] == [
        table for table in TABLES if table != "rejects"
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values(kind: pa.DataType, *, nullable: bool = False) -> st.SearchStrategy[Any]:
    if nullable:
        return st.none() | values(kind)
    if pa.types.is_struct(kind):
        raise AssertionError("structs are records")
    if pa.types.is_integer(kind):
        bits = kind.bit_width - 1
        return st.integers(-(2**bits), 2**bits - 1)
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False)
    return TEXT


def records(cls: Any, fields: Sequence[pa.Field]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)

    def of(hint: Any, kind: pa.DataType) -> st.SearchStrategy[Any]:
        if dataclasses.is_dataclass(hint):
            return records(hint, list(kind))
        if typing.get_origin(hint) is Sequence:
            return st.lists(of(typing.get_args(hint)[0], kind.value_type), max_size=4).map(tuple)
        return values(kind, nullable=type(None) in typing.get_args(hint))

    return st.fixed_dictionaries({field.name: of(hints[field.name], field.type) for field in fields}).map(
        lambda found: cls(**found)
    )


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_record_comes_back_from_parquet_as_it_was(table: str, tmp_path: Path, data: st.DataObject) -> None:
    cls, schema = TABLES[table]
    written = data.draw(st.lists(records(cls, list(schema)), max_size=5))
    path = tmp_path / "rows.parquet"
    file = ShardFile(path, schema, row_group_bytes=200)
    for record in written:
        file.write(record)
    info = file.close(tmp_path)
    assert pq.read_schema(path).equals(schema)
    assert list(iter_records([path], cls)) == written
    assert (info.rows, info.tokens) == (len(written), sum(getattr(record, "num_tokens", 0) for record in written))


@given(records(Sample, list(TABLES["samples"][1])))
def test_every_record_becomes_plain_values_and_back(sample: Sample) -> None:
    row = to_row(sample)
    assert list(row) == TABLES["samples"][1].names
    assert isinstance(row["teacher"], dict)
    assert from_row(Sample, row) == sample


def test_arrays_are_stored_without_being_taken_apart(tmp_path: Path) -> None:
    pack = Pack(
        pack_id="p",
        input_ids=typing.cast(Sequence[int], np.arange(5, dtype=np.int32)),
        loss_weights=typing.cast(Sequence[float], np.array([0, 0, 0.5, 0.25, 0.125], dtype=np.float64)),
        cu_seqlens=(0, 5),
        sequence_ids=("s",),
        num_tokens=5,
        num_sequences=1,
        num_targets=3,
        work=1.0,
    )
    assert to_row(pack)["input_ids"] is pack.input_ids
    file = ShardFile(tmp_path / "p.parquet", TABLES["packs"][1], row_group_bytes=1)
    file.write(pack)
    file.close(tmp_path)
    (back,) = iter_records([tmp_path / "p.parquet"], Pack)
    assert back.input_ids == (0, 1, 2, 3, 4)
    assert back.loss_weights == (0, 0, 0.5, 0.25, 0.125)
