"""Appendix E: what the weight of the odds ratio term does to the log-probs of both answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Claim, Estimate, all_of, is_above, is_below, over_seeds
from evidence.lab import STEPS, Lab
from evidence.pictures import COLOURS, SOFT, label_end, panels
from evidence.records import Record

TITLE = "The weight of the odds ratio term (appendix E)"
SEEDS = (1, 2, 3)
NEAR = 0.05
WEIGHTS = (0.1, 0.5, 1.0, 2.0, 4.0)


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS, steps: int = STEPS, weights: Sequence[float] = WEIGHTS) -> dict[str, Any]:
    """How far both log-probs came at each weight, seed by seed."""
    runs = {f"{weight:g}": [lab.run("orpo", seed=seed, max_steps=steps, beta=weight) for seed in seeds] for weight in weights}
    ends = {weight: [run.changes() for run in group] for weight, group in runs.items()}
    accuracy = {weight: [run.figures["curve"]["accuracy"][-1] for run in group] for weight, group in runs.items()}
    return {"seeds": list(seeds), "weights": list(weights), "changes": ends, "accuracy": accuracy}


def change(content: Record, weight: float, side: str) -> Estimate:
    """How far a side came at a weight, over seeds."""
    return over_seeds([end[side] for end in content["changes"][f"{weight:g}"]])


def claims(content: Record) -> tuple[Claim, ...]:
    """The three regimes of the appendix."""
    low, middle, high = ({side: change(content, weight, side) for side in ("chosen", "rejected", "margin")} for weight in (0.1, 0.5, 1.0))
    return (
        Claim(
            "At weight 0.1 the rejected answers do not become less likely",
            "app. E",
            f"the change of the rejected log-prob lies above −{NEAR:g}",
            is_above(low["rejected"], -NEAR),
            f"rejected {low['rejected']}",
        ),
        Claim(
            "At weight 0.5 the chosen become likelier and the rejected less likely",
            "app. E",
            "the chosen log-prob rises and the rejected one falls",
            all_of(is_above(middle["chosen"]), is_below(middle["rejected"])),
            f"chosen {middle['chosen']}, rejected {middle['rejected']}",
        ),
        Claim(
            "At weight 1.0 both fall, and the margin grows",
            "app. E",
            "the chosen log-prob falls, the rejected falls, and the margin rises",
            all_of(is_below(high["chosen"]), is_below(high["rejected"]), is_above(high["margin"])),
            f"chosen {high['chosen']}, rejected {high['rejected']}",
        ),
    )


def lines(content: Record) -> list[str]:
    """The regimes by weight."""
    rows = [
        f"| {weight:g} | {change(content, weight, 'chosen')} | {change(content, weight, 'rejected')} | {change(content, weight, 'margin')} "
        f"| {sum(content['accuracy'][f'{weight:g}']) / len(content['seeds']):.1%} |"
        for weight in content["weights"]
    ]
    return ["| weight | chosen, nats per token | rejected | margin | pairs told apart |", "|---|---|---|---|---|", *rows]


def picture(content: Record) -> Figure:
    """The change of both log-probs over the weight."""
    figure, (axis,) = panels(1, height=2.6)
    for side in ("chosen", "rejected"):
        found = [change(content, weight, side) for weight in content["weights"]]
        means = [estimate.mean for estimate in found]
        spread = [[estimate.mean - estimate.low for estimate in found], [estimate.high - estimate.mean for estimate in found]]
        axis.errorbar(content["weights"], means, yerr=spread, color=COLOURS[side], linewidth=2, marker="o", markersize=4, capsize=2)
        label_end(axis, side, (content["weights"][-1], means[-1]), colour=COLOURS[side])
    axis.axhline(0, color=SOFT, linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xticks(content["weights"], [f"{weight:g}" for weight in content["weights"]])
    axis.set(title="change of held-out log p, nats per token", xlabel="weight of the odds ratio term")
    return figure


ALT = "Change of the held-out log-probs of chosen and rejected answers over the weight, with 95 % intervals"
