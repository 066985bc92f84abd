"""How the next token is chosen: settings and a key for each prompt enter, what transformers' `generate` takes leaves.

Every reply has random numbers of its own, made from the seed and its key alone: what it is does not depend on which others share its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from orpo.errors import ConfigError
from orpo.evaluation.generation import GREEDY

Key = tuple[int, ...]
"""What tells one reply from the others: the number of its prompt and of the sample, say."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The likeliest token at temperature 0; else one drawn from the likeliest that together have `top_p` of the probability.

    Raises ConfigError for what is out of range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"--temperature is {self.temperature}", expected="0 (the likeliest token), or more", fix="try 0.7")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p is {self.top_p}", expected="a share of the probability: above 0, at most 1", fix="try 0.95")
        if self.top_p < 1 and not self.temperature:
            fix = "add --temperature 0.7, or leave out --top-p"
            raise ConfigError(f"--top-p {self.top_p} changes nothing at --temperature 0: the likeliest token is taken", fix=fix)
        if self.max_new_tokens < 1:
            raise ConfigError(f"--max-new-tokens is {self.max_new_tokens}", expected="1 or more")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}", expected="0 or more")

    def __str__(self) -> str:
        if not self.temperature:
            return "greedy (the likeliest token)"
        return f"temperature {self.temperature:g}, top-p {self.top_p:g}, seed {self.seed}"

    def choice(self, keys: Sequence[Key], device: torch.device) -> dict[str, Any]:
        """The arguments of `generate` for a batch of prompts with these keys; a model's own generation config has no say."""
        if not self.temperature:
            return dict(GREEDY)
        processors: list[Any] = [TemperatureLogitsWarper(float(self.temperature))]
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        drawn = np.stack([self._numbers(key) for key in keys])
        return {**GREEDY, "logits_processor": LogitsProcessorList([*processors, Draw(torch.from_numpy(drawn).to(device))])}

    def _numbers(self, key: Key) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A number in [0, 1) for each token of the reply with this key."""
        return np.random.default_rng([self.seed, *key]).random(self.max_new_tokens)

    def as_dict(self) -> Mapping[str, Any]:
        """The settings, for a file."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}


class Draw:
    """The last of the processors: leaves of each row the one token at which its cumulative probability passes the row's next number."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.step = numbers, 0

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, vocabulary] in, the same with -inf everywhere but at the drawn token out: the likeliest is then the drawn one."""
        cumulative = scores.double().softmax(-1).cumsum(-1)
        targets = self.numbers[:, self.step, None] * cumulative[:, -1:]
        self.step += 1
        # right=True passes tokens of probability 0. A product that rounds up to the whole sum would lead past the last token.
        drawn = torch.searchsorted(cumulative, targets, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)
