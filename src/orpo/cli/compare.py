"""`orpo compare`: pipelines of objectives on the same data, budget and seeds, and what each came to."""

from __future__ import annotations

from dataclasses import replace

WIDE = 140


def run_compare(config: str, *, output_dir: str | None, fresh: bool, jobs: int | None) -> None:
    """Runs the comparison and prints its table. Raises OrpoError where a pipeline came to no end with any seed."""
    from orpo.comparison.config import read_config

    asked = read_config(config)
    from rich.console import Console

    from orpo.comparison.run import run_comparison
    from orpo.comparison.view import result_table, sentences
    from orpo.pipeline.run import Say, people_console

    console = people_console()
    done = run_comparison(replace(asked, jobs=jobs or asked.jobs), output_dir=output_dir, fresh=fresh, console=console)
    say = Say(console)
    console.print()
    # A file or a pipe has no width that lines should be folded to.
    (console if console.is_terminal else Console(width=WIDE)).print(result_table(done.found))
    for line in sentences(done.found):
        say(line)
    say(f"page         {done.page}")
    say(f"figures      {done.folder / 'compare.json'}")
    if done.error:
        raise done.error
