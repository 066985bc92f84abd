"""Every payload in every field, in a real browser and without the page's policy: nothing runs, nothing is requested, nothing is active."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, active_nodes
from comparisons import write_comparison_file
from infection import infected, infected_comparison, infected_run, rich
from payloads import ELEMENTS, PAYLOADS

from orpo.report.comparison import render_comparison
from orpo.report.page import render_report
from orpo.report.side_by_side import render_side_by_side

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
HOSTILE = [payload.replace("alert(1)", "parent.ran+=1") for payload in PAYLOADS]


def unprotected(page: str) -> str:
    """`page` without its policy, so that the escaping alone has to hold."""
    changed = re.sub(r"<meta http-equiv[^>]*>", "", page)
    assert changed != page
    return changed


@pytest.fixture
def clean(make_run: Any, orpo_files: dict[str, Any]) -> str:
    """A page without any payload."""
    return unprotected(render_report(make_run(rich(orpo_files), name="clean")))


def test_no_payload_in_any_field_of_a_run_makes_an_active_node(make_run: Any, orpo_files: dict[str, Any], tmp_path: Path) -> None:
    # A few rows of metrics: they make most of a page, and are numbers.
    files = rich(orpo_files) | {"metrics.jsonl": orpo_files["metrics.jsonl"][:4]}
    pages = [unprotected(render_report(make_run(infected(files, text), name=f"run-{i}"))) for i, text in enumerate(HOSTILE)]
    ran, found = active_nodes(pages, tmp_path / "browser", elements=ELEMENTS)
    assert len(HOSTILE) >= 40
    assert (ran, found) == (0, [(0, 0, 0)] * len(HOSTILE))


def test_no_payload_in_a_comparison_or_in_several_runs_makes_an_active_node(
    make_run: Any, orpo_files: dict[str, Any], tmp_path: Path
) -> None:
    """Each in one of the two pages; test_page_payloads.py has each in both, without a browser."""
    pages = []
    for i, text in enumerate(HOSTILE):
        if i % 2:
            pages.append(render_comparison(write_comparison_file(tmp_path / f"compare-{i}", infected_comparison(text))))
        else:
            runs = [make_run(infected_run(orpo_files, text, k), name=f"run-{i}-{k}") for k in range(2)]
            pages.append(render_side_by_side(runs))
    ran, found = active_nodes([unprotected(page) for page in pages], tmp_path / "browser", elements=ELEMENTS)
    assert (ran, found) == (0, [(0, 0, 0)] * len(pages))


def test_the_browser_sees_what_the_same_payloads_do_where_nothing_escapes_them(clean: str, tmp_path: Path) -> None:
    raw = [clean.replace("</main>", f"{text.encode('utf-8', 'replace').decode()}</main>") for text in HOSTILE]
    ran, found = active_nodes([clean, *raw], tmp_path / "browser", elements=ELEMENTS)
    assert found[0] == (0, 0, 0)
    assert ran >= 5
    assert sum(any(one) for one in found[1:]) >= 20
