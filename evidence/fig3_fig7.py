"""Fig. 3 and 7: the held-out log-probs of both answers along fine-tuning on the chosen one alone, and along ORPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Claim, Estimate, all_of, is_above, is_below, over_seeds
from evidence.lab import STEPS, Lab, changes, course_of
from evidence.pictures import COLOURS, courses, label_end, panels
from evidence.records import Record

TITLE = "Log-probs along training (Fig. 3 and 7)"
SEEDS = (1, 2, 3, 4, 5)
WEIGHT = 1.0
LEAST_SHARE = 0.9


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS, steps: int = STEPS) -> dict[str, Any]:
    """Runs of SFT and of ORPO at the weight of Fig. 7, the same pairs in the same order."""
    sft = [course_of(lab.run("sft", seed=seed, max_steps=steps)) for seed in seeds]
    orpo = [course_of(lab.run("orpo", seed=seed, max_steps=steps, beta=WEIGHT)) for seed in seeds]
    return {"seeds": list(seeds), "runs": {"sft": sft, "orpo": orpo}}


def change(content: Record, objective: str, side: str) -> Estimate:
    """How far the log-prob of a side came with `objective`, over seeds."""
    return over_seeds([changes(run)[side] for run in content["runs"][objective]])


def claims(content: Record) -> tuple[Claim, ...]:
    """The three claims of the two figures."""
    pairs = zip(content["runs"]["orpo"], content["runs"]["sft"], strict=True)
    share = over_seeds([changes(orpo)["chosen"] / changes(sft)["chosen"] for orpo, sft in pairs])
    rejected, chosen = change(content, "sft", "rejected"), change(content, "orpo", "chosen")
    pushed = change(content, "orpo", "rejected")
    return (
        Claim(
            "Fine-tuning on chosen answers makes the rejected ones likelier too",
            "Fig. 3",
            "the rejected log-prob rises with SFT",
            is_above(rejected),
            f"rejected {rejected} nats per token",
        ),
        Claim(
            f"With ORPO (weight {WEIGHT:g}) the rejected answers become less likely",
            "Fig. 7",
            "the rejected log-prob falls with ORPO",
            is_below(pushed),
            f"rejected {pushed} nats per token",
        ),
        Claim(
            "and the chosen ones as likely as with SFT",
            "Fig. 7",
            f"the chosen log-prob rises with ORPO, by at least {LEAST_SHARE:.0%} of its rise with SFT",
            all_of(is_above(chosen), is_above(share, LEAST_SHARE)),
            f"{share.mean:.0%} of SFT's rise ({share.low:.0%} to {share.high:.0%})",
        ),
    )


def lines(content: Record) -> list[str]:
    """The table of both objectives."""
    rows = [
        f"| {name} | {change(content, objective, 'chosen')} | {change(content, objective, 'rejected')} "
        f"| {change(content, objective, 'margin')} |"
        for objective, name in (("sft", "SFT"), ("orpo", f"ORPO, weight {WEIGHT:g}"))
    ]
    return ["| change, nats per token | chosen | rejected | margin |", "|---|---|---|---|", *rows]


def picture(content: Record) -> Figure:
    """Both objectives side by side: means over seeds, each seed faint."""
    figure, axes = panels(2, share_y=True)
    for axis, (objective, title) in zip(axes, (("sft", "SFT"), ("orpo", f"ORPO, weight {WEIGHT:g}")), strict=True):
        for side in ("chosen", "rejected"):
            end = courses(axis, [run["curve"] for run in content["runs"][objective]], side, colour=COLOURS[side])
            label_end(axis, side, end, colour=COLOURS[side])
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("held-out log p, nats per token")
    return figure


ALT = "Held-out log-probs of chosen and rejected answers by step, SFT on the left, ORPO on the right, each seed a faint line"
