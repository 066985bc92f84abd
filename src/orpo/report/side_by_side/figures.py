"""The figures of several runs in one table: named runs enter, one row a figure and one column a run leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from orpo.report import facts
from orpo.report.alarms import alarms
from orpo.report.escape import clipped
from orpo.report.facts import HeldOut
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, duration, nats, percent, short
from orpo.report.side_by_side.runs import NamedRun
from orpo.report.tables import table
from orpo.report.whole_page import note
from orpo.runs.summary import RunData

NOTE = (
    "Held-out figures after training, where not said otherwise, with 95\u202f% intervals, those of each run by itself. "
    "A comparison (orpo compare) pairs runs over seeds and prompts, and says which differences are more than chance."
)


def figures_section(runs: Sequence[NamedRun]) -> Html:
    """The table; a figure that no run has is left out."""
    heads = ["figure", *(clipped(run.name, 60) for run in runs)]
    rows = [[name, *(datum(None, "") if cell is None else cell for cell in cells)] for name, cells in _rows(runs) if any(cells)]
    return join([note(NOTE), table(heads, rows, name="Figures", class_="scroll columns")])


def _rows(runs: Sequence[NamedRun]) -> Iterator[tuple[str, list[Child]]]:
    data = [run.data for run in runs]
    ends = [facts.held_out(run)[1] for run in data]
    yield "status", [run.summary.status if run.summary else "no summary.json" for run in data]
    yield "steps", [datum(facts.reached(run), count(facts.reached(run))) for run in data]
    yield "pairs told apart", [_accuracy(end) for end in ends]
    yield "held-out pairs", [_datum(end.num_pairs if end else None, count) for end in ends]
    yield "NLL of the chosen, nats per token", [_datum(end.nll if end else None, nats) for end in ends]
    yield "log p of the chosen", [_datum(end.chosen if end else None, nats) for end in ends]
    yield "log p of the rejected", [_datum(end.rejected if end else None, nats) for end in ends]
    yield "chosen minus rejected", [_datum(end.margin if end else None, nats) for end in ends]
    yield "oracle score", [_oracle(run) for run in data]
    yield "alarms", [_alarms(run) for run in data]
    yield "time, all sessions", [_datum(run.summary.seconds if run.summary else None, duration) for run in data]
    for key, name, spelled in _COST:
        yield name, [_datum(facts.number(run, key), spelled) for run in data]
    for key, name in (("num_pairs", "pairs seen"), ("num_tokens", "tokens seen")):
        yield name, [_datum(as_number((facts.rows(run, "train") or ({},))[-1].get(key)), count) for run in data]


_COST: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("training_seconds", "time of the training steps", duration),
    ("tokens_per_second", "tokens per second", short),
    ("peak_memory_gib", "peak memory, GiB", short),
    ("parameters", "parameters", short),
    ("trainable_parameters", "trained parameters", short),
)


def _datum(value: float | None, spelled: Callable[[float], str]) -> Html | None:
    return None if value is None else datum(value, spelled(value))


def _accuracy(end: HeldOut | None) -> Html | None:
    if end is None or end.accuracy is None:
        return None
    later = "" if end.when.startswith("after") else end.when
    return join([datum(end.accuracy, percent(end.accuracy)), _between(end.low, end.high), element("small", later) if later else None])


def _oracle(run: RunData) -> Html | None:
    score, low, high = (as_number(facts.oracle(run)[1].get(key)) for key in ("score", "low", "high"))
    return None if score is None else join([datum(score, percent(score)), _between(low, high)])


def _between(low: float | None, high: float | None) -> Html | None:
    if low is None or high is None:
        return None
    return element("small", datum(low, percent(low)), " to ", datum(high, percent(high)))


def _alarms(run: RunData) -> Html:
    fired = [alarm.name for alarm in alarms(run) if alarm.state == "alarm"]
    return element("span", clipped("; ".join(fired), 200) if fired else "none")
