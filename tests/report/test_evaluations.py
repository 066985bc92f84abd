"""Win rates and benchmarks on the page: what the files say, where they were measured, and that nothing is claimed without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from documents import Document
from payloads import PAYLOADS

from orpo.report.page import render_report
from orpo.runs.evaluations import Evaluation, write_evaluation

SETTINGS = {
    "vs": "base",
    "judge": "runs/reward-1",
    "temperature": 0.0,
    "max_new_tokens": 256,
    "judge_has_order": False,
    "tie_within": 0.001,
    "num_cut": 0,
    "num_cut_other": 3,
}
FIGURES: dict[str, float | None] = {
    "num_prompts": 120,
    "wins": 84,
    "ties": 6,
    "losses": 30,
    "win_rate": 0.725,
    "win_rate_low": 0.639,
    "win_rate_high": 0.797,
    "win_rate_bootstrap_low": 0.646,
    "win_rate_bootstrap_high": 0.804,
    "length_matched/num_prompts": 41,
    "length_matched/win_rate": 0.61,
    "length_matched/win_rate_low": 0.457,
    "length_matched/win_rate_high": 0.744,
    "mean_characters": 61.5,
    "mean_characters_other": 88.0,
    "num_flips": None,
}
WIN_RATE = Evaluation("win_rate", SETTINGS, FIGURES, steps=150)
IFEVAL = Evaluation(
    "benchmark",
    {"task": "ifeval", "library": "lm-eval 0.4.13"},
    {"ifeval/prompt_level_strict_acc": 0.4375, "ifeval/prompt_level_strict_acc_stderr": 0.0213, "ifeval/num_documents": 541.0},
    steps=150,
)


def section(page: str, name: str) -> str:
    """The text of one section of the page."""
    return Document("<main>" + page.split(f'<section id="{name}"')[1].partition(">")[2].split("</section>")[0] + "</main>").text


def measured(run_dir: Path, *found: Evaluation) -> str:
    for evaluation in found:
        write_evaluation(run_dir, evaluation)
    return render_report(run_dir)


def test_a_run_that_was_not_measured_says_how_to_measure_it(make_run: Any) -> None:
    page = render_report(make_run())
    assert "Not measured. It takes a judge: orpo eval RUN --vs base --judge JUDGE" in section(page, "win-rate")
    assert section(page, "benchmarks").endswith("Not measured. Any task of the lm-eval library can be: orpo eval RUN --tasks ifeval.")


def test_a_win_rate_stands_with_counts_intervals_matched_lengths_and_what_was_cut(make_run: Any) -> None:
    text = section(measured(make_run(), WIN_RATE), "win-rate").replace("\u202f", " ")
    for words in (
        "runs/reward-1",
        "84 / 6 / 30",
        "72 % (64 % to 80 %)",
        "65 % to 80 %",
        "61 % (46 % to 74 %) of 41",
        "62, 88",
        "no order",
        "ties: at most 1e−3 apart",
        "greedy, at most 256 tokens; 0 and 3 were cut there",
    ):
        assert words in text, words
    assert "measured at step" not in text


def test_flips_are_shown_for_a_judge_with_an_order(make_run: Any) -> None:
    asked = replace(WIN_RATE, settings={**SETTINGS, "judge_has_order": True}, figures={**FIGURES, "num_flips": 17})
    text = section(measured(make_run(), asked), "win-rate")
    assert "17" in text
    assert "no order" not in text


def test_no_replies_of_like_length_are_none_and_not_zero_percent(make_run: Any) -> None:
    empty = {name: None for name in FIGURES if name.startswith("length_matched/win_rate")}
    page = measured(make_run(), replace(WIN_RATE, figures={**FIGURES, **empty, "length_matched/num_prompts": 0}))
    assert "<td>none</td>" in page.split('<section id="win-rate"')[1].split("</section>")[0]


def test_a_figure_of_an_earlier_step_says_so(make_run: Any) -> None:
    assert "measured at step 96 of 150" in section(measured(make_run(), replace(WIN_RATE, steps=96)), "win-rate")


def test_benchmarks_stand_with_their_standard_errors(make_run: Any) -> None:
    text = section(measured(make_run(), IFEVAL), "benchmarks")
    assert "prompt_level_strict_acc0.4380.0213541lm-eval 0.4.13" in text.replace(" lm", "lm")
    assert "Not measured" not in text


def test_diversity_and_other_pairs_have_tables_of_their_own(make_run: Any) -> None:
    figures = {"diversity/per_input": 0.91, "diversity/across_inputs": 0.32, "diversity/num_prompts": 20, "diversity/num_samples": 4}
    pairs = {"num_pairs": 50, "accuracy": 0.64, "accuracy_low": 0.501, "accuracy_high": 0.759, "margin": 0.5}
    found = (Evaluation("diversity", {"embedding": "words"}, figures), Evaluation("pairs", {"data": ["other.jsonl"]}, pairs))
    text = section(measured(make_run(), *found), "benchmarks").replace("\u202f", " ")
    assert "Diversity of replies" in text
    assert "0.91" in text
    assert "other.jsonl" in text
    assert "64 % (50 % to 76 %)" in text


def test_texts_of_evaluations_cannot_be_more_than_text(make_run: Any) -> None:
    worst = " ".join(PAYLOADS)
    plain = Document(measured(make_run("orpo", "plain"), WIN_RATE, IFEVAL))
    told = dict.fromkeys((*SETTINGS, "task", "library", "embedding", "data"), worst)
    hostile = [replace(WIN_RATE, settings=told), replace(IFEVAL, settings=told, figures={f"{worst}/{worst}": 0.5})]
    page = Document(measured(make_run("orpo", "hostile"), *hostile))
    assert {tag for tag, _, _ in page.attributes} == {tag for tag, _, _ in plain.attributes}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_a_file_of_figures_that_are_no_numbers_still_has_a_page(make_run: Any) -> None:
    odd: Any = dict(zip(FIGURES, ["x", [], {}, True, None] * 4, strict=False))
    Document(measured(make_run(), replace(WIN_RATE, figures=odd, settings={"task": 7, "num_cut": "y", "data": 3}), IFEVAL))
