"""What objectives receive: log-probs of pairs, labelled answers or rankings, as sums and counts; scores of pairs. Nats; fp32 or better."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class CompletionLogps:
    """Summed log-probabilities `total` [P] and token counts `num_tokens` [P], one entry per pair, same dtype and device."""

    total: Tensor
    num_tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """log p of the length-averaged probability, [P]. A completion has at least one token; a prompt may have none to predict: 0."""
        return self.total / self.num_tokens.clamp(min=1)


@dataclass(frozen=True, slots=True)
class PairLogps:
    """What an objective receives: chosen, rejected, and the prompt's own predicted tokens (P - 1 of them), for P pairs.

    `prompt` is None where the loss does not read it: its log-probs are then never computed.
    """

    chosen: CompletionLogps
    rejected: CompletionLogps
    prompt: CompletionLogps | None


@dataclass(frozen=True, slots=True)
class ChosenLogps:
    """What is there of PairLogps where the rejected answers were not computed: chosen and prompt, for P pairs."""

    chosen: CompletionLogps
    prompt: CompletionLogps | None


DemonstrationLogps = PairLogps | ChosenLogps
"""What an objective receives that learns from the chosen answers alone: the rejected ones are there to be shown, or not at all."""


@dataclass(frozen=True, slots=True)
class LabelledLogps:
    """What an objective on labelled answers receives: A answers, and for each whether it is desirable, [A] of bool."""

    completion: CompletionLogps
    is_desirable: Tensor


@dataclass(frozen=True, slots=True)
class RankedLogps:
    """What an objective on rankings receives: K answers to each of P prompts, best first; `total` and `num_tokens` are [P, K].

    A prompt with fewer answers has zeros at the end, in both: no answer has zero tokens. `scores` [P, K] are what the answers were
    ranked by, falling along a row, None where the data gives an order alone.
    """

    completions: CompletionLogps
    scores: Tensor | None


@dataclass(frozen=True, slots=True)
class PairScores:
    """What an objective on a scalar head receives: one score for each completion of P pairs, both [P], in no unit."""

    chosen: Tensor
    rejected: Tensor
