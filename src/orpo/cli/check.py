"""`orpo check`: what is in a data file, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from orpo.data.data_report import DataReport
from orpo.data.limits import OVERLONG_CHOICES
from orpo.data.preview import preview, visible
from orpo.errors import ConfigError


def run_check(
    data: Sequence[str],
    *,
    model: str | None,
    template: str,
    max_length: int | None,
    overlong: str,
    columns: str | None,
    max_bad_rows: int,
    pair_labelled: bool,
    objective: str,
    show: int,
    as_json: bool,
) -> None:
    """Prints the report; raises DataError (exit 3) when the data cannot be trained on."""
    from orpo.data.checks import check_data
    from orpo.data.columns import parse_columns
    from orpo.pipeline.run_data import reads_of

    if overlong not in OVERLONG_CHOICES:
        raise ConfigError(f"--overlong {overlong!r} is unknown", expected=f"one of {', '.join(OVERLONG_CHOICES)}")
    if show and not model:
        raise ConfigError("--show needs --model: a row is shown as that model sees it", fix="add --model FOLDER")
    tokenizer, length = _tokenizer_and_length(model, max_length) if model else (None, None)
    checked = check_data(
        data,
        tokenizer=tokenizer,
        template=template,
        columns=parse_columns(columns) if columns else None,
        max_length=length,
        overlong=overlong,
        max_bad_rows=max_bad_rows,
        pair_labelled=pair_labelled,
        reads=reads_of(objective),
    )
    if as_json:
        typer.echo(json.dumps(checked.report.as_dict()))
        checked.raise_if_errors()
        return
    console = Console(soft_wrap=True)
    _print_report(console, checked.report)
    if show and checked.store is not None:
        for example in checked.store[:show]:
            console.print(preview(example, tokenizer))
    checked.raise_if_errors()
    console.print(f"ready: {checked.report.pairs:,} {checked.report.noun}s can be trained on", style="green", highlight=False)


def _tokenizer_and_length(model: str, max_length: int | None) -> tuple[Any, int]:
    """The tokenizer of `model`, and the longest row that `orpo train` would take: what was asked, else the default within its positions."""
    from orpo.pipeline.run import quiet_libraries
    from orpo.training.config_fields import DEFAULTS
    from orpo.training.models import effective_max_length, load_shape, load_tokenizer

    quiet_libraries()
    shape = load_shape(model)
    asked = DEFAULTS["max_length"] if max_length is None else max_length
    return load_tokenizer(model), effective_max_length(asked, shape, is_explicit=max_length is not None)


def _print_report(console: Console, report: DataReport) -> None:
    """Shape and counts; what was dropped or is odd, with the first places; token statistics."""

    def say(label: str, text: str) -> None:
        # Names of columns and files come from the data: they must not steer the terminal.
        console.print(visible(f"{label:<13}{text}"), markup=False, highlight=False)

    say("shape", report.shape)
    say("rows", f"{report.rows:,} rows, {report.pairs:,} {report.noun}s, {report.num_errors:,} errors")
    if report.answers and report.pairs:
        say("answers", _answers_line(report.answers))
    for label, counts, first in (("dropped", report.dropped, report.first_dropped), ("warning", report.warnings, report.first_warnings)):
        for kind, num in counts.items():
            places = [str(problem.source) for problem in first if problem.kind == kind and problem.source][:3]
            message = next((problem.message for problem in first if problem.kind == kind), "")
            say(label, f"{num:,} x {kind}: {message}" + (f" ({', '.join(places)}{', ...' if num > len(places) else ''})" if places else ""))
    if report.template:
        say("template", report.template)
    if report.tokens:
        console.print(_token_table(report.tokens))


def _answers_line(answers: Mapping[str, Any]) -> str:
    """How many answers are desirable and not, with weights where they are lopsided; or how many rankings have how many answers."""
    if "lengths" in answers:
        return ", ".join(f"{num:,} x {length} answers" for length, num in answers["lengths"].items())
    counts = f"{answers['desirable']:,} desirable, {answers['undesirable']:,} undesirable"
    weights = [f"{name} {answers[name]:g}" for name in ("desirable_weight", "undesirable_weight") if answers[name] != 1]
    return f"{counts}, evened out by {weights[0]}" if weights else counts


def _token_table(tokens: Mapping[str, Any]) -> Table:
    """Lengths of prompts and answers in tokens."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for header in ("tokens", "min", "median", "p95", "max", "total"):
        table.add_column(header, header_style="dim", justify="left" if header == "tokens" else "right")
    for part, figures in tokens.items():
        if not isinstance(figures, Mapping):
            continue
        table.add_row(part, *(f"{figures[name]:,.0f}" for name in ("min", "median", "p95", "max", "total")))
    table.add_row("longest row", "", "", "", f"{tokens['longest_row']:,}", f"{tokens['total']:,}")
    if tokens["rows_cut"]:
        table.add_row("cut", "", "", "", f"{tokens['rows_cut']:,} rows", f"{tokens['tokens_cut']:,}")
    return table
