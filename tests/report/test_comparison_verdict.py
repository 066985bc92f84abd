"""The verdict on a comparison: each rule on both of its sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparisons import comparison, write_comparison_file

from orpo.report.comparison.outcome import outcome
from orpo.report.comparison.reading import Comparison, Estimate, Metric, read_comparison
from orpo.report.comparison.tuning import on_the_edge, tuned_stages
from orpo.report.comparison.verdict import verdict
from orpo.report.markup import plain_text


def read(folder: Path, value: dict[str, Any]) -> Comparison:
    return read_comparison(write_comparison_file(folder, value))


def said(folder: Path, value: dict[str, Any]) -> str:
    return " ".join(plain_text(sentence.content) for sentence in verdict(read(folder, value))).replace("\u202f", " ")


@pytest.mark.parametrize(
    ("better", "low", "high", "expected"),
    [
        ("higher", 0.001, 0.1, "better"),
        ("higher", -0.1, -0.001, "worse"),
        ("higher", -0.1, 0.1, "not told apart"),
        ("higher", 0.0, 0.1, "not told apart"),
        ("lower", 0.001, 0.1, "worse"),
        ("lower", -0.1, -0.001, "better"),
        ("none", 0.001, 0.1, "higher"),
        ("none", -0.1, -0.001, "lower"),
        ("none", -0.1, 0.0, "not told apart"),
    ],
)
def test_an_outcome_is_told_by_whether_the_interval_leaves_out_zero(better: Any, low: float, high: float, expected: str) -> None:
    assert outcome(Metric("m", "m", "", better, ""), Estimate((low + high) / 2, low, high)) == expected


def test_without_an_interval_or_a_difference_nothing_is_told() -> None:
    metric = Metric("m", "m", "", "higher", "")
    assert outcome(metric, None) == outcome(metric, Estimate(0.3, None, None)) == "not measured"


def with_differences(*differences: tuple[float, float]) -> dict[str, Any]:
    """orpo as the baseline of as many pipelines as there are (low, high) on the main metric."""
    value = comparison(["orpo", "sft", "dpo", "kto", "ulma"][: len(differences) + 1])
    for pipeline, (low, high) in zip(value["pipelines"][1:], differences, strict=True):
        pipeline["against"]["oracle/score"] = {"mean": (low + high) / 2, "low": low, "high": high}
    return value


def test_pipelines_are_grouped_by_outcome_the_best_first_with_their_differences(tmp_path: Path) -> None:
    text = said(tmp_path, with_differences((0.01, 0.03), (0.04, 0.06), (-0.05, -0.01), (-0.01, 0.02)))
    assert "Better: dpo (+5.0 points, +4.0 to +6.0), sft (+2.0 points, +1.0 to +3.0)." in text
    assert "Worse: kto (−3.0 points, −5.0 to −1.0)." in text
    assert "Not told apart: ulma (+0.5 points, −1.0 to +2.0)." in text


def test_what_was_not_compared_is_named_as_that(tmp_path: Path) -> None:
    value = with_differences((0.01, 0.03), (0.01, 0.03))
    del value["pipelines"][2]["against"]
    assert "Not measured: dpo." in said(tmp_path, value)


def test_the_chance_of_a_false_alarm_is_stated_with_the_number_of_comparisons(tmp_path: Path) -> None:
    rules = [verdict(read(tmp_path / str(num), with_differences(*[(0.01, 0.03)] * num)))[0].rule for num in (1, 3)]
    assert "by chance" not in rules[0]
    assert rules[1].endswith("One interval in 20 leaves out 0 by chance; 3 are shown here.")


def test_the_untrained_model_is_beaten_only_by_an_interval_that_lies_above_its_own(tmp_path: Path) -> None:
    value = comparison(["orpo", "sft", "dpo"])
    value["base"]["scores"]["oracle/score"] = {"mean": 0.5, "low": 0.4, "high": 0.6, "num_items": 120}
    for pipeline, (low, high) in zip(value["pipelines"], [(0.61, 0.7), (0.59, 0.7), (0.2, 0.39)], strict=True):
        pipeline["scores"]["oracle/score"] = {"mean": (low + high) / 2, "low": low, "high": high, "per_seed": [], "num_items": 120}
    sentence = verdict(read(tmp_path, value))[1]
    assert plain_text(sentence.content).startswith("1 of 3 pipelines does better than the untrained model, which reaches 50.0")
    assert plain_text(sentence.content).endswith("; worse than it: dpo.")
    assert sentence.tone == "bad"


def with_seconds(*seconds: float) -> dict[str, Any]:
    value = comparison(["orpo", "sft", "dpo"][: len(seconds)])
    for pipeline, spent in zip(value["pipelines"], seconds, strict=True):
        pipeline["cost"]["total"] |= {"seconds": spent}
    return value


def test_the_cheapest_and_the_dearest_are_named_and_two_per_cent_are_a_tie(tmp_path: Path) -> None:
    assert "Cheapest in seconds: orpo (10 s; dpo takes 4 times that)." in said(tmp_path / "a", with_seconds(10, 10.3, 40))
    assert "Cheapest in seconds: orpo, sft (10 s; dpo takes 4 times that)." in said(tmp_path / "b", with_seconds(10, 10.1, 40))
    assert "Cheapest in seconds: all alike (10 s)." in said(tmp_path / "c", with_seconds(10, 10.1))
    assert "Cheapest" not in said(tmp_path / "d", with_seconds(10))


def test_tokens_of_the_reference_count(tmp_path: Path) -> None:
    value = comparison(["orpo", "sft"])
    for pipeline, own, reference in zip(value["pipelines"], (300, 200), (0, 200), strict=True):
        pipeline["cost"]["total"] |= {"tokens": own, "reference_tokens": reference}
    assert "Cheapest in tokens: orpo (300; sft takes 1.33 times that)." in said(tmp_path, value)


def test_nothing_is_said_to_be_missing_when_all_is_there(tmp_path: Path) -> None:
    text = said(tmp_path, comparison())
    assert "failed" not in text
    assert "Fewer than" not in text
    assert "Not measured" not in text


def test_lost_seeds_failed_trials_and_holes_are_counted(tmp_path: Path) -> None:
    value = comparison(["orpo", "sft"])
    value["pipelines"][1]["scores"] = {
        metric: {**score, "per_seed": score["per_seed"][:3]} for metric, score in value["pipelines"][1]["scores"].items()
    }
    del value["pipelines"][1]["scores"]["accuracy"]
    value["failures"] = [{"pipeline": "sft", "stage": 0, "seed": seed, "error": "nan"} for seed in (4, 5, 0)]
    text = said(tmp_path, value)
    assert (
        "3 trainings failed, 1 of them in tuning (see Failures). Fewer than 5 seeds: sft (3). Not measured for all: pairs told apart."
        in text
    )


def test_one_seed_is_warned_about_and_two_are_not(tmp_path: Path) -> None:
    assert "There is one seed only" in said(tmp_path / "one", comparison(["orpo"], seeds=[3]))
    assert "There is one seed only" not in said(tmp_path / "two", comparison(["orpo"], seeds=[3, 4]))


def test_without_scores_nothing_is_claimed(tmp_path: Path) -> None:
    value = comparison(["orpo", "sft"])
    for pipeline in value["pipelines"]:
        pipeline |= {"scores": {}, "against": {}}
    assert said(tmp_path, value).startswith("No pipeline has scores yet, so nothing can be said.")
    del value["pipelines"][0]["scores"]
    value["pipelines"][1] = comparison(["orpo", "sft"])["pipelines"][1]
    assert said(tmp_path / "later", value).startswith("The baseline has no oracle score, so nothing")


def test_a_shared_stage_is_shown_once_with_all_that_share_it(tmp_path: Path) -> None:
    stages = tuned_stages(read(tmp_path, comparison(["sft", "sft > dpo", "sft > ipo", "orpo"])))
    assert [(stage.title, stage.pipelines) for stage in stages] == [
        ("sft", ("sft",)),
        ("sft (stage 1 of sft > dpo)", ("sft > dpo", "sft > ipo")),
        ("dpo (stage 2 of sft > dpo)", ("sft > dpo",)),
        ("ipo (stage 2 of sft > ipo)", ("sft > ipo",)),
        ("orpo", ("orpo",)),
    ]
    assert [len(stage.trials) for stage in stages] == [4] * 5


@pytest.mark.parametrize(
    ("tried", "chosen", "side"),
    [([1e-4, 3e-4, 1e-3], 1e-4, "lowest"), ([1e-4, 3e-4, 1e-3], 1e-3, "highest"), ([1e-4, 3e-4, 1e-3], 3e-4, None), ([3e-4], 3e-4, None)],
)
def test_a_choice_on_the_edge_of_its_grid_is_seen(tried: list[float], chosen: float, side: str | None, tmp_path: Path) -> None:
    value = comparison(["sft"])
    value["pipelines"][0]["trials"] = [
        {
            "stage": 0,
            "settings": {"learning_rate": rate, "loss_type": "x"},
            "metric": 0.5,
            "chosen": rate == chosen,
            "error": None,
            "shared_with": [],
        }
        for rate in tried
    ]
    edges = on_the_edge(tuned_stages(read(tmp_path, value))[0])
    assert [(edge.setting, edge.value, edge.side, edge.num_values) for edge in edges] == (
        [("learning_rate", chosen, side, len(tried))] if side else []
    )
    assert ("on the edge of their grid" in said(tmp_path, value)) == bool(side)
