"""Log-probabilities of a batch of pairs, as sums and counts. Nats; fp32 or better."""

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
