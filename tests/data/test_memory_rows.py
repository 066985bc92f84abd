"""Rows of a Dataset in memory: the same rows as on disk, named by number, known by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from orpo.data.checks import check_data
from orpo.data.row import Problem, Row
from orpo.data.rows import open_data, open_dataset

ROWS = [{"prompt": f"{i} why?", "chosen": f"because {i}", "rejected": "no"} for i in range(600)]


def dataset(rows: list[dict[str, str]] = ROWS) -> Any:
    return datasets.Dataset.from_list(rows)


def test_rows_in_memory_are_those_on_disk(tmp_path: Path) -> None:
    dataset().save_to_disk(str(tmp_path / "saved"))
    in_memory, on_disk = open_dataset(dataset(), "here"), open_data(str(tmp_path / "saved"))
    assert [item.value for item in in_memory if isinstance(item, Row)] == [item.value for item in on_disk if isinstance(item, Row)]
    assert str(next(iter(in_memory)).source) == "here:row 1"


def test_a_row_is_read_again_by_its_handle() -> None:
    reader = open_dataset(dataset(), "here")
    handles = [handle for handle, _ in reader.iter_with_handles() if handle]
    assert reader.read(handles[317]).value == ROWS[317]


def digest(rows: Any) -> str:
    (found,) = open_dataset(rows, "here").files
    assert found.path == "here"
    assert found.size > 0
    return found.sha256


def test_the_hash_is_of_the_rows_and_not_of_where_they_came_from() -> None:
    whole = digest(dataset())
    assert digest(dataset().select(range(600))) == whole
    assert digest(dataset(list(reversed(ROWS))).select(range(599, -1, -1))) == whole
    assert digest(dataset().filter(lambda row: row["prompt"] != "never")) == whole
    changed = [*ROWS[:-1], {**ROWS[-1], "rejected": "nO"}]
    assert len({whole, digest(dataset(changed)), digest(dataset().select(range(599))), digest(dataset().shuffle(seed=1))}) == 4


def test_a_check_reads_what_is_opened_under_a_name() -> None:
    data = check_data(["here"], opened={"here": open_dataset(dataset(), "here")})
    assert (data.report.pairs, data.report.files[0]["path"]) == (600, "here")


def test_no_rows_are_a_problem_that_is_told() -> None:
    (item,) = open_dataset(dataset().select([]), "here")
    assert isinstance(item, Problem)
    assert item.kind == "empty-file"


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()
