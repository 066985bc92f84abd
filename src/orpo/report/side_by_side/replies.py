"""What several runs answer to the same prompt: named runs enter, one `<article>` a prompt leaves. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orpo.report.markup import Html, element, join
from orpo.report.samples import MAX_BYTES, block, reply_facts, spoken
from orpo.report.series import evenly
from orpo.report.side_by_side.runs import NamedRun
from orpo.report.whole_page import name_of, note

MAX_PROMPTS = 12
Row = Mapping[str, Any]


def replies_section(runs: Sequence[NamedRun]) -> Html:
    """Prompts that at least two runs answered, in even steps over all of them, as many as MAX_PROMPTS and MAX_BYTES allow."""
    prompts = _shared_prompts(runs)
    if not prompts:
        return note("No two runs answered the same prompt.")
    shown: list[Html] = []
    for i, answers in enumerate(evenly(prompts, MAX_PROMPTS), start=1):
        article = _article(i, answers, runs)
        if shown and sum(len(one.markup.encode()) for one in (*shown, article)) > MAX_BYTES:
            break
        shown.append(article)
    said = f"{len(shown)} of {len(prompts)} prompts that at least two runs answered, evenly picked; replies after training."
    return join([note(said), *shown])


def _shared_prompts(runs: Sequence[NamedRun]) -> list[dict[str, Row]]:
    """For each prompt with two answers or more: the row of samples.jsonl by the name of the run."""
    found: dict[str, dict[str, Row]] = {}
    for run in runs:
        for row in run.data.samples or ():
            if row.get("after") is not None:
                found.setdefault(spoken(row.get("prompt")), {}).setdefault(run.name, row)
    return [answers for answers in found.values() if len(answers) > 1]


def _article(i: int, answers: Mapping[str, Row], runs: Sequence[NamedRun]) -> Html:
    first = next(iter(answers.values()))
    blocks = [
        block(answers[run.name]["after"], name_of(run.name), "after", *reply_facts(answers[run.name], "after"))
        for run in runs
        if run.name in answers
    ]
    head = element("div", element("h3", f"Prompt {i}"), class_="sample-head")
    return element(
        "article", head, block(first.get("prompt"), "Prompt", "prompt"), element("div", *blocks, class_="replies"), class_="sample"
    )
