"""`orpo eval`: what is measured of a model, with intervals and gates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from orpo.cli.figures_text import evaluation_text
from orpo.errors import ConfigError, GateError

if TYPE_CHECKING:
    from orpo.pipeline.eval_config import EvalConfig

GATE = re.compile(r"\s*([A-Za-z_][\w/,.-]*?)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")

Gate = tuple[str, str, float]
"""A figure, a sign and a limit."""


def run_evaluate(config: EvalConfig, *, require: Sequence[str], as_json: bool) -> None:
    """Prints the figures; raises GateError (exit 4) when a required one is not reached."""
    gates = [parsed_gate(text) for text in require]
    from orpo.pipeline.evaluations import evaluations, figures_of, flat

    check_gates(gates, figures_of(config) if gates else ())
    console = Console(stderr=True, quiet=as_json)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        steps: dict[str, TaskID] = {}

        def tick(name: str, num: int, total: int) -> None:
            if name not in steps:
                steps[name] = progress.add_task(name, total=total)
            progress.update(steps[name], completed=num)

        done = evaluations(config, say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True), tick=tick)
    figures = flat(done)
    typer.echo(json.dumps(figures) if as_json else "\n\n".join(evaluation_text(evaluation) for evaluation in done))
    check_measured(gates, figures)
    failed = [gate for gate in gates if not holds(gate, figures)]
    if failed:
        shown = "; ".join(f"{name} {sign} {limit:g} but is {figures[name]:.4g}" for name, sign, limit in failed)
        raise GateError(f"a required figure was not reached: {shown}", where=config.run, doing="checking --require")


def parsed_gate(text: str) -> Gate:
    """("accuracy", ">", 0.6) from "accuracy>0.6". Raises ConfigError for anything else."""
    match = GATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--require {text!r} is no condition", expected='a figure, a sign and a number, such as "accuracy>0.6"', fix="put it in quotes"
        )
    return match[1], match[2], float(match[3])


def check_gates(gates: Sequence[Gate], figures: Sequence[str]) -> None:
    """Nothing; raises ConfigError for a gate on what will be none of `figures`. A name that ends in / stands for all that begin with it."""
    beginnings = tuple(name for name in figures if name.endswith("/"))
    for name, _, _ in gates:
        if name not in figures and not (beginnings and name.startswith(beginnings)):
            raise _not_measured(name, figures)


def check_measured(gates: Sequence[Gate], figures: Mapping[str, Any]) -> None:
    """Nothing; raises ConfigError for a gate on a figure that was not measured after all, or of which there is none."""
    for name, _, _ in gates:
        if figures.get(name) is None:
            raise _not_measured(name, [known for known, value in figures.items() if isinstance(value, int | float)])


def _not_measured(name: str, figures: Sequence[str]) -> ConfigError:
    return ConfigError(f"--require names {name!r}, which is not measured", expected=f"one of {', '.join(figures)}")


def holds(gate: Gate, figures: Mapping[str, Any]) -> bool:
    """True when the figure that `gate` names is as it asks."""
    name, sign, limit = gate
    value = float(figures[name])
    return {">": value > limit, "<": value < limit, ">=": value >= limit, "<=": value <= limit}[sign]
