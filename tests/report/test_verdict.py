"""The three sentences and the alarms, by the rules printed beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpo.core.intervals import wilson_interval
from orpo.report.alarms import Alarm, alarms
from orpo.report.markup import plain_text
from orpo.report.verdict import verdict
from orpo.runs.summary import RunData, RunSummary

Rows = list[dict[str, Any]]


def a_run(rows: Rows | None = None, **sections: Any) -> RunData:
    summary = RunSummary("done", ("orpo",), "2026-01-05T10:00:00+00:00", sections=sections)
    return RunData(Path("run"), None, tuple(rows) if rows is not None else None, None, None, None, summary, None)


def evaluated(before: int | None, after: int, *, num: int = 100, nll: tuple[float, float] = (2.0, 1.5), **after_more: float) -> RunData:
    evaluation: dict[str, Any] = {"after": {"num_pairs": num, "accuracy": after / num, "nll_loss": nll[1], **after_more}}
    if before is not None:
        evaluation["before"] = {"num_pairs": num, "accuracy": before / num, "nll_loss": nll[0]}
    return a_run(evaluation=evaluation)


def sentences(run: RunData) -> list[str]:
    return [plain_text(sentence.content).replace("\u202f", " ") for sentence in verdict(run, alarms(run))]


@pytest.mark.parametrize(
    ("before", "after", "outcome", "tone"),
    [
        (52, 88, "a clear gain", "good"),
        (52, 60, "a gain that may be chance", "plain"),
        (52, 52, "no change", "plain"),
        (60, 52, "a loss that may be chance", "plain"),
        (88, 52, "a clear loss", "bad"),
    ],
)
def test_accuracy_is_judged_against_its_own_start_by_whether_intervals_overlap(before: int, after: int, outcome: str, tone: str) -> None:
    run = evaluated(before, after)
    assert sentences(run)[0].endswith(f": {outcome}.")
    assert verdict(run, ())[0].tone == tone


def test_clear_begins_exactly_where_the_wilson_intervals_part() -> None:
    start_high = wilson_interval(52, 100)[1]
    first_clear = next(after for after in range(52, 101) if wilson_interval(after, 100)[0] > start_high)
    assert sentences(evaluated(52, first_clear))[0].endswith("a clear gain.")
    assert sentences(evaluated(52, first_clear - 1))[0].endswith("a gain that may be chance.")


def test_the_sentence_gives_both_shares_their_intervals_and_the_number_of_pairs() -> None:
    assert sentences(evaluated(52, 88))[0] == (
        "The model tells 88 % of 100 held-out pairs apart (95 % interval 80 % to 93 %); "
        "before training it was 52 % (95 % interval 42 % to 62 %): a clear gain."
    )


def test_intervals_of_the_file_are_used_where_it_has_them() -> None:
    run = evaluated(52, 88, accuracy_low=0.31, accuracy_high=0.99)
    assert "(95 % interval 31 % to 99 %)" in sentences(run)[0]


def test_without_a_start_there_is_no_claim_of_a_gain() -> None:
    assert sentences(evaluated(None, 88))[0].endswith("its start was not measured, so nothing can be said about a gain.")


@pytest.mark.parametrize(("end", "word"), [(1.5, "fell"), (1.985, "held"), (2.015, "held"), (2.5, "rose")])
def test_nll_fell_or_rose_only_beyond_one_percent_of_its_start(end: float, word: str) -> None:
    assert sentences(evaluated(52, 88, nll=(2.0, end)))[1].startswith(
        f"The NLL of the chosen held-out answers {word} from 2.00 to {end:.2f} "
    )


def test_without_held_out_pairs_the_page_says_so_and_speaks_of_training_alone() -> None:
    said = sentences(a_run([{"step": i, "split": "train", "nll_loss": 2.0 - i / 10} for i in range(5)]))
    assert said[0].startswith("Nothing was measured on held-out pairs")
    assert said[1].startswith("On its own training pairs the NLL went from 2.00 to 1.60")


def test_a_run_that_ended_early_is_judged_by_its_logged_held_out_rows() -> None:
    rows = [
        {"step": step, "split": "eval", "rewards/accuracies": right / 100, "num_pairs": 100}
        for step, right in ((0, 50), (20, 70), (40, 90))
    ]
    assert sentences(a_run(rows))[0].startswith(
        "The model tells 90 % of 100 held-out pairs apart (95 % interval 83 % to 94 %) at step 40; before training it was 50 %"
    )


def test_a_start_and_an_end_of_the_same_step_are_one_measurement() -> None:
    figures = {"step": 30, "num_pairs": 100, "accuracy": 0.7}
    assert "its start was not measured" in sentences(a_run(evaluation={"before": figures, "after": figures}))[0]


def test_a_first_measurement_after_the_first_step_is_not_called_before_training() -> None:
    before, after = ({"step": step, "num_pairs": 100, "accuracy": accuracy} for step, accuracy in ((25, 0.5), (50, 0.9)))
    run = a_run(evaluation={"before": before, "after": after})
    assert "at step 50; at step 25 it was 50 %" in sentences(run)[0]


def test_one_held_out_row_is_an_end_and_no_start() -> None:
    rows = [{"step": 20, "split": "eval", "rewards/accuracies": 0.7, "num_pairs": 100}]
    assert "its start was not measured" in sentences(a_run(rows))[0]


def one(run: RunData, name: str) -> Alarm:
    return next(alarm for alarm in alarms(run) if alarm.name.startswith(name))


def logps(chosen: float, rejected: float) -> RunData:
    return a_run(evaluation={"after": {"num_pairs": 10, "accuracy": 1.0, "logps/chosen": chosen, "logps/rejected": rejected}})


@pytest.mark.parametrize(
    ("chosen", "rejected", "state"),
    [(-0.05, -7.0, "alarm"), (-0.29, -5.1, "alarm"), (-0.31, -7.0, "clear"), (-0.05, -4.9, "clear"), (-1.4, -2.4, "clear")],
)
def test_chosen_near_zero_with_rejected_far_down_is_an_alarm(chosen: float, rejected: float, state: str) -> None:
    assert one(logps(chosen, rejected), "Chosen near 0").state == state


def test_without_held_out_pairs_the_smoothed_training_line_shows_a_collapse() -> None:
    rows = [{"step": i, "split": "train", "logps/chosen": -0.1, "logps/rejected": -9.0} for i in range(3)]
    assert one(a_run(rows), "Chosen near 0").state == "alarm"


def held_out_nll(*values: float) -> RunData:
    return a_run([{"step": i, "split": "eval", "nll_loss": value} for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((2.0, 1.5, 1.4), "clear"),
        ((2.0, 1.0, 1.019), "clear"),
        ((2.0, 1.0, 1.021), "alarm"),
        ((2.0,), "not measured"),
        ((), "not measured"),
    ],
)
def test_held_out_nll_two_percent_above_its_lowest_is_an_alarm(values: tuple[float, ...], state: str) -> None:
    assert one(held_out_nll(*values), "Held-out NLL").state == state


@pytest.mark.parametrize(("before", "after", "state"), [(52, 51, "alarm"), (52, 52, "clear"), (None, 88, "not measured")])
def test_accuracy_under_its_start_is_an_alarm(before: int | None, after: int, state: str) -> None:
    assert one(evaluated(before, after), "Accuracy under").state == state


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"loss": 1.0, "grad_norm": 0.5}, "clear"),
        ({"loss": None}, "alarm"),
        ({"loss": 1.0, "grad_norm": None}, "alarm"),
        ({"loss": 1.0, "non_finite": ["rewards/margins"]}, "alarm"),
    ],
)
def test_a_value_that_is_not_finite_is_an_alarm(row: dict[str, Any], state: str) -> None:
    run = a_run([{"step": 1, "split": "train", "loss": 1.0}, {"step": 2, "split": "train", **row}])
    assert one(run, "Values").state == state
    assert ("the first at step 2" in one(run, "Values").found) == (state == "alarm")


def test_clamps_are_added_up_over_all_rows() -> None:
    rows = [{"step": i, "split": split, "odds_clamped": 2} for i in range(2) for split in ("train", "eval")]
    assert (one(a_run(rows), "Clamped").state, one(a_run(rows), "Clamped").found) == ("alarm", "8 answers")
    assert one(a_run([{"step": 1, "split": "train", "odds_clamped": 0}]), "Clamped").state == "clear"
    assert one(a_run([{"step": 1, "split": "train"}]), "Clamped").state == "not measured"


def test_what_the_run_itself_reported_is_an_alarm_too() -> None:
    run = a_run([], alarms=["2 steps were skipped", {"name": "Long answers", "rule": "over 100 tokens", "found": "7 answers"}])
    assert [(alarm.name, alarm.found) for alarm in alarms(run)[-2:]] == [
        ("Reported by the run", "2 steps were skipped"),
        ("Long answers", "7 answers"),
    ]
    assert "long answers" in sentences(run)[2]


def test_the_third_sentence_counts_what_fired_and_what_could_not_be_measured() -> None:
    rows = [{"step": 1, "split": "train", "loss": None, "odds_clamped": 0}]
    assert sentences(a_run(rows))[2] == "1 of 2 checks raised an alarm (4 could not be measured): values that are not finite."
    clean = [{"step": 1, "split": "train", "loss": 1.0, "odds_clamped": 0}]
    assert sentences(a_run(clean))[2] == "No alarm in 2 checks (4 could not be measured)."


@pytest.mark.parametrize("summary", [None, RunSummary("running", (), "now")])
def test_a_run_with_nothing_measured_has_three_sentences_and_claims_nothing(summary: RunSummary | None) -> None:
    run = RunData(Path("run"), None, None, None, None, None, summary, None)
    assert [sentence.tone for sentence in verdict(run, alarms(run))] == ["plain", "plain", "plain"]
