"""What a real browser makes of the page: no sideways scrolling on a phone, nothing executed, nothing requested."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orpo.report.page import render_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title><body style="margin:0">
<iframe style="width:{width}px;height:800px;border:0" srcdoc="{page}"></iframe>
<script>
var ran = 0; function alert() {{ ran += 1 }}
onload = function () {{
  var inside = document.querySelector('iframe').contentDocument, root = inside.documentElement;
  inside.querySelectorAll('details').forEach(function (one) {{ one.open = true }});
  var wide = 0;
  inside.querySelectorAll('body *').forEach(function (one) {{
    if (!one.closest('.scroll') && !one.closest('pre.lines') && one.getBoundingClientRect().right > {width} + 0.5) wide += 1;
  }});
  var loaded = document.querySelector('iframe').contentWindow.performance.getEntriesByType('resource').length;
  document.body.textContent = 'PROBE ' + [root.scrollWidth, wide, ran, loaded, inside.scripts.length, getComputedStyle(root).length > 0,
    inside.defaultView.getComputedStyle(inside.body).maxWidth].join(' ') + ' END';
}};
</script>"""
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


def probed(page: str, folder: Path, *, width: int) -> list[str]:
    """[width of the content, boxes beyond the edge, scripts run, resources loaded, script elements, ..., max-width of the body]."""
    folder.mkdir(parents=True, exist_ok=True)
    # Scripts inside would reach this counter.
    framed = html.escape(page, quote=True)
    path = folder / "probe.html"
    path.write_text(PROBE.format(width=width, page=framed), encoding="utf-8")
    command = [
        str(BROWSER),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"PROBE (.*?) END", done.stdout)
    assert found, done.stdout[-500:]
    return found[1].split()


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
