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
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever a page asks for, no other machine is waited for
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


FRAMES = """<!DOCTYPE html><meta charset="utf-8"><title>frames</title><body>{frames}
<script>
var ran = 0;
onload = function () {{
  var allowed = new Set({elements}), said = [];
  document.querySelectorAll('iframe').forEach(function (frame) {{
    var inside = frame.contentDocument, active = 0;
    if (!inside) return said.push('1 0 0');  // it has gone elsewhere
    inside.querySelectorAll('*').forEach(function (one) {{
      if (!allowed.has(one.localName)) active += 1;
      Array.from(one.attributes).forEach(function (attribute) {{
        var name = attribute.name, links = ['href', 'src', 'action', 'data', 'xlink:href', 'srcdoc', 'formaction'].includes(name);
        if (name.startsWith('on') || name === 'style' || (links && !attribute.value.startsWith('#'))) active += 1;
      }});
    }});
    said.push([active, inside.scripts.length, frame.contentWindow.performance.getEntriesByType('resource').length].join(' '));
  }});
  document.body.textContent = 'PROBE ' + ran + ',' + said.join(',') + ' END';
}};
</script>"""


def active_nodes(pages: list[str], folder: Path, *, elements: set[str]) -> tuple[int, list[tuple[int, int, int]]]:
    """How often a script of any of `pages` ran (by `parent.ran += 1`), and for each page: what of it is active (elements off the list,
    handlers, styles, links that leave the page), script elements, resources loaded. All pages in one load of a browser."""
    frames = "".join(f'<iframe srcdoc="{html.escape(page, quote=True)}"></iframe>' for page in pages)
    found = _dumped(FRAMES.format(frames=frames, elements=sorted(elements)), folder)
    ran, *said = found.split(",")
    return int(ran), [tuple(map(int, one.split())) for one in said]  # type: ignore[misc]


def probed(page: str, folder: Path, *, width: int) -> list[str]:
    """[width of the content, boxes beyond the edge, scripts run, resources loaded, script elements, ..., max-width of the body]."""
    # Scripts inside would reach this counter.
    return _dumped(PROBE.format(width=width, page=html.escape(page, quote=True)), folder).split()


def _dumped(probe: str, folder: Path) -> str:
    """What the script of `probe` found."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "probe.html"
    path.write_text(probe, encoding="utf-8")
    command = [
        str(BROWSER),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r"PROBE (.*?) END", done.stdout)
    assert found, done.stdout[-500:]
    return found[1]
