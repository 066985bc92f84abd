"""Files in which every text is a payload: a JSON value enters, the same with its texts, and where asked its numbers, replaced leaves.

The fields are found by walking, so that one which is new is not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from comparisons import comparison, with_failures

Place = tuple[str, ...]
"""The keys that lead to a value; the items of a list all count as `[]`."""

ROUTING = {
    ("metrics.jsonl", "[]", "split"),
    ("metrics.jsonl", "[]", "step"),
    ("samples.jsonl", "[]", "step"),
    ("held_out.jsonl", "[]", "step"),
}
CHECKED = {("summary.json", name) for name in ("status", "seconds", "steps")}
COMPARED = {("compare.json", "metrics", "[]", name) for name in ("id", "better")} | {("compare.json", "tuned_by", "metric")}
FIXED = ROUTING | CHECKED | COMPARED
"""What a reader refuses in another form, sorts by, or looks up by; everything else may say anything."""


def infected(value: Any, text: str, *, numbers: bool = False) -> Any:
    """`value` with `text` for every text, and beside every key of an object one more entry with `text` as name and value.

    With `numbers`, for every number, truth value and null as well.
    """
    return _walked(value, (), lambda place, leaf: text if numbers or isinstance(leaf, str) else leaf, more={text: text})


def rich(files: dict[str, Any]) -> dict[str, Any]:
    """`files` of a failed run with every form that a field may have, and without settings, which are one text."""
    sample = files["samples.jsonl"][0]
    message = [{"role": "user", "content": "text"}]
    sections = {**files["summary.json"]["sections"], "alarms": ["text", {"name": "text", "rule": "text", "found": "text"}]}
    data = files["data_report.json"]
    report = {**data, "files": [*data["files"], "text"], "errors": data["first_dropped"]}
    margins = {"chosen": -1.5, "rejected": -2.5}
    pair = {"step": 150, "pair": 0, "source": "held-out.jsonl:1", "prompt_tokens": 9, "chosen_tokens": 5, "rejected_tokens": 6}
    return {
        **{name: content for name, content in files.items() if name != "config.resolved.yaml"},
        "samples.jsonl": [sample, sample | {"prompt": message, "before": {"odd": "text"}, "after": ["text"]}],
        "summary.json": files["summary.json"] | {"status": "failed", "error": "text", "sections": sections},
        "data_report.json": report,
        "held_out.jsonl": [pair | {"before": margins, "after": margins}],
    }


def infected_run(files: dict[str, Any], text: str, i: int) -> dict[str, Any]:
    """The files of one of several runs: infected, and trained on other bytes than the others."""
    changed: dict[str, Any] = infected(rich(files), text)
    return changed | {"data_report.json": changed["data_report.json"] | {"files": [{"path": text, "sha256": f"{i}{text}"}]}}


def infected_comparison(text: str, *, numbers: bool = False) -> dict[str, Any]:
    """A comparison with `text` in every place where text that is not ours can stand, names and keys included."""
    value = with_failures(comparison(["orpo", "sft", "sft > dpo"], seeds=[1, 2]))
    message = [{"role": "user", "content": "text"}]
    for pipeline in value["pipelines"]:
        pipeline["samples"] = [*pipeline["samples"][:1], {"prompt": message, "reply": message}]
    changed: dict[str, Any] = infected({"compare.json": value}, text, numbers=numbers)["compare.json"]
    pipelines = [pipeline | {"name": f"{text}{i}"} for i, pipeline in enumerate(changed["pipelines"])]
    return changed | {"pipelines": pipelines, "format": value["format"]}


def marked(value: Any) -> tuple[Any, dict[str, Place]]:
    """`value` with a text of its own for every text, and the place that each stands for."""
    marks: dict[str, Place] = {}

    def mark(place: Place, leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        marks[f"mark{len(marks)}x"] = place
        return f"mark{len(marks) - 1}x"

    return _walked(value, (), mark, more={}), marks


def text_places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every text of `value`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from text_places(item, (*place, name))
    elif isinstance(value, list):
        for item in value:
            yield from text_places(item, (*place, "[]"))
    elif isinstance(value, str):
        yield place


def _walked(value: Any, place: Place, change: Callable[[Place, Any], Any], *, more: dict[str, str]) -> Any:
    if place in FIXED:
        return value
    if isinstance(value, dict):
        changed = {name: _walked(item, (*place, name), change, more=more) for name, item in value.items()}
        # A run directory has the files it has, and summary.json the keys it has.
        return changed if not place or place == ("summary.json",) else changed | more
    if isinstance(value, list):
        return [_walked(item, (*place, "[]"), change, more=more) for item in value]
    return change(place, value)
