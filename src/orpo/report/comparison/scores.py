"""Scores and paired differences: a comparison enters, charts side by side and tables leave."""

from __future__ import annotations

from functools import partial

from orpo.report.chart import SHARES
from orpo.report.comparison import dots
from orpo.report.comparison.dots import DotChart, Row
from orpo.report.comparison.outcome import TONES, measured, others, outcome
from orpo.report.comparison.reading import Comparison, Estimate, Metric, Pipeline
from orpo.report.comparison.spelling import (
    exact,
    exact_difference,
    interval,
    interval_of_difference,
    is_share,
    plain,
    signed,
    spelled,
    tick_labels,
    unit,
    unit_of_difference,
)
from orpo.report.escape import clipped
from orpo.report.labels import fitted
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import count, datum
from orpo.report.tables import table
from orpo.report.whole_page import name_of, note

NO_SCORES = "No pipeline has scores yet."
NUM_OPEN = 4
"""Metrics whose charts are open when the page is; those of the others are folded, to keep the way to the costs short."""
ZERO = Estimate(0.0, None, None)
BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "neither way is better"}


def scores_section(comparison: Comparison) -> Html:
    """For each metric that was measured, the main one first: the scores, and beside them the differences to the baseline."""
    metrics = measured(comparison)
    if not metrics:
        return note(NO_SCORES)
    shown, more = [_charts(comparison, metric, i) for i, metric in enumerate(metrics)], metrics[NUM_OPEN:]
    names = ", ".join(metric.title for metric in more)
    behind = _folded(f"{count(len(more))} more: {names}", _grid(shown[NUM_OPEN:])) if more else None
    return join([note(reading_note(comparison)), _grid(shown[:NUM_OPEN]), behind, *_unmeasured(comparison)])


def _grid(shown: list[list[Html]]) -> Html:
    """Score and difference of a metric side by side, their rows at one height; without a baseline to differ from, scores alone."""
    if all(len(figures) == 1 for figures in shown):
        return element("div", *(figure for figures in shown for figure in figures), class_="figures")
    return join(element("div", *figures, class_="figures pairwise") for figures in shown)


def _charts(comparison: Comparison, metric: Metric, i: int) -> list[Html]:
    charts = [_scores(comparison, metric, f"score-{i}"), _differences(comparison, metric, f"difference-{i}")]
    return [dots.figure(chart) for chart in charts if chart]


def reading_note(comparison: Comparison) -> str:
    """How the dots, intervals and lines are to be read, and on how many seeds and items they stand."""
    said = [
        "Dot: mean over seeds. Whisker: 95\u202f% interval, a bootstrap over seeds and prompts (or pairs). Faint dots: single seeds.",
        "Dashed line: the untrained model, tinted its own interval (over prompts alone).",
    ]
    if comparison.baseline and others(comparison):
        said.append(
            f"Beside it: the paired difference to the baseline (square), {clipped(comparison.baseline.name, 60)}; the line is at 0."
        )
    return " ".join(said)


def _unmeasured(comparison: Comparison) -> list[Html]:
    missing = [metric for metric in comparison.metrics if metric not in measured(comparison)]
    return [note("Not measured: " + ", ".join(metric.title for metric in missing) + ".")] if missing else []


def _scores(comparison: Comparison, metric: Metric, id_: str) -> DotChart:
    base = comparison.base.get(metric.id)
    return DotChart(
        id_,
        metric.title,
        ", ".join(part for part in (unit(metric), BETTER[metric.better]) if part),
        tuple(_score_row(comparison, metric, pipeline) for pipeline in comparison.pipelines),
        partial(tick_labels, metric),
        (f"untrained {spelled(metric, base.mean)}", base) if base else None,
        SHARES if is_share(metric) else None,
        " ".join(part for part in (metric.note, sizes(comparison, metric)) if part),
    )


def sizes(comparison: Comparison, metric: Metric) -> str:
    """'5 seeds, 120 items each.'; a range where pipelines differ."""
    scores = [pipeline.scores[metric.id] for pipeline in comparison.pipelines if metric.id in pipeline.scores]
    seeds = sorted({len(score.per_seed) for score in scores})
    items = sorted({score.num_items for score in scores if score.num_items is not None})
    said = f"{_range(seeds)} {'seed' if seeds == [1] else 'seeds'}" if seeds != [0] else ""
    return f"n: {said}{', ' if said else ''}{_range(items)} items." if items else f"n: {said}." if said else ""


def _range(values: list[int] | list[float]) -> str:
    return count(values[0]) if len(values) == 1 else f"{count(values[0])} to {count(values[-1])}"


def _score_row(comparison: Comparison, metric: Metric, pipeline: Pipeline) -> Row:
    score = pipeline.scores.get(metric.id)
    if score is None:
        return Row(pipeline.name, _detail(comparison, pipeline), None, "\u2013", "not measured", "same", pipeline.is_baseline)
    has_interval = score.low is not None and score.high is not None
    beneath = f"{plain(metric, score.low or 0.0)} to {plain(metric, score.high or 0.0)}" if has_interval else "no interval"
    style = "base" if pipeline.is_baseline else "scored"
    return Row(pipeline.name, _detail(comparison, pipeline), score, spelled(metric, score.mean), beneath, style, pipeline.is_baseline)


def _detail(comparison: Comparison, pipeline: Pipeline) -> str:
    said = ["baseline"] if pipeline.is_baseline else []
    if pipeline.scores and pipeline.num_seeds < comparison.num_seeds:
        said.append(f"{pipeline.num_seeds} of {comparison.num_seeds} seeds")
    return ", ".join(said)


def _differences(comparison: Comparison, metric: Metric, id_: str) -> DotChart | None:
    baseline = comparison.baseline
    if baseline is None or not any(metric.id in pipeline.against for pipeline in comparison.pipelines):
        return None
    return DotChart(
        id_,
        f"Difference to {fitted(baseline.name, 190)}",
        ", ".join(part for part in (metric.title, unit_of_difference(metric)) if part),
        tuple(_difference_row(metric, pipeline) for pipeline in comparison.pipelines),
        partial(tick_labels, metric, is_difference=True),
        ("as the baseline", ZERO),
    )


def _difference_row(metric: Metric, pipeline: Pipeline) -> Row:
    if pipeline.is_baseline:
        return Row(pipeline.name, "baseline", ZERO, "", "", "base", is_baseline=True)
    difference = pipeline.against.get(metric.id)
    word = outcome(metric, difference)
    if difference is None:
        return Row(pipeline.name, "", None, "\u2013", word, "same")
    return Row(pipeline.name, "", difference, signed(metric, difference.mean), word, TONES[word])


def table_section(comparison: Comparison) -> Html:
    """Every score with its interval; behind it the differences and the single seeds."""
    metrics = measured(comparison)
    if not metrics:
        return note(NO_SCORES)
    heads = ["pipeline", *(metric.title for metric in metrics)]
    rows: list[list[Child]] = [
        [name_of(pipeline.name), *(_score_cell(metric, pipeline) for metric in metrics)] for pipeline in comparison.pipelines
    ]
    if comparison.base:
        rows.append(["untrained model", *(_cell(metric, comparison.base.get(metric.id)) for metric in metrics)])
    parts = [
        note("Mean over seeds, beneath it the 95\u202f% interval. Arrows in the head: which way is better."),
        table(
            [heads[0], *(f"{head}\u00a0{_ARROWS[m.better]}".strip("\u00a0") for head, m in zip(heads[1:], metrics, strict=True))],
            rows,
            name="Scores",
            class_="scroll figures-table",
        ),
    ]
    return join([*parts, _differences_table(comparison, metrics, heads), _seeds_table(comparison, metrics, heads)])


_ARROWS = {"higher": "\u2191", "lower": "\u2193", "none": ""}


def _score_cell(metric: Metric, pipeline: Pipeline) -> Html:
    return _cell(metric, pipeline.scores.get(metric.id))


def _cell(metric: Metric, score: Estimate | None) -> Html:
    if score is None:
        return datum(None, "")
    between = interval(metric, score)
    return join([exact(metric, score.mean), element("small", between) if between else None])


def _differences_table(comparison: Comparison, metrics: tuple[Metric, ...], heads: list[str]) -> Html | None:
    if comparison.baseline is None or not any(pipeline.against for pipeline in comparison.pipelines):
        return None
    rows = [[name_of(pipeline.name), *(_difference_cell(metric, pipeline) for metric in metrics)] for pipeline in others(comparison)]
    summary = f"Differences to {clipped(comparison.baseline.name, 60)}, with their intervals"
    return _folded(summary, table(heads, rows, name="Differences to the baseline", class_="scroll figures-table"))


def _difference_cell(metric: Metric, pipeline: Pipeline) -> Html:
    difference = pipeline.against.get(metric.id)
    if difference is None:
        return datum(None, "")
    word = outcome(metric, difference)
    beneath = element("small", interval_of_difference(metric, difference))
    return join([exact_difference(metric, difference.mean), beneath, element("small", word, class_=TONES[word])])


def _seeds_table(comparison: Comparison, metrics: tuple[Metric, ...], heads: list[str]) -> Html | None:
    rows = [[name_of(pipeline.name), *(_seeds_cell(metric, pipeline) for metric in metrics)] for pipeline in comparison.pipelines]
    if not any(score.per_seed for pipeline in comparison.pipelines for score in pipeline.scores.values()):
        return None
    return _folded("The means of single seeds", table(heads, rows, name="Single seeds", class_="scroll figures-table"))


def _seeds_cell(metric: Metric, pipeline: Pipeline) -> Html:
    score = pipeline.scores.get(metric.id)
    seeds = score.per_seed[: dots.MAX_SEEDS] if score else ()
    return join([element("div", exact(metric, seed)) for seed in seeds]) if seeds else datum(None, "")


def _folded(summary: str, content: Html) -> Html:
    return element("details", element("summary", summary), content)
