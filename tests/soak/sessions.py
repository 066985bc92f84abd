"""A person with a file of pairs: two commands, as they would be typed, from the file to a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orpo.data.formats import SHAPES

FIXTURES = Path(__file__).parent.parent / "data" / "fixtures" / "shapes"
SHAPE_NAMES = tuple(shape.name for shape in SHAPES)
SHORT = ("--max-steps", 1, "--num-samples", 1, "--max-new-tokens", 4, "--dtype", "float32")

Orpo = Callable[..., Any]
"""Runs `orpo ARGUMENTS` in the current folder: gives exit_code, out and err."""


def from_file_to_report(orpo: Orpo, shape: str, folder: Path) -> None:
    """Asserts that `orpo check` names the shape, that `orpo train` on the built-in model needs no more than the flag that the check
    named, if any, and that there is a report which names the shape."""
    file = FIXTURES / f"{shape}.jsonl"
    checked = orpo("check", file)
    assert re.search(rf"^shape +{shape}$", checked.out, re.MULTILINE), checked.out + checked.err
    assert (checked.exit_code == 3) == ("--pair-labelled" in checked.err), checked.out + checked.err
    needed = ["--pair-labelled"] if checked.exit_code == 3 else []
    trained = orpo("train", "--model", "builtin", "--data", file, *needed, *SHORT, "--output-dir", f"run-{shape}")
    assert trained.exit_code == 0, trained.out + trained.err
    report = folder / f"run-{shape}" / "report.html"
    assert str(report.relative_to(folder)) in trained.out
    assert shape in report.read_text(encoding="utf-8")
