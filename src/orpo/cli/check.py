"""`orpo check`: what is in a data file, what is wrong with it, and what a row looks like to a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console

from orpo.cli.check_text import ReportPrinter
from orpo.data.limits import OVERLONG_CHOICES, Overlong
from orpo.data.row import Problem
from orpo.errors import ConfigError

if TYPE_CHECKING:
    from orpo.data.checks import CheckedData
    from orpo.data.example import Example
    from orpo.data.preview import Learned
    from orpo.data.row_view import RowView


@dataclass(frozen=True)
class CheckOptions:
    """What was asked for, as typed."""

    data: Sequence[str]
    eval_data: Sequence[str] = ()
    model: str | None = None
    template: str = "auto"
    max_length: int | None = None
    overlong: str = "drop"
    columns: str | None = None
    max_bad_rows: int = 0
    pair_labelled: bool = False
    objective: str = "orpo"
    preset: str | None = None
    show: int = 0
    rows: Sequence[str] = field(default_factory=tuple)
    as_json: bool = False


def run_check(options: CheckOptions) -> None:
    """Prints the report; raises DataError (exit 3) when the data cannot be trained on."""
    from orpo.data.traces import overlap
    from orpo.pipeline.run_data import overlap_figures

    if options.overlong not in OVERLONG_CHOICES:
        raise ConfigError(f"--overlong {options.overlong!r} is unknown", expected=f"one of {', '.join(OVERLONG_CHOICES)}")
    if options.as_json and (options.show or options.rows):
        raise ConfigError("--show and --row are for people, --json is for programs", fix="leave one of them out")
    if options.preset and not (options.show or options.rows):
        raise ConfigError("--preset changes what --show and --row mark, and neither is given", fix="add --show 1")
    learned = _learned(options)
    sight = _Sight(options)
    checked = sight.checked(options.data)
    held = sight.checked(options.eval_data, template=checked.template) if options.eval_data else None
    common = overlap(checked.traces, held.traces) if held else None
    if options.as_json:
        more = {"eval_data": held.report.as_dict(), **overlap_figures(common)} if held and common else {}
        typer.echo(json.dumps({**checked.report.as_dict(), **more}))
    else:
        _never_fails_to_print()
        console = Console()
        printer = ReportPrinter(console)
        printer.report(checked.report)
        if held and common:
            printer.held_out(held.report, common)
        if options.show or options.rows:
            printer.rows(sight.rows(checked), learned, has_tokens=options.model is not None)
    for part in (checked, held):
        if part:
            part.raise_if_errors()
    if not options.as_json:
        printer.ready(checked.report)


class _Sight:
    """The data as a model would see them: its tokenizer, and the longest row that `orpo train` would take."""

    def __init__(self, options: CheckOptions) -> None:
        from orpo.data.columns import parse_columns
        from orpo.pipeline.run_data import reads_of

        self._options = options
        self._tokenizer: Any = None
        self._max_length: int | None = None
        self._max_positions: int | None = None
        self._columns = parse_columns(options.columns) if options.columns else None
        self._reads = reads_of(options.objective)
        if options.model:
            self._load(options.model)

    def _load(self, model: str) -> None:
        from orpo.pipeline.run import quiet_libraries
        from orpo.training.config_fields import DEFAULTS
        from orpo.training.models import effective_max_length, load_shape, load_tokenizer

        quiet_libraries()
        shape, asked = load_shape(model), self._options.max_length
        self._tokenizer, self._max_positions = load_tokenizer(model), shape.max_positions
        self._max_length = effective_max_length(DEFAULTS["max_length"] if asked is None else asked, shape, is_explicit=asked is not None)

    def checked(self, paths: Sequence[str], *, template: Any = None) -> CheckedData:
        """What is in the rows of `paths`."""
        from orpo.data.checks import check_data

        return check_data(
            paths,
            tokenizer=self._tokenizer,
            template=template or self._options.template,
            columns=self._columns,
            max_length=self._max_length,
            overlong=cast(Overlong, self._options.overlong),
            max_bad_rows=self._options.max_bad_rows,
            pair_labelled=self._options.pair_labelled,
            reads=self._reads,
            max_positions=self._max_positions,
        )

    def rows(self, checked: CheckedData) -> list[RowView | Problem]:
        """Views of the rows asked for: those named, then the first ones that are kept."""
        from orpo.data.row_view import RowViewer
        from orpo.data.shown_rows import examples_again, rows_at

        options = self._options
        viewer = RowViewer(self._tokenizer, checked.template, max_length=self._max_length, overlong=cast(Overlong, options.overlong))

        def again() -> Iterator[Example | Problem]:
            return examples_again(options.data, columns=self._columns, reads=self._reads, pair_labelled=options.pair_labelled)

        named = rows_at(options.rows, again()) if options.rows else []
        views = (viewer.view(item) for item in again() if not isinstance(item, Problem))
        first = islice((view for view in views if not view.fate), options.show)
        return [*(item if isinstance(item, Problem) else viewer.view(item) for item in named), *first]


def _learned(options: CheckOptions) -> Mapping[str, Learned]:
    """What the objective learns from each part of a row; nothing where no row is to be shown."""
    from orpo.objectives import catalogue

    catalogue.reads(options.objective)  # an unknown name is told before anything is read
    if not (options.show or options.rows):
        return {}
    from orpo.pipeline.learned import learned_parts, preset_options

    return learned_parts(options.objective, preset_options(options.objective, options.preset))


def _never_fails_to_print() -> None:
    """Nothing; a character that the terminal's encoding lacks is printed as its escape, instead of ending the command."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
