"""What `orpo compare` writes, read for the page: the figures of a pipeline, and its difference to the first one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Estimate
from evidence.lab import Lab
from evidence.pictures import COLOURS, SOFT, panels
from evidence.records import ROOT, Record

COLUMNS = {
    "oracle/score": "oracle score",
    "oracle/correct": "correct",
    "oracle/manner": "manner",
    "win_rate": "wins against the base",
    "accuracy": "pairs told apart",
}


def compared(lab: Lab, name: str) -> dict[str, Any]:
    """compare.json of recipes/<name>.yaml: the comparison is run, or goes on where it was stopped."""
    # Relative to the root where it can be: the command is recorded.
    folder = lab.folder.relative_to(ROOT) / name if lab.folder.is_relative_to(ROOT) else lab.folder / name
    subprocess.run([sys.executable, "-m", "orpo", "compare", f"recipes/{name}.yaml", "--output-dir", str(folder)], check=True, cwd=ROOT)
    return read_comparison(ROOT / folder / "compare.json")


def read_comparison(path: Path) -> dict[str, Any]:
    """What a record keeps of a compare.json: all but samples and curves, which its own page shows."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for pipeline in content["pipelines"]:
        pipeline.pop("samples", None)
        pipeline.pop("curves", None)
    return content


def main_metric(content: Record) -> str:
    """The metric that pipelines were compared by: the first one."""
    return str(content["metrics"][0]["id"])


def pipeline(content: Record, name: str) -> Record | None:
    """The pipeline of that name; None where it was not compared or came to nothing."""
    found = [one for one in content["pipelines"] if one["name"] == name and one.get("scores")]
    return found[0] if found else None


def behind(content: Record, name: str) -> Estimate | None:
    """The main metric of a pipeline less that of the baseline, with the interval that the comparison gives; None where there is none."""
    found = pipeline(content, name)
    difference = found.get("against", {}).get(main_metric(content)) if found else None
    return Estimate(difference["mean"], difference["low"], difference["high"], len(content["equal"]["seeds"])) if difference else None


def turned(estimate: Estimate) -> Estimate:
    """The same difference seen from the other side."""
    return Estimate(-estimate.mean, -estimate.high, -estimate.low, estimate.num)


def table(content: Record) -> list[str]:
    """One row a pipeline: its metrics with intervals, and the difference to the baseline."""
    shown = {metric: title for metric, title in COLUMNS.items() if any(metric in one.get("scores", {}) for one in content["pipelines"])}
    baseline = next(one["name"] for one in content["pipelines"] if one["baseline"])
    rows = [_row("base model", content["base"]["scores"], shown, "")]
    for one in content["pipelines"]:
        difference = behind(content, one["name"])
        rows.append(_row(one["name"], one.get("scores", {}), shown, "" if difference is None else str(difference)))
    return [f"| pipeline | {' | '.join(shown.values())} | score less that of {baseline} |", "|---" * (len(shown) + 2) + "|", *rows]


def _row(name: str, scores: Record, shown: Record, difference: str) -> str:
    cells = [f"{scores[m]['mean']:.3f} ({scores[m]['low']:.3f} to {scores[m]['high']:.3f})" if scores.get(m) else "" for m in shown]
    return f"| {name} | {' | '.join(cells)} | {difference} |"


def conditions(content: Record) -> list[str]:
    """What was equal, in a sentence or two."""
    equal = content["equal"]
    budget = equal["budget"]
    lost = f" {len(content['failures'])} runs failed." if content.get("failures") else ""
    return [
        "",
        f"{len(equal['seeds'])} seeds, {budget['amount']:g} {budget['kind']} in all for each pipeline, {equal['trials_per_stage']} trials "
        f"a stage, tuned by {content['tuned_by']['metric']} on {content['tuned_by']['on']}. "
        f"Intervals: 95 %, bootstrap over seeds and {equal['held_out_pairs']} held-out pairs; differences are paired.{lost}",
    ]


def bars(content: Record) -> Figure:
    """The main metric of each pipeline with its interval."""
    done = [one for one in content["pipelines"] if one.get("scores")]
    figure, (axis,) = panels(1, height=0.9 + 0.27 * len(done))
    metric = main_metric(content)
    for row, one in enumerate(done):
        score = one["scores"][metric]
        spread = [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
        axis.errorbar(score["mean"], row, xerr=spread, color=COLOURS["orpo" if one["baseline"] else "base"], marker="o", capsize=3)
    axis.axvline(content["base"]["scores"][metric]["mean"], color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set_yticks(range(len(done)), [one["name"] for one in done])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_title(f"{content['metrics'][0]['title']}, held-out prompts; dashed: the base model")
    return figure
