"""Where replies appear as they are written: one after the other as text, or in columns. Texts of models are made harmless here."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orpo.data.preview import visible

SIDE_BY_SIDE = 80
"""A terminal with this many characters in a line has room for two columns."""


class Pane(Protocol):
    """Where the reply of one model appears."""

    def show(self, text: str) -> None:
        """The reply so far."""

    def end(self, note: str) -> None:
        """The reply is done; `note` says how it ended where that is worth saying, else ''."""


class Screen(Protocol):
    """Where rounds of a chat appear."""

    def panes(self, names: Sequence[str]) -> Generator[Pane, None, None]:
        """The places for the replies of one round, in order; used until the next is asked for."""


class Lines:
    """Text as it comes, one model after the other, each under its name where there are several. Long lines are left to the terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def panes(self, names: Sequence[str]) -> Generator[Pane, None, None]:
        """One pane below the other."""
        for name in names:
            if len(names) > 1:
                self.console.print(Text(f"[{visible(name)}]", style="bold"), soft_wrap=True)
            yield _TextPane(self.console)


class _TextPane:
    def __init__(self, console: Console) -> None:
        self._console, self._shown = console, ""

    def show(self, text: str) -> None:
        """Writes what is new. Where a decoder changed what it said before, the whole text stands on a line of its own."""
        new = text[len(self._shown) :] if text.startswith(self._shown) else f"\n{text}"
        self._shown = text
        self._console.out(visible(new), end="", highlight=False)
        self._console.file.flush()

    def end(self, note: str) -> None:
        """Ends the line."""
        self._console.out("")
        if note:
            self._console.print(Text(f"({note})", style="dim"), soft_wrap=True)


class Columns:
    """All models of a round beside each other. While they write, the last lines that fit the terminal are seen; then all of it."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def panes(self, names: Sequence[str]) -> Generator[Pane, None, None]:
        """One pane beside the other."""
        texts, notes = [""] * len(names), [""] * len(names)
        with self._live(names, texts, notes) as live:
            for index in range(len(names)):
                yield _Column(index, texts, notes, live)
        self.console.print(side_by_side(names, texts, notes))

    @contextmanager
    def _live(self, names: Sequence[str], texts: list[str], notes: list[str]) -> Iterator[Live]:
        with Live(Tail(names, texts, notes), console=self.console, transient=True, refresh_per_second=12) as live:
            yield live


class _Column:
    def __init__(self, index: int, texts: list[str], notes: list[str], live: Live) -> None:
        self._index, self._texts, self._notes, self._live = index, texts, notes, live

    def show(self, text: str) -> None:
        """The screen shows it a few times a second."""
        self._texts[self._index] = text

    def end(self, note: str) -> None:
        """Shows the end at once."""
        self._notes[self._index] = note
        self._live.refresh()


def side_by_side(names: Sequence[str], texts: Sequence[str], notes: Sequence[str]) -> Table:
    """The replies of one round in columns of the same width, words kept whole where they fit."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 3, 0, 0))
    for name in names:
        table.add_column(Text(visible(name)), header_style="bold", ratio=1, overflow="fold")
    table.add_row(*map(_cell, texts, notes))
    return table


def _cell(text: str, note: str) -> Text:
    return Text(visible(text)).append(f"\n({note})" if note else "", style="dim")


class Tail:
    """The last lines of the columns that fit the terminal."""

    def __init__(self, names: Sequence[str], texts: Sequence[str], notes: Sequence[str]) -> None:
        self._names, self._texts, self._notes = names, texts, notes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(side_by_side(self._names, self._texts, self._notes), options.update(height=None), pad=False)
        for line in lines[-max(2, options.max_height - 2) :]:
            yield from line
            yield Segment.line()


def screen_for(console: Console, *, num_models: int) -> Screen:
    """Columns for several models on a terminal that is wide enough, else one after the other."""
    return Columns(console) if num_models > 1 and console.is_terminal and console.width >= SIDE_BY_SIDE else Lines(console)
