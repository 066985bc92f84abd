"""The verdict on a comparison, made by rules that stand beside it: a comparison enters, sentences with their rules leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orpo.report.comparison.outcome import RULE, Outcome, measured, others, outcome
from orpo.report.comparison.reading import Comparison, Estimate, Metric, Pipeline
from orpo.report.comparison.spelling import exact, exact_difference, interval, interval_of_difference, is_share, unit_of_difference
from orpo.report.comparison.tuning import on_the_edge, tuned_stages
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, duration, percent, short
from orpo.report.verdict import Sentence
from orpo.report.whole_page import name_of

EQUAL_COST = 0.02
MAX_WITH_FIGURES = 4
BASE_RULE = "Better or worse than untrained: the 95\u202f% intervals of the two do not overlap."
COST_RULE = (
    f"Lowest total over all stages, mean over seeds, tuning aside; within {percent(EQUAL_COST)} of the lowest counts as equally cheap. "
    "Tokens: those of the policy and of the reference."
)
MISSING_RULE = "Each training that failed (a shared one for each of its pipelines), each seed and each metric without a value is counted."
EDGE_RULE = "On the edge: the chosen value of a setting is the lowest or the highest that was tried, so a better one may lie beyond."
_GROUPS: tuple[tuple[Outcome, str], ...] = (
    ("better", "Better"),
    ("worse", "Worse"),
    ("higher", "Higher"),
    ("lower", "Lower"),
    ("not told apart", "Not told apart"),
    ("not measured", "Not measured"),
)


def verdict(comparison: Comparison) -> tuple[Sentence, ...]:
    """What the comparison says: the main metric, the untrained model, cost, what is missing, and how sure its tuning was."""
    metrics = measured(comparison)
    if not metrics:
        return (Sentence(join(["No pipeline has scores yet, so nothing can be said."]), "No scores, no claim."), *_missing(comparison))
    main = metrics[0]
    return (_main(comparison, main), *_untrained(comparison, main), *_cost(comparison), *_missing(comparison), *_edges(comparison))


def _main(comparison: Comparison, metric: Metric) -> Sentence:
    baseline, rivals = comparison.baseline, others(comparison)
    if baseline is None or metric.id not in baseline.scores:
        return Sentence(join([f"The baseline has no {metric.title}, so nothing is compared with it."]), RULE)
    said: list[Child] = [
        "On ",
        metric.title,
        ", the baseline ",
        _name(baseline),
        " reaches ",
        *_figure(metric, baseline.scores[metric.id]),
        ". ",
    ]
    if not rivals:
        return Sentence(join([*said, "There is no other pipeline to compare it with."]), "One pipeline, no difference.")
    groups = [(title, [p for p in rivals if outcome(metric, p.against.get(metric.id)) == word]) for word, title in _GROUPS]
    for title, members in groups:
        said += [element("span", element("strong", f"{title}: "), *_members(metric, members), ". ", class_="group")] if members else []
    compared = sum(metric.id in pipeline.against for pipeline in rivals)
    chance = f" One interval in 20 leaves out 0 by chance; {count(compared)} are shown here." if compared > 1 else ""
    return Sentence(join(said), RULE + chance)


def _members(metric: Metric, members: Sequence[Pipeline]) -> list[Child]:
    """The names, the best first, with their differences where they are few; all of them stand in the chart below."""
    said: list[Child] = []
    sign = 1 if metric.better == "lower" else -1
    differences = {pipeline.name: sign * pipeline.against[metric.id].mean for pipeline in members if metric.id in pipeline.against}
    for i, pipeline in enumerate(sorted(members, key=lambda pipeline: differences.get(pipeline.name, 0.0))):
        said += [", " if i else None, _name(pipeline)]
        difference = pipeline.against.get(metric.id)
        if difference is not None and len(members) <= MAX_WITH_FIGURES:
            said += [" (", *_difference(metric, difference), ")"]
    return said


def _difference(metric: Metric, difference: Estimate) -> list[Child]:
    unit = "points" if is_share(metric) else unit_of_difference(metric)
    said: list[Child] = [exact_difference(metric, difference.mean), f" {unit}" if unit else None]
    between = interval_of_difference(metric, difference)
    return [*said, ", ", between] if between else said


def _untrained(comparison: Comparison, metric: Metric) -> list[Sentence]:
    base = comparison.base.get(metric.id)
    scored = [pipeline for pipeline in comparison.pipelines if metric.id in pipeline.scores]
    if base is None or base.low is None or base.high is None or metric.better == "none":
        return []
    better = sum(_lies(pipeline.scores[metric.id], base) == metric.better for pipeline in scored)
    worse = [pipeline for pipeline in scored if _lies(pipeline.scores[metric.id], base) not in (metric.better, "overlapping")]
    said: list[Child] = [f"{count(better)} of {count(len(scored))} {'pipeline' if len(scored) == 1 else 'pipelines'} "]
    said += ["does" if better == 1 else "do", " better than the untrained model, which reaches ", *_figure(metric, base)]
    said += ["; worse than it: ", *_names(worse)] if worse else []
    tone = "bad" if worse or not better else "good" if better == len(scored) else "plain"
    return [Sentence(join([*said, "."]), BASE_RULE, tone)]


def _lies(score: Estimate, base: Estimate) -> str:
    if score.low is None or score.high is None or base.low is None or base.high is None:
        return "overlapping"
    return "higher" if score.low > base.high else "lower" if score.high < base.low else "overlapping"


def _cost(comparison: Comparison) -> list[Sentence]:
    """Who is cheapest in time, tokens and memory, and how much the dearest takes."""
    kinds: tuple[tuple[str, Callable[[Pipeline], float | None], Callable[[float], str]], ...] = (
        ("seconds", lambda p: as_number(p.total.get("seconds")), duration),
        ("tokens", total_tokens, count),
        ("peak memory", lambda p: as_number(p.total.get("peak_memory_gib")), lambda value: f"{short(value)}\u202fGiB"),
    )
    said: list[Child] = []
    for kind, value_of, spelling in kinds:
        values = [(value, pipeline) for pipeline in comparison.pipelines if (value := value_of(pipeline)) is not None]
        if len(values) < 2:
            continue
        lowest = min(value for value, _ in values)
        highest, dearest = max(values, key=lambda pair: pair[0])
        cheapest = [pipeline for value, pipeline in values if value <= lowest * (1 + EQUAL_COST)]
        said += [" " if said else None, f"Cheapest in {kind}: "]
        if len(cheapest) == len(values):
            said += ["all alike (", datum(lowest, spelling(lowest)), ")."]
        else:
            times: list[Child] = ["; ", _name(dearest), f" takes {short(highest / lowest)} times that"] if lowest > 0 else []
            said += [*_names(cheapest), " (", datum(lowest, spelling(lowest)), *times, ")."]
    return [Sentence(join(said), COST_RULE)] if said else []


def total_tokens(pipeline: Pipeline) -> float | None:
    """Tokens that were computed in all stages, those of the reference included; None where they were not counted."""
    own, reference = (as_number(pipeline.total.get(key)) for key in ("tokens", "reference_tokens"))
    return None if own is None else own + (reference or 0.0)


def _missing(comparison: Comparison) -> list[Sentence]:
    """Everything that is not there, in one sentence; nothing is said when all is there."""
    said: list[Child] = []
    asked, failed, tuning_seed = comparison.num_seeds, len(comparison.failures), as_number(comparison.tuned_by.get("seed"))
    trials = sum(failure.seed is not None and failure.seed == tuning_seed for failure in comparison.failures)
    if comparison.status == "running":
        waiting = sum(not pipeline.scores for pipeline in comparison.pipelines)
        said.append(f"The comparison is still going: {count(waiting)} of {count(len(comparison.pipelines))} pipelines have no scores yet. ")
    if failed:
        of_tuning = f", {count(trials)} of them in tuning" if trials else ""
        said.append(f"{count(failed)} {'training' if failed == 1 else 'trainings'} failed{of_tuning} (see Failures). ")
    fewer = [p for p in comparison.pipelines if p.scores and p.num_seeds < asked]
    if fewer:
        said += ["Fewer than ", f"{count(asked)} seeds: "]
        said += [part for i, p in enumerate(fewer) for part in (", " if i else None, _name(p), f" ({p.num_seeds})")] + [". "]
    holes = [m for m in comparison.metrics if any(p.scores and m.id not in p.scores for p in comparison.pipelines)]
    if holes:
        said.append(f"Not measured for all: {', '.join(metric.title for metric in holes)}. ")
    if asked == 1:
        said.append("There is one seed only: no interval holds what another seed would change.")
    return [Sentence(join(said), MISSING_RULE, "bad")] if said else []


def _edges(comparison: Comparison) -> list[Sentence]:
    """How many tuned stages chose a value on the edge of their grid."""
    stages = tuned_stages(comparison)
    edged = [stage for stage in stages if on_the_edge(stage)]
    if not edged:
        return []
    said: list[Child] = [f"{count(len(edged))} of {count(len(stages))} tuned stages chose a value on the edge of their grid"]
    if len(edged) <= MAX_WITH_FIGURES:
        said += [": ", *(part for i, stage in enumerate(edged) for part in ("; " if i else None, name_of(stage.title)))]
    return [Sentence(join([*said, "."]), EDGE_RULE)]


def _figure(metric: Metric, estimate: Estimate) -> list[Child]:
    mean, between = exact(metric, estimate.mean, class_="figure"), interval(metric, estimate)
    return [mean, " (", between, ")"] if between else [mean]


def _names(pipelines: Sequence[Pipeline]) -> list[Child]:
    return [part for i, pipeline in enumerate(pipelines) for part in (", " if i else None, _name(pipeline))]


def _name(pipeline: Pipeline) -> Html:
    return name_of(pipeline.name)
