"""Replies before and after training, side by side: rows of samples.jsonl enter, `<article>`s leave. Nothing in them is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, element
from orpo.report.numbers import as_number, count, datum, percent
from orpo.report.series import evenly

MAX_SAMPLES = 20
MAX_CHARACTERS = 2000
MAX_BYTES = 350_000
"""Of all samples together, so that no text of a model can make the page heavy; one sample is always shown."""


def samples_section(rows: tuple[Mapping[str, Any], ...]) -> Html:
    """Samples spread evenly over all of them, as many as MAX_SAMPLES and MAX_BYTES allow, with how many there are."""
    shown: list[Html] = []
    for i, row in enumerate(evenly(rows, MAX_SAMPLES), start=1):
        sample = _sample(i, row)
        if shown and sum(len(one.markup.encode()) for one in (*shown, sample)) > MAX_BYTES:
            break
        shown.append(sample)
    text = f"{len(shown)} of the {len(rows)} samples in samples.jsonl" if len(shown) < len(rows) else f"All {len(rows)} samples"
    note = f"{text}: the same prompts before and after training. Texts longer than {count(MAX_CHARACTERS)} characters are cut, and say so."
    return element("div", element("p", note, class_="note"), *shown)


def _sample(position: int, row: Mapping[str, Any]) -> Html:
    heading = [element("h3", f"Sample {position}")]
    if row.get("source") is not None:
        heading.append(element("code", clipped(str(row["source"]), 200), class_="source"))
    replies = [_reply(row, key, name) for key, name in (("before", "Before training"), ("after", "After training"))]
    given = [block(row[key], key, key) for key in ("chosen", "rejected") if row.get(key) is not None]
    parts = [
        element("div", *heading, class_="sample-head"),
        block(row.get("prompt"), "Prompt", "prompt"),
        element("div", *replies, class_="pair"),
    ]
    if given:
        parts.append(element("details", element("summary", "The answers in the data"), element("div", *given, class_="pair")))
    return element("article", *parts, class_="sample")


def _reply(row: Mapping[str, Any], key: str, name: str) -> Html:
    return block(row.get(key), name, key, *reply_facts(row, key))


def reply_facts(row: Mapping[str, Any], key: str) -> list[Html]:
    """What is known of the reply `key` of a row: its tokens, whether it was cut, and what the oracle gave it."""
    tokens = as_number(row.get(f"{key}_tokens"))
    said: list[Child] = [datum(tokens, count(tokens)), " tokens"] if tokens is not None else []
    said += [", cut at the limit"] if row.get(f"{key}_ended") is False else []
    verdict = row.get(f"{key}_verdict")
    score = as_number(verdict.get("score")) if isinstance(verdict, Mapping) else None
    said += [", oracle ", datum(score, percent(score))] if score is not None else []
    return [element("span", *said, class_="tokens")] if said else []


def block(value: Any, name: Child, kind: str, *beside: Html) -> Html:
    """A text with its heading: cut where it is long, and said to be missing, empty or blank where it is."""
    text = spoken(value)
    missing = "not written" if value is None else "empty" if not text else f"{len(text)} blank characters" if text.isspace() else None
    content = (
        element("div", f"({missing})", class_="text none")
        if missing
        else element("div", clipped(text, MAX_CHARACTERS), class_="text", dir="auto")
    )
    return element("div", element("h4", name, *beside), content, class_=f"said {kind}")


def spoken(value: Any) -> str:
    """`value` as one text: a string as it is, messages as `role: content` with an empty line between turns, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        return "\n\n".join(f"{turn.get('role', '?')}: {turn['content']}" for turn in value)
    return json.dumps(value, ensure_ascii=False)
