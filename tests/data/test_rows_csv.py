"""csv and tsv: quoted line breaks, headers, and every way a row can be broken."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.data.row import Problem, Row
from orpo.data.rows import open_data


def read(path: Path, content: str | bytes, **options: int) -> list[tuple[int, Any]]:
    """(line, value) of rows and (line, kind) of problems; each row must be found again by its handle."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reader = open_data(str(path), **options)
    pairs = list(reader.iter_with_handles())
    for handle, item in pairs:
        assert handle is None or reader.read(handle) == item
    return [(item.source.number if item.source else 0, item.value if isinstance(item, Row) else item.kind) for _, item in pairs]


def test_a_row_with_a_line_break_in_quotes_stands_at_the_line_where_it_starts(tmp_path: Path) -> None:
    content = 'a,b\r\n"one\r\ntwo","say ""hi"", now"\r\n3,4\r\n'
    assert read(tmp_path / "x.csv", content) == [(2, {"a": "one\r\ntwo", "b": 'say "hi", now'}), (4, {"a": "3", "b": "4"})]


def test_tsv_is_separated_by_tabs_and_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read(tmp_path / "x.tsv", "\ufeffa\tb\n1,5\t2\n") == [(2, {"a": "1,5", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1\n1,2,3\n1,2\n", [(2, "csv-cells"), (3, "csv-cells"), (4, {"a": "1", "b": "2"})]),
        ('a,b\n1,"x"y\n1,2\n', [(2, "malformed-csv"), (3, {"a": "1", "b": "2"})]),
        ('a,b\n1,2\n1,"x\n3,4\n', [(2, {"a": "1", "b": "2"}), (3, "malformed-csv")]),
        (b"a,b\n1,\xe9\n1,2\n", [(2, "not-utf-8"), (3, {"a": "1", "b": "2"})]),
        (b'a,b\n1,"\n\xe9\n"\n1,2\n', [(3, "not-utf-8"), (5, {"a": "1", "b": "2"})]),
        ("a,b\n\n1,2\n\n", [(3, {"a": "1", "b": "2"}), (2, "blank-lines")]),
        ("a,,b\n1,2,3\n", [(1, "csv-header")]),
        ("a,a\n1,2\n", [(1, "csv-header")]),
        ("What is a dog?,An animal.\nWhat is a cat?,A pet.\n", [(1, "csv-header")]),
        ("a;b\n1;2\n", [(1, "csv-delimiter")]),
        ("a,b\n", [(1, "empty-file")]),
        ("\n\n", [(1, "blank-file")]),
    ],
)
def test_a_broken_csv_is_named_at_its_line_and_the_other_rows_are_read(
    tmp_path: Path, content: str | bytes, expected: list[tuple[int, Any]]
) -> None:
    assert read(tmp_path / "x.csv", content) == expected


def test_too_many_cells_says_both_numbers_and_the_columns(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,chosen\na,b,c\n")
    (problem,) = open_data(str(tmp_path / "x.csv"))
    assert isinstance(problem, Problem)
    assert problem.message == "too many cells: 3, expected 2 as in the header ('prompt', 'chosen')"


def test_a_cell_of_a_mebibyte_is_read_and_a_longer_line_than_the_limit_is_dropped(tmp_path: Path) -> None:
    long = "x" * 2**20  # the default limit of the module csv is an eighth of this
    assert read(tmp_path / "x.csv", f"a,b\n1,{long}\n3,4\n") == [(2, {"a": "1", "b": long}), (3, {"a": "3", "b": "4"})]
    assert read(tmp_path / "y.csv", f"a,b\n1,{long}\n3,4\n", max_row_bytes=1000) == [(2, "giant-line"), (3, {"a": "3", "b": "4"})]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(st.tuples(*[st.text('ab", \n\té;', max_size=6)] * 2), min_size=1, max_size=5))
def test_what_the_csv_module_writes_is_read_back_with_the_line_of_each_row(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("one", "two"), *rows])
    lines = [2 + sum(sum(cell.count("\n") for cell in row) + 1 for row in rows[:index]) for index in range(len(rows))]
    expected = [(line, {"one": row[0], "two": row[1]}) for line, row in zip(lines, rows, strict=True)]
    assert read(tmp_path / "x.csv", text.getvalue()) == expected
