"""What `orpo eval` measured of a run: its evaluations enter, the sections on win rates and on benchmarks leave, or that there are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orpo.report import facts
from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, percent, short
from orpo.report.tables import table
from orpo.report.whole_page import note
from orpo.runs.evaluations import Evaluation, Kind
from orpo.runs.summary import RunData

MAX_ROWS = 40

WIN_RATE_HEADS = (
    "against",
    "judge",
    "won / ties / lost",
    "win rate",
    "bootstrap",
    "lengths within 10 %",
    "characters, other",
    "flips",
    "replies",
)
BENCHMARK_HEADS = ("task", "metric", "value", "standard error", "documents", "with")
DIVERSITY_HEADS = ("prompts", "samples of each", "within a prompt", "across prompts", "of what")
PAIRS_HEADS = ("pairs of", "pairs", "told apart", "chosen minus rejected")

WIN_RATE_NOTE = (
    "The share of prompts whose reply by this run a judge prefers; a tie is half a win. Both models answer the same prompts. "
    "In brackets the 95 % Wilson interval; judges often prefer long replies, so the same share is given for replies whose lengths differ "
    "by at most 10 %. Flips are verdicts that changed when the judge read the replies in the other order; each counts as a tie."
)
NO_WIN_RATE = "Not measured. It takes a judge: orpo eval RUN --vs base --judge JUDGE --prompts FILE."
BENCHMARKS_NOTE = "Figures of the lm-eval library, each with its standard error."
NO_BENCHMARKS = "Not measured. Any task of the lm-eval library can be: orpo eval RUN --tasks ifeval."
DIVERSITY_NOTE = (
    "Mean cosine similarity of sampled replies: between samples of one prompt, and between first samples of different prompts. "
    "Lower is more diverse."
)
PAIRS_NOTE = "Pairs that orpo eval was given after training. In brackets the 95 % Wilson interval."

Figures = Mapping[str, Any]


def win_rate_section(run: RunData) -> Html:
    """Every win rate that was measured of the run."""
    found = _of(run, "win_rate")
    if not found:
        return note(NO_WIN_RATE)
    return join(
        [note(WIN_RATE_NOTE), _table(WIN_RATE_HEADS, (_win_rate_row(run, one) for one in found), name="Win rates", total=len(found))]
    )


def benchmarks_section(run: RunData) -> Html:
    """Benchmarks, and under headings of their own what else was measured: diversity of replies, pairs."""
    found, diverse, pairs = (_of(run, kind) for kind in ("benchmark", "diversity", "pairs"))
    parts: list[Html | None] = [note(BENCHMARKS_NOTE if found else NO_BENCHMARKS)]
    if found:
        rows = [row for one in found for row in _benchmark_rows(run, one)]
        parts.append(_table(BENCHMARK_HEADS, rows, name="Benchmarks", total=len(rows)))
    if diverse:
        parts += [element("h3", "Diversity of replies"), note(DIVERSITY_NOTE)]
        parts.append(
            _table(DIVERSITY_HEADS, (_diversity_row(run, one) for one in diverse), name="Diversity of replies", total=len(diverse))
        )
    if pairs:
        parts += [element("h3", "Held-out pairs"), note(PAIRS_NOTE)]
        parts.append(_table(PAIRS_HEADS, (_pairs_row(run, one) for one in pairs), name="Held-out pairs", total=len(pairs)))
    return join(parts)


def _of(run: RunData, kind: Kind) -> list[Evaluation]:
    return [evaluation for evaluation in run.evaluations if evaluation.kind == kind]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Child]], *, name: str, total: int) -> Html:
    """A table of the latest MAX_ROWS rows; where there are more, that is said."""
    shown = list(rows)[-MAX_ROWS:]
    more = note(f"The latest {MAX_ROWS} of {total} are shown.") if total > MAX_ROWS else None
    return join([table(heads, shown, name=name), more])


def _win_rate_row(run: RunData, evaluation: Evaluation) -> Sequence[Child]:
    figures, settings = evaluation.figures, evaluation.settings
    counts = join([_count(figures, "wins"), " / ", _count(figures, "ties"), " / ", _count(figures, "losses")])
    low, high = (as_number(figures.get(f"win_rate_bootstrap_{side}")) for side in ("low", "high"))
    bootstrap = "" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    matched = join([_share(figures, "length_matched/win_rate"), " of ", _count(figures, "length_matched/num_prompts")])
    lengths = join([_count(figures, "mean_characters"), ", ", _count(figures, "mean_characters_other")])
    flips = _count(figures, "num_flips") if settings.get("judge_has_order") else "no order"
    return (
        _when(run, evaluation, str(settings.get("vs", ""))),
        join([clipped(str(settings.get("judge", "")), 120), _tied(settings)]),
        counts,
        _share(figures, "win_rate"),
        bootstrap,
        matched if as_number(figures.get("length_matched/num_prompts")) else "none",
        lengths,
        flips,
        _how(settings),
    )


def _tied(settings: Figures) -> Html | None:
    """Which scores are a tie."""
    within = as_number(settings.get("tie_within"))
    if within is None:
        return None
    return element("small", f" ties: {'equal scores' if within == 0 else f'at most {short(within)} apart'}")


def _how(settings: Figures) -> str:
    """How replies were made."""
    temperature, tokens = as_number(settings.get("temperature")), as_number(settings.get("max_new_tokens"))
    how = "greedy" if temperature == 0 else f"sampled at temperature {short(temperature)}" if temperature is not None else ""
    cut = [as_number(settings.get(name)) or 0 for name in ("num_cut", "num_cut_other")]
    told = f"{how}, at most {count(tokens)} tokens" if tokens is not None else how
    return told + (f"; {count(cut[0])} and {count(cut[1])} were cut there" if any(cut) else "")


def _benchmark_rows(run: RunData, evaluation: Evaluation) -> list[Sequence[Child]]:
    task, figures = str(evaluation.settings.get("task", "")), evaluation.figures
    rows: list[Sequence[Child]] = []
    for name, value in figures.items():
        metric = name.removeprefix(f"{task}/")
        if "_stderr" in metric or metric == "num_documents":
            continue
        base, comma, kept = name.partition(",")
        error = as_number(figures.get(f"{base}_stderr{comma}{kept}"))
        number = as_number(value)
        rows.append(
            (
                _when(run, evaluation, task),
                clipped(metric, 80),
                datum(number, _figure(number)),
                datum(error, _figure(error)) if error is not None else "not given",
                _count(figures, f"{task}/num_documents"),
                clipped(str(evaluation.settings.get("library", "")), 80),
            )
        )
    return rows


def _diversity_row(run: RunData, evaluation: Evaluation) -> Sequence[Child]:
    figures = evaluation.figures
    values = [as_number(figures.get(f"diversity/{name}")) for name in ("per_input", "across_inputs")]
    return (
        _when(run, evaluation, count(as_number(figures.get("diversity/num_prompts")) or 0)),
        _count(figures, "diversity/num_samples"),
        *(datum(value, _figure(value)) for value in values),
        clipped(str(evaluation.settings.get("embedding", "")), 200),
    )


def _pairs_row(run: RunData, evaluation: Evaluation) -> Sequence[Child]:
    figures, files = evaluation.figures, facts.sequence(evaluation.settings.get("data"))
    margin = as_number(figures.get("margin"))
    return (
        _when(run, evaluation, ", ".join(map(str, files))),
        _count(figures, "num_pairs"),
        _share(figures, "accuracy"),
        datum(margin, _figure(margin)),
    )


def _when(run: RunData, evaluation: Evaluation, name: str) -> Child:
    """`name`, and where the run has trained on since it was measured, at which step that was."""
    steps, now = evaluation.steps, facts.reached(run)
    if not isinstance(steps, int) or steps == now:
        return clipped(name, 120)
    return join([clipped(name, 120), element("small", f" measured at step {count(steps)} of {count(now)}")])


def _share(figures: Figures, name: str) -> Html:
    """A share with its interval."""
    value, low, high = (as_number(figures.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return datum(None, "")
    interval = f" ({percent(low)} to {percent(high)})" if low is not None and high is not None else None
    return join([datum(value, percent(value)), interval])


def _count(figures: Figures, name: str) -> Html:
    value = as_number(figures.get(name))
    return datum(value, count(value) if value is not None else "")


def _figure(value: float | None) -> str:
    return "" if value is None else short(value)
