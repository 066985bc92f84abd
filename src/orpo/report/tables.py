"""The plain facts of a run: data, cost, settings, how to run it again. A run enters, sections of tables leave."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from orpo.report import facts
from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, duration, percent, short
from orpo.runs.summary import RunData

MAX_ENTRIES = 40
MAX_COLUMNS = 10
MAX_CELL = 120
MAX_METHOD = 400
MAX_TEXT = 12_000


def pairs_list(entries: Iterable[tuple[Child, Child]]) -> Html:
    """A `<dl>` of name and value."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in entries))


def table(heads: Iterable[str], rows: Iterable[Iterable[Child]], *, name: str, class_: str = "scroll") -> Html:
    """A table with a row header in its first column, in a box of its own that scrolls where the page is narrow."""
    head = element("thead", element("tr", *(element("th", head, scope="col") for head in heads)))
    body = []
    for first, *others in rows:
        body.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in others)))
    return element("div", element("table", head, element("tbody", *body)), class_=class_, tabindex=0, role="region", aria_label=name)


def data_section(report: Mapping[str, Any]) -> Html:
    """What the data check found: rows, problems by kind with what they do, lengths, repeats, token statistics, what limits would cost."""
    entries: list[tuple[Child, Child]] = []
    for key in ("shape", "rows", "pairs", "trained_on", "held_out", *_OVERLAP, "template"):
        if report.get(key) is not None:
            entries.append((key.replace("_", " "), json_cell(report[key])))
    errors = report.get("errors")
    num_errors = report.get("num_errors", len(errors) if isinstance(errors, list) else errors)
    entries += [("errors", json_cell(num_errors))] if num_errors is not None else []
    held_out = facts.mapping(report.get("eval_data"))
    return join(
        [
            pairs_list(entries),
            _problems(report),
            _lengths(facts.mapping(report.get("lengths"))),
            _repeats(facts.mapping(report.get("repeats"))),
            _tokens(facts.mapping(report.get("tokens"))),
            _limits(facts.mapping(report.get("max_lengths"))),
            *([element("h3", "Held-out data"), data_section(held_out)] if held_out else []),
        ]
    )


_OVERLAP = ("held_out_prompts_also_trained_on", "held_out_prompts_nearly_trained_on")
_DONE = {"dropped": "dropped and counted", "warning": "kept, with a warning"}


def _problems(report: Mapping[str, Any]) -> Html:
    """Rows dropped or warned about, by kind, with what each kind does to training and what to do."""
    rows: list[tuple[Child, ...]] = []
    for finding in map(facts.mapping, facts.sequence(report.get("findings")) or _counts(report)):
        severity = str(finding.get("severity", ""))
        texts = [clipped(str(finding.get(key, "")), MAX_CELL) for key in ("kind", "effect", "fix")]
        rows.append((texts[0], _DONE.get(severity, clipped(severity, 80)), json_cell(finding.get("num")), *texts[1:]))
    if not rows:
        return element("p", "No row was dropped or warned about.", class_="note")
    heads = ("kind", "what was done", "rows", "what it does to training", "what to do")
    return join([table(heads, rows[:MAX_ENTRIES], name="Problems by kind"), _more(len(rows), "kinds")])


def _counts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings of a report that has none: one of an earlier version, with counts alone."""
    kinds = {"dropped": report.get("dropped"), "warning": report.get("warnings")}
    return [{"kind": kind, "severity": name, "num": num} for name, part in kinds.items() for kind, num in facts.mapping(part).items()]


_REPEATS = {
    "duplicates": "rows that repeat an earlier one",
    "near_duplicates": "rows that nearly repeat an earlier one",
    "opposite": "rows that another one contradicts",
    "repeated_prompts": "prompts that repeat an earlier one",
    "near_repeated_prompts": "prompts that nearly repeat an earlier one",
}
_LIMITS = {
    "max_length": "max_length",
    "rows_over": "rows over it",
    "prompts_over": "without room for an answer",
    "answers_cut": "answers cut",
    "identical": "made identical by the cut",
    "tokens_drop": "tokens left, rows dropped",
    "tokens_cut": "tokens left, answers cut",
}


def _lengths(figures: Mapping[str, Any]) -> Html | None:
    """How often the chosen answer is the longer one, with its interval, and the mean lengths."""
    share, low, high = (as_number(figures.get(f"longer_share{end}")) for end in ("", "_low", "_high"))
    entries: list[tuple[Child, Child]] = []
    if share is not None and low is not None and high is not None:
        interval = f" ({percent(low)} to {percent(high)})"
        entries.append(("chosen longer, of pairs of unequal length", join([datum(share, percent(share)), interval])))
    for part in ("chosen", "rejected"):
        if figures.get(f"mean_{part}") is not None:
            unit = clipped(str(figures.get("unit", "")), 80)
            entries.append((f"mean length of {part}, in {unit}", json_cell(figures[f"mean_{part}"])))
    return pairs_list(entries) if entries else None


def _repeats(figures: Mapping[str, Any]) -> Html | None:
    """How often rows and prompts repeat, and what counts as nearly the same."""
    entries: list[tuple[Child, Child]] = [(name, json_cell(figures[key])) for key, name in _REPEATS.items() if figures.get(key) is not None]
    if not entries:
        return None
    method = element("p", f"Nearly: {clipped(str(figures['method']), MAX_METHOD)}.", class_="note") if figures.get("method") else None
    return join([pairs_list(entries), method])


def _limits(max_lengths: Mapping[str, Any]) -> Html | None:
    """What each max_length would leave out or cut, and the suggested one with its rule."""
    limits = [facts.mapping(limit) for limit in facts.sequence(max_lengths.get("limits"))]
    if not limits:
        return None
    rows = [tuple(json_cell(limit.get(key)) for key in _LIMITS) for limit in limits[:MAX_ENTRIES]]
    suggested, share = as_number(max_lengths.get("suggested")), as_number(max_lengths.get("rows_whole_share"))
    said = None
    if suggested is not None and share is not None:
        kept = join([datum(suggested, count(suggested)), " keeps ", datum(share, percent(share)), " of the rows whole. Rule: "])
        said = element("p", "Suggested max_length: ", kept, f"{clipped(str(max_lengths.get('rule', '')), MAX_CELL)}.", class_="note")
    return join([table(tuple(_LIMITS.values()), rows, name="What each max_length would cost"), said])


def _tokens(tokens: Mapping[str, Any]) -> Html | None:
    """Token statistics: a table where each part has several figures, a list for single figures."""
    wide = {str(name): part for name, part in tokens.items() if isinstance(part, Mapping)}
    flat: list[tuple[Child, Child]] = [
        (_COUNTED.get(str(name), str(name).replace("_", " ")), json_cell(value))
        for name, value in tokens.items()
        if not isinstance(value, Mapping)
    ]
    parts = [pairs_list(flat[:MAX_ENTRIES])] if flat else []
    if wide:
        columns = list(dict.fromkeys(str(key) for part in wide.values() for key in part))[:MAX_COLUMNS]
        rows = [(name, *(json_cell(part.get(column)) for column in columns)) for name, part in list(wide.items())[:MAX_COLUMNS]]
        parts.append(table(("tokens", *columns), rows, name="Lengths in tokens", class_="scroll lengths"))
    return join(parts) if parts else None


_COUNTED = {
    "total": "tokens in all",
    "longest_row": "longest row, in tokens",
    "chosen_longer_share": "share of pairs with the longer chosen answer",
}


def cost_section(run: RunData) -> Html:
    """What the run took, as far as it was measured."""
    summary = run.summary
    entries: list[tuple[Child, Child]] = []
    if summary is not None:
        entries += [
            ("time, all sessions", datum(summary.seconds, duration(summary.seconds))),
            ("steps", datum(facts.reached(run), count(facts.reached(run)))),
        ]
    last = (facts.rows(run, "train") or ({},))[-1]
    for key, name in (("num_pairs", "pairs seen"), ("num_tokens", "tokens seen, prompts once per pair")):
        value = as_number(last.get(key))
        if value is not None:
            entries.append((name, datum(value, count(value))))
    stages = (
        ("time of the training steps", facts.number(run, "training_seconds")),
        ("time of the evaluations", as_number(last.get("evaluation_seconds"))),
        ("time to make the reference", facts.number(run, "reference_seconds") or None),
    )
    entries += [(name, datum(seconds, duration(seconds))) for name, seconds in stages if seconds is not None]
    for key, name, unit in _MEASURED:
        value = facts.number(run, key)
        if value is not None:
            entries.append((name, join([datum(value, short(value)), f"\u202f{unit}" if unit else None])))
    padding = _PADDING.get(facts.text(run, "engine") or "")
    entries += [("padding", padding)] if padding else []
    trainable, total = facts.number(run, "trainable_parameters"), facts.number(run, "parameters")
    if trainable is not None and total:
        entries.append(("trained share", datum(trainable / total, percent(trainable / total))))
    return pairs_list(entries) if entries else element("p", "Nothing was measured.", class_="note")


_PADDING: dict[str, Child] = {
    "shared": join([datum(0.0, "none"), ": rows are packed"]),
    "packed": join([datum(0.0, "none"), ": rows are packed, prompts twice"]),
    "padded": "not measured: rows of like length are filled up",
    "plain": join([datum(0.0, "none"), ": one row at a time"]),
}
"""What the engine's way of laying out rows means for padding."""

_MEASURED = (
    ("tokens_per_second", "speed, without padding", "tokens/s"),
    ("policy_forwards", "forward passes of the policy over the data of a step", ""),
    ("reference_forwards", "forward passes of a reference", ""),
    ("models_in_memory", "models in memory", ""),
    ("peak_memory_gib", "peak memory", "GiB"),
    ("parameters", "parameters", ""),
    ("trainable_parameters", "trained parameters", ""),
)


def config_section(text: str) -> Html:
    """The resolved config as it stands, the comment that gives each value's origin set apart."""
    lines: list[Child] = []
    for line in clipped(text, MAX_TEXT).splitlines():
        # A `#` inside a quoted value would be styled as a comment; the text is the same either way.
        match = re.search(r"(?<!\S)#", line)
        cut = match.start() if match else len(line)
        setting = element("span", line[:cut], class_="setting") if line[:cut].strip() and match else line[:cut]
        lines += [setting, element("span", line[cut:], class_="origin") if match else None, "\n"]
    return element("pre", element("code", *lines), class_="lines", tabindex=0)


def reproduce_section(run: RunData) -> Html:
    """The command, the seed, the bytes it read and the versions it ran on."""
    parts: list[Child] = []
    environment = facts.mapping(run.environment)
    command = (run.summary.command if run.summary else ()) or environment.get("command") or ()
    if command:
        line = command if isinstance(command, str) else shlex.join(str(word) for word in command)
        parts.append(element("pre", element("code", clipped(line, MAX_TEXT)), tabindex=0))
    seed = facts.setting(run, "seed")
    if seed is not None:
        parts.append(pairs_list([("seed", json_cell(seed))]))
    files = facts.data_files(run)
    if files:
        parts += [element("h3", "Data"), _files(files), _more(len(files), "files")]
    entries = [(name, value) for name, value in _flat(environment) if name != "command"]
    if entries:
        parts += [element("h3", "Machine and versions"), pairs_list(entries[:MAX_ENTRIES]), _more(len(entries), "entries")]
    return join(parts) if parts else element("p", "Neither the command nor the versions were recorded.", class_="note")


def _files(files: list[tuple[str, Mapping[str, Any]]]) -> Html:
    rows = []
    for use, file in files[:MAX_ENTRIES]:
        size = as_number(file.get("size"))
        digest = element("code", clipped(str(file.get("sha256", "")), 64), class_="hash")
        rows.append((clipped(str(file.get("path", "")), MAX_CELL), use, datum(size, count(size or 0)), digest))
    return table(("file", "for", "bytes", "sha256"), rows, name="Data files")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Child]]:
    """Nested objects as one list, names joined by spaces; a list of plain values on one line."""
    entries: list[tuple[str, Child]] = []
    for key, value in values.items():
        name = clipped(f"{prefix} {key}".strip(), 80)
        entries += _flat(value, "" if name == "libraries" else name) if isinstance(value, Mapping) else [(name, json_cell(value))]
    return entries


def json_cell(value: Any) -> Child:
    """Any JSON value for a cell of a table or a list: numbers with their exact value, objects as JSON, all of it clipped."""
    exact = as_number(value)
    if exact is not None:
        return datum(value, count(exact) if isinstance(value, int) else short(exact))
    if value is None:
        return datum(None, "")
    if value == []:
        return "none"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return clipped(", ".join(str(item) for item in value), MAX_CELL)
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), MAX_CELL)


def _more(total: int, what: str) -> Html | None:
    return element("p", f"{MAX_ENTRIES} of {total} {what} are shown.", class_="note") if total > MAX_ENTRIES else None
