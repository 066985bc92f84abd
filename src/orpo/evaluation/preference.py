"""Held-out pairs: does the model find the chosen answer likelier than the rejected one, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from orpo.core.intervals import mean_interval, wilson_interval
from orpo.core.tokens import TokenizedExample
from orpo.engine.batching import in_order
from orpo.engine.model import LogpsModel
from orpo.engine.scores import ScoresModel
from orpo.engine.startup_check import choose_path

Model = TypeVar("Model", LogpsModel, ScoresModel)

TOKENS_AT_ONCE = 4096
"""Tokens of a batch: nothing is kept for a backward pass, so that a few thousand are little memory and enough to keep a machine busy."""

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


def pair_scores(
    body: nn.Module,
    examples: Sequence[TokenizedExample],
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
    tick: Callable[[], None] = lambda: None,
) -> list[PairScore]:
    """A score for each of `examples`, by the fastest path that `body` can take; `tick` is called after each, for a progress bar.

    The model's mode is put back afterwards.
    """
    scores: list[PairScore] = []
    with measuring(body, lambda: LogpsModel(body, path=choose_path(body, longest=longest_row(examples)).path, with_prompt=False)) as model:
        for batch in in_order(examples, tokens_at_once):
            logps = model(batch)
            for example, chosen, rejected in zip(batch, logps.chosen.mean.tolist(), logps.rejected.mean.tolist(), strict=True):
                lengths = [len(completion) for completion in example.completions]
                scores.append(PairScore(str(example.source), chosen, rejected, lengths[0], lengths[1]))
                tick()
    return scores


@contextmanager
def measuring(body: nn.Module, build: Callable[[], Model]) -> Iterator[Model]:
    """What `build` makes around `body`, in evaluation mode and without gradients; afterwards `body` is in the mode it was in."""
    training = [module for module in body.modules() if module.training]
    model = build().eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.release()
        for module in training:
            module.training = True


def longest_row(examples: Sequence[TokenizedExample]) -> int:
    """Tokens of the longest prompt with one completion; 0 without examples."""
    return max((len(e.prompt_ids) + len(completion) for e in examples for completion in e.completions), default=0)


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
