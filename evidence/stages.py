"""One stage against two: ORPO from the base, after SFT, the odds term alone after SFT, and DPO after SFT; recipes/compare-stages.yaml."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from evidence import comparisons
from evidence.claims import Claim, Estimate, is_above
from evidence.comparisons import behind, compared, turned
from evidence.lab import Lab
from evidence.records import Record

TITLE = "One stage or two"
NEAR = 0.02


def record(lab: Lab) -> dict[str, Any]:
    """The comparison, about half an hour on two cores."""
    return compared(lab, "compare-stages")


def claims(content: Record) -> tuple[Claim, ...]:
    """That one stage aligns a base model, that a stage of SFT before it is not needed; and what was found since."""
    wins = content["pipelines"][0]["scores"]["win_rate"]
    rate = Estimate(wins["mean"], wins["low"], wins["high"], len(content["equal"]["seeds"]))
    after_sft, odds = behind(content, "sft > orpo"), behind(content, "sft > odds")
    one_stage = turned(after_sft) if after_sft else None
    return (
        Claim(
            "ORPO aligns a base model in one stage, without SFT before it and without a reference model",
            "abstract",
            "orpo wins against the base model more often than not, by the oracle (a tie is half a win)",
            is_above(rate, 0.5),
            f"wins {rate.mean:.1%} ({rate.low:.1%} to {rate.high:.1%})",
        ),
        Claim(
            "ORPO needs no stage of SFT before it",
            "sec. 1",
            f"the score of orpo less that of sft > orpo (paired) is above −{NEAR}",
            is_above(one_stage, -NEAR) if one_stage else "not measured",
            f"score {one_stage}" if one_stage else "no figure",
        ),
        Claim(
            "SFT and then the odds ratio alone does better than ORPO in one stage",
            "arXiv 2502.01237",
            "the score of sft > odds less that of orpo (paired) is above 0",
            is_above(odds) if odds else "not measured",
            f"score {odds}" if odds else "no figure",
        ),
    )


def lines(content: Record) -> list[str]:
    """All pipelines."""
    return [*comparisons.table(content), *comparisons.conditions(content)]


def picture(content: Record) -> Figure:
    """The main metric of all pipelines."""
    return comparisons.bars(content)


ALT = "Oracle score of one-stage and two-stage pipelines with 95 % intervals"
