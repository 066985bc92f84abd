"""JSON with one object per line: rows, their places, and every way a line can be broken."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.core.records import Source
from orpo.data.json_values import BadValue, json_object
from orpo.data.row import Problem, Row
from orpo.data.rows import open_data
from orpo.errors import DataError

GOOD = '{"prompt": "é", "n": 1}\n'


def read(path: Path, content: str | bytes, **options: int) -> list[Row | Problem]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(open_data(str(path), **options))


def one_problem(path: Path, line: str | bytes) -> Problem:
    """The only problem of a file whose second line is `line` and whose first and third are good; those two rows must be read."""
    body = line.encode() if isinstance(line, str) else line
    items = read(path, GOOD.encode() + body + b"\n" + GOOD.encode())
    assert [item.source.number for item in items if isinstance(item, Row)] == [1, 3]
    (problem,) = [item for item in items if isinstance(item, Problem)]
    assert problem.source == Source(str(path), 2)
    return problem


def test_rows_come_in_order_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read(path, '{"a": 1}\n{"a": [2, {"b": "é"}]}') == [
        Row({"a": 1}, Source(str(path), 1)),
        Row({"a": [2, {"b": "é"}]}, Source(str(path), 2)),
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted_in_silence(tmp_path: Path) -> None:
    items = read(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [item.value if isinstance(item, Row) else item for item in items] == [{"a": 1}, {"a": 2}]


def test_blank_lines_between_rows_are_told_once_and_those_at_the_end_never(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    items = read(path, '{"a": 1}\n\n  \n{"a": 2}\n\n{"a": 3}\n\n\n')
    assert [item.source.number for item in items if isinstance(item, Row)] == [1, 4, 6]
    assert [(p.kind, p.severity, str(p.source), p.message) for p in items if isinstance(p, Problem)] == [
        ("blank-lines", "warning", f"{path}:2", "3 blank lines were skipped between rows, the first here")
    ]


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ('{"a": 1,}', "malformed-json", "column 9: not JSON: "),
        ('{"a" 1}', "malformed-json", "column 6: not JSON: Expecting ':' delimiter, near 1}"),
        ("{'a': 1}", "malformed-json", "column 2: not JSON: Expecting property name enclosed in double quotes"),
        ('{"a": 1}{"a": 2}', "malformed-json", "column 9: not JSON: Extra data"),
        ('{"a": "x\ty"}', "malformed-json", "column 9: not JSON: Invalid control character"),
        ('{"a": "x', "malformed-json", "column 7: not JSON: Unterminated string"),
        ('{"a": ' + "1" * 5000 + "}", "malformed-json", "4300 digits"),
        ('{"a": {"b": 1, "b": 2}}', "duplicate-key", "the key 'b' stands twice in one object"),
        ('["a"]', "row-not-object", "a row is an array"),
        ('"a"', "row-not-object", "a row is a string"),
        ("7", "row-not-object", "a row is a number"),
        ("null", "row-not-object", "a row is null"),
        ("true", "row-not-object", "a row is a boolean"),
        (r'{"a": {"b": ["x", "\ud83d"]}}', "lone-surrogate", r"'a.b[1]' holds \ud83d"),
        (r'{"a\udc00": 1}', "lone-surrogate", r"\udc00"),
        ('{"a": NaN}', "not-finite-number", "NaN is not JSON"),
        ('{"a": -Infinity}', "not-finite-number", "-Infinity is not JSON"),
        ('{"a": 1e999}', "not-finite-number", "1e999 is too large"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested-too-deep", "more than 100 deep"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested-too-deep", "more than 100 deep"),
    ],
)
def test_a_broken_line_is_named_and_the_next_line_is_read(tmp_path: Path, line: str, kind: str, words: str) -> None:
    problem = one_problem(tmp_path / "a.jsonl", line)
    assert (problem.kind, problem.severity) == (kind, "error")
    assert words in problem.message


def test_a_whole_surrogate_pair_and_a_hundred_levels_are_fine() -> None:
    assert json_object(rb'{"a": "\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}
    value = json_object(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")
    assert str(value).count("[") == 99


def test_a_byte_that_is_not_utf8_is_named_with_its_column_and_byte(tmp_path: Path) -> None:
    problem = one_problem(tmp_path / "a.jsonl", '{"é": "x'.encode() + b'\xe9"}')
    assert problem.kind == "not-utf-8"
    assert problem.message == "column 9: byte 0xe9 is not UTF-8 (byte 10 of the text)"
    assert "iconv" in problem.fix


def test_a_last_line_without_its_closing_brace_is_called_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    items = read(path, '{"a": 1}\n{"a": "hal')
    assert isinstance(items[1], Problem)
    assert (items[1].kind, str(items[1].source)) == ("cut-row", f"{path}:2")
    assert "the last line is cut" in items[1].message


def test_a_giant_line_is_dropped_and_its_neighbours_are_kept(tmp_path: Path) -> None:
    items = read(tmp_path / "a.jsonl", '{"a": 1}\n{"a": "' + "x" * 200_000 + '"}\n{"a": 3}\n', max_row_bytes=1000)
    assert [item.source.number for item in items] == [1, 2, 3]
    assert isinstance(items[1], Problem)
    assert (items[1].kind, items[1].severity) == ("giant-line", "dropped")
    assert isinstance(items[2], Row)


def test_only_blank_lines_is_an_error(tmp_path: Path) -> None:
    (problem,) = read(tmp_path / "a.jsonl", "\n \n\r\n")
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity, problem.message) == ("blank-file", "error", "the file holds 3 blank lines and no rows")


def test_a_truncated_gz_gives_the_rows_before_the_cut_and_the_line_reached(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"a": %d, "b": "%s"}\n' % (i, os.urandom(20).hex().encode()) for i in range(5000)))
    *rows, problem = read(path, whole[: len(whole) // 2])
    assert len(rows) > 2000  # half of the bytes hold about half of the rows
    assert [row.value["a"] for row in rows if isinstance(row, Row)] == list(range(len(rows)))
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.source) == ("damaged-file", Source(str(path), len(rows) + 1))
    assert "truncated" in problem.message
    reader = open_data(str(path))
    handles = [handle for handle, _ in reader.iter_with_handles() if handle]
    assert reader.read(handles[-1]) == rows[-1]


def test_a_flipped_byte_inside_a_gz_is_a_problem_of_the_file(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"".join(b'{"a": "%s"}\n' % os.urandom(20).hex().encode() for _ in range(5000))))
    whole[-6] ^= 0xFF  # in the checksum
    *rows, problem = read(tmp_path / "a.jsonl.gz", bytes(whole))
    assert len(rows) == 5000
    assert isinstance(problem, Problem)
    assert problem.kind == "damaged-file"


def test_a_row_is_found_again_by_its_handle_in_any_order(tmp_path: Path) -> None:
    plain = b"\xef\xbb\xbf" + b"".join(json.dumps({"a": i, "t": "é" * (i % 7)}, ensure_ascii=False).encode() + b"\r\n" for i in range(50))
    for name, content in (("a.jsonl", plain), ("a.jsonl.gz", gzip.compress(plain[:300]) + gzip.compress(plain[300:]))):
        (tmp_path / name).write_bytes(content)
        reader = open_data(str(tmp_path / name))
        pairs = list(reader.iter_with_handles())
        assert len(pairs) == 50
        for handle, row in reversed(pairs):
            assert handle is not None
            assert reader.read(handle) == row


def test_a_file_that_changed_after_it_was_opened_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    reader = open_data(str(path))
    handle = [handle for handle, _ in reader.iter_with_handles()][1]
    path.write_text('{"a": 1000}\n{"a": 2}\n')
    assert handle is not None
    with pytest.raises(DataError, match="changed while it was in use"):
        reader.read(handle)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.booleans())
def test_what_json_dumps_writes_is_read_back_unchanged(value: dict[str, object], ensure_ascii: bool) -> None:
    assert json_object(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@given(st.binary(max_size=40) | st.text('{}[]":,\\ud8a0 ne', max_size=40).map(str.encode))
def test_any_bytes_give_an_object_or_a_bad_value_and_nothing_else(data: bytes) -> None:
    try:
        found: object = json_object(data)
    except BadValue as bad:
        found = bad.problem("a.jsonl", 1)
    assert isinstance(found, dict | Problem)
