"""Parquet, arrow and feather: rows by number, read in batches and found again at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from orpo.data.row import Problem, Row
from orpo.data.rows import open_data

ROWS = [{"prompt": f"p{i}", "chosen": [{"role": "user", "content": "é" * (i % 3)}], "score": i / 4 if i % 5 else None} for i in range(700)]


def write_stream(table: Any, path: str) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)


WRITERS = {
    "a.parquet": lambda table, path: pa.parquet.write_table(table, path, row_group_size=130),
    "a.feather": lambda table, path: pa.feather.write_feather(table, path, chunksize=300),
    "a.arrow": write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_comes_in_order_with_its_number_and_is_found_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](pa.Table.from_pylist(ROWS), str(path))
    reader = open_data(str(path))
    pairs = list(reader.iter_with_handles())
    assert [item.value for _, item in pairs if isinstance(item, Row)] == ROWS
    assert [str(item.source) for _, item in pairs[:2]] == [f"{path}:row 1", f"{path}:row 2"]
    assert all(handle and reader.read(handle) == item for handle, item in reversed(pairs))


def test_categories_with_a_dictionary_per_batch_are_found_again(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.dictionary(pa.int8(), pa.string()))])
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), schema) as writer:
        for words in (["x", "y"], ["z", "x"]):
            writer.write_batch(pa.record_batch([pa.array(words).dictionary_encode().cast(schema.field(0).type)], schema=schema))
    reader = open_data(str(tmp_path / "a.arrow"))
    pairs = list(reader.iter_with_handles())
    assert [item.value for _, item in pairs if isinstance(item, Row)] == [{"a": word} for word in ("x", "y", "z", "x")]
    assert [reader.read(handle) for handle, _ in pairs if handle] == [item for _, item in pairs]


def test_a_cell_that_is_not_utf8_is_named_by_its_row_and_the_others_are_read(tmp_path: Path) -> None:
    cells = pa.array([b"a", b"\xe9", b"c"]).view(pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, cells.buffers())
    pa.parquet.write_table(pa.table({"a": column}), str(tmp_path / "a.parquet"))
    first, problem, last = open_data(str(tmp_path / "a.parquet"))
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(problem, Problem)
    assert (problem.kind, str(problem.source)) == ("not-utf-8", f"{tmp_path / 'a.parquet'}:row 2")


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    write_stream(table, str(tmp_path / "a.arrow"))
    (problem,) = open_data(str(tmp_path / "a.arrow"))
    assert isinstance(problem, Problem)
    assert problem.kind == "duplicate-key"


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_a_truncated_table_is_a_problem_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](pa.Table.from_pylist(ROWS), str(path))
    path.write_bytes(path.read_bytes()[:-200])
    (problem,) = open_data(str(path))
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == ("damaged-file", "error")


def test_damage_in_the_middle_names_the_row_reached(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_stream(pa.Table.from_pylist(ROWS), str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *rows, problem = open_data(str(path))
    assert len(rows) >= 180
    assert [row.value for row in rows if isinstance(row, Row)] == ROWS[: len(rows)]
    assert isinstance(problem, Problem)
    assert str(problem.source) == f"{path}:row {len(rows) + 1}"


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": pa.array([], pa.string())}), str(tmp_path / "a.parquet"))
    (problem,) = open_data(str(tmp_path / "a.parquet"))
    assert isinstance(problem, Problem)
    assert problem.kind == "empty-file"
