"""The picture of the model card: a run enters, a PNG leaves. A hub shows pictures in a README, but no inline SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from orpo.report import curves
from orpo.report.chart import Chart, Line
from orpo.report.series import thin
from orpo.runs.summary import RunData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTTED = ("logps", "accuracy")
INK, SOFT, GRID = "#1d2023", "#565c63", "#e2e0da"
COLOURS = {"chosen": "#00639c", "rejected": "#b04a00", "accuracy": "#00735a"}
DASHES = {"rejected": (0, (4, 2.4))}


def plotted(run: RunData) -> tuple[Chart, ...]:
    """The charts that stand on the picture; none for a run that logged neither log-probs nor accuracy."""
    return tuple(chart for chart in curves.charts(run) if chart.id in PLOTTED)


def picture_note(shown: tuple[Chart, ...]) -> str:
    """How the lines of the picture were made."""
    window = max(line.train.window for chart in shown for line in chart.lines)
    training = f"Thin: training, mean of {window} logged points." if window > 1 else "Thin: training, each logged point."
    held_out = any(line.held_out.raw for chart in shown for line in chart.lines)
    return f"{training} Thick: held-out pairs, tinted their 95\u202f% interval." if held_out else f"{training} Nothing was held out."


def render_plot(run: RunData) -> bytes:
    """A PNG of `plotted(run)` side by side, on white. The same run gives the same bytes."""
    # Figure and not pyplot: no global state, no window system, safe in a thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = plotted(run)
    assert shown, "there is nothing to plot"
    figure = Figure(figsize=(5.2 * len(shown), 3.4), dpi=150, facecolor="white", layout="constrained")
    for place, chart in enumerate(shown, start=1):
        _draw(figure.add_subplot(1, len(shown), place), chart)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def _draw(axes: Axes, chart: Chart) -> None:
    factor = 100.0 if chart.limits else 1.0
    for line in chart.lines:
        _draw_line(axes, line, factor)
    axes.set_title(chart.title, loc="left", pad=10, fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel("step", color=SOFT, fontsize=9)
    axes.set_ylabel("% of pairs" if chart.limits else chart.unit, color=SOFT, fontsize=9)
    axes.set_ylim(chart.frame.low_y * factor, chart.frame.high_y * factor)
    axes.set_xmargin(0)
    axes.locator_params(nbins=5)
    axes.tick_params(colors=SOFT, labelsize=9, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _draw_line(axes: Axes, line: Line, factor: float) -> None:
    colour, dash = COLOURS[line.style], DASHES.get(line.style, "solid")
    if line.band:
        x, low, high = zip(*line.band, strict=True)
        axes.fill_between(x, [factor * y for y in low], [factor * y for y in high], color=colour, alpha=0.13, linewidth=0)
    if line.train.smooth:
        x, y = zip(*line.train.smooth, strict=True)
        axes.plot(x, [factor * value for value in y], color=colour, linewidth=0.9, alpha=0.7, linestyle=dash)
    if line.held_out.raw:
        x, y = zip(*thin(line.held_out.raw), strict=True)
        axes.plot(x, [factor * value for value in y], color=colour, linewidth=2.2, linestyle=dash)
    place = (1.0, factor * line.emphasised[-1][1])
    coordinates = ("axes fraction", "data")
    axes.annotate(line.name, place, xycoords=coordinates, xytext=(7, 0), textcoords="offset points", va="center", color=colour, fontsize=10)
