"""The one place that makes the page of a comparison."""

from __future__ import annotations

from pathlib import Path


def write_page(folder: Path) -> Path | None:
    """The page of the comparison in `folder`, made from its compare.json alone."""
    try:
        from orpo.report.comparison import write_comparison
    except ImportError:
        return None
    path: Path = write_comparison(folder)
    return path
