"""The same payloads in the page of a comparison and in that of several runs: whatever a text says, it stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparisons import comparison, with_failures, write_comparison_file
from payloads import ATTRIBUTES, ELEMENTS, PAYLOADS, Skeleton

from orpo.report.comparison import render_comparison
from orpo.report.escape import visible
from orpo.report.side_by_side import render_side_by_side


def infected_comparison(text: str) -> dict[str, Any]:
    """A comparison with `text` in every place where text that is not ours can stand, names and keys included."""
    value = with_failures(comparison(["orpo", "sft", "sft > dpo"], seeds=[1, 2]))
    value |= {"name": text, "command": [text], "started": text, "finished": text, "status": text}
    value["environment"] = {text: text, "libraries": {text: text}}
    value["equal"] |= {"model": text, "split": text, "data_fingerprint": text, "settings": {text: text}, text: text}
    value["equal"]["budget"] = {"kind": text, "amount": 3}
    value["tuned_by"] = {"metric": "oracle/score", "on": text, "seed": text}
    for metric in value["metrics"]:
        metric |= {"title": text, "unit": text, "note": text}
    for i, pipeline in enumerate(value["pipelines"]):
        pipeline["name"] = f"{text}{i}"
        for stage in (*pipeline["stages"], *pipeline["cost"]["stages"]):
            stage["objective"] = text
        for trial in pipeline["trials"]:
            trial |= {"settings": {text: text, "learning_rate": 1e-3}, "error": text, "shared_with": [text]}
        message = [{"role": text, "content": text}]
        pipeline["samples"] = [
            {"prompt": text, "base": text, "reply": text, "verdict": {"score": 1.0}},
            {"prompt": message, "reply": message},
        ]
    value["failures"] = [{"pipeline": text, "stage": 0, "seed": 1, "error": text}]
    return value


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_everywhere_changes_nothing_of_a_comparison_but_its_texts(payload: str, tmp_path: Path) -> None:
    page = render_comparison(write_comparison_file(tmp_path / "a", infected_comparison(payload)))
    harmless = render_comparison(write_comparison_file(tmp_path / "b", infected_comparison("harmless")))
    check(page, harmless, payload)


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_everywhere_changes_nothing_of_several_runs_but_their_texts(payload: str, make_run: Any, orpo_files: Any) -> None:
    pages = []
    for text in (payload, "harmless"):
        runs = [make_run(infected_run(orpo_files, text, i), name=f"run-{len(pages)}-{i}") for i in range(2)]
        pages.append(render_side_by_side(runs))
    check(*pages, payload)


def infected_run(files: dict[str, Any], text: str, i: int) -> dict[str, Any]:
    sample = {"step": 0, "prompt": text, "after": text, "before": text, "after_verdict": {"score": 0.5}, "after_tokens": 3}
    sections = {
        **files["summary.json"]["sections"],
        "model": {"model": text, "objective": text, "dtype": text, "beta": 0.5},
        "alarms": [text],
    }
    return {
        **files,
        "summary.json": files["summary.json"] | {"command": [text, str(i)], "sections": sections, "status": "failed", "error": text},
        "samples.jsonl": [sample],
        "data_report.json": files["data_report.json"] | {"files": [{"path": text, "sha256": f"{i}{text}"}]},
        "env.json": {"python": text, "libraries": {text: f"{text}{i}"}},
    }


def check(page: str, harmless: str, payload: str) -> None:
    found = Skeleton(page)
    assert found.nodes == Skeleton(harmless).nodes
    assert {tag.removeprefix("/") for tag, _ in found.nodes} - {"declaration DOCTYPE html"} <= ELEMENTS
    assert {name for _, names in found.nodes for name in names} <= ATTRIBUTES
    assert all(value.startswith("#") for _, name, value in found.attributes if name == "href")
    assert page.encode("utf-8")
    assert visible(payload)[:40].replace("\r", "") in found.text


def test_the_payloads_reach_all_their_places(tmp_path: Path) -> None:
    page = Skeleton(render_comparison(write_comparison_file(tmp_path, infected_comparison("harmless"))))
    assert page.text.count("harmless") > 300
