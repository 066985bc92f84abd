"""How the pictures of the page look: panels without boxes, one colour a thing, on white so that dark pages show them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d2023", "#565c63", "#e2e0da"
COLOURS = {
    "chosen": "#00639c",
    "rejected": "#b04a00",
    "orpo": "#00639c",
    "sft": "#7a6a00",
    "dpo": "#00735a",
    "ratio": "#7b3fa0",
    "base": "#565c63",
}
"""Told apart by most people with a colour deficiency; each line also has its name at its end."""
PIXELS_PER_INCH = 110


def panels(count: int, *, share_y: bool = False, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side. Figure and not pyplot: no global state, no window system."""
    figure = Figure(figsize=(7.6, height), facecolor="white", layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=share_y)[0]
    for axis in axes:
        axis.spines[:].set_visible(False)
        axis.grid(axis="y", color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=SOFT, labelsize=8.5, length=0)
        axis.xaxis.label.set_color(SOFT)
        axis.yaxis.label.set_color(SOFT)
        axis.title.set(color=INK, fontsize=10)
    return figure, list(axes)


def courses(axis: Axes, curves: Sequence[Mapping[str, Any]], key: str, *, colour: str, against: str = "step") -> tuple[float, float]:
    """The last point of the mean over `curves` of `key`, after drawing it thick and each of them faint."""
    along = np.mean([curve[against] for curve in curves], axis=0)
    for curve in curves:
        axis.plot(curve[against], curve[key], color=colour, linewidth=0.8, alpha=0.35)
    mean = np.mean([curve[key] for curve in curves], axis=0)
    axis.plot(along, mean, color=colour, linewidth=2.2)
    return float(along[-1]), float(mean[-1])


def label_end(axis: Axes, name: str, end: tuple[float, float], *, colour: str, shift: float = 0.0) -> None:
    """Nothing; `name` stands right of the end of a line."""
    place: dict[str, Any] = {"xytext": (6, shift), "textcoords": "offset points", "va": "center", "fontsize": 9}
    axis.annotate(name, end, color=colour, annotation_clip=False, **place)


def save(figure: Figure, path: Path) -> None:
    """Nothing; `path` and its twin that ends in .svg hold the figure, the same bytes for the same figure and version."""
    with matplotlib.rc_context({"svg.hashsalt": "evidence", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure.savefig(path, dpi=PIXELS_PER_INCH, metadata={"Software": None})
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
