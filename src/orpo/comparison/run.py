"""`orpo compare` from its config to its page: rows are checked, the folder is found and held, the stages run, the page is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from orpo.comparison.config import CompareConfig
from orpo.comparison.place import comparison_place
from orpo.comparison.rehearsal import rehearsed
from orpo.comparison.session import Session
from orpo.comparison.setup import asked, check_rows, jobs_of, set_up
from orpo.errors import OrpoError
from orpo.pipeline.run import Say, people_console, quiet_libraries
from orpo.training.guards import stops_are_errors


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison: its folder, its page, what compare.json says, and the error where a pipeline came to no end with any seed."""

    folder: Path
    page: Path
    found: dict[str, Any]
    error: OrpoError | None


def run_comparison(
    config: CompareConfig,
    *,
    output_dir: str | None = None,
    fresh: bool = False,
    console: Console | None = None,
    parent: Path = Path("runs"),
) -> Comparison:
    """The finished comparison of `config`. The same call again goes on where one was stopped.

    Raises the errors of `orpo.errors`: InterruptedRun after a signal, once the stages that ran have saved.
    """
    console = console or people_console()
    say = Say(console)
    quiet_libraries()
    with stops_are_errors():
        check_rows(config)
        with comparison_place(output_dir, parent=parent, asked=asked(config), fresh=fresh, say=say) as folder:
            jobs, threads = jobs_of(config)
            setup = set_up(config, folder, rehearse=lambda short: rehearsed(folder, short, jobs=jobs, threads=threads, say=say))
            session = Session(config, setup, folder, console)
            session.run()
            return Comparison(folder, session.write(session.status), session.found(session.status), session.error())
