"""Which trainings a comparison has: what is shared, what waits for what, what is chosen, and what is not run after a failure."""

from __future__ import annotations

from collections.abc import Callable

from orpo.comparison.stages import FAILED, Outcome, Plan, Training

TEXT = """\
pipelines: [orpo, sft > dpo, sft > ipo, sft]
budget: 20 steps
seeds: 2
tune_by: accuracy
tune:
  orpo: {learning_rate: [1e-4, 3e-4]}
  sft: {learning_rate: [1e-4, 3e-4]}
  dpo: {learning_rate: [1e-5, 3e-5]}
  ipo: {learning_rate: [1e-5, 3e-5]}
"""


def run_all(plan: Plan, figure: Callable[[Training], float | None], outcomes: dict[str, Outcome] | None = None) -> dict[str, Outcome]:
    """Outcomes of a whole comparison in which each training comes to `figure`, or fails where that is None."""
    outcomes = outcomes if outcomes is not None else {}
    while ready := plan.ready(outcomes):
        for training in ready:
            value = figure(training)
            outcomes[training.id] = Outcome(error="diverged") if value is None else Outcome(value if training.trial is not None else None)
    return outcomes


def test_pipelines_that_begin_alike_share_those_stages_and_only_where_steps_are_the_same(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    outcomes = run_all(plan, lambda training: training.candidate[0].value)
    kinds = [(t.objective, t.steps, t.trial is not None) for t in plan.trainings(outcomes).values()]
    counts = {kind: kinds.count(kind) for kind in kinds}
    # sft of 10 steps is shared by two pipelines, sft of 20 is another; each has two trials and two seeds.
    stages = [("orpo", 20), ("sft", 10), ("sft", 20), ("dpo", 10), ("ipo", 10)]
    assert counts == {(name, steps, is_trial): 2 for name, steps in stages for is_trial in (True, False)}
    assert plan.sharing(plan.config.pipelines[1], 0) == ["sft > ipo"]
    assert plan.sharing(plan.config.pipelines[1], 1) == plan.sharing(plan.config.pipelines[3], 0) == []


def test_a_stage_waits_for_the_choice_of_the_one_before_and_starts_from_it(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    first = plan.ready({})
    assert {t.objective for t in first} == {"orpo", "sft"}
    assert all(t.trial is not None and t.seed == 0 and t.measured == "validation" and t.parent is None for t in first)
    sft = [t for t in first if t.objective == "sft" and t.steps == 10]
    outcomes = {sft[0].id: Outcome(0.4)}
    assert not [t for t in plan.ready(outcomes) if t.objective == "dpo"]
    outcomes[sft[1].id] = Outcome(0.6)
    dpo = [t for t in plan.ready(outcomes) if t.objective == "dpo"]
    assert [t.parent for t in dpo] == [sft[1].id, sft[1].id]
    assert all(t.seed == 0 for t in dpo)
    finals = [t for t in plan.ready(outcomes) if t.objective == "sft" and t.trial is None]
    assert [(t.seed, t.measured, t.candidate[0].value) for t in finals] == [(1, "", 3e-4), (2, "", 3e-4)]


def test_the_best_trial_is_chosen_the_first_of_equals_and_the_lowest_where_lower_is_better(planned: Callable[..., Plan]) -> None:
    for text, figures, chosen in ((TEXT, (0.5, 0.5), 0), (TEXT, (0.4, 0.5), 1), (TEXT.replace("accuracy", "nll_loss"), (0.4, 0.5), 0)):
        plan = planned(text)
        trials = plan.trials(plan.config.pipelines[0], 0, {})
        outcomes = {trial.id: Outcome(value) for trial, value in zip(trials, figures, strict=True)}
        assert plan.choice(plan.config.pipelines[0], 0, outcomes) == chosen


def test_each_seed_goes_the_whole_way_with_what_was_chosen(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    outcomes = run_all(plan, lambda training: training.candidate[0].value)
    for seed in (1, 2):
        sft, dpo = plan.finals(plan.config.pipelines[1], seed, outcomes)
        assert (dpo.parent, sft.seed, dpo.seed, sft.measured, dpo.measured) == (sft.id, seed, seed, "", "held-out")
        assert (sft.candidate[0].value, dpo.candidate[0].value) == (3e-4, 3e-5)
    assert {t.measured for t in plan.finals(plan.config.pipelines[3], 1, outcomes)} == {"held-out"}


def test_a_failed_trial_loses_and_where_all_fail_nothing_that_follows_is_run(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    outcomes = run_all(plan, lambda t: None if t.objective == "ipo" or (t.trial == 1 and t.objective == "sft") else 0.5)
    orpo, sft_dpo, sft_ipo, _ = plan.config.pipelines
    assert plan.choice(sft_dpo, 0, outcomes) == 0
    assert plan.choice(sft_ipo, 1, outcomes) == FAILED
    assert len(plan.finals(sft_ipo, 1, outcomes)) == 1
    slots = list(plan.slots(outcomes))
    assert sum(slot.is_blocked for slot in slots) == 2, "ipo with either seed"
    assert all(slot.training is not None and slot.training.id in outcomes for slot in slots if not slot.is_blocked)
    assert plan.finals(orpo, 1, outcomes)


def test_a_seed_that_fails_stops_its_own_chain_alone(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    outcomes = run_all(plan, lambda t: None if t.objective == "sft" and t.seed == 2 and t.steps == 10 else 0.5)
    ended = {t.seed for t in plan.trainings(outcomes).values() if t.objective == "dpo" and t.trial is None and t.id in outcomes}
    assert ended == {1}


def test_every_place_is_counted_once_before_anything_is_decided_and_after(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    before = list(plan.slots({}))
    outcomes = run_all(plan, lambda training: 0.5)
    after = list(plan.slots(outcomes))
    assert [slot.key for slot in before] == [slot.key for slot in after]
    assert len(before) == 5 * 4
    assert sum(slot.steps for slot in before) == 4 * (20 + 10 + 20 + 10 + 10)


def test_a_model_is_needed_until_all_that_start_from_it_have_ended(planned: Callable[..., Plan]) -> None:
    plan = planned(TEXT)
    sft = [t for t in plan.ready({}) if t.objective == "sft" and t.steps == 10]
    outcomes = {t.id: Outcome(0.5 + t.candidate[0].value) for t in sft}
    needed = plan.needed(outcomes)
    assert sft[1].id in needed, "the trials of dpo and ipo start from it"
    assert sft[0].id not in needed
    outcomes |= {t.id: Outcome(0.5) for t in plan.ready(outcomes) if t.objective in ("dpo", "ipo")}
    assert sft[1].id not in plan.needed(outcomes)
    finals = [t for t in plan.ready(outcomes) if t.objective == "sft" and t.trial is None and t.steps == 10]
    outcomes |= {t.id: Outcome() for t in finals}
    assert {t.id for t in finals} <= plan.needed(outcomes)
    outcomes = run_all(plan, lambda training: 0.5, outcomes)
    assert plan.needed(outcomes) == set()


def test_an_id_follows_from_everything_a_training_follows_from(planned: Callable[..., Plan]) -> None:
    def first_id(text: str) -> str:
        return planned(text).ready({})[0].id

    ids = [
        first_id(text)
        for text in (
            TEXT,
            TEXT.replace("20 steps", "22 steps"),
            TEXT.replace("orpo: {learning_rate: [1e-4", "orpo: {learning_rate: [2e-4"),
            TEXT.replace("seeds: 2", "seeds: [0, 1]"),
            TEXT + "settings: {weight_decay: 0.1}\n",
        )
    ]
    assert len(set(ids)) == 5
    assert first_id(TEXT + "settings: {logging_steps: 3}\n") == ids[0], "what changes no weight is no part of it"
    assert all(name.startswith("orpo-") for name in ids)
