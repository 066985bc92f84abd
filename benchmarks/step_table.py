"""The figures of a benchmark of steps as tables: for a terminal, and as Markdown to keep beside the JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("contender", "pairs/s", "distinct tokens/s", "s per step", "min", "max", "peak GiB", "above libraries", "of the floor")


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text per contender, in the order of COLUMNS; those that did not run with the reason."""
    rows: list[tuple[str, ...]] = []
    for name, figures in result["contenders"].items():
        seconds = figures["seconds_per_step"]
        rows.append(
            (
                name,
                f"{figures['pairs_per_second']:.2f}",
                f"{figures['distinct_tokens_per_second']:,.0f}",
                f"{seconds['median']:.3f}",
                f"{seconds['min']:.3f}",
                f"{seconds['max']:.3f}",
                f"{figures['peak_memory_gib']:.2f}",
                f"{figures['peak_memory_above_libraries_gib']:.2f}",
                f"{figures['share_of_floor']:.1%}",
            )
        )
    rows += [(name, f"skipped: {why}", *[""] * (len(COLUMNS) - 2)) for name, why in result["skipped"].items()]
    return rows


def notes_of(result: Mapping[str, Any]) -> list[str]:
    """What stands below the table: ratios, the losses compared, the rates of products, and what is equal."""
    losses, rates = result["first_loss"], result["product_flops_per_second"]
    lines = [
        f"{name}: {ratio['speed']:.2f} times as fast ({ratio['least']:.2f} to {ratio['most']:.2f} by round), "
        f"{ratio['memory']:.0%} of the peak memory"
        for name, ratio in result["ratios"].items()
    ]
    shown = ", ".join(f"{name} {loss:.6f}" for name, loss in losses["losses"].items())
    if losses["largest_difference"] is None:
        lines.append(f"first loss: {shown}; not compared: no peer took the whole step at once")
    else:
        lines.append(f"first loss: {shown}; at most {losses['largest_difference']:.1e} apart, {losses['tolerance']:.0e} is allowed")
    products = ", ".join(f"{name} {rate / 1e9:,.1f}" for name, rate in rates.items())
    lines.append(f"matrix products, GFLOP/s: {products}; the floor takes the best")
    lines += [f"{name.replace('_', ' ')}: {value}" for name, value in result["equal"].items() if name != "shape"]
    precomputed = {name: figures["reference_seconds"] for name, figures in result["contenders"].items() if "reference_seconds" in figures}
    if precomputed:
        lines.append(f"reference precomputed for all steps in: {', '.join(f'{name} {taken:.1f} s' for name, taken in precomputed.items())}")
    lines.append(f"shape: {', '.join(f'{name} {value}' for name, value in result['equal']['shape'].items())}")
    for name, figures in result["contenders"].items():
        lines.append(f"settings of {name}: {', '.join(f'{key} {value}' for key, value in figures['settings'].items())}")
    return lines


def show(result: Mapping[str, Any], title: str) -> None:
    """Nothing; the table and its notes are printed."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "contender" else "right", no_wrap=True)
    for row in rows_of(result):
        table.add_row(*row)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for line in notes_of(result):
        console.print(line, markup=False, highlight=False)


def markdown(result: Mapping[str, Any]) -> list[str]:
    """The table and its notes as lines of Markdown."""
    return [*_table(COLUMNS, rows_of(result)), "", *[f"- {line}" for line in notes_of(result)]]


def rivals_markdown(cases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One table of all cases with the ratios of each; then the notes of each, and once those that all of them have."""
    rows = [(name, *row, *_ratio_of(result["ratios"], row[0])) for name, result in cases.items() for row in rows_of(result)]
    lines = _table(("case", *COLUMNS, "times as fast (by round)", "of its memory"), rows)
    notes = {name: notes_of(result) for name, result in cases.items()}
    shared = [note for note in next(iter(notes.values())) if all(note in others for others in notes.values())] if len(notes) > 1 else []
    sections = {name: [note for note in own if note not in shared] for name, own in notes.items()}
    for name, own in {**sections, **({"all cases": shared} if shared else {})}.items():
        lines += ["", f"## {name}", "", *[f"- {note}" for note in own]]
    return lines


def _ratio_of(ratios: Mapping[str, Mapping[str, float]], peer: str) -> tuple[str, str]:
    """What stands beside a peer: how many times as fast ours is, and its share of the peer's memory; '' beside ours."""
    found = [ratio for name, ratio in ratios.items() if name.endswith(f" over {peer}")]
    if not found:
        return "", ""
    return f"{found[0]['speed']:.2f} ({found[0]['least']:.2f} to {found[0]['most']:.2f})", f"{found[0]['memory']:.0%}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *[f"| {' | '.join(row)} |" for row in rows]]


def write_markdown(path: Path, lines: Sequence[str], title: str, facts: Mapping[str, Any]) -> Path:
    """`path`, now holding `lines` under a title, with the machine and the command."""
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    machine = ", ".join([*facts["gpus"], f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, {facts['memory_gib']} GiB"])
    head = [f"# {title}", "", f"Command: `{' '.join(facts['command'])}`", "", f"Machine: {machine}", "", f"Versions: {libraries}", ""]
    path.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    return path
