"""`orpo report`: folders of runs or a comparison enter, the path of the page that was written leaves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orpo.errors import UserError
from orpo.report.comparison import render_comparison
from orpo.report.page import render_report
from orpo.report.side_by_side import render_side_by_side
from orpo.runs import atomic
from orpo.runs.names import COMPARISON, COMPARISON_PAGE, REPORT, SIDE_BY_SIDE_PAGE


def write_page(folders: Sequence[Path], *, out: Path | None = None) -> Path:
    """The path of the page, written whole or not at all: `out`, or the page's own place.

    One run: its report.html. One comparison: its comparison.html. Several runs: side-by-side.html in the folder that holds them all.
    UserError for what is no run, and for a comparison among several folders.
    """
    assert folders, "there is nothing to report on"
    if out is not None:
        _check_out(out)
    comparisons = [folder for folder in folders if (folder / COMPARISON).is_file()]
    if len(folders) > 1 and comparisons:
        raise UserError(
            "this is a comparison, which is not shown beside runs or other comparisons",
            where=str(comparisons[0]),
            doing="writing one page for several runs",
            fix="name it alone, or name runs only",
        )
    if len(folders) > 1:
        path, text = out or _common_folder(folders) / SIDE_BY_SIDE_PAGE, render_side_by_side(folders)
    elif comparisons:
        path, text = out or folders[0] / COMPARISON_PAGE, render_comparison(folders[0])
    else:
        path, text = out or folders[0] / REPORT, render_report(folders[0])
    atomic.write_text_atomic(path, text)
    return path


def _check_out(out: Path) -> None:
    """Nothing; UserError where a page must not or cannot be written: a mistyped name must not replace somebody's data."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(
            "the name of a page ends in .html", where=str(out), doing="checking --out", fix=f"write --out {out.with_suffix('.html')}"
        )
    if out.is_dir() or not out.parent.is_dir():
        what = "this is a folder" if out.is_dir() else f"the folder {out.parent} does not exist"
        raise UserError(
            what, where=str(out), doing="checking --out", expected="a file in a folder that exists", fix="make the folder first"
        )


def _common_folder(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of `folders`, relative to here where that is shorter."""
    common = Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
    here = Path.cwd()
    return common.relative_to(here) if common.is_relative_to(here) else common
