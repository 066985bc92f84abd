"""The module that is trained: it holds the language model and returns the log-probs of examples, so that DDP and FSDP hooks fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orpo.core.records import Reads, Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.body import causal_model, layer_stack, switch_back, switch_to_packs, takes_packs
from orpo.engine.layout import PackedBatch, pack
from orpo.engine.packed import CHUNK_BYTES, SumsShare, packed_hidden, packed_sums
from orpo.engine.padded import padded_hidden
from orpo.engine.paths import Path
from orpo.engine.plain import row_sums
from orpo.engine.remade import remade_activations
from orpo.engine.sharded import as_forward, is_sharded
from orpo.engine.shared_casts import SharedCasts
from orpo.engine.views import Logps, Share, logps_of, split

STAND_IN = (TokenizedExample(np.zeros(1, np.int32), (np.zeros(1, np.int32), np.zeros(1, np.int32)), Source("nowhere", 1)),)
"""What a process with nothing to do computes where weights are divided: the others need it to gather each layer."""


class LogpsModel(nn.Module):
    """Tokenized examples in, their log-probs out. `body` is a causal language model of transformers, or a PEFT model around one.

    `path` is what `choose_path` found; `reads` says what comes out: PairLogps, LabelledLogps or RankedLogps. A pair's prompt has log-probs
    only `with_prompt`; with `chosen_alone` it comes without its rejected answer in training mode, as ChosenLogps. The head holds at most
    `chunk_bytes` of fp32 logits. While a path over packs is in use, `body` cannot be called by itself: `release` ends that.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        path: Path = Path.PLAIN,
        reads: Reads = "pairs",
        with_prompt: bool = True,
        chosen_alone: bool = False,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__()
        self.body = body
        self.path, self.reads, self.chunk_bytes = path, reads, chunk_bytes
        self.with_prompt = with_prompt and reads == "pairs"
        self.chosen_alone = chosen_alone
        self.attention_calls = 0
        self._own_attention: str | None = None
        self._casts, self._cast_hooks = SharedCasts(), list[RemovableHandle]()

    @property
    def is_distributed_loading_by_transformers(self) -> bool:
        """What transformers' Trainer asks: where weights are divided already, it must neither move nor wrap the model."""
        return is_sharded(self.body)

    def forward(self, examples: Sequence[TokenizedExample], share: Share | None = None) -> Logps:
        """Log-probs of `examples`, fp64 sums with token counts. An empty sequence gives empty sums that still touch every parameter.

        `share` is what will be differentiated, as far as it is known: a function of the log-probs of some of the examples. It saves the
        head a second pass over the vocabulary, and changes no number. A rank with nothing to do in a step must take part in its gradient
        exchange, so its zero is a function of every parameter.
        """

        def view(sums: Tensor, members: slice) -> Logps:
            alone = self.chosen_alone and self.training
            return logps_of(sums, examples[members], reads=self.reads, with_prompt=self.with_prompt, chosen_alone=alone)

        by_sums = None if share is None else lambda sums, members: share(view(sums, members), members)
        return view(self._sums(examples, with_prompt=self.with_prompt, share=by_sums), slice(len(examples)))

    def completion_totals(self, examples: Sequence[TokenizedExample]) -> Tensor:
        """Summed log-probs of all completions of `examples` in order, fp64 [N]."""
        return split(self._sums(examples, with_prompt=False), examples)[0]

    def _sums(self, examples: Sequence[TokenizedExample], *, with_prompt: bool, share: SumsShare | None = None) -> Tensor:
        """Sums as engine/views.py numbers them."""
        if not examples:
            return self._sums(STAND_IN, with_prompt=False)[:0] if is_sharded(self.body) else self.nothing()
        if self.path is Path.PLAIN:
            return row_sums(self.body, examples)

        def compute() -> Tensor:
            causal, batch, hidden = self.packed(examples, with_prompt=with_prompt)
            return packed_sums(causal, batch, hidden, examples=examples, chunk_bytes=self.chunk_bytes, share=share)

        return as_forward(self.body, compute)

    def packed(self, examples: Sequence[TokenizedExample], *, with_prompt: bool) -> tuple[Any, PackedBatch, Tensor]:
        """(the causal model, the pack of `examples`, its hidden states [T, H]), on any path but the plain one."""
        causal = causal_model(self.body)
        batch = pack(examples, sharing=self.path is Path.SHARED, with_prompt=with_prompt).to(causal.device)
        return causal, batch, self._hidden(causal, batch)

    def _hidden(self, causal: Any, batch: PackedBatch) -> Tensor:
        is_padded = self.path is Path.PADDED
        # Both stay until `release`: under gradient checkpointing the layers are called again in the backward pass.
        if not is_padded and not takes_packs(causal):
            self._own_attention = switch_to_packs(causal)
        if not self._cast_hooks:
            self._cast_hooks = self._casts.attach(layer_stack(causal))
        try:
            with remade_activations():
                hidden = (padded_hidden if is_padded else packed_hidden)(causal, batch)
        finally:
            self._casts.forget()
        self.attention_calls = batch.layout.cache.get("calls", 0)
        return hidden

    def release(self) -> None:
        """Nothing; `body` attends as it did before the first pack, and can generate, be saved, and be called by itself."""
        if self._own_attention is not None:
            switch_back(causal_model(self.body), self._own_attention)
            self._own_attention = None
        while self._cast_hooks:
            self._cast_hooks.pop().remove()

    def nothing(self) -> Tensor:
        """An empty sum that is a function of every trained parameter, fp64 [0]."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        zeros = [parameter.flatten()[:0].double().sum() for parameter in parameters]
        return torch.stack(zeros).sum()[None][:0] if zeros else torch.zeros(0, dtype=torch.float64)
