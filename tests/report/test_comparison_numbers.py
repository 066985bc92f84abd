"""The numbers on the page of a comparison are those of compare.json, exactly, and marks lie where their values say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from comparisons import comparison, write_comparison_file
from documents import Exact

from orpo.report.comparison import render_comparison


@pytest.fixture(scope="module")
def value() -> dict[str, Any]:
    return comparison(["orpo", "sft", "sft > dpo", "simpo"])


@pytest.fixture(scope="module")
def page(value: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_comparison(write_comparison_file(tmp_path_factory.mktemp("compare"), value))


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


def test_the_table_holds_each_score_difference_and_seed_exactly(page: str, value: dict[str, Any]) -> None:
    exact = sorted(Exact(page).values["table"])
    scores = [score for pipeline in value["pipelines"] for score in pipeline["scores"].values()]
    estimates = [*scores, *value["base"]["scores"].values(), *(one for p in value["pipelines"] for one in p.get("against", {}).values())]
    expected = [float(estimate[key]) for estimate in estimates for key in ("mean", "low", "high")]
    assert exact == pytest.approx(sorted([*expected, *(seed for score in scores for seed in score["per_seed"])]), abs=0)


def test_the_cost_of_each_stage_of_each_total_and_of_tuning_is_there_exactly(page: str, value: dict[str, Any]) -> None:
    exact = Exact(page).values["cost"]
    for pipeline in value["pipelines"]:
        parts = [
            pipeline["cost"]["total"],
            pipeline["cost"]["tuning"],
            *(pipeline["cost"]["stages"] if len(pipeline["stages"]) > 1 else []),
        ]
        for part in parts:
            assert {float(number) for number in part.values() if not isinstance(number, str)} <= set(exact)
    rows = sum(1 + (len(pipeline["stages"]) if len(pipeline["stages"]) > 1 else 0) for pipeline in value["pipelines"])
    assert len(exact) == 10 * rows + 3 * len(value["pipelines"])


def test_the_verdict_shows_the_exact_figures_of_the_main_metric(page: str, value: dict[str, Any]) -> None:
    exact = Exact(page).values["verdict"]
    baseline = value["pipelines"][0]["scores"]["oracle/score"]
    assert exact[:3] == [baseline["mean"], baseline["low"], baseline["high"]]
    for pipeline in value["pipelines"][1:]:
        assert {pipeline["against"]["oracle/score"][key] for key in ("mean", "low", "high")} <= set(exact)


def test_each_trial_and_its_metric_is_there(page: str, value: dict[str, Any]) -> None:
    exact = Exact(page).values["equal"]
    trials = [trial for pipeline in value["pipelines"] for trial in pipeline["trials"]]
    assert {trial["metric"] for trial in trials} <= set(exact)
    assert {setting for trial in trials for setting in trial["settings"].values()} <= set(exact)


def test_the_numbers_behind_the_curves_are_those_of_the_file(page: str, value: dict[str, Any]) -> None:
    exact = Exact(page).values["curves"]
    for pipeline in value["pipelines"]:
        for curve in pipeline["curves"]:
            for key in ("step", "logps/chosen", "logps/rejected", "nll_loss", "rewards/accuracies"):
                assert {float(one) for one in curve[key] if one is not None} <= set(exact)


def drawn(page: str, name: str) -> str:
    return page.split(f'<figure id="{name}">')[1].split("</svg>")[0]


def scale(drawing: str) -> Any:
    """value -> horizontal place, from the ticks of the drawing."""
    ticks = {
        number(t.strip("\u202f%")): float(x)
        for x, t in re.findall(r'<text class="axis" x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<a-z]+)<', drawing)
    }
    (low, x_low), *_, (high, x_high) = sorted(ticks.items())
    return lambda value: x_low + (value - low) * (x_high - x_low) / (high - low)


@pytest.mark.parametrize(
    ("name", "part", "factor"), [("score-0", "scores", 100), ("difference-0", "against", 100), ("score-7", "scores", 1)]
)
def test_dots_and_whiskers_lie_where_their_values_say(page: str, value: dict[str, Any], name: str, part: str, factor: float) -> None:
    drawing = drawn(page, name)
    at = scale(drawing)
    metric = value["metrics"][int(name.split("-")[1])]["id"]
    estimates = [pipeline[part][metric] for pipeline in value["pipelines"][1:]]
    dots = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', drawing)]
    assert dots == pytest.approx([at(factor * one["mean"]) for one in estimates], abs=0.3)
    whiskers = [(float(low), float(high)) for low, high in re.findall(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)M', drawing)]
    expected = [(at(factor * one["low"]), at(factor * one["high"])) for one in estimates]
    assert whiskers[-len(expected) :] == [pytest.approx(pair, abs=0.3) for pair in expected]


def test_the_seeds_lie_where_their_values_say(page: str, value: dict[str, Any]) -> None:
    drawing = drawn(page, "score-0")
    at = scale(drawing)
    shown = re.findall(r'class="seeds" d="([^"]+)"', drawing)
    for path, pipeline in zip(shown, value["pipelines"], strict=True):
        places = [float(x) for x in re.findall(r"M([\d.]+) [\d.]+h0", path)]
        assert places == pytest.approx([at(100 * seed) for seed in pipeline["scores"]["oracle/score"]["per_seed"]], abs=0.3)


def test_the_zero_line_of_differences_lies_at_zero_and_that_of_the_untrained_model_at_its_mean(page: str, value: dict[str, Any]) -> None:
    for name, expected in (("difference-0", 0.0), ("score-0", 100 * value["base"]["scores"]["oracle/score"]["mean"])):
        line = re.search(r'class="reference" x1="([\d.]+)"', drawn(page, name))
        assert line
        assert float(line[1]) == pytest.approx(scale(drawn(page, name))(expected), abs=0.3)


def test_points_of_the_scatter_lie_at_their_cost_and_score(page: str, value: dict[str, Any]) -> None:
    drawing = drawn(page, "against-seconds")
    at = scale(drawing)
    ticks = {number(t.strip("\u202f%")): float(y) for y, t in re.findall(r'y="([\d.]+)" dy="0.35em" text-anchor="end">([^<]+)<', drawing)}
    (low, y_low), *_, (high, y_high) = sorted(ticks.items())
    points = [(float(x), float(y)) for x, y in re.findall(r'<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    others = value["pipelines"][1:]
    assert [x for x, _ in points] == pytest.approx([at(pipeline["cost"]["total"]["seconds"]) for pipeline in others], abs=0.5)
    scores = [100 * pipeline["scores"]["oracle/score"]["mean"] for pipeline in others]
    assert [y for _, y in points] == pytest.approx([y_low + (score - low) * (y_high - y_low) / (high - low) for score in scores], abs=0.5)


def test_a_later_stage_begins_where_the_one_before_it_ended(page: str) -> None:
    drawing = drawn(page, "curve-2")
    starts = [float(x) for x in re.findall(r'<line class="mark" x1="([\d.]+)" x2="\1"', drawing)]
    at = scale(drawing)
    assert starts == pytest.approx([at(0), at(150)], abs=0.3)
    assert 'class="mark" x1' not in drawn(page, "curve-0").split("</g>")[1], "one stage, no mark"


def test_all_curves_have_the_same_scales(page: str) -> None:
    labels = [re.findall(r'<text class="axis"[^>]*>([^<a-z]+)</text>', drawn(page, f"curve-{i}")) for i in range(4)]
    assert all(one == labels[0] for one in labels)
    assert len(labels[0]) > 6
