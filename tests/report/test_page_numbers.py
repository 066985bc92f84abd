"""The numbers on the page are those of the files, exactly, and points lie where their values say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from documents import Exact

from orpo.report.page import render_report


def test_the_verdict_shows_the_exact_numbers_of_summary_json(make_run: Any, orpo_files: dict[str, Any]) -> None:
    exact = Exact(render_report(make_run(orpo_files))).values["verdict"]
    found = orpo_files["summary.json"]["sections"]["evaluation"]
    for moment in ("before", "after"):
        for key in ("accuracy", "accuracy_low", "accuracy_high", "nll_loss"):
            assert found[moment][key] in exact
    assert orpo_files["summary.json"]["sections"]["oracle"]["after"]["score"] in exact


def test_the_table_behind_the_curves_holds_every_value_of_every_row(make_run: Any, orpo_files: dict[str, Any]) -> None:
    rows = orpo_files["metrics.jsonl"][-40:]
    exact = Exact(render_report(make_run({**orpo_files, "metrics.jsonl": rows}))).values["curves"]
    expected = [value for row in rows for value in row.values() if isinstance(value, int | float)]
    assert sorted(exact) == sorted(float(value) for value in expected)


def test_data_and_cost_show_the_exact_numbers(make_run: Any, orpo_files: dict[str, Any]) -> None:
    exact = Exact(render_report(make_run(orpo_files))).values
    assert {412, 400, 100, 7, 5, 2, 3, 31, 21_812} <= set(exact["data"])
    assert {0.625, 12.75, 9.5, 13, 17, 6, 22, 0, 64, 14, 1, 15, 8, 20_001, 20_909, 0.985, 9, 11} <= set(exact["data"])
    assert {75.2, 61.5, 150, 1200, 60_300, 3123.4, 0.62, 1_213_440} <= set(exact["cost"])
    assert {81_234, 20_111} <= set(exact["reproduce"])


def test_the_points_of_a_chart_lie_where_their_values_say(make_run: Any, orpo_files: dict[str, Any]) -> None:
    page = render_report(make_run(orpo_files))
    drawing = page.split('id="logps"')[1].split("</svg>")[0]
    tick = {
        float(t.replace("\u2212", "-")): float(y) for y, t in re.findall(r'y="([\d.]+)" dy="0.35em" text-anchor="end">([^<]+)<', drawing)
    }
    (low, y_low), (high, y_high) = sorted(tick.items())[0], sorted(tick.items())[-1]
    held_out = [row["logps/chosen"] for row in orpo_files["metrics.jsonl"] if row["split"] == "eval"]
    group = drawing.split('<g class="chosen">')[1].split("</g>")[0]
    drawn = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', group)]
    assert drawn == pytest.approx([y_low + (value - low) / (high - low) * (y_high - y_low) for value in held_out], abs=0.2)


def test_the_thick_line_runs_through_every_held_out_point_and_the_thin_one_through_every_mean(
    make_run: Any, orpo_files: dict[str, Any]
) -> None:
    page = render_report(make_run(orpo_files))
    group = page.split('id="logps"')[1].split('<g class="rejected">')[1].split("</g>")[0]
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', group)
    thick = re.search(r'<path class="thick" d="M([^"]*)"', group)
    thin = re.search(r'<path class="thin" d="M([^"]*)"', group)
    dots = re.search(r'<path class="dots" d="([^"]*)"', group)
    assert thick
    assert thin
    assert dots
    assert [tuple(point.split()) for point in thick[1].split("L")] == circles
    num_rows = sum(row["split"] == "train" for row in orpo_files["metrics.jsonl"])
    assert (thin[1].count("L") + 1, dots[1].count("M")) == (num_rows, num_rows)


def test_start_and_end_stand_at_their_shares_between_0_and_100_percent(make_run: Any, orpo_files: dict[str, Any]) -> None:
    drawing = render_report(make_run(orpo_files)).split('id="start-end"')[1].split("</svg>")[0]
    zero, full = (float(re.findall(rf'<text class="axis" x="([\d.]+)"[^>]*>{mark}', drawing)[0]) for mark in ("0\u202f%", "100\u202f%"))
    evaluation, oracle = (orpo_files["summary.json"]["sections"][name] for name in ("evaluation", "oracle"))
    shares = [evaluation["before"]["accuracy"], evaluation["after"]["accuracy"]]
    shares += [oracle[moment][key] for key in ("score", "correct", "manner") for moment in ("before", "after")]
    drawn = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', drawing)]
    assert drawn == pytest.approx([zero + share * (full - zero) for share in shares], abs=0.06)
    whisker = re.search(r'<path class="whisker" d="M([\d.]+) \d+H([\d.]+)', drawing)
    assert whisker
    low, high = (zero + evaluation["before"][key] * (full - zero) for key in ("accuracy_low", "accuracy_high"))
    assert [float(x) for x in whisker.groups()] == pytest.approx([low, high], abs=0.06)


def test_the_odds_part_is_minus_beta_times_log_odds_ratio(make_run: Any, orpo_files: dict[str, Any]) -> None:
    last = [row for row in orpo_files["metrics.jsonl"] if row["split"] == "eval"][-1]
    text = render_report(make_run(orpo_files))
    assert f"with β = 0.5: {-0.5 * last['log_odds_ratio']:.2f} at the end." in text
