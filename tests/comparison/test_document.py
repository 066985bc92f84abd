"""compare.json from made-up results: figures by hand, what is absent, what is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_figures_are_means_over_seeds_and_items(made: Callable[..., dict[str, Any]]) -> None:
    orpo, chain = made()["pipelines"]
    assert orpo["scores"]["oracle/score"]["per_seed"] == [0.625, 0.5625]
    assert orpo["scores"]["oracle/score"]["mean"] == pytest.approx(0.59375)
    assert chain["scores"]["oracle/score"]["mean"] == pytest.approx((0.6875 + 0.625) / 2)
    assert chain["against"]["oracle/score"]["mean"] == pytest.approx(0.65625 - 0.59375)
    assert orpo["scores"]["nll_loss"]["mean"] == pytest.approx((3 * 1 + 5 * 2) / 8), "by tokens"
    assert orpo["scores"]["diversity/across_inputs"]["num_items"] == 4
    assert orpo["scores"]["accuracy"]["num_items"] == 4


def test_a_win_is_a_higher_score_than_the_base_models_and_a_tie_is_half_of_one(made: Callable[..., dict[str, Any]]) -> None:
    orpo, chain = made()["pipelines"]
    # Seed 1: two ties, two wins. Seed 2: a loss, a tie, two wins.
    assert orpo["scores"]["win_rate"]["per_seed"] == [0.75, 0.625]
    assert chain["scores"]["win_rate"]["per_seed"] == [0.625, 0.625]


def test_costs_are_means_over_seeds_added_up_over_stages(made: Callable[..., dict[str, Any]]) -> None:
    orpo, chain = made()["pipelines"]
    sft, dpo = chain["cost"]["stages"]
    assert (sft["steps"], sft["pairs"], sft["tokens"], sft["seconds"]) == (10, 40, 1500, 15.0)
    assert (dpo["reference_forwards"], dpo["seconds"]) == (3, 16.0)
    total = chain["cost"]["total"]
    assert (total["steps"], total["tokens"], total["reference_tokens"], total["seconds"]) == (20, 3000, 50, 31.0)
    assert (total["peak_memory_gib"], total["models_in_memory"]) == (0.75, 1)
    assert orpo["cost"]["total"]["tokens"] == 3000
    assert chain["cost"]["tuning"] == {"trials": 4, "tokens": 2 * 50, "seconds": 2.0}, "with seed 0, tokens and seconds are 0 here"


def test_curves_leave_out_what_an_objective_means_otherwise(made: Callable[..., dict[str, Any]]) -> None:
    orpo, chain = made()["pipelines"]
    assert orpo["curves"] == [
        {
            "stage": 0,
            "objective": "orpo",
            "step": [0, 9],
            "logps/chosen": [-1.5, -1.5],
            "logps/rejected": [None, None],
            "nll_loss": [1.0, 1.0],
            "rewards/accuracies": [0.5, 0.5],
        }
    ]
    assert [curve["objective"] for curve in chain["curves"]] == ["sft", "dpo"]
    assert chain["curves"][1]["rewards/accuracies"] == [None, None]


def test_the_chosen_trials_and_settings_are_named(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    chain = found["pipelines"][1]
    assert [stage["settings"] for stage in chain["stages"]] == [{"learning_rate": 3e-4}, {"learning_rate": 3e-5}]
    assert [(trial["stage"], trial["metric"], trial["chosen"]) for trial in chain["trials"]] == [
        (0, 1e-4, False),
        (0, 3e-4, True),
        (1, 1e-5, False),
        (1, 3e-5, True),
    ]
    assert found["tuned_by"] == {"metric": "oracle/score", "seed": 0, "on": "5 pairs that are neither trained on nor held out"}
    assert found["equal"]["trials_per_stage"] == 2
    assert found["equal"]["parameters"] == 1234


def test_a_seed_that_failed_is_missing_and_named_and_differences_are_made_on_the_others(made: Callable[..., dict[str, Any]]) -> None:
    found = made(fails=lambda training: training.objective == "orpo" and training.seed == 2)
    orpo, chain = found["pipelines"]
    assert orpo["scores"]["oracle/score"]["per_seed"] == [0.625]
    assert len(chain["scores"]["oracle/score"]["per_seed"]) == 2
    assert chain["against"]["oracle/score"]["mean"] == pytest.approx(0.6875 - 0.625), "seed 1 alone"
    assert found["failures"] == [{"pipeline": "orpo", "stage": 0, "seed": 2, "error": "loss nan"}]


def test_a_pipeline_none_of_whose_trials_ended_well_has_no_figures(made: Callable[..., dict[str, Any]]) -> None:
    found = made(fails=lambda training: training.objective == "dpo")
    chain = found["pipelines"][1]
    assert chain["scores"] == chain["against"] == {}
    assert chain["samples"] == []
    assert chain["cost"]["total"]["seconds"] is None
    assert [trial["error"] for trial in chain["trials"]] == [None, None, "loss nan", "loss nan"]
    assert chain["stages"][1]["settings"] == {}
    assert len(found["failures"]) == 2


def test_nothing_is_said_of_a_base_model_that_was_not_measured_yet(made: Callable[..., dict[str, Any]]) -> None:
    found = made(base=None)
    assert found["base"] == {"scores": {}}
    assert found["equal"]["parameters"] is None
    assert "win_rate" not in found["pipelines"][0]["scores"]
    assert found["pipelines"][0]["samples"] == []


def test_the_same_prompts_are_shown_for_every_pipeline_with_what_the_oracle_says(made: Callable[..., dict[str, Any]]) -> None:
    orpo, chain = made()["pipelines"]
    assert [sample["prompt"] for sample in orpo["samples"]] == [sample["prompt"] for sample in chain["samples"]] == ["p", "q", "r", "s"]
    assert orpo["samples"][2] == {"prompt": "r", "base": "c", "reply": "y", "verdict": {"score": 0.75, "correct": 0.75, "manner": 0.75}}
