"""Plots of result files: a PNG and an SVG beside each JSON that has a curve or several contenders.

python benchmarks/plot.py benchmarks/results/*.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

COLOURS = ("#0b5fa5", "#c8500f", "#4d7f17", "#7b3fa0", "#8a6d00", "#5a5a5a")
"""Told apart by most people with a colour deficiency; each curve has its own marker as well."""
MARKERS = "os^Dv*"
PIXELS_PER_INCH = 160
SWEEP_AXES = {
    "micro-batch": "pairs per micro-batch",
    "prompt-share": "share of the prompt in a pair's distinct tokens",
}


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side, plain: no box, light lines at the values."""
    figure, axes = plt.subplots(1, count, figsize=(8.0, 3.6), layout="constrained", squeeze=False)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, list(axes[0])


def plot_sweep(result: Mapping[str, Any]) -> Figure:
    """Throughput and memory of every contender over the axis of a sweep."""
    figure, (left, right) = panels(2)
    names = list(dict.fromkeys(name for point in result["points"] for name in point["contenders"]))
    for axis, key, title in ((left, "pairs_per_second", "Throughput, pairs/s"), (right, "peak_memory_gib", "Peak memory, GiB")):
        for number, name in enumerate(names):
            there = [(point["x"], point["contenders"][name][key]) for point in result["points"] if name in point["contenders"]]
            _curve(axis, there, number, name)
        axis.set(title=title, xlabel=SWEEP_AXES[result["sweep"]])
        _from_zero(axis)
    if result["sweep"] == "micro-batch":
        for axis in (left, right):
            _doubling_axis(axis, [point["x"] for point in result["points"]])
    left.legend(frameon=False)
    num_pairs = result["points"][0]["equal"]["pairs_per_step"]
    layers = result["points"][0]["equal"]["shape"]["layers"]
    figure.suptitle(f"One training step of {num_pairs} pairs, {result['shape']} shape with {layers} layers, {result['dtype']}")
    return figure


def plot_step(result: Mapping[str, Any]) -> Figure:
    """Throughput, with the range over rounds, and memory of every contender."""
    figure, (left, right) = panels(2)
    names = list(result["contenders"])[::-1]
    figures = [result["contenders"][name] for name in names]
    colours = [COLOURS[0] if name.startswith("orpo") else COLOURS[5] for name in names]
    per_round = [[one["pairs"] / seconds for seconds in one["seconds_of_rounds"]] for one in figures]
    middle = [one["pairs_per_second"] for one in figures]
    spread = [
        [max(0.0, m - min(r)) for m, r in zip(middle, per_round, strict=True)],
        [max(0.0, max(r) - m) for m, r in zip(middle, per_round, strict=True)],
    ]
    left.barh(names, middle, xerr=spread, color=colours, error_kw={"linewidth": 1})
    left.set_title("Throughput, pairs/s (line: min to max)")
    right.barh(names, [one["peak_memory_gib"] for one in figures], color=colours)
    right.set_title("Peak memory, GiB")
    right.set_yticklabels([])
    for axis in (left, right):
        axis.grid(visible=False, axis="y")
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    shape = result["equal"]["shape"]
    title = f"One step of {result['equal']['pairs_per_step']} pairs: {shape['layers']} layers of {shape['hidden']}"
    figure.suptitle(f"{title}, vocabulary {shape['vocabulary']:,}, {result['equal']['matrix_products']}")
    return figure


def plot_lengths(result: Mapping[str, Any]) -> Figure:
    """Seconds and memory of a pair over its length."""
    figure, (left, right) = panels(2)
    for axis, key, title in ((left, "seconds_per_pair", "Time, s per pair"), (right, "peak_memory_gib", "Peak memory, GiB")):
        _curve(axis, [(point["x"], point[key]) for point in result["points"]], 0, "")
        axis.set(title=title, xlabel="distinct tokens of a pair")
        _doubling_axis(axis, [point["x"] for point in result["points"]])
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.yaxis.set_minor_locator(NullLocator())
    _from_zero(right)
    options = result["options"]
    figure.suptitle(f"Cost of a pair and its length, {options['shape']} shape, {options['dtype']}, one pair at a time")
    return figure


def plot_rows(result: Mapping[str, Any]) -> Figure:
    """Rows per second and memory of the data check over the number of rows."""
    figure, (left, right) = panels(2)
    done = [point for point in result["points"] if "rows" in point]
    for axis, key, title in ((left, "rows_per_second", "Check and tokenize, rows/s"), (right, "peak_memory_gib", "Peak memory, GiB")):
        _curve(axis, [(point["x"], point[key]) for point in done], 0, "")
        axis.set(title=title, xlabel="rows of the file", xscale="log")
        _from_zero(axis)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    figure.suptitle("The data check and the size of a file, tokens included")
    return figure


PLOTS: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "step": plot_step,
    "gpu": plot_step,
    "step-sweep": plot_sweep,
    "scaling-length": plot_lengths,
    "scaling-data": plot_rows,
}
"""What a result file says it is -> its plot."""


def _curve(axis: Axes, points: list[tuple[float, float]], number: int, name: str) -> None:
    axis.plot(*zip(*points, strict=True), color=COLOURS[number % 6], marker=MARKERS[number % 6], linewidth=1.8, markersize=5, label=name)


def _doubling_axis(axis: Axes, values: list[float]) -> None:
    """Nothing; the horizontal axis is logarithmic with a mark at each of `values`."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, [f"{value:,g}" for value in values], rotation=30 if len(values) > 4 else 0)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(x=0.08)


def _from_zero(axis: Axes) -> None:
    """Nothing; the vertical axis begins at 0 and leaves room above the highest point."""
    axis.set_ylim(0, 1.08 * max(float(np.max(np.asarray(line.get_ydata()))) for line in axis.get_lines()))


def write_plot(path: Path) -> list[Path]:
    """The plots of the result file `path`: its name with .png and .svg. None for a result that has no plot."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if result.get("what") not in PLOTS:
        return []
    with plt.rc_context({"font.size": 9, "axes.titlesize": 10, "figure.titlesize": 11, "svg.fonttype": "none"}):
        figure = PLOTS[result["what"]](result)
        written = [path.with_suffix(ending) for ending in (".png", ".svg")]
        for place in written:
            figure.savefig(place, dpi=PIXELS_PER_INCH)
        plt.close(figure)
    return written


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of bench_step.py, bench_gpu.py, bench_scaling.py")
    for path in parser.parse_args().results:
        places = [str(place) for place in write_plot(path)]
        print("\n".join(places) or f"no plot for {path}")


if __name__ == "__main__":
    main()
