"""What a new user gets wrong: each mistake ends with its exit code, with a message and no traceback, as docs/first-hour.md shows it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import first_hour


@pytest.fixture(scope="module")
def said(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Any]:
    """What every case printed."""
    return first_hour.everything(tiny_llama, tmp_path_factory.mktemp("first-hour"))


def test_every_mistake_has_its_exit_code_and_its_message(said: Sequence[Any]) -> None:
    for case, one in zip(first_hour.CASES, said, strict=True):
        assert one.exit_code == case.exit_code, (case, one.text)
        assert "Traceback" not in one.text
        assert "to fix:" in one.text or "Error" in one.text, (case, one.text)
        assert len(one.text) < 1500, (case, one.text)


def test_the_page_shows_what_the_commands_print(said: Sequence[Any], root: Path) -> None:
    assert (root / "docs" / "first-hour.md").read_text() == first_hour.page(said), "python scripts/first_hour.py > docs/first-hour.md"


def test_the_mistakes_of_the_first_hour_are_there() -> None:
    worlds = {case.world for case in first_hour.CASES}
    assert worlds == {"", "hub", "down", "full memory", "full disk"}
    assert len(first_hour.CASES) >= 30
