"""Which of the problems of a check are kept with their text, and that none goes uncounted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from orpo.data.checks import check_data


def row(number: int, **parts: str) -> dict[str, str]:
    return {"prompt": f"What is {number}?", "chosen": " yes", "rejected": " nay", **parts}


def checked(path: Path, *rows: dict[str, str]) -> Any:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return check_data([str(path)]).report


def test_of_each_kind_a_hundred_problems_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    odd = [row(number, prompt=f"{number}\u0007") for number in range(130)]
    same = [row(number, rejected=" yes") for number in range(120)]
    report = checked(tmp_path / "a.jsonl", row(0), *odd, *same, row(1, id="7"))
    assert Counter(problem.kind for problem in report.first_warnings) == {"control-characters": 100, "extra-columns": 1}
    assert [problem.source.number for problem in report.first_dropped] == list(range(132, 232))
    assert report.unlisted == {"control-characters": 30, "identical": 20}
    printed = json.loads(json.dumps(report.as_dict()))
    assert (len(printed["first_warnings"]), printed["warnings"]["control-characters"], printed["unlisted"]) == (101, 130, report.unlisted)


def test_rows_that_repeat_are_listed_with_the_row_they_repeat_and_a_warning_about_all_rows_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    report = checked(path, *[row(0)] * 300)
    assert (report.warnings, report.unlisted) == ({"duplicates": 299, "all-rows-identical": 1}, {"duplicates": 199})
    assert [str(problem.source) for problem in report.first_warnings] == [*(f"{path}:{line}" for line in range(2, 102)), "None"]
    assert {problem.message for problem in report.first_warnings[:100]} == {f"the same prompt and answers as {path}:1"}
