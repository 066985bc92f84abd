"""Evaluations in a run directory: written whole, read back equal, the same measurement in the place of the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orpo.errors import StorageError
from orpo.runs.evaluations import Evaluation, read_evaluations, write_evaluation
from orpo.runs.names import EVALUATIONS

WIN_RATE = Evaluation("win_rate", {"vs": "base", "judge": "oracle"}, {"win_rate": 0.75, "num_flips": None}, steps=150)


def test_what_is_read_is_what_was_written_and_when(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path, WIN_RATE)
    (read,) = read_evaluations(tmp_path)
    assert (read.kind, read.settings, read.figures, read.steps) == (WIN_RATE.kind, WIN_RATE.settings, WIN_RATE.figures, 150)
    assert read.finished.endswith("+00:00")
    assert path.parent == tmp_path / EVALUATIONS
    assert path.name.startswith("win-rate-")


def test_the_same_measurement_takes_the_place_of_the_one_before_and_another_stands_beside_it(tmp_path: Path) -> None:
    write_evaluation(tmp_path, WIN_RATE)
    write_evaluation(tmp_path, Evaluation(WIN_RATE.kind, dict(reversed(WIN_RATE.settings.items())), {"win_rate": 0.5}))
    write_evaluation(tmp_path, Evaluation(WIN_RATE.kind, {"vs": "base", "judge": "runs/reward-1"}, {"win_rate": 0.25}))
    assert sorted(evaluation.figures["win_rate"] for evaluation in read_evaluations(tmp_path)) == [0.25, 0.5]


def test_rows_stand_beside_it_as_json_lines(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path, Evaluation("win_rate", {}, {}, rows=({"prompt": "a\nb"}, {"prompt": "\u2028"})))
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["a\nb", "\u2028"]


def test_a_run_that_was_not_measured_has_none(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path) == ()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "win_rate"}', '{"kind": "magic", "finished": "", "steps": 1, "settings": {}, "figures": {}}', "\xff"]
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = write_evaluation(tmp_path, WIN_RATE)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match="the file is damaged") as caught:
        read_evaluations(tmp_path)
    assert caught.value.where == str(path)
    assert "orpo eval" in caught.value.fix
