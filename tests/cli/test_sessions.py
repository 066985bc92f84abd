"""From a file to a report in two commands, for three kinds of data; tests/soak has every shape, in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "soak"))

from sessions import FIXTURES, SHAPE_NAMES, from_file_to_report


@pytest.mark.parametrize("shape", ["prompt-chosen-rejected", "hh-transcripts", "kto"])
def test_two_commands_lead_from_a_file_to_a_report(orpo: Callable[..., Any], shape: str, tmp_path: Path) -> None:
    from_file_to_report(orpo, shape, tmp_path)


def test_every_shape_has_a_file_to_begin_with() -> None:
    assert {path.stem for path in FIXTURES.glob("*.jsonl")} == set(SHAPE_NAMES)


def test_without_a_model_train_says_which_there_are(orpo: Callable[..., Any]) -> None:
    outcome = orpo("train", "--data", FIXTURES / "messages.jsonl")
    assert outcome.exit_code == 2
    assert "builtin" in outcome.err
    assert "--model MODEL" in outcome.err
