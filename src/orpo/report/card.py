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


def write_card(run_dir: Path, *, into: Path | None = None, library: str = "", extra: str = "") -> Path:
    """The path of README.md in the run directory, or in another folder; it and its picture are each written whole, the picture first.

    `library` is what loads the model in that folder, where it is not the run's own; `extra` is a section more.
    """
    run, folder = read_run(run_dir), into or run_dir
    if plotted(run):
        atomic.write_bytes_atomic(folder / PLOT, render_plot(run))
    atomic.write_text_atomic(folder / CARD, card(run, library=library, extra=extra))
    return folder / CARD


def card(run: RunData, *, library: str = "", extra: str = "") -> str:
    """The model card of a run that was read already."""
    shown = plotted(run)
    picture = [f"![Log-probs and accuracy over the steps]({PLOT})", picture_note(shown)] if shown else []
    sentences = [f"- {escape_markdown(plain_text(sentence.content))}" for sentence in verdict(run, alarms(run))]
    parts = [
        f"---\n{yaml.safe_dump(_header(run, library), sort_keys=False, allow_unicode=False)}---",
        f"# {escape_markdown(run.name)}",
        _opening(run),
        *picture,
        "## What was measured",
        "\n".join(sentences),
        *_table(run),
        *([extra] if extra else []),
        "## How to reproduce it",
        *_reproduce(run),
        "## What this card does not say",
        "Whether the model is safe or right for your use was not measured here. Its licence follows from its base model and from its data.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(run: RunData, library: str) -> dict[str, object]:
    """What a model hub reads. Names only where they can be names on a hub: a path of somebody's disk does not belong there."""
    objective, model, data = facts.text(run, "objective"), facts.text(run, "model"), facts.setting(run, "data")
    names = [re.split("[@:]", str(name))[0] for name in (data if isinstance(data, list) else [data])]
    datasets = [name for name in names if _is_hub_id(name)]
    header: dict[str, object] = {
        "library_name": library or ("peft" if (run.path / ADAPTER).is_dir() else "transformers"),
        "pipeline_tag": "text-classification" if objective == "reward" else "text-generation",
    }
    if model and _is_hub_id(model):
        header["base_model"] = model
    if datasets:
        header["datasets"] = datasets
    named = [objective] if objective and _TAG.fullmatch(objective) else []
    header["tags"] = list(dict.fromkeys(["orpo", *named, "preference-optimization", "alignment"]))
    return header


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _opening(run: RunData) -> str:
    objective, weight, report = facts.text(run, "objective"), facts.beta(run), facts.mapping(run.data_report)
    pairs, version = as_number(report.get("trained_on", report.get("pairs"))), facts.libraries(run).get("orpo")
    with_beta = f" (\u03b2 {short(weight)})" if weight is not None and objective != "sft" else ""
    model = escape_markdown(facts.model_name(run) or "A language model")
    said = f"{model}, tuned with {escape_markdown((objective or 'orpo').upper())}{with_beta}"
    said += f" on {count(pairs)} preference pairs" if pairs is not None else ""
    return said + (f" by orpo {escape_markdown(version)}." if version else ".")


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
    seed = facts.setting(run, "seed")
    said = [f"seed {escape_markdown(str(seed))}"] if seed is not None else []
    said += [f"{count(facts.reached(run))} steps", *([duration(run.summary.seconds)] if run.summary else [])]
    said += [escape_markdown(f"{name} {version}") for name, version in facts.libraries(run).items()]
    files = [
        escape_markdown(f"{file.get('path', '')} ({use}), sha256 {file['sha256']}")
        for use, file in facts.data_files(run)
        if "sha256" in file
    ]
    command = [_fenced(shlex.join(run.summary.command))] if run.summary and run.summary.command else []
    return [*command, ", ".join(said) + ".", *(["Data:\n\n" + "\n".join(f"- {file}" for file in files)] if files else [])]


def _fenced(text: str) -> str:
    """A code block that `text` cannot end: its fence is longer than any run of backticks within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{visible(text)}\n{fence}"
