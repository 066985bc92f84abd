"""What each pipeline answers to the same prompts: a comparison enters, one `<article>` a prompt leaves. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orpo.report.comparison.reading import Comparison, Reply
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, datum, percent
from orpo.report.samples import block, spoken
from orpo.report.whole_page import name_of, note

MAX_PROMPTS = 12
MAX_BYTES = 150_000
"""Of all prompts together: beside the charts there is less room for texts than in the report of a run."""


def replies_section(comparison: Comparison) -> Html:
    """The replies of the untrained model and of each pipeline, prompt by prompt, as many as MAX_PROMPTS and MAX_BYTES allow."""
    prompts = _by_prompt(comparison)
    if not prompts:
        return note("No replies were written.")
    shown: list[Html] = []
    for i, (prompt, base, replies) in enumerate(prompts[:MAX_PROMPTS], start=1):
        article = _article(i, prompt, base, replies, [pipeline.name for pipeline in comparison.pipelines])
        if shown and sum(len(one.markup.encode()) for one in (*shown, article)) > MAX_BYTES:
            break
        shown.append(article)
    rest = f" {len(shown)} of {len(prompts)} prompts are shown." if len(shown) < len(prompts) else ""
    return join([note(f"The same prompts for all, greedy replies of the first seed, picked by place and not by score.{rest}"), *shown])


def _by_prompt(comparison: Comparison) -> list[tuple[Any, Any, dict[str, Reply]]]:
    """(prompt, reply of the untrained model, reply by pipeline) in the order in which prompts appear."""
    found: dict[str, tuple[Any, Any, dict[str, Reply]]] = {}
    for pipeline in comparison.pipelines:
        for reply in pipeline.replies:
            _, _, replies = found.setdefault(spoken(reply.prompt), (reply.prompt, reply.base, {}))
            replies.setdefault(pipeline.name, reply)
    return list(found.values())


def _article(i: int, prompt: Any, base: Any, replies: Mapping[str, Reply], names: list[str]) -> Html:
    blocks = [block(base, "untrained model", "before")] if base is not None else []
    blocks += [_reply(name, replies[name]) for name in names if name in replies]
    head = element("div", element("h3", f"Prompt {i}"), class_="sample-head")
    return element("article", head, block(prompt, "Prompt", "prompt"), element("div", *blocks, class_="replies"), class_="sample")


def _reply(name: str, reply: Reply) -> Html:
    score = as_number(reply.verdict.get("score"))
    said: list[Child] = ["oracle ", datum(score, percent(score))] if score is not None else []
    beside = [element("span", *said, class_="tokens")] if said else []
    return block(reply.reply, name_of(name), "after", *beside)
