"""`orpo report`: pages written anew from what was recorded, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
ROW = {"step": 1, "split": "eval", "nll_loss": 1.5, "logps/chosen": -1.5, "logps/rejected": -2.0, "num_pairs": 4}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[str], Path]:
    """A run directory of one held-out row."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
        (folder / "config.resolved.yaml").write_text(f"model: {name}\n")
        return folder

    return make


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """A comparison that has measured nothing yet."""
    folder = tmp_path / "runs" / "compare-1"
    folder.mkdir(parents=True)
    (folder / "compare.json").write_text('{"format": 1, "status": "running", "name": "compare-1"}')
    return folder


def test_one_run_gets_its_report_anew(orpo: Command, make_run: Any) -> None:
    folder = make_run("runs/a")
    (folder / "report.html").write_text("old")
    outcome = orpo("report", "runs/a")
    assert (outcome.exit_code, outcome.out, outcome.err) == (0, "runs/a/report.html\n", "")
    assert "orpo run report" in (folder / "report.html").read_text()


def test_a_comparison_gets_its_page_anew(orpo: Command, compared: Path) -> None:
    outcome = orpo("report", "runs/compare-1")
    assert (outcome.exit_code, outcome.out) == (0, "runs/compare-1/comparison.html\n")
    assert "orpo comparison" in (compared / "comparison.html").read_text()


def test_several_runs_get_one_page_beside_them(orpo: Command, make_run: Any, tmp_path: Path) -> None:
    make_run("runs/a"), make_run("runs/b")
    outcome = orpo("report", "runs/a", "runs/b")
    assert (outcome.exit_code, outcome.out) == (0, "runs/side-by-side.html\n")
    assert "2 runs" in (tmp_path / "runs/side-by-side.html").read_text()
    assert not list(tmp_path.glob("runs/*/*.html"))


@pytest.mark.parametrize("arguments", [("runs/a",), ("runs/a", "runs/b"), ("runs/compare-1",)])
def test_out_says_where_any_page_goes(orpo: Command, make_run: Any, compared: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    make_run("runs/a"), make_run("runs/b")
    outcome = orpo("report", *arguments, "--out", "mine.html")
    assert (outcome.exit_code, outcome.out) == (0, "mine.html\n")
    assert [path.name for path in tmp_path.rglob("*.html")] == ["mine.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: there is no such folder"),
        (("empty",), "empty: this folder holds no run"),
        (("runs/a", "empty"), "empty: this folder holds no run"),
        (("runs/a", "runs/a"), "this run stands twice in the list"),
        (("runs/a", "runs/compare-1"), "runs/compare-1: this is a comparison"),
        (("runs/a", "--out", "pairs.jsonl"), "pairs.jsonl: the name of a page ends in .html"),
        (("runs/a", "--out", "nowhere/a.html"), "the folder nowhere does not exist"),
        (("runs/a", "--out", "folder.html"), "folder.html: this is a folder"),
        ((), "Missing argument"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(
    orpo: Command, make_run: Any, compared: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    make_run("runs/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    outcome = orpo("report", *arguments)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert said in outcome.err
    assert [path.name for path in tmp_path.rglob("*.html")] == ["folder.html"]
    assert (tmp_path / "pairs.jsonl").read_text() == "{}\n"


def test_a_damaged_file_is_named_with_exit_code_6(orpo: Command, compared: Path) -> None:
    (compared / "compare.json").write_text("{")
    outcome = orpo("report", "runs/compare-1")
    assert outcome.exit_code == 6
    assert outcome.err.startswith("runs/compare-1/compare.json: the file is damaged: it is not valid JSON")


def test_pages_are_made_without_the_heavy_libraries(make_run: Any) -> None:
    import subprocess

    program = "import sys; sys.argv = ['orpo', 'report', sys.argv[1]]; from orpo.cli.main import app\n"
    program += "try: app()\nexcept SystemExit: pass\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(make_run("a"))], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
