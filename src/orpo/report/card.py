"""The model card: a run enters, README.md and its picture leave, from the same data and rules as the report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import yaml

from orpo.report import facts
from orpo.report.alarms import alarms
from orpo.report.escape import escape_markdown, visible
from orpo.report.markup import plain_text
from orpo.report.numbers import MISSING, as_number, count, duration, nats, percent, short
from orpo.report.plot import picture_note, plotted, render_plot
from orpo.report.verdict import verdict
from orpo.runs import atomic
from orpo.runs.names import ADAPTER, CARD
from orpo.runs.summary import RunData, read_run

PLOT = "report_plot.png"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def render_card(run_dir: Path) -> str:
    """The text of README.md for `run_dir`; it names PLOT, which `write_card` puts beside it."""
    return card(read_run(run_dir))


def write_card(run_dir: Path) -> Path:
    """The path of README.md; README.md and its picture are each written whole or not at all, the picture first."""
    run = read_run(run_dir)
    if plotted(run):
        atomic.write_bytes_atomic(run_dir / PLOT, render_plot(run))
    atomic.write_text_atomic(run_dir / CARD, card(run))
    return run_dir / CARD


def card(run: RunData) -> str:
    """The model card of a run that was read already."""
    shown = plotted(run)
    picture = [f"![Log-probs and accuracy over the steps]({PLOT})", picture_note(shown)] if shown else []
    sentences = [f"- {escape_markdown(plain_text(sentence.content))}" for sentence in verdict(run, alarms(run))]
    parts = [
        f"---\n{yaml.safe_dump(_header(run), sort_keys=False, allow_unicode=False)}---",
        f"# {escape_markdown(run.name)}",
        _opening(run),
        *picture,
        "## What was measured",
        "\n".join(sentences),
        *_table(run),
        "## How to reproduce it",
        *_reproduce(run),
        "## What this card does not say",
        "Whether the model is safe or right for your use was not measured here. Its licence follows from its base model and from its data.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(run: RunData) -> dict[str, object]:
    """What a model hub reads. Names only where they can be names on a hub: a path of somebody's disk does not belong there."""
    objective, model, data = (facts.text(run, key) for key in ("objective", "model", "data"))
    header: dict[str, object] = {
        "library_name": "peft" if (run.path / ADAPTER).is_dir() else "transformers",
        "pipeline_tag": "text-generation",
    }
    if model and _HUB_ID.fullmatch(model) and not Path(model).exists():
        header["base_model"] = model
    if data and _HUB_ID.fullmatch(data) and not Path(data).exists():
        header["datasets"] = [data]
    named = [objective] if objective and _TAG.fullmatch(objective) else []
    header["tags"] = list(dict.fromkeys(["orpo", *named, "preference-optimization", "alignment"]))
    return header


def _opening(run: RunData) -> str:
    objective, model, weight = facts.text(run, "objective"), facts.text(run, "model"), facts.beta(run)
    pairs, version = (
        as_number(facts.mapping(run.data_report).get("pairs")),
        facts.mapping(facts.mapping(run.environment).get("versions")).get("orpo"),
    )
    with_beta = f" (\u03b2 {short(weight)})" if weight is not None and objective != "sft" else ""
    said = f"{escape_markdown(model or 'A language model')}, tuned with {escape_markdown((objective or 'orpo').upper())}{with_beta}"
    said += f" on {count(pairs)} preference pairs" if pairs is not None else ""
    return said + (f" by orpo {escape_markdown(str(version))}." if version else ".")


def _table(run: RunData) -> list[str]:
    moments, scores = facts.held_out(run), facts.oracle(run)
    rows = [
        _row("pairs told apart", percent, [moment.accuracy if moment else None for moment in moments]),
        _row("NLL of the chosen, nats per token", nats, [moment.nll if moment else None for moment in moments]),
        _row("mean log p of the chosen", nats, [moment.chosen if moment else None for moment in moments]),
        _row("mean log p of the rejected", nats, [moment.rejected if moment else None for moment in moments]),
        _row("oracle score", percent, [as_number(score.get("score")) for score in scores]),
    ]
    shown = [row for row in rows if row is not None]
    return ["\n".join(["| held out | start | end |", "|---|---:|---:|", *shown])] if shown else []


def _row(name: str, spelled: Callable[[float], str], values: list[float | None]) -> str | None:
    if values[1] is None:
        return None
    return f"| {name} | {' | '.join(MISSING if value is None else spelled(value) for value in values)} |"


def _reproduce(run: RunData) -> list[str]:
    parts = [_fenced(shlex.join(run.summary.command))] if run.summary and run.summary.command else []
    facts_of_run = [f"seed {escape_markdown(str(facts.setting(run, 'seed')))}"] if facts.setting(run, "seed") is not None else []
    if run.summary:
        facts_of_run += [f"{count(run.summary.steps)} steps", duration(run.summary.seconds)]
    versions = facts.mapping(facts.mapping(run.environment).get("versions"))
    facts_of_run += [f"{escape_markdown(str(name))} {escape_markdown(str(version))}" for name, version in versions.items()]
    files = [facts.mapping(item) for item in facts.sequence(facts.mapping(run.data_report).get("files"))]
    hashes = [
        f"- {escape_markdown(str(item.get('path', '')))}, sha256 {escape_markdown(str(item['sha256']))}"
        for item in files
        if "sha256" in item
    ]
    return [*parts, *([", ".join(facts_of_run) + "."] if facts_of_run else []), *(["\n".join(["Data:", "", *hashes])] if hashes else [])]


def _fenced(text: str) -> str:
    """A code block that `text` cannot end: its fence is longer than any run of backticks within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{visible(text)}\n{fence}"
