"""Quality with equal tuning: ORPO against its rivals, by the comparison of recipes/compare-world.yaml."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from evidence import comparisons
from evidence.claims import Claim, is_above
from evidence.comparisons import behind, compared, turned
from evidence.lab import Lab
from evidence.records import Record

TITLE = "Quality with equal tuning (tables 2 and 3)"
RIVALS = {
    "sft": ("ORPO does better than SFT", "tables 2, 3"),
    "sft > dpo": ("ORPO does better than SFT then DPO (the paper: not at 125M, from 1.3B on)", "tables 2, 3"),
}


def record(lab: Lab) -> dict[str, Any]:
    """The comparison, about three quarters of an hour on two cores."""
    return compared(lab, "compare-world")


def claims(content: Record) -> tuple[Claim, ...]:
    """ORPO against SFT, and against SFT then DPO."""
    found = []
    for name, (says, source) in RIVALS.items():
        difference = behind(content, name)
        lead = turned(difference) if difference else None
        verdict = is_above(lead) if lead else "not measured"
        figure = f"score {lead}" if lead else "no figure"
        found.append(Claim(says, source, f"the score of orpo less that of {name} (paired) is above 0", verdict, figure))
    return tuple(found)


def lines(content: Record) -> list[str]:
    """All pipelines."""
    return [*comparisons.table(content), *comparisons.conditions(content)]


def picture(content: Record) -> Figure:
    """The main metric of all pipelines."""
    return comparisons.bars(content)


ALT = "Oracle score of each pipeline with its 95 % interval"
