"""What a person reads at the end of a comparison."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from orpo.comparison.view import CompareView, result_table, sentences, stage_line


def shown(found: dict[str, Any], *, width: int = 140) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(result_table(found))
    return text.getvalue()


def test_the_table_has_a_line_for_each_pipeline_with_figures_and_costs(made: Callable[..., dict[str, Any]]) -> None:
    found = made()
    lines = shown(found).splitlines()
    assert "oracle score" in lines[0]
    assert "(untrained)" in lines[1]
    assert "baseline" in lines[2]
    assert lines[3].startswith("sft > dpo")
    score, apart = (found["pipelines"][1][part]["oracle/score"] for part in ("scores", "against"))
    assert f"{score['mean']:.3f} ({score['low']:.2f} to {score['high']:.2f})" in lines[3]
    assert f"{apart['mean']:+.3f} ({apart['low']:+.2f} to {apart['high']:+.2f})" in lines[3]
    assert lines[3].split()[-5:] == ["75.0%", "31.0", "3.0k", "0.75", "1"] or lines[3].split()[-5:] == [
        "75.0%",
        "31.0",
        "3.1k",
        "0.75",
        "1",
    ]


def test_on_a_narrow_terminal_figures_are_folded_and_none_is_cut(made: Callable[..., dict[str, Any]]) -> None:
    text = shown(made(), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_missing_seed_is_said_in_the_table(made: Callable[..., dict[str, Any]]) -> None:
    text = shown(made(fails=lambda training: training.objective == "dpo" and training.seed == 2))
    assert "sft > dpo (1 of 2 seeds)" in text


def test_a_pipeline_without_figures_has_dashes(made: Callable[..., dict[str, Any]]) -> None:
    found = made(fails=lambda training: training.objective == "dpo")
    assert "sft > dpo (0 of 2 seeds)" in shown(found)
    assert sentences(found) == []


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.2, "sft > dpo: better than orpo by oracle score"),
        (-0.2, -0.1, "sft > dpo: worse than orpo by oracle score"),
        (-0.2, 0.1, "sft > dpo: not told apart from orpo by oracle score"),
    ],
)
def test_a_sentence_says_what_the_interval_says(made: Callable[..., dict[str, Any]], low: float, high: float, said: str) -> None:
    found = made()
    found["pipelines"][1]["against"]["oracle/score"] = {"mean": (low + high) / 2, "low": low, "high": high}
    assert sentences(found) == [said]


def test_a_line_for_each_stage_counts_and_says_what_is_left() -> None:
    text = io.StringIO()
    with CompareView(Console(file=text, width=160), jobs=2) as view:
        line = stage_line("orpo-1", {"learning_rate": 1e-4}, role="trial 1", figure="accuracy 0.5", error=None, seconds=3.2)
        view.ended(line, steps=10, done=1, total=12, steps_left=20)
        failed = stage_line("dpo-2", {}, role="seed 3", figure="", error="loss nan", seconds=1)
        view.ended(failed, steps=10, done=12, total=12, steps_left=0)
    first, second = text.getvalue().splitlines()
    assert first.startswith("[ 1/12] orpo-1             trial 1     learning_rate 0.0001  accuracy 0.5  3 s  0:0")
    assert first.endswith("left")
    assert second == "[12/12] dpo-2              seed 3      failed: loss nan  1 s"
