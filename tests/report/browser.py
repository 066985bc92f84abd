"""A page in a real browser, in a frame of a given width, and what is found there."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

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
