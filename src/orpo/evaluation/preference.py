"""Held-out pairs: does the model find the chosen answer likelier than the rejected one, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from orpo.core.intervals import mean_interval, wilson_interval
from orpo.core.tokens import TokenizedExample
from orpo.engine.model import PairLogpsModel

FIGURES = (
    "num_pairs",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "nll_loss",
    "logps/chosen",
    "logps/rejected",
    "margin",
    "margin_low",
    "margin_high",
)
"""The names of what `summarize` gives."""


@dataclass(frozen=True, slots=True)
class PairScore:
    """One pair: mean log-probs (nats per token) of both completions, their token counts, and where the pair stands."""

    source: str
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def is_right(self) -> bool:
        """True when the chosen completion is strictly likelier per token; a tie counts as wrong, as in TRL."""
        return self.chosen > self.rejected


def pair_scores(body: nn.Module, examples: Iterable[TokenizedExample], *, tick: Callable[[], None] = lambda: None) -> list[PairScore]:
    """A score for each of `examples`; `tick` is called after each, for a progress bar. The model's mode is put back afterwards."""
    was_training = body.training
    model = PairLogpsModel(body).eval()
    scores = []
    with torch.no_grad():
        for example in examples:
            logps = model([example])
            lengths = [len(completion) for completion in example.completions]
            scores.append(
                PairScore(str(example.source), float(logps.chosen.mean[0]), float(logps.rejected.mean[0]), lengths[0], lengths[1])
            )
            tick()
    body.train(was_training)
    return scores


def summarize(scores: list[PairScore]) -> dict[str, float]:
    """Accuracy with its 95 % Wilson interval, chosen NLL per token over all tokens, mean log-probs, margin with its 95 % interval."""
    num = len(scores)
    right = sum(score.is_right for score in scores)
    low, high = wilson_interval(right, num)
    margin, margin_low, margin_high = mean_interval([score.chosen - score.rejected for score in scores])
    tokens = sum(score.chosen_tokens for score in scores)
    return {
        "num_pairs": num,
        "accuracy": right / num,
        "accuracy_low": low,
        "accuracy_high": high,
        "nll_loss": -sum(score.chosen * score.chosen_tokens for score in scores) / tokens,
        "logps/chosen": sum(score.chosen for score in scores) / num,
        "logps/rejected": sum(score.rejected for score in scores) / num,
        "margin": margin,
        "margin_low": margin_low,
        "margin_high": margin_high,
    }
