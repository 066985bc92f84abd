"""What `orpo check` prints for people: a report and views of rows enter, lines for a terminal or a pipe leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orpo.core.records import Source
from orpo.data.data_report import DataReport, Finding
from orpo.data.length_bias import length_sentence
from orpo.data.preview import Learned, drawn, legend, visible
from orpo.data.row import Problem
from orpo.data.row_view import RowView
from orpo.data.traces import Overlap

LABEL = 13
_MARKS = {"suggested": "suggested", "in_use": "in use"}
_STYLES = {"dropped": "magenta", "warning": "yellow"}


class ReportPrinter:
    """Prints to one console. On a terminal text is wrapped beside its label; elsewhere a line is a line, for grep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = console.width if console.is_terminal else None

    def report(self, report: DataReport) -> None:
        """Shape and counts; what was dropped or is odd, with the first places; lengths, repeats, and what each max_length would cost."""
        self._say("shape", report.shape)
        self._say("rows", f"{report.rows:,} rows, {report.pairs:,} {report.noun}s, {report.num_errors:,} errors")
        if report.answers and report.pairs:
            self._say("answers", _answers_line(report.answers))
        if report.template:
            self._say("template", report.template)
        for finding in report.findings:
            self._finding(finding)
        if report.lengths and not report.lengths["is_lopsided"]:  # the warning has said it
            self._say("lengths", length_sentence(report.lengths))
        if report.repeats:
            self._say("repeats", _repeats_line(report.repeats, report.noun))
            if report.repeats["near_duplicates"] or report.repeats["near_repeated_prompts"]:
                self._say("", f"nearly: {report.repeats['method']}", style="dim")
        if report.tokens:
            self._table(_token_table(report.tokens))
        if report.max_lengths:
            self._table(_limit_table(report.max_lengths))
            self._say("", _suggestion(report.max_lengths))

    def held_out(self, report: DataReport, common: Overlap) -> None:
        """The report on held-out data, and how many of its prompts are trained on."""
        self._console.print()
        self._say("held out", "what follows is the held-out data")
        self.report(report)
        num = common.same + common.near
        said = f"prompts both held out and trained on: {common.same:,} to the letter, {common.near:,} nearly"
        self._say("warning" if num else "overlap", said + _in_brackets(common.first, num))
        if num:
            self._say("", "does: held-out accuracy looks better than it is", style="dim")
            self._say("", "fix:  take these rows out of one of the two", style="dim")

    def rows(self, views: Sequence[RowView | Problem], learned: Mapping[str, Learned], *, has_tokens: bool) -> None:
        """Rows as a model sees them, and what the marks mean. A row that could not be read says why."""
        for view in views:
            self._console.print()
            shown = Text(visible(str(view)), style="red") if isinstance(view, Problem) else drawn(view, learned, width=self._width)
            self._console.print(shown, soft_wrap=True, end="\n" if isinstance(view, Problem) else "")
        self._console.print()
        for line in legend([view for view in views if isinstance(view, RowView)], learned, has_tokens=has_tokens):
            self._say(*line, style="dim")

    def ready(self, report: DataReport) -> None:
        """That nothing stands in the way."""
        self._console.print(Text(f"ready: {report.pairs:,} {report.noun}s can be trained on", style="green"), soft_wrap=True)

    def _finding(self, finding: Finding) -> None:
        label = "dropped" if finding.severity == "dropped" else "warning"
        self._say(label, f"{finding.num:,} x {finding.kind}: {finding.message}{_in_brackets(finding.places, finding.num)}")
        self._say("", f"does: {finding.effect}", style="dim")
        self._say("", f"fix:  {finding.fix}", style="dim")

    def _say(self, label: str, text: str, *, style: str = "") -> None:
        """A label and a text. Names of columns and files come from the data: they must not steer the terminal."""
        shown = Text(visible(text), style=style)
        lines = [shown] if self._width is None else shown.wrap(self._console, max(self._width - LABEL, LABEL), overflow="fold")
        for place, line in enumerate(lines):
            name = f"{label if place == 0 else '':<{LABEL}}"
            self._console.print(Text().append(name, style=_STYLES.get(label, "bold")).append_text(line), soft_wrap=True)

    def _table(self, table: Table) -> None:
        self._console.print()
        self._console.print(table, soft_wrap=self._width is None)


def _in_brackets(places: Sequence[Source], num: int) -> str:
    """The first places of `num` rows, one in the file of the place before it by its number alone; nothing for no places."""
    if not places:
        return ""
    files = [None, *(place.file for place in places)]
    said = [f":{place.number}" if place.file == file else str(place) for place, file in zip(places, files, strict=False)]
    return f" ({', '.join([*said, '...'] if num > len(places) else said)})"


def _answers_line(answers: Mapping[str, Any]) -> str:
    """How many answers are desirable and not, with weights where they are lopsided; or how many rankings have how many answers."""
    if "lengths" in answers:
        return ", ".join(f"{num:,} x {length} answers" for length, num in answers["lengths"].items())
    counts = f"{answers['desirable']:,} desirable, {answers['undesirable']:,} undesirable"
    weights = [f"{name} {answers[name]:g}" for name in ("desirable_weight", "undesirable_weight") if answers[name] != 1]
    return f"{counts}, evened out by {weights[0]}" if weights else counts


def _repeats_line(repeats: Mapping[str, Any], noun: str) -> str:
    """How often rows and prompts repeat."""
    near, near_prompts = repeats["near_duplicates"], repeats["near_repeated_prompts"]
    rows = f"{_counted(repeats['duplicates'], noun)} repeated, {near:,} nearly, {repeats['opposite']:,} contradicted"
    prompts = f"{_counted(repeats['repeated_prompts'], 'prompt')} repeated, {near_prompts:,} nearly"
    return f"{rows}; {prompts}"


def _counted(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'s' * (num != 1)}"


def _token_table(tokens: Mapping[str, Any]) -> Table:
    """Lengths of prompts and answers in tokens."""
    table = _plain_table("tokens", "min", "median", "p95", "max", "total")
    for part, figures in tokens.items():
        if isinstance(figures, Mapping):
            table.add_row(part, *(f"{figures[name]:,.0f}" for name in ("min", "median", "p95", "max", "total")))
    table.add_row("longest row", "", "", "", f"{tokens['longest_row']:,}", f"{tokens['total']:,}")
    if tokens["rows_cut"]:
        table.add_row("cut", "", "", "", _counted(tokens["rows_cut"], "row"), f"{tokens['tokens_cut']:,}")
    return table


def _limit_table(max_lengths: Mapping[str, Any]) -> Table:
    """What each max_length would leave out or cut."""
    heads = ("rows\nover", "no\nroom", "answers\ncut", "made\nsame", "tokens left:\nrows dropped", "\nanswers cut", "")
    table = _plain_table("max_length", *heads)
    for limit in max_lengths["limits"]:
        marks = [mark for word, mark in _MARKS.items() if max_lengths[word] == limit["max_length"]]
        names = ("max_length", "rows_over", "prompts_over", "answers_cut", "identical", "tokens_drop", "tokens_cut")
        table.add_row(*(f"{limit[name]:,}" for name in names), "\n".join(marks))
    return table


def _suggestion(max_lengths: Mapping[str, Any]) -> str:
    """The suggested max_length and its rule; where the model allows no more, what else there is to do."""
    share = f"{100 * max_lengths['rows_whole_share']:.1f}".removesuffix(".0")
    said = f"--max-length {max_lengths['suggested']} keeps {share} % of the rows whole"
    if max_lengths["is_capped"]:
        return f"{said}, and the model has no more positions: for the others take another model, or --overlong cut-completion"
    return f"suggested: {said} (rule: {max_lengths['rule']})"


def _plain_table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, header_style="dim", overflow="fold")
    for header in others:
        table.add_column(header, header_style="dim", justify="right" if header else "left", overflow="fold")
    return table
