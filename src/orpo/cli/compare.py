"""`orpo compare`: pipelines of objectives on the same data, budget and seeds, and what each came to."""

from __future__ import annotations

from dataclasses import replace


def run_compare(config: str, *, output_dir: str | None, fresh: bool, jobs: int | None) -> None:
    """Runs the comparison and prints its table. Raises OrpoError where a pipeline came to no end with any seed."""
    from orpo.comparison.config import read_config

    asked = read_config(config)
    from orpo.comparison.run import run_comparison
    from orpo.comparison.view import result_table, sentences
    from orpo.pipeline.run import Say, people_console

    console = people_console()
    done = run_comparison(replace(asked, jobs=jobs or asked.jobs), output_dir=output_dir, fresh=fresh, console=console)
    say = Say(console)
    console.print()
    console.print(result_table(done.found))
    for line in sentences(done.found):
        say(line)
    if done.page:
        say(f"page         {done.page}")
    say(f"figures      {done.folder / 'compare.json'}")
    if done.error:
        raise done.error
