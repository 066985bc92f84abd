"""Size: ORPO against SFT then DPO on three base models of the world, each way tuned at each size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Claim, Estimate, differences, is_above, over_seeds
from evidence.lab import Lab
from evidence.pictures import COLOURS, SOFT, panels
from evidence.records import Record
from evidence.two_ways import SIZES, Size, dpo_run, orpo_run, sft_run, tuned

TITLE = "Model size (tables 2 and 3)"
SEEDS = (1, 2, 3, 4, 5)


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS, sizes: Sequence[Size] = SIZES) -> dict[str, Any]:
    """Oracle scores of both ways at each size, seed by seed."""
    return {
        "seeds": list(seeds),
        "sizes": [size.name for size in sizes],
        "scores": {size.name: _scores(lab, size, seeds) for size in sizes},
    }


def _scores(lab: Lab, size: Size, seeds: Sequence[int]) -> dict[str, Any]:
    tuning = tuned(lab, size)
    found: dict[str, Any] = {"chosen": tuning["chosen"], "base": [], "orpo": [], "sft": [], "sft > dpo": []}
    for seed in seeds:
        orpo = orpo_run(lab, size, seed, tuning["chosen"]["orpo"])
        sft = sft_run(lab, size, seed, tuning["chosen"]["sft"])
        dpo = dpo_run(lab, size, seed, tuning["chosen"]["dpo"], sft=sft)
        found["base"].append(orpo.figures["oracle"]["before"]["score"])
        for way, run in (("orpo", orpo), ("sft", sft), ("sft > dpo", dpo)):
            found[way].append(run.figures["oracle"]["after"]["score"])
    return found


def lead(content: Record, size: str) -> Estimate:
    """ORPO's oracle score less that of SFT then DPO."""
    return differences(content["scores"][size]["orpo"], content["scores"][size]["sft > dpo"])


def claims(content: Record) -> tuple[Claim, ...]:
    """That ORPO gains on DPO as models grow."""
    leads = [
        [one - other for one, other in zip(content["scores"][size]["orpo"], content["scores"][size]["sft > dpo"], strict=True)]
        for size in (content["sizes"][0], content["sizes"][-1])
    ]
    growth = differences(leads[1], leads[0])
    return (
        Claim(
            "ORPO gains on SFT then DPO as models grow",
            "tables 2, 3",
            f"its lead in oracle score is larger at {content['sizes'][-1]} than at {content['sizes'][0]} (paired by seed)",
            is_above(growth),
            f"lead grows by {growth}",
        ),
    )


def lines(content: Record) -> list[str]:
    """Scores by size."""
    rows = []
    for size in content["sizes"]:
        scores = content["scores"][size]
        means = " | ".join(f"{over_seeds(scores[way]).mean:.3f}" for way in ("base", "sft", "orpo", "sft > dpo"))
        rows.append(f"| {size} | {means} | {lead(content, size)} |")
    return [
        "| parameters | base | SFT, half the steps | ORPO | SFT, then DPO | ORPO less SFT then DPO |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "The paper's win rates of ORPO against DPO on HH-RLHF: 41.7 % at 125M, 49.4 % at 350M, 70.9 % at 1.3B. These three sizes lie "
        "within a factor of nine, a hundred times and more below those: they say nothing about the trend there.",
    ]


def picture(content: Record) -> Figure:
    """The lead over the size, with its interval."""
    figure, (axis,) = panels(1, height=2.3)
    found = [lead(content, size) for size in content["sizes"]]
    means = [estimate.mean for estimate in found]
    spread = [[estimate.mean - estimate.low for estimate in found], [estimate.high - estimate.mean for estimate in found]]
    axis.errorbar(range(len(found)), means, yerr=spread, color=COLOURS["orpo"], marker="o", linewidth=1.8, capsize=3)
    axis.axhline(0, color=SOFT, linewidth=0.8)
    axis.set_xticks(range(len(found)), content["sizes"])
    axis.set(title="oracle score, ORPO less SFT then DPO", xlabel="parameters")
    axis.margins(x=0.15)
    return figure


ALT = "ORPO's lead over SFT then DPO in oracle score at three model sizes, with 95 % intervals"
