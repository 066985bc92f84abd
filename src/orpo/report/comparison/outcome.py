"""Better, worse, or not told apart: a metric and a paired difference enter, one word leaves, by one rule for the whole page."""

from __future__ import annotations

from typing import Literal

from orpo.report.comparison.reading import Comparison, Estimate, Metric, Pipeline

Outcome = Literal["better", "worse", "higher", "lower", "not told apart", "not measured"]

RULE = (
    "Better or worse: the 95\u202f% interval of the paired difference to the baseline (same seeds, same prompts) leaves out 0. "
    "Not told apart: it holds 0."
)
TONES: dict[Outcome, str] = {
    "better": "better",
    "worse": "worse",
    "higher": "apart",
    "lower": "apart",
    "not told apart": "same",
    "not measured": "same",
}
"""The class of each outcome in comparison.css."""


def outcome(metric: Metric, difference: Estimate | None) -> Outcome:
    """How a pipeline with this difference to the baseline did; `higher` and `lower` where neither is better."""
    if difference is None or difference.low is None or difference.high is None:
        return "not measured"
    if difference.low <= 0 <= difference.high:
        return "not told apart"
    is_higher = difference.low > 0
    if metric.better == "none":
        return "higher" if is_higher else "lower"
    return "better" if is_higher == (metric.better == "higher") else "worse"


def others(comparison: Comparison) -> tuple[Pipeline, ...]:
    """The pipelines that are compared with the baseline."""
    return tuple(pipeline for pipeline in comparison.pipelines if not pipeline.is_baseline)


def measured(comparison: Comparison) -> tuple[Metric, ...]:
    """The metrics that at least one pipeline has a score for, the main one first."""
    return tuple(metric for metric in comparison.metrics if any(metric.id in pipeline.scores for pipeline in comparison.pipelines))
