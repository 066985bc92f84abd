"""JSON files that are one document: cut into rows without being loaded, with the line where each row starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.data import json_scanner
from orpo.data.row import Problem, Row
from orpo.data.rows import open_data


def read(path: Path, content: str, **options: int) -> list[tuple[int, Any]]:
    """(line, value) of rows and (line, kind) of problems."""
    path.write_bytes(content.encode())
    items = list(open_data(str(path), **options))
    return [(item.source.number if item.source else 0, item.value if isinstance(item, Row) else item.kind) for item in items]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a": 1}, {"a": 2}]', [(1, {"a": 1}), (1, {"a": 2})]),
        ('\ufeff[\r\n {"a": 1},\r\n\r\n {"a": 2}\r\n]\r\n', [(2, {"a": 1}), (4, {"a": 2})]),
        ('[\n  {\n    "a": "]},{["\n  },\n  {\n    "a": "\\"\\\\"\n  }\n]', [(2, {"a": "]},{["}), (5, {"a": '"\\'})]),
        ('{"data": [{"a": 1}]}', [(1, {"a": 1})]),
        ('{"v": "1", "data": [{"a": 1},\n{"a": 2}], "end": {"data": 1}}\n', [(1, {"a": 1}), (2, {"a": 2})]),
        ('{\n "license": ["x"],\n "data": [\n  {"a": 1}\n ]\n}', [(4, {"a": 1})]),
        ('{"data": [\n{"a": 1},\n{"a": 2}]}', [(2, {"a": 1}), (3, {"a": 2})]),
        ('{"a": 1}\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
        ('{"data": [1]}\n{"data": [2]}\n', [(1, {"data": [1]}), (2, {"data": [2]})]),
        ('["a"]\n["b"]\n', [(1, "row-not-object"), (2, "row-not-object")]),
        ('[{"a": 1}, 3, "x", null, [1]]', [(1, {"a": 1})] + [(1, "row-not-object")] * 4),
        ("[]", [(1, "empty-file")]),
    ],
)
def test_array_object_per_line_and_data_key_are_told_apart_by_content_not_by_name(
    tmp_path: Path, name: str, content: str, expected: list[tuple[int, Any]]
) -> None:
    assert read(tmp_path / name, content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a": 1},\n{"a": 2', [(1, {"a": 1}), (2, "cut-row"), (2, "cut-file")]),
        ('[{"a": 1},\n{"a": 2},\n', [(1, {"a": 1}), (2, {"a": 2}), (2, "cut-file")]),
        ('{"data": [\n{"a": 1}]', [(2, {"a": 1}), (2, "cut-file")]),
        ('[\n{"a": 1}\n{"a": 2}]', [(2, {"a": 1}), (3, "malformed-json"), (3, {"a": 2})]),
        ('[\n{"a": 1},\n]', [(2, {"a": 1}), (3, "malformed-json")]),
        ('[\n{"a": 1},,\n{"a": 2}]', [(2, {"a": 1}), (2, "malformed-json"), (3, {"a": 2})]),
        ('[\n{"a" 1},\n{"a": 2}]', [(2, "malformed-json"), (3, {"a": 2})]),
        ('[\n{\n"a": 1,\n"b" 2\n},\n{"a": 2}]', [(4, "malformed-json"), (6, {"a": 2})]),
        ('[{"a": 1}]\n]', [(1, {"a": 1}), (2, "malformed-json")]),
        ('[{"a": 1}\n]\n{"a": 2}\n', [(1, {"a": 1}), (3, "malformed-json")]),
        ('[\n{"a": 1, "a": 2},\n{"a": tru}]', [(2, "duplicate-key"), (3, "malformed-json")]),
        ('{\n "rows": [{"a": 1}]\n}', [(1, "not-rows")]),
        ('{"rows": [\n{"a": 1}\n]}', [(1, "not-rows")]),
        ('{"data": [\n{"a": 1}], "data": [{"a": 2}]}', [(2, {"a": 1}), (2, "duplicate-key")]),
    ],
)
def test_a_broken_document_is_named_at_its_line_and_the_rows_around_are_read(
    tmp_path: Path, content: str, expected: list[tuple[int, Any]]
) -> None:
    assert read(tmp_path / "a.json", content) == expected


@pytest.mark.parametrize("chunk", [1, 5, 2**16])
def test_the_column_of_an_error_counts_from_the_start_of_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    (tmp_path / "a.json").write_text('[\n{"a": 1}, {"a" 2}]')
    problem = list(open_data(str(tmp_path / "a.json")))[1]
    assert isinstance(problem, Problem)
    assert problem.message.startswith("column 16: not JSON: Expecting ':' delimiter")


def test_a_key_that_holds_rows_under_another_name_is_not_guessed_but_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n "version": 1,\n "instances": [{"a": 1}]\n}')
    (problem,) = open_data(str(tmp_path / "a.json"))
    assert isinstance(problem, Problem)
    assert problem.fix == "rename the key 'instances' to \"data\""


@pytest.mark.parametrize(
    "giant", ['{"a": "' + "\\\\" * 5000 + '"}', '{"a": "' + '\\"}' * 5000 + '"}', '{"a": [' + "[1]," * 5000 + "2]}", '"' + "x" * 9000 + '"']
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_a_giant_element_is_dropped_without_losing_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, giant: str, chunk: int
) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    content = f'[{{"a": 1}},\n{giant},\n{{"a": 3}}]'
    assert read(tmp_path / "a.json", content, max_row_bytes=100) == [(1, {"a": 1}), (2, "giant-line"), (3, {"a": 3})]


def test_a_long_list_of_strings_is_not_scanned_again_for_each_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    class Counting:
        match = staticmethod(lambda *arguments: tries.append(1) or whole.match(*arguments))

    whole = json_scanner._TO_BRACKET
    monkeypatch.setattr(json_scanner, "_TO_BRACKET", Counting)
    row = {"a": ["word"] * 50_000}
    assert read(tmp_path / "a.json", json.dumps([row])) == [(1, row)]
    assert len(tries) < 50  # one for each bracket and each chunk


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],:\n é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"}\\', max_size=3), inner, max_size=3),
    max_leaves=6,
)
documents = st.lists(st.dictionaries(st.text("ab", max_size=2), values, max_size=3), min_size=1, max_size=6)
quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


@quiet
@given(documents, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_every_array_is_cut_as_json_loads_reads_it_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], indent: int | None, under_data: bool, chunk: int
) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    text = "[\n" + ",\n".join(json.dumps(row, indent=indent) for row in rows) + "\n]"
    text = f'{{"v": 1, "data": {text}, "w": ["]"]}}' if under_data else text
    (tmp_path / "a.json").write_text(text)
    reader = open_data(str(tmp_path / "a.json"))
    pairs = list(reader.iter_with_handles())
    assert [item.value if isinstance(item, Row) else item for _, item in pairs] == rows
    starts = [2 + sum(json.dumps(row, indent=indent).count("\n") + 1 for row in rows[:index]) for index in range(len(rows))]
    assert [item.source.number for _, item in pairs if item.source] == starts
    assert [reader.read(handle) for handle, _ in pairs if handle] == [item for _, item in pairs]


@quiet
@given(documents, st.integers(0, 10**6), st.sampled_from(['"', "{", "}", "[", "]", ",", "\\", "\n", ""]), st.integers(1, 40))
def test_a_damaged_array_gives_rows_and_problems_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], place: int, damage: str, chunk: int
) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    text = json.dumps(rows, indent=0)
    place = 1 + place % (len(text) - 1)
    broken = text[:place] + damage + text[place + 1 :]
    (tmp_path / "a.json").write_text(broken)
    items = list(open_data(str(tmp_path / "a.json")))
    problems = [item for item in items if isinstance(item, Problem)]
    try:
        json.loads(broken, object_pairs_hook=lambda pairs: tuple(pairs) if len(dict(pairs)) == len(pairs) else json.loads("x"))
    except ValueError:
        assert problems  # never read as whole
    assert all(1 <= problem.source.number <= broken.count("\n") + 1 for problem in problems if problem.source)
