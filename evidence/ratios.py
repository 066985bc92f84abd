"""Fig. 6 and 8: how far odds ratios and probability ratios spread, and what training does with either beside the same SFT term."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from evidence.claims import Claim, Verdict, differences, is_below
from evidence.lab import STEPS, Lab, changes, course_of
from evidence.pictures import COLOURS, courses, label_end, panels
from evidence.records import Record
from evidence.replies import built_in_body, held_out_examples
from orpo.evaluation.preference import pair_scores
from orpo.objectives.stable import log_odds

TITLE = "Odds ratio against probability ratio (Fig. 6 and 8)"
SEEDS = (1, 2, 3, 4, 5)
WEIGHT = 1.0
NUM_DRAWS = 1_000_000
STD_RATIO, STD_ODDS = sqrt(2), pi * sqrt(2 / 3)
"""-log of a uniform probability has variance 1, its log odds (logistic) pi^2 / 3; a difference of two has twice that."""
NEAR = 0.01


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS, steps: int = STEPS, num_draws: int = NUM_DRAWS) -> dict[str, Any]:
    """Both spreads, by draws and on held-out pairs, and runs with either ratio: PRO of two answers at temperature 1 is the one with

    NLL(chosen) - log sigmoid(log P(chosen) - log P(rejected)): ORPO's loss at weight 1 with P in place of the odds.
    """
    spread, _ = lab.once("spread", {"draws": num_draws}, lambda _: {"uniform": _drawn(num_draws), "pairs": _on_pairs()})
    ratio: dict[str, Any] = {"weight": 1 / WEIGHT, "nll_logps": "mean", "temperature": "one"}
    runs = {
        "orpo": [course_of(lab.run("orpo", seed=seed, max_steps=steps, beta=WEIGHT)) for seed in seeds],
        "ratio": [course_of(lab.run("pro", seed=seed, max_steps=steps, **ratio)) for seed in seeds],
    }
    return {"seeds": list(seeds), "num_draws": num_draws, **spread, "runs": runs}


def _drawn(num_draws: int) -> dict[str, Any]:
    """Standard deviations and histograms of both log ratios of two uniform probabilities."""
    chosen, rejected = np.random.default_rng(0).uniform(size=(2, num_draws))
    ratio = np.log(chosen) - np.log(rejected)
    odds = ratio - np.log1p(-chosen) + np.log1p(-rejected)
    edges = np.linspace(-9, 9, 73)
    shares = {name: (np.histogram(values, edges)[0] / num_draws).tolist() for name, values in (("ratio", ratio), ("odds", odds))}
    return {"std_ratio": float(ratio.std()), "std_odds": float(odds.std()), "edges": edges.tolist(), "shares": shares}


def _on_pairs() -> dict[str, float]:
    """Standard deviations over held-out pairs under the base model, where P is the length-averaged probability of an answer."""
    scores = pair_scores(built_in_body(), held_out_examples(1))
    chosen, rejected = (torch.tensor([getattr(score, side) for score in scores], dtype=torch.float64) for side in ("chosen", "rejected"))
    odds = log_odds(chosen) - log_odds(rejected)
    return {"std_ratio": float((chosen - rejected).std()), "std_odds": float(odds.std()), "mean_P": float(chosen.exp().mean())}


def spread_verdict(std_ratio: float, std_odds: float) -> Verdict:
    """Whether both standard deviations are the printed ones, within NEAR; opposite where the odds ratio spreads less."""
    if abs(std_ratio / STD_RATIO - 1) <= NEAR and abs(std_odds / STD_ODDS - 1) <= NEAR:
        return "shown"
    return "opposite" if std_odds < std_ratio else "not shown"


def claims(content: Record) -> tuple[Claim, ...]:
    """The spread of Fig. 6, and Fig. 8."""
    uniform = content["uniform"]
    ratio, odds = ([changes(run)["rejected"] for run in content["runs"][name]] for name in ("ratio", "orpo"))
    further = differences(ratio, odds)
    return (
        Claim(
            "For uniform probabilities the log probability ratio spreads by 1.414 beta, the log odds ratio by 2.565",
            "Fig. 6",
            f"the standard deviations of {content['num_draws']:,} draws are the two printed ones within {NEAR:.0%}",
            spread_verdict(uniform["std_ratio"], uniform["std_odds"]),
            f"{uniform['std_ratio']:.3f} and {uniform['std_odds']:.3f}",
        ),
        Claim(
            "With the probability ratio in place of the odds ratio, the rejected log-probs fall further",
            "Fig. 8",
            "the rejected log-prob ends lower with the probability ratio (paired by seed)",
            is_below(further),
            f"rejected, ratio less odds: {further} nats per token",
        ),
    )


def lines(content: Record) -> list[str]:
    """Ends of both kinds of run, and the spread where a model is."""
    pairs = content["pairs"]
    rows = []
    for name, title in (("orpo", "odds ratio (ORPO)"), ("ratio", "probability ratio")):
        ends = [changes(run) for run in content["runs"][name]]
        means = {side: sum(end[side] for end in ends) / len(ends) for side in ("chosen", "rejected", "margin")}
        rows.append(f"| {title} | {means['chosen']:+.3f} | {means['rejected']:+.3f} | {means['margin']:+.3f} |".replace("-", "−"))
    return [
        f"| change, nats per token, weight {WEIGHT:g} | chosen | rejected | margin |",
        "|---|---|---|---|",
        *rows,
        "",
        f"On held-out pairs the base model's P is {pairs['mean_P']:.2f} on average; there the two ratios spread by "
        f"{pairs['std_ratio']:.2f} and {pairs['std_odds']:.2f}.",
        "A pair whose log ratio is m is pushed by sigmoid(−m), with odds times 1/(1 − P): "
        "the odds ratio pushes harder at first, and lets go sooner. "
        "The loss with the probability ratio is `pro` of two answers at temperature 1.",
    ]


def picture(content: Record) -> Figure:
    """The two spreads, and the rejected log-probs along training."""
    figure, (left, right) = panels(2)
    edges = np.asarray(content["uniform"]["edges"])
    for name, colour, text in (("ratio", "ratio", "probability ratio"), ("odds", "orpo", "odds ratio")):
        shares = np.asarray(content["uniform"]["shares"][name]) / np.diff(edges)
        left.stairs(shares, edges, color=COLOURS[colour], linewidth=1.8, label=text)
    left.legend(frameon=False, fontsize=8.5)
    left.set(title="two uniform probabilities", xlabel="log ratio", ylabel="density")
    for name, colour, text in (("orpo", "orpo", "odds"), ("ratio", "ratio", "ratio")):
        end = courses(right, [run["curve"] for run in content["runs"][name]], "rejected", colour=COLOURS[colour])
        label_end(right, text, end, colour=COLOURS[colour])
    right.set(title="rejected answers along training", xlabel="step", ylabel="held-out log p, nats per token")
    return figure


ALT = "Left: densities of both log ratios; right: held-out log-probs of rejected answers by step with either ratio"
