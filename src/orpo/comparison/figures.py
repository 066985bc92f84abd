"""The figures of a comparison: what each is, which way is better, and how one is made for each item. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as the page shows it; `of_world` where the oracle of the built-in world is needed."""

    id: str
    title: str
    better: Literal["higher", "lower", "none"]
    note: str
    unit: str = ""
    of_world: bool = False

    def as_dict(self) -> dict[str, str]:
        """The entry of compare.json."""
        return {"id": self.id, "title": self.title, "unit": self.unit, "better": self.better, "note": self.note}


FIGURES = (
    Figure("oracle/score", "oracle score", "higher", "Greedy replies to held-out prompts: mean of correctness and manner.", of_world=True),
    Figure("oracle/correct", "correct", "higher", "Share of replies that state the right answer and no other.", of_world=True),
    Figure("oracle/manner", "manner", "higher", "Mean of kind and direct, each 0 or 1.", of_world=True),
    Figure("win_rate", "win rate", "higher", "Replies with a higher oracle score than the base model's; ties half.", of_world=True),
    Figure("accuracy", "accuracy", "higher", "Held-out pairs whose chosen answer is likelier per token; a tie counts as wrong."),
    Figure("accuracy_sum", "accuracy by sum", "higher", "The same by summed log-probs, which favours short answers."),
    Figure("nll_loss", "NLL", "lower", "Held-out chosen answers, over all their tokens.", unit="nats/token"),
    Figure("logps/rejected", "log p rejected", "none", "Mean log-prob per token of held-out rejected answers.", unit="nats/token"),
    Figure("reply_tokens", "reply length", "none", "Tokens of a greedy reply, without its end.", unit="tokens"),
    Figure(
        "diversity/per_input",
        "likeness per input",
        "none",
        "Mean cosine of samples of one prompt; lower is more diverse.",
    ),
    Figure("diversity/across_inputs", "likeness across inputs", "none", "The same of first samples of all prompts."),
)
"""In order of display; the first that is measured is the main one."""

TUNABLE: Mapping[str, bool] = {
    "oracle/score": True,
    "oracle/correct": True,
    "oracle/manner": True,
    "accuracy": False,
    "accuracy_sum": False,
    "nll_loss": False,
}
"""What stages can be tuned by, the default first -> whether it needs the oracle."""

NEEDS_REPLIES = ("oracle/score", "oracle/correct", "oracle/manner")


def figures_of(*, is_world: bool) -> tuple[Figure, ...]:
    """The figures that can be measured."""
    return tuple(figure for figure in FIGURES if is_world or not figure.of_world)


def figure(name: str) -> Figure:
    """The figure called `name`."""
    return next(found for found in FIGURES if found.id == name)


def wins(scores: Sequence[float], base: Sequence[float]) -> list[float]:
    """1 for each item with a higher score than the base's, 0.5 for a tie, else 0."""
    return [1.0 if score > other else 0.5 if score == other else 0.0 for score, other in zip(scores, base, strict=True)]
