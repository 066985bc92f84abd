"""Three sentences about a run, made by rules that stand beside them: a run enters, sentences with their rules leave."""

from __future__ import annotations

from dataclasses import dataclass

from orpo.report import facts
from orpo.report.alarms import Alarm
from orpo.report.escape import clipped
from orpo.report.facts import HeldOut
from orpo.report.markup import Child, Html, join
from orpo.report.numbers import count, datum, nats, percent
from orpo.report.series import curve
from orpo.runs.summary import RunData

NLL_CHANGE = 0.01

ACCURACY_RULE = (
    "Clear: the two 95\u202f% Wilson intervals do not overlap. Possibly chance: they do. "
    "A pair counts as told apart when the chosen answer has the higher mean log p per token."
)
NLL_RULE = f"Fell or rose: by more than {percent(NLL_CHANGE)} of its start; otherwise it held. NLL of the chosen answers, nats per token."
NO_HELD_OUT = (
    "Nothing was measured on held-out pairs, so this page cannot say whether the model prefers better answers to questions it has not seen."
)
ALARM_RULE = "Each alarm has a threshold, printed in the table of alarms below."


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the verdict, the rule it follows, and its tone: good, bad or plain."""

    content: Html
    rule: str
    tone: str = "plain"


def verdict(run: RunData, found: tuple[Alarm, ...]) -> tuple[Sentence, Sentence, Sentence]:
    """The three sentences: preference accuracy against its own start, NLL, alarms."""
    start, end = facts.held_out(run)
    return _accuracy(start, end), _nll(run, start, end), _alarms(found)


def _accuracy(start: HeldOut | None, end: HeldOut | None) -> Sentence:
    if end is None or end.accuracy is None:
        return Sentence(join([NO_HELD_OUT]), "No held-out measurement, no claim.")
    said: list[Child] = ["The model tells ", _share(end), " of "]
    said += [datum(end.num_pairs, count(end.num_pairs)) if end.num_pairs is not None else "the", " held-out pairs apart ", _interval(end)]
    if not end.when.startswith("after"):
        said.append(f" {end.when}")
    if start is None or start.accuracy is None:
        return Sentence(join([*said, "; its start was not measured, so nothing can be said about a gain."]), ACCURACY_RULE)
    outcome, tone = _compare(start, end)
    return Sentence(
        join([*said, "; ", start.when, " it was ", _share(start), " ", _interval(start), ": ", outcome, "."]), ACCURACY_RULE, tone
    )


def _compare(start: HeldOut, end: HeldOut) -> tuple[str, str]:
    assert start.accuracy is not None
    assert end.accuracy is not None
    if end.accuracy == start.accuracy:
        return "no change", "plain"
    direction = "gain" if end.accuracy > start.accuracy else "loss"
    if start.low is None or start.high is None or end.low is None or end.high is None:
        return f"a {direction} of unknown certainty", "plain"
    if end.low > start.high:
        return "a clear gain", "good"
    return ("a clear loss", "bad") if end.high < start.low else (f"a {direction} that may be chance", "plain")


def _nll(run: RunData, start: HeldOut | None, end: HeldOut | None) -> Sentence:
    if end is None or end.nll is None:
        smooth = curve(facts.rows(run, "train"), "nll_loss").smooth
        if not smooth:
            return Sentence(join(["No NLL was logged."]), NLL_RULE)
        first, last = smooth[0][1], smooth[-1][1]
        text: list[Child] = ["On its own training pairs the NLL went from ", datum(first, nats(first)), " to ", datum(last, nats(last))]
        return Sentence(
            join([*text, " nats per token, which says little about answers it has not seen."]), "Ends of the smoothed training line."
        )
    said: list[Child] = ["The NLL of the chosen held-out answers "]
    if start is None or start.nll is None:
        return Sentence(join([*said, "is ", datum(end.nll, nats(end.nll)), " nats per token; its start was not measured."]), NLL_RULE)
    change = (end.nll - start.nll) / max(abs(start.nll), 1e-12)
    word, tone = ("fell", "good") if change < -NLL_CHANGE else ("rose", "bad") if change > NLL_CHANGE else ("held", "plain")
    numbers: list[Child] = [" from ", datum(start.nll, nats(start.nll)), " to ", datum(end.nll, nats(end.nll)), " nats per token"]
    meaning = {"fell": "it also learned to write them", "rose": "it got worse at writing them", "held": "it writes them as before"}[word]
    return Sentence(join([*said, word, *numbers, f": {meaning}."]), NLL_RULE, tone)


def _alarms(found: tuple[Alarm, ...]) -> Sentence:
    fired = [alarm for alarm in found if alarm.state == "alarm"]
    unknown = sum(alarm.state == "not measured" for alarm in found)
    rest = f" ({unknown} could not be measured)" if unknown else ""
    if not fired:
        return Sentence(
            join([f"No alarm in {len(found) - unknown} checks{rest}."]), ALARM_RULE, "good" if len(found) > unknown else "plain"
        )
    names = "; ".join(clipped(alarm.name[:1].lower() + alarm.name[1:], 80) for alarm in fired)
    return Sentence(join([f"{len(fired)} of {len(found) - unknown} checks raised an alarm{rest}: {names}."]), ALARM_RULE, "bad")


def _share(moment: HeldOut) -> Html:
    assert moment.accuracy is not None
    return datum(moment.accuracy, percent(moment.accuracy), class_="figure")


def _interval(moment: HeldOut) -> Html | None:
    if moment.low is None or moment.high is None:
        return None
    return join(["(95\u202f% interval ", datum(moment.low, percent(moment.low)), " to ", datum(moment.high, percent(moment.high)), ")"])
