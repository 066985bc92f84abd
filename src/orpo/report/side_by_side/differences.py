"""What the runs do not have in common: named runs enter, a table of the settings, data and versions that differ leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orpo.report import facts
from orpo.report.escape import clipped
from orpo.report.markup import Html, element, join
from orpo.report.numbers import MISSING, count
from orpo.report.side_by_side.runs import NamedRun
from orpo.report.tables import json_cell, table
from orpo.report.whole_page import note

OWN = ("output_dir",)
"""Settings that differ between any two runs and say nothing of either."""
MAX_ROWS = 60


def differences_section(runs: Sequence[NamedRun]) -> Html:
    """Only what differs, one row each, with how much is equal; a warning where figures cannot be compared."""
    settings = [_all_settings(run) for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    differing = [name for name in names if _differs([one.get(name) for one in settings])]
    heads = ["setting", *(clipped(run.name, 60) for run in runs)]
    rows = [[clipped(name, 80), *(_cell(one, name) for one in settings)] for name in differing[:MAX_ROWS]]
    equal = len(names) - len(differing)
    said = f"{count(len(differing))} of {count(len(names))} settings, files and versions differ, the other {count(equal)} are equal."
    more = note(f"{MAX_ROWS} of them are shown.") if len(differing) > MAX_ROWS else None
    nothing = note("Nothing that was recorded differs.") if not differing else None
    shown = table(heads, rows, name="What differs", class_="scroll columns") if rows else nothing
    return join([*_warnings(runs), note(f"{said} Not listed: {', '.join(OWN)}."), shown, more])


def _cell(settings: Mapping[str, Any], name: str) -> Any:
    return json_cell(settings[name]) if name in settings else MISSING


def _all_settings(run: NamedRun) -> dict[str, Any]:
    """The config on one level, the bytes of the data files, and the versions: whatever can make two runs differ."""
    found = _flat(facts.settings(run.data))
    files: dict[str, list[str]] = {}
    for use, file in facts.data_files(run.data):
        files.setdefault(f"sha256 of the {use} files", []).append(str(file.get("sha256", ""))[:12])
    versions = {f"version of {name}": version for name, version in facts.libraries(run.data).items()}
    return {name: value for name, value in {**found, **files, **versions}.items() if name not in OWN}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def _differs(values: Sequence[Any]) -> bool:
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1


def _warnings(runs: Sequence[NamedRun]) -> list[Html]:
    """What a reader must know before comparing figures: other held-out pairs, another base, a run that is not done."""
    said = []
    held_out = [_held_out_files(run) for run in runs]
    if any(held_out) and _differs(held_out):
        said.append("The runs were not measured on the same held-out pairs: their held-out figures cannot be compared.")
    unfinished = [run.name for run in runs if run.data.summary is None or run.data.summary.status != "done"]
    if unfinished:
        said.append(f"Not done: {', '.join(clipped(name, 60) for name in unfinished)}. What is shown of them is what they had by then.")
    return [element("p", text, class_="edge") for text in said]


def _held_out_files(run: NamedRun) -> list[str]:
    """What the held-out pairs were: files of their own, or those of training together with what split them off."""
    files = facts.data_files(run.data)
    own = [str(file.get("sha256", file.get("path"))) for use, file in files if use == "held out"]
    if own:
        return own
    split = facts.setting(run.data, "holdout")
    return (
        []
        if not split
        else [*(str(file.get("sha256", file.get("path"))) for _, file in files), str(split), str(facts.setting(run.data, "seed"))]
    )
