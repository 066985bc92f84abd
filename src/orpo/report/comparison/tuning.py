"""What was equal for all, and how each stage was tuned: a comparison enters, lists and tables of trials leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orpo.report.comparison.reading import Comparison, Metric, Trial
from orpo.report.comparison.spelling import exact
from orpo.report.escape import clipped
from orpo.report.facts import mapping
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, short
from orpo.report.tables import json_cell, pairs_list, table
from orpo.report.whole_page import name_of, note

MAX_TRIALS = 24
MAX_ENTRIES = 40


@dataclass(frozen=True, slots=True)
class TunedStage:
    """The trials of one stage, of all pipelines that share it."""

    pipelines: tuple[str, ...]
    position: int
    num_stages: int
    objective: str
    num_steps: float | None
    trials: tuple[Trial, ...]

    @property
    def title(self) -> str:
        """The objective and, where the pipeline has more than one stage, which of them it is."""
        return f"{self.objective} (stage {self.position + 1} of {self.pipelines[0]})" if self.num_stages > 1 else self.objective


@dataclass(frozen=True, slots=True)
class Edge:
    """A chosen value that is the lowest or the highest of those tried."""

    setting: str
    value: float
    side: str
    num_values: int


def tuned_stages(comparison: Comparison) -> tuple[TunedStage, ...]:
    """Every stage with its trials, each shared one once, under the first pipeline that has it."""
    found: list[TunedStage] = []
    for pipeline in comparison.pipelines:
        for position, stage in enumerate(pipeline.stages):
            trials = tuple(trial for trial in pipeline.trials if trial.stage == position)
            if not trials or any(one.position == position and pipeline.name in one.pipelines for one in found):
                continue
            shared = dict.fromkeys(name for trial in trials for name in trial.shared_with if name != pipeline.name)
            names = (pipeline.name, *shared)
            found.append(TunedStage(names, position, len(pipeline.stages), stage.objective, stage.num_steps, trials))
    return tuple(found)


def on_the_edge(stage: TunedStage) -> tuple[Edge, ...]:
    """The settings of the chosen trial that lie on the edge of their grid; none where only one value was given."""
    chosen = next((trial for trial in stage.trials if trial.is_chosen), None)
    if chosen is None:
        return ()
    return tuple(edge for name, value in chosen.settings.items() if (edge := _edge(stage, name, as_number(value))))


def _edge(stage: TunedStage, name: str, value: float | None) -> Edge | None:
    tried = sorted({number for trial in stage.trials if (number := as_number(trial.settings.get(name))) is not None})
    if value is None or len(tried) < 2 or value not in (tried[0], tried[-1]):
        return None
    return Edge(name, value, "lowest" if value == tried[0] else "highest", len(tried))


def equal_section(comparison: Comparison) -> Html:
    """What all pipelines had in common, then the trials of each stage."""
    equal = comparison.equal
    budget, split = mapping(equal.get("budget")), equal.get("split")
    entries: list[tuple[Child, Child]] = [
        (_NAMES.get(key, key.replace("_", " ")), json_cell(value))
        for key, value in equal.items()
        if key not in ("budget", "split", "settings")
    ]
    if budget:
        entries.insert(
            0, ("budget of each pipeline", join([json_cell(budget.get("amount")), f" {clipped(str(budget.get('kind', '')), 40)}"]))
        )
    settings = mapping(equal.get("settings"))
    parts: list[Html | None] = [
        pairs_list(entries[:MAX_ENTRIES]) if entries else note("What was equal was not recorded."),
        note(_sentence(str(split))) if split else None,
        element("h3", "Settings of every stage") if settings else None,
        pairs_list([(clipped(str(name), 80), json_cell(value)) for name, value in list(settings.items())[:MAX_ENTRIES]])
        if settings
        else None,
    ]
    return join([*parts, element("h3", "How each stage was tuned"), *_tuning(comparison)])


def _sentence(text: str) -> str:
    cut = clipped(text, 300)
    return f"{cut[:1].upper()}{cut[1:].removesuffix('.')}."


_NAMES = {
    "train_pairs": "pairs to train on",
    "validation_pairs": "pairs to tune on",
    "held_out_pairs": "held-out pairs",
    "data_fingerprint": "fingerprint of the data",
    "trials_per_stage": "trials of each stage",
    "pairs_per_step": "pairs a step",
    "jobs": "stages at a time",
    "threads_per_job": "threads of each",
}


def _tuning(comparison: Comparison) -> Iterable[Html | None]:
    stages, by = tuned_stages(comparison), comparison.tuned_by
    if not stages:
        yield note("Nothing was tuned, or no trial has ended yet.")
        return
    metric = next((metric for metric in comparison.metrics if metric.id == by.get("metric")), None)
    said = ["Each stage was tuned by itself, starting from the best of the stage before it."]
    if metric is not None:
        said.append(f"Chosen by {metric.title}")
        said[-1] += f" on {clipped(str(by['on']), 200)}" if by.get("on") else ""
        said[-1] += f", seed {by['seed']}." if as_number(by.get("seed")) is not None else "."
    yield note(" ".join(said))
    yield element("div", *(_stage(stage, metric) for stage in stages), class_="tuned")


def _stage(stage: TunedStage, metric: Metric | None) -> Html:
    names = list(dict.fromkeys(str(name) for trial in stage.trials for name in trial.settings))[:MAX_ENTRIES]
    shown = [trial for i, trial in enumerate(stage.trials) if i < MAX_TRIALS or trial.is_chosen]
    edges = on_the_edge(stage)
    rows = [
        [count(i), *(json_cell(trial.settings.get(name)) for name in names), _metric(trial, metric), _state(trial)]
        for i, trial in enumerate(shown, start=1)
    ]
    heads = ["trial", *(clipped(name, 60) for name in names), metric.title if metric else "metric", "state"]
    rest = f" {len(shown)} of {len(stage.trials)} trials are shown." if len(shown) < len(stage.trials) else ""
    others = [part for i, name in enumerate(stage.pipelines) for part in (", " if i else None, name_of(name))]
    steps = f"{count(stage.num_steps)} steps. " if stage.num_steps is not None else ""
    shared = ["Tuned once for ", *others, "."] if len(stage.pipelines) > 1 else []
    said = element("p", steps, *shared, rest, class_="note") if steps or shared or rest else None
    head = element("h4", name_of(stage.title))
    return element(
        "article", head, said, _warning(edges), table(heads, rows, name=f"Trials of {clipped(stage.title, 80)}"), class_="trials"
    )


def _metric(trial: Trial, metric: Metric | None) -> Html:
    if metric is None:
        return datum(trial.metric, "" if trial.metric is None else short(trial.metric))
    return exact(metric, trial.metric)


def _state(trial: Trial) -> Child:
    if trial.is_chosen:
        return element("strong", "chosen")
    return clipped(f"failed: {trial.error}", 120) if trial.error else ""


def _warning(edges: tuple[Edge, ...]) -> Html | None:
    """What an edge means; where two values were tried every choice lies on one, and the number of values says so."""
    if not edges:
        return None
    words: list[Child] = []
    for i, edge in enumerate(edges):
        words += [" and " if i else None, clipped(edge.setting, 60), " ", datum(edge.value, short(edge.value))]
        words.append(f" ({edge.side} of {count(edge.num_values)} tried)")
    return element("p", "On the edge of the grid: ", *words, ". A better value may lie beyond.", class_="edge")
