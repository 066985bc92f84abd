"""docs/evidence.md and its pictures, from the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from evidence import cost, diversity, fig3_fig7, gradient, no_penalty, quality, ratios, size, stages, weights
from evidence.claims import Claim
from evidence.pictures import save
from evidence.records import ROOT, Record

DOCS = ROOT / "docs"
PICTURES = "evidence"

EXPERIMENTS: Mapping[str, ModuleType] = {
    "fig3_fig7": fig3_fig7,
    "gradient": gradient,
    "no_penalty": no_penalty,
    "ratios": ratios,
    "weights": weights,
    "cost": cost,
    "compare-world": quality,
    "compare-stages": stages,
    "size": size,
    "diversity": diversity,
}
"""In the order of the page; the name is that of the record."""

HEAD = """\
# What of the paper is seen here

<!-- Written by `make evidence` from evidence/recorded; changes here are lost. -->

The claims of [ORPO](https://arxiv.org/abs/2403.07691) on a small machine: a model of 1.43M parameters, 150 to 200 steps of 8 pairs, a
built-in world whose oracle scores replies exactly, held-out prompts about facts that no training pair has. Each verdict is computed from
recorded numbers by the rule in its section, whoever wins.

* **shown**: the whole 95 % interval lies where the claim says. **opposite**: all of it lies on the other side. **not shown**: neither.
* Intervals are over seeds (training pairs, their order, held-out pairs), Student's t, unless a section says otherwise.
* A result here is about one synthetic world and one small model. It can show that an effect exists; it cannot tell how large it is at 7B.
* `make evidence` runs what is not recorded yet and writes this page; `make evidence ONLY=weights` records one experiment anew; `FRESH=1`
  throws away the runs that are kept in `runs/evidence` first. Records: `evidence/recorded`, code: `evidence/`.
"""


def page(records: Mapping[str, Record]) -> str:
    """The page of `records`, by experiment; one without a record is named as not measured."""
    found = {name: experiment.claims(records[name]) for name, experiment in EXPERIMENTS.items() if name in records}
    missing = [experiment.TITLE for name, experiment in EXPERIMENTS.items() if name not in records]
    sections = [_section(name, records[name], claims) for name, claims in found.items()]
    return "\n".join([HEAD, *_overview(found, missing), "", *sections])


def _overview(found: Mapping[str, tuple[Claim, ...]], missing: list[str]) -> list[str]:
    counts = Counter(claim.verdict for claims in found.values() for claim in claims)
    total = ", ".join(f"{num} {verdict}" for verdict, num in counts.most_common())
    rows = [
        f"| [{claim.says}](#{_anchor(EXPERIMENTS[name].TITLE)}) | {claim.source} | **{claim.verdict}** | {claim.figure} |"
        for name, claims in found.items()
        for claim in claims
    ]
    rows += [f"| {title} | | not measured | no record yet |" for title in missing]
    return [f"Of {sum(counts.values())} claims: {total}.", "", "| claim | source | verdict | figure |", "|---|---|---|---|", *rows]


def _section(name: str, record: Record, claims: tuple[Claim, ...]) -> str:
    experiment = EXPERIMENTS[name]
    rules = [f"* {claim.says}: **{claim.verdict}**. Rule: {claim.rule}." for claim in claims]
    picture = f"![{experiment.ALT}]({PICTURES}/{name}.png)"
    return "\n".join([f"## {experiment.TITLE}", *rules, f"* {_facts(record)}", "", picture, "", *experiment.lines(record), ""])


def _facts(record: Record) -> str:
    """How the record was made, in one line."""
    command = record["command"] if isinstance(record["command"], str) else " ".join(record["command"])
    if "environment" in record:  # written by `orpo compare`
        equal, started = record["equal"], record["started"].partition("T")[0]
        seeds, where = equal["seeds"], f"{started}, {record['environment']['cpu']}"
        seconds = f"{record['seconds']:,.0f} s, {equal['jobs']} stages at a time"
    else:
        seeds, where = record["seeds"], f"commit {record['commit']}, {record['date']}, {record['machine']['cpu']}"
        seconds = f"{max(1, round(record['cpu_seconds'])):,} s of one core"
    return f"`{command}`: {seconds}, seeds {', '.join(map(str, seeds))}, {where}."


def _anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def write_page(records: Mapping[str, Record], docs: Path = DOCS) -> Path:
    """Where the page was written, its pictures beside it."""
    folder = docs / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        save(EXPERIMENTS[name].picture(record), folder / f"{name}.png")
    path = docs / "evidence.md"
    path.write_text(page(records), encoding="utf-8")
    return path
