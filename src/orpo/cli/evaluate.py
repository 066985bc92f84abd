"""`orpo eval`: a model on held-out pairs, with intervals and gates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress

from orpo.errors import ConfigError, GateError

GATE = re.compile(r"\s*([a-z_/]+)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


def run_evaluate(
    run: str,
    data: Sequence[str],
    *,
    columns: str | None,
    template: str | None,
    max_length: int | None,
    require: Sequence[str],
    as_json: bool,
) -> None:
    """Prints the figures; raises GateError (exit 4) when a required one is not reached."""
    gates = [parsed_gate(text) for text in require]
    from orpo.evaluation.preference import FIGURES
    from orpo.pipeline.evaluate import evaluate

    check_gates(gates, FIGURES)

    console = Console(stderr=True, quiet=as_json)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("pairs", total=None)
        figures = evaluate(
            run,
            data,
            columns=columns,
            template=template,
            max_length=max_length,
            say=lambda text: console.print(text, markup=False, highlight=False),
            tick=lambda total: progress.update(task, advance=1, total=total),
        )
    typer.echo(json.dumps(figures) if as_json else figures_text(figures))
    failed = [gate for gate in gates if not holds(gate, figures)]
    if failed:
        shown = "; ".join(f"{name} {sign} {limit:g} but is {figures[name]:.4g}" for name, sign, limit in failed)
        raise GateError(f"a required figure was not reached: {shown}", where=run, doing="checking --require")


def parsed_gate(text: str) -> tuple[str, str, float]:
    """("accuracy", ">", 0.6) from "accuracy>0.6". Raises ConfigError for anything else."""
    match = GATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--require {text!r} is no condition", expected='a figure, a sign and a number, such as "accuracy>0.6"', fix="put it in quotes"
        )
    return match[1], match[2], float(match[3])


def check_gates(gates: Sequence[tuple[str, str, float]], figures: Sequence[str]) -> None:
    """Nothing; raises ConfigError for a gate on what is none of `figures`."""
    for name, _, _ in gates:
        if name not in figures:
            raise ConfigError(f"--require names {name!r}, which is not measured", expected=f"one of {', '.join(figures)}")


def holds(gate: tuple[str, str, float], figures: Mapping[str, Any]) -> bool:
    """True when the figure that `gate` names is as it asks."""
    name, sign, limit = gate
    value = float(figures[name])
    return {">": value > limit, "<": value < limit, ">=": value >= limit, "<=": value <= limit}[sign]


def figures_text(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    accuracy, low, high = (100 * figures[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    return "\n".join(
        [
            f"model        {figures['model']}",
            f"pairs        {figures['num_pairs']:,} of {', '.join(str(Path(path)) for path in figures['data'])}",
            f"accuracy     {accuracy:.1f} % ({low:.1f}-{high:.1f}, 95 % Wilson interval)",
            f"NLL          {figures['nll_loss']:.4f} nats per chosen token",
            f"log p        chosen {figures['logps/chosen']:.4f}, rejected {figures['logps/rejected']:.4f} (mean per token)",
            f"margin       {figures['margin']:.4f} ({figures['margin_low']:.4f} to {figures['margin_high']:.4f}, 95 % interval)",
        ]
    )
