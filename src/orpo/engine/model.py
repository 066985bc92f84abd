"""The module that is trained: it holds the language model and returns the log-probs of pairs, so that DDP and FSDP hooks fire."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.tokens import TokenizedExample
from orpo.engine.plain import pair_logps


class PairLogpsModel(nn.Module):
    """Tokenized pairs in, PairLogps out. `body` is a causal language model of transformers, or a PEFT model around one."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, examples: Sequence[TokenizedExample]) -> PairLogps:
        """Log-probs of `examples`. An empty sequence gives empty sums that still touch every parameter.

        A rank with nothing to do in a step must take part in its gradient exchange, so its zero is a function of every parameter.
        """
        if examples:
            return pair_logps(self.body, examples)
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        nothing = torch.stack([parameter.flatten()[:0].double().sum() for parameter in parameters]).sum()[None][:0]
        empty = CompletionLogps(nothing, nothing.detach())
        return PairLogps(chosen=empty, rejected=empty, prompt=empty)
