"""The signs of a run gone wrong, each with its threshold in words: a run enters, one `Alarm` per rule leaves, also when all is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from orpo.report import facts
from orpo.report.numbers import as_number, count, nats, percent
from orpo.report.series import Row, curve
from orpo.runs.summary import RunData

State = Literal["alarm", "clear", "not measured"]

CHOSEN_NEAR_ZERO = -0.3
REJECTED_FAR_DOWN = -5.0
NLL_RISE = 0.02
FEWEST_REPLIES, ENDING_FALL = 4, 0.2
MAX_REPORTED = 20
_MUST_BE_FINITE = ("loss", "grad_norm")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One rule, whether it fired, and what was found."""

    name: str
    rule: str
    state: State
    found: str


def alarms(run: RunData) -> tuple[Alarm, ...]:
    """Every rule in a fixed order, then whatever the run itself put into summary.json as `alarms`."""
    rules: tuple[Callable[[RunData], Alarm], ...] = (_collapse, _rising_nll, _accuracy_under_start, _endless, _not_finite, _clamped)
    reported = facts.sequence(facts.fact(run, "alarms"))
    more = [f"{len(reported) - MAX_REPORTED} more, in summary.json"] if len(reported) > MAX_REPORTED else []
    return (*(rule(run) for rule in rules), *(_reported(item) for item in (*reported[:MAX_REPORTED], *more)))


def _collapse(run: RunData) -> Alarm:
    rule = f"mean log p of chosen above {nats(CHOSEN_NEAR_ZERO)} while that of rejected is below {nats(REJECTED_FAR_DOWN)} nats per token"
    name = "Chosen near 0, rejected far down"
    _, end = facts.held_out(run)
    chosen, rejected, where = (end.chosen, end.rejected, f"held out, {end.when}") if end else (None, None, "")
    if chosen is None or rejected is None:
        ends = [curve(facts.rows(run, "train"), key).smooth for key in ("logps/chosen", "logps/rejected")]
        if not all(ends):
            return Alarm(name, rule, "not measured", "no log-probs were logged")
        chosen, rejected, where = ends[0][-1][1], ends[1][-1][1], "training, end of the smoothed line"
    fired = chosen > CHOSEN_NEAR_ZERO and rejected < REJECTED_FAR_DOWN
    return Alarm(name, rule, "alarm" if fired else "clear", f"chosen {nats(chosen)}, rejected {nats(rejected)} ({where})")


def _rising_nll(run: RunData) -> Alarm:
    name, rule = "Held-out NLL rising", f"the last held-out NLL lies more than {percent(NLL_RISE)} above the lowest of the run"
    points = list(curve(facts.rows(run, "eval"), "nll_loss").raw)
    if len(points) < 2:
        start, end = facts.held_out(run)
        nlls = [(i, moment.nll) for i, moment in enumerate((start, end)) if moment and moment.nll is not None]
        points = [(float(i), nll) for i, nll in nlls] if len(nlls) == 2 else []
    if not points:
        return Alarm(name, rule, "not measured", "it takes two measurements on held-out pairs")
    last, lowest = points[-1][1], min(nll for _, nll in points)
    fired = last > lowest + NLL_RISE * abs(lowest)
    return Alarm(name, rule, "alarm" if fired else "clear", f"last {nats(last)}, lowest {nats(lowest)}")


def _accuracy_under_start(run: RunData) -> Alarm:
    name, rule = "Accuracy under its start", "fewer held-out pairs are told apart at the end than at the start"
    start, end = facts.held_out(run)
    if start is None or end is None or start.accuracy is None or end.accuracy is None:
        return Alarm(name, rule, "not measured", "it takes a start and an end on held-out pairs")
    fired = end.accuracy < start.accuracy
    return Alarm(name, rule, "alarm" if fired else "clear", f"{percent(start.accuracy)} {start.when}, {percent(end.accuracy)} {end.when}")


def _endless(run: RunData) -> Alarm:
    name = "Answers that stop ending"
    rule = (
        f"the share of replies that end by themselves, before the limit of tokens, fell by more than {percent(ENDING_FALL)} of all replies "
        f"(at least {FEWEST_REPLIES}) from before training to after"
    )
    ended = [(row["before_ended"], row["after_ended"]) for row in run.samples or () if _is_told(row)]
    if len(ended) < FEWEST_REPLIES:
        return Alarm(name, rule, "not measured", f"it takes {FEWEST_REPLIES} prompts with a reply before and after, there are {len(ended)}")
    before, after = (sum(end) for end in zip(*ended, strict=True))
    fired = before - after > ENDING_FALL * len(ended)
    return Alarm(name, rule, "alarm" if fired else "clear", f"{before} of {len(ended)} ended before, {after} after")


def _is_told(row: Row) -> bool:
    """Whether a sample says of both replies if they ended."""
    return all(isinstance(row.get(key), bool) for key in ("before_ended", "after_ended"))


def _not_finite(run: RunData) -> Alarm:
    name, rule = "Values that are not finite", "any logged row holds a NaN or an infinity"
    if run.metrics is None:
        return Alarm(name, rule, "not measured", "there is no metrics.jsonl")
    bad = [
        row for row in run.metrics if row.get("non_finite") or any(key in row and as_number(row[key]) is None for key in _MUST_BE_FINITE)
    ]
    found = f"in {count(len(bad))} of {count(len(run.metrics))} rows" + (f", the first at step {bad[0].get('step')}" if bad else "")
    return Alarm(name, rule, "alarm" if bad else "clear", found)


def _clamped(run: RunData) -> Alarm:
    name, rule = "Clamped odds", "any answer was so likely that its odds were cut off, in training or held out"
    values = [as_number(row["odds_clamped"]) for row in run.metrics or () if "odds_clamped" in row]
    if not values:
        return Alarm(name, rule, "not measured", "no clamps were counted")
    total = sum(value for value in values if value is not None)
    return Alarm(name, rule, "alarm" if total else "clear", f"{count(total)} answers")


def _reported(item: Any) -> Alarm:
    """An alarm that another room raised: a sentence, or an object with `name`, `rule`, `found`."""
    parts = facts.mapping(item)
    if not parts:
        return Alarm("Reported by the run", "as the run itself judged", "alarm", str(item))
    name, rule, found = (str(parts.get(key, default)) for key, default in (("name", "Reported by the run"), ("rule", ""), ("found", "")))
    return Alarm(name, rule or "as the run itself judged", "alarm", found or str(parts.get("message", "")))
