"""The same payloads in the page of a comparison and in that of several runs: whatever a text says, it stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparisons import write_comparison_file
from infection import infected_comparison, infected_run
from payloads import ATTRIBUTES, ELEMENTS, PAYLOADS, Skeleton

from orpo.report.comparison import render_comparison
from orpo.report.escape import visible
from orpo.report.side_by_side import render_side_by_side


@pytest.mark.parametrize("numbers", [False, True], ids=["texts", "numbers"])
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_everywhere_changes_nothing_of_a_comparison_but_its_texts(payload: str, numbers: bool, tmp_path: Path) -> None:
    page = render_comparison(write_comparison_file(tmp_path / "a", infected_comparison(payload, numbers=numbers)))
    harmless = render_comparison(write_comparison_file(tmp_path / "b", infected_comparison("harmless", numbers=numbers)))
    check(page, harmless, payload)


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_everywhere_changes_nothing_of_several_runs_but_their_texts(payload: str, make_run: Any, orpo_files: Any) -> None:
    pages = []
    for text in (payload, "harmless"):
        runs = [make_run(infected_run(orpo_files, text, i), name=f"run-{len(pages)}-{i}") for i in range(2)]
        pages.append(render_side_by_side(runs))
    check(*pages, payload)


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
