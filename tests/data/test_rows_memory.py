"""A broken row among very many is named exactly, in memory that does not grow with the file."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from orpo.data.row import Problem
from orpo.data.rows import open_data

ROW = {"prompt": "Why? " * 20, "chosen": "Because of this. " * 10, "rejected": "No. " * 10}


def pass_over(path: Path, **options: int) -> tuple[int, list[Problem], float]:
    """Number of rows, problems, and the peak of Python's memory in MiB during one pass."""
    tracemalloc.start()
    try:
        num_rows, problems = 0, []
        for item in open_data(str(path), **options):
            if isinstance(item, Problem):
                problems.append(item)
            else:
                num_rows += 1
        return num_rows, problems, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def write(path: Path, num_rows: int, bad: int, *, as_array: bool) -> None:
    """`num_rows` rows, one per line; the one on line `bad` lacks a colon."""
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w") as file:
        row = json.dumps(ROW)
        broken = row.replace(":", "", 1)
        file.write("[" if as_array else "")
        for number in range(1, num_rows + 1):
            file.write((broken if number == bad else row) + (",\n" if as_array and number < num_rows else "\n"))
        file.write("]" if as_array else "")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_a_broken_row_among_20000_is_named_in_3_mebibytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, 20_000, 17_777, as_array=name == "a.json")
    num_rows, problems, peak = pass_over(path)
    assert num_rows == 19_999
    assert [str(problem.source) for problem in problems] == [f"{path}:17777"]
    assert peak < 3  # the file holds 8 MiB


def test_a_line_of_32_mebibytes_is_never_held_whole(tmp_path: Path) -> None:
    for name, start, end, number in (("a.jsonl", "", "\n", 2), ("b.json", "[", ",\n", 2), ("c.csv", "a\n", "\n", 3)):
        path = tmp_path / name
        row = "{}" if name != "c.csv" else "1"
        with path.open("w") as file:
            file.write(f"{start}{row}{end}" + ('{"a": "' if row == "{}" else ""))
            for _ in range(32):
                file.write("x" * 2**20)
            file.write(('"}' if row == "{}" else "") + end + row + ("]" if name == "b.json" else ""))
        num_rows, problems, peak = pass_over(path, max_row_bytes=2**20)
        assert num_rows == 2
        assert [(problem.kind, str(problem.source)) for problem in problems] == [("giant-line", f"{path}:{number}")]
        assert peak < 6  # the limit of 1 MiB, and what is read beside it


@pytest.mark.soak
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_broken_row_among_a_million_is_named_in_3_mebibytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, 1_000_000, 900_001, as_array=name == "a.json")
    num_rows, problems, peak = pass_over(path)
    assert num_rows == 999_999
    assert [str(problem.source) for problem in problems] == [f"{path}:900001"]
    assert peak < 3
