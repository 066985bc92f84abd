"""The module that is trained: it holds the language model and returns the log-probs of pairs, so that DDP and FSDP hooks fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.tokens import TokenizedExample
from orpo.engine.body import causal_model, switch_back, switch_to_packs, takes_packs
from orpo.engine.layout import PackedBatch, pack
from orpo.engine.packed import CHUNK_BYTES, Share, packed_hidden, packed_pair_logps
from orpo.engine.padded import padded_hidden
from orpo.engine.paths import Path
from orpo.engine.plain import pair_logps


class PairLogpsModel(nn.Module):
    """Tokenized pairs in, PairLogps out. `body` is a causal language model of transformers, or a PEFT model around one.

    `path` is what `choose_path` found; the prompt's own log-probs are computed only `with_prompt`; the head holds at most
    `chunk_bytes` of fp32 logits. While a path over packs is in use, `body` cannot be called by itself: `release` ends that.
    """

    def __init__(self, body: nn.Module, *, path: Path = Path.PLAIN, with_prompt: bool = True, chunk_bytes: int = CHUNK_BYTES) -> None:
        super().__init__()
        self.body = body
        self.path, self.with_prompt, self.chunk_bytes = path, with_prompt, chunk_bytes
        self.attention_calls = 0
        self._own_attention: str | None = None

    def forward(self, examples: Sequence[TokenizedExample], share: Share | None = None) -> PairLogps:
        """Log-probs of `examples`. An empty sequence gives empty sums that still touch every parameter.

        `share` is what will be differentiated, as far as it is known: a function of the log-probs of some of the pairs. It saves the head a
        second pass over the vocabulary, and changes no number. A rank with nothing to do in a step must take part in its gradient exchange,
        so its zero is a function of every parameter.
        """
        if not examples:
            return self._nothing()
        if self.path is Path.PLAIN:
            return pair_logps(self.body, examples, with_prompt=self.with_prompt)
        causal = causal_model(self.body)
        batch = pack(examples, sharing=self.path is Path.SHARED, with_prompt=self.with_prompt).to(causal.device)
        hidden = self._hidden(causal, batch)
        return packed_pair_logps(
            causal, batch, hidden, examples=examples, with_prompt=self.with_prompt, chunk_bytes=self.chunk_bytes, share=share
        )

    def _hidden(self, causal: Any, batch: PackedBatch) -> Tensor:
        if self.path is Path.PADDED:
            return padded_hidden(causal, batch)
        if not takes_packs(causal):
            # It stays switched until `release`: under gradient checkpointing the layers are called again in the backward pass.
            self._own_attention = switch_to_packs(causal)
        hidden = packed_hidden(causal, batch)
        self.attention_calls = batch.layout.cache.get("calls", 0)
        return hidden

    def release(self) -> None:
        """Nothing; `body` attends as it did before the first pack, and can generate, be saved, and be called by itself."""
        if self._own_attention is not None:
            switch_back(causal_model(self.body), self._own_attention)
            self._own_attention = None

    def _nothing(self) -> PairLogps:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        zeros = [parameter.flatten()[:0].double().sum() for parameter in parameters]
        nothing = torch.stack(zeros).sum()[None][:0] if zeros else torch.zeros(0, dtype=torch.float64)
        empty = CompletionLogps(nothing, nothing.detach())
        return PairLogps(chosen=empty, rejected=empty, prompt=empty if self.with_prompt else None)
