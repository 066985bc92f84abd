"""The page in docs is what the records give; links and pictures of it are there; a page of made-up records says what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from evidence import fig3_fig7, stages
from evidence.comparisons import behind
from evidence.page import EXPERIMENTS, page, write_page
from evidence.records import read_record
from orpo.comparison.config import read_config

FACTS = {"command": "make evidence ONLY=fig3_fig7", "cpu_seconds": 12.0, "commit": "abc", "date": "2026-01-01", "machine": {"cpu": "a CPU"}}


def recorded() -> dict[str, Any]:
    return {name: found for name in EXPERIMENTS if (found := read_record(name)) is not None}


def test_the_page_in_docs_is_what_the_records_give(root: Path):
    assert (root / "docs" / "evidence.md").read_text(encoding="utf-8") == page(recorded()), "run `make evidence`"


def test_every_link_and_picture_of_the_page_is_there(root: Path):
    text = (root / "docs" / "evidence.md").read_text(encoding="utf-8")
    for target in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (root / "docs" / target).is_file()
        assert (root / "docs" / target).with_suffix(".svg").is_file()
    headings = {re.sub(r"[^\w\- ]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= headings


def test_the_page_is_short_and_names_seeds_command_and_seconds_of_each_experiment(root: Path):
    lines = (root / "docs" / "evidence.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    for name, record in recorded().items():
        command = record["command"] if isinstance(record["command"], str) else " ".join(record["command"])
        assert sum(line.startswith(f"* `{command}`: ") for line in lines) == 1, name


def run(rejected: float, chosen: float = 0.4, seed: int = 1) -> dict[str, Any]:
    """A run whose held-out log-probs came so far."""
    curve = {"step": [0, 10], "chosen": [-1.0, -1.0 + chosen], "rejected": [-1.0, -1.0 + rejected], "accuracy": [0.5, 0.9]}
    return {"objective": "", "seed": seed, "settings": {}, "curve": curve}


def test_verdicts_follow_the_recorded_numbers_and_experiments_without_a_record_are_named(tmp_path: Path):
    def record(sft: float, orpo: float) -> dict[str, Any]:
        runs = {"sft": [run(sft + shift) for shift in (-0.01, 0.01)], "orpo": [run(orpo + shift) for shift in (-0.01, 0.01)]}
        return {**FACTS, "seeds": [1, 2], "runs": runs}

    assert [claim.verdict for claim in fig3_fig7.claims(record(0.3, -0.5))] == ["shown", "shown", "shown"]
    assert [claim.verdict for claim in fig3_fig7.claims(record(-0.3, 0.5))] == ["opposite", "opposite", "shown"]
    text = write_page({"fig3_fig7": record(0.3, -0.5)}, tmp_path).read_text(encoding="utf-8")
    assert "Of 3 claims: 3 shown." in text
    assert "| The weight of the odds ratio term (appendix E) | | not measured | no record yet |" in text
    assert (tmp_path / "evidence" / "fig3_fig7.png").stat().st_size < 150_000


def test_the_comparison_of_stages_is_one_that_orpo_compare_can_run(root: Path):
    config = read_config(str(root / "recipes" / "compare-stages.yaml"))
    assert [pipeline.name for pipeline in config.pipelines] == ["orpo", "sft > orpo", "sft > odds", "sft > dpo"]
    assert config.trials_per_stage == 4
    assert len(config.seeds) == 5


def comparison(odds: dict[str, float] | None) -> dict[str, Any]:
    """A compare.json with two pipelines behind the baseline."""
    score = {"mean": 0.8, "low": 0.7, "high": 0.9}
    scores = {"oracle/score": score, "win_rate": score}
    differences = {"orpo": None, "sft > orpo": {"mean": 0.0, "low": -0.03, "high": 0.03}, "sft > odds": odds}
    pipelines = [
        {"name": name, "baseline": name == "orpo", "scores": scores, "against": {"oracle/score": found} if found else {}}
        for name, found in differences.items()
    ]
    metrics = [{"id": "oracle/score", "title": "oracle score"}]
    return {"metrics": metrics, "pipelines": pipelines, "equal": {"seeds": [1, 2, 3]}, "base": {"scores": {"oracle/score": score}}}


@pytest.mark.parametrize(
    ("odds", "verdict"),
    [
        ({"mean": 0.05, "low": 0.01, "high": 0.09}, "shown"),
        ({"mean": -0.05, "low": -0.09, "high": -0.01}, "opposite"),
        ({"mean": 0.0, "low": -0.09, "high": 0.09}, "not shown"),
        (None, "not measured"),
    ],
)
def test_a_comparison_is_judged_by_the_interval_it_gives(odds: dict[str, float] | None, verdict: str):
    content = comparison(odds)
    assert [claim.verdict for claim in stages.claims(content)] == ["shown", "not shown", verdict]
    assert behind(content, "sft > dpo") is None
