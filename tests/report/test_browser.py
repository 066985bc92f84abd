"""What a real browser makes of the page: no sideways scrolling on a phone, nothing executed, nothing requested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, probed
from comparisons import PIPELINES, comparison, with_failures, write_comparison_file

from orpo.report.comparison import render_comparison
from orpo.report.page import render_report
from orpo.report.side_by_side import render_side_by_side

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


@pytest.mark.parametrize(("kind", "width"), [("orpo", 390), ("failed", 390), ("orpo", 1200)])
def test_nothing_reaches_beyond_the_edge_and_nothing_is_loaded(kind: str, width: int, make_run: Any, tmp_path: Path) -> None:
    scroll_width, wide, ran, loaded, scripts, *_ = probed(render_report(make_run(kind)), tmp_path / "browser", width=width)
    assert int(scroll_width) <= width
    assert (wide, ran, loaded, scripts) == ("0", "0", "0", "0")


def test_long_words_and_stacked_marks_stay_inside_their_boxes(make_run: Any, orpo_files: dict[str, Any], tmp_path: Path) -> None:
    words = ("w" * 3000, "e" + "\u0301" * 500, "\u05e9" * 2000, "a/" * 1500)
    rows = [{"step": 1, **dict.fromkeys(("prompt", "chosen", "rejected", "before", "after", "source"), word)} for word in words]
    summary = {**orpo_files["summary.json"], "command": ["orpo", "x" * 900], "status": "failed", "error": "y" * 900}
    report = {**orpo_files["data_report.json"], "template": "z" * 300, "files": [{"path": "p" * 300, "sha256": "9f" * 32}]}
    page = render_report(make_run({**orpo_files, "samples.jsonl": rows, "summary.json": summary, "data_report.json": report}))
    scroll_width, wide, *_ = probed(page, tmp_path / "browser", width=390)
    assert int(scroll_width) <= 390
    assert wide == "0"


def test_the_style_sheet_is_applied_under_its_policy(make_run: Any, tmp_path: Path) -> None:
    assert probed(render_report(make_run()), tmp_path / "browser", width=1200)[-1] == "1128px"


def test_markup_in_texts_runs_nothing_even_without_the_policy(make_run: Any, orpo_files: dict[str, Any], tmp_path: Path) -> None:
    call = "parent.alert(1)"
    attacks = (
        f"<script>{call}</script><img src=x onerror={call}><svg onload={call}>\"><iframe srcdoc='<script>parent.{call}</script>'></iframe>"
    )
    rows = [{"step": 1, **dict.fromkeys(("prompt", "chosen", "rejected", "before", "after", "source"), attacks)}]
    page = render_report(make_run({**orpo_files, "samples.jsonl": rows, "config.resolved.yaml": f"model: '{attacks}'"}))
    open_page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    assert open_page != page
    assert probed(open_page, tmp_path / "browser", width=390)[2:5] == ["0", "0", "0"]
    infected = open_page.replace("</main>", f"{attacks}</main>")
    assert int(probed(infected, tmp_path / "control", width=390)[2]) >= 3, "the probe must see what runs"
    assert probed(page.replace("</main>", f"{attacks}</main>"), tmp_path / "policy", width=390)[2] == "0", "the policy alone holds, too"


@pytest.mark.parametrize("width", [390, 1200])
def test_a_comparison_reaches_beyond_no_edge_and_loads_nothing(width: int, tmp_path: Path) -> None:
    names = [*PIPELINES, "w" * 300, "\u05e9" * 300, "a pipeline with a very long name, of three stages indeed"]
    value = with_failures(comparison(names))
    value["failures"][0]["error"] = "x" * 900
    scroll_width, wide, ran, loaded, scripts, *_ = probed(
        render_comparison(write_comparison_file(tmp_path / "compare", value)), tmp_path / "browser", width=width
    )
    assert int(scroll_width) <= width
    assert (wide, ran, loaded, scripts) == ("0", "0", "0", "0")


def test_several_runs_reach_beyond_no_edge_and_load_nothing(make_run: Any, tmp_path: Path) -> None:
    runs = [make_run(kind, name=f"{kind}-{'long-name-' * 6}1") for kind in ("orpo", "sft", "failed")]
    scroll_width, wide, ran, loaded, scripts, *_ = probed(render_side_by_side(runs), tmp_path / "browser", width=390)
    assert int(scroll_width) <= 390
    assert (wide, ran, loaded, scripts) == ("0", "0", "0", "0")
