"""The tables of docs/objectives.md, made from the catalogue. `python -m orpo.objectives.tables docs/objectives.md` renews them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from orpo.objectives.catalogue import OBJECTIVES, PRESET_NOTES, PRESETS, objective_options, one_line


def options_table() -> str:
    """A markdown table of every option of every objective."""
    rows = ["| objective | option | values | default | what it does |", "|---|---|---|---|---|"]
    for name in OBJECTIVES:
        for option in objective_options(name):
            values = ", ".join(f"`{choice}`" for choice in option.choices) or option.kind
            rows.append(f"| {name} | `{option.name}` | {values} | `{option.default}` | {option.doc} |")
    return "\n".join(rows)


def objectives_table() -> str:
    """A markdown table of the objectives, one line each."""
    return "\n".join(["| objective | what it is |", "|---|---|", *(f"| `{name}` | {one_line(name)} |" for name in OBJECTIVES)])


def presets_table() -> str:
    """A markdown table of the presets of `orpo` and how far each is the code it is named after."""
    names = ("beta", "nll_over", "nll_average", "learning_rate")
    rows = [f"| preset | {' | '.join(names)} | note |", "|---" * (len(names) + 2) + "|"]
    for preset, settings in PRESETS.items():
        values = (f"`{settings[name]}`" if name in settings else "as set" for name in names)
        rows.append(f"| `{preset}` | {' | '.join(values)} | {PRESET_NOTES[preset]} |")
    return "\n".join(rows)


def renewed(page: str) -> str:
    """`page` with the text between each pair of `<!-- NAME:begin -->` and `<!-- NAME:end -->` made anew."""
    for name, table in (("objectives", objectives_table()), ("options", options_table()), ("presets", presets_table())):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        assert begin in page, f"the page has no {begin}"
        assert end in page, f"the page has no {end}"
        page = re.sub(f"{begin}.*?{end}", lambda _, made=f"{begin}\n{table}\n{end}": made, page, flags=re.DOTALL)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
