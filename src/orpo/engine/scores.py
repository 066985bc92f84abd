"""The reward model that is trained: pairs enter, the scores of their answers leave, on the same packs and paths as log-probs.

It is transformers' own kind of model, sequence classification with one label, whose score is read where transformers reads it: at the last
token of a row that is not padding. So a saved folder loads without this library and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from orpo.core.logps import PairScores
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.engine.body import causal_model
from orpo.engine.layout import Layout
from orpo.engine.model import STAND_IN, LogpsModel
from orpo.engine.paths import Choice, Path
from orpo.engine.sharded import as_forward, is_sharded
from orpo.engine.startup_check import EXACT, Trial, check_pairs, first_right, is_exact, run_autocast, undisturbed
from orpo.errors import ConfigError

ROUNDED = 3e-2
"""How far scores may lie from those of single rows in bf16 or fp16, relative to the largest, or to 1 where that is smaller."""


class ScoresModel(nn.Module):
    """Tokenized pairs in, PairScores out (fp64). `body` is a sequence classification model with one label, or PEFT around one."""

    def __init__(self, body: nn.Module, *, path: Path = Path.PLAIN) -> None:
        super().__init__()
        self.engine = LogpsModel(body, path=path, with_prompt=False)

    @property
    def body(self) -> nn.Module:
        """The model of transformers."""
        return self.engine.body

    @property
    def is_distributed_loading_by_transformers(self) -> bool:
        """What transformers' Trainer asks: whether the weights are divided already."""
        return is_sharded(self.body)

    @property
    def attention_calls(self) -> int:
        """How often layers attended to the last pack."""
        return self.engine.attention_calls

    def forward(self, examples: Sequence[TokenizedExample], share: object = None) -> PairScores:  # noqa: ARG002 - what the trainer hands to every model
        """The scores of `examples`. `share` is not needed: no vocabulary is gone through."""
        scores = self._scores(examples).view(len(examples), 2)
        return PairScores(scores[:, 0], scores[:, 1])

    def release(self) -> None:
        """Nothing; `body` attends as it did before the first pack, and can be saved, and be called by itself."""
        self.engine.release()

    def _scores(self, examples: Sequence[TokenizedExample]) -> Tensor:
        """The score of every completion, fp64 [2 P]."""
        if not examples:
            return self._scores(STAND_IN)[:0] if is_sharded(self.body) else self.engine.nothing()
        if self.engine.path is Path.PLAIN:
            return torch.stack([row_score(self.body, e.prompt_ids, ids) for e in examples for ids in e.completions])

        def compute() -> Tensor:
            causal, batch, hidden = self.engine.packed(examples, with_prompt=False)
            rows = score_rows(examples, batch.layout, pad_id=causal.config.get_text_config().pad_token_id).to(hidden.device)
            scores: Tensor = causal.score(hidden.index_select(0, rows))[:, 0].double()
            return scores

        return as_forward(self.body, compute)


def row_score(body: nn.Module, prompt_ids: TokenIds, completion_ids: TokenIds) -> Tensor:
    """The score of one unpadded row by the model's own forward, an fp64 scalar."""
    row = torch.from_numpy(np.concatenate([prompt_ids, completion_ids]).astype(np.int64)).to(next(body.parameters()).device)
    score: Tensor = body(input_ids=row[None], use_cache=False).logits[0, 0].double()
    return score


def score_rows(examples: Sequence[TokenizedExample], layout: Layout, *, pad_id: int | None) -> Tensor:
    """The row of the pack at which each completion is scored, [N]: that of its last token that is not `pad_id`."""
    rows: list[int] = []
    for example, place in zip(examples, layout.examples, strict=True):
        for start, completion in zip(place.branch_starts, example.completions, strict=True):
            row = np.concatenate([example.prompt_ids, completion])
            kept = np.flatnonzero(row != (-1 if pad_id is None else pad_id))
            last = int(kept[-1]) if len(kept) else 0
            rows.append(place.start + last if last < place.prefix else start + last - place.prefix)
    return torch.tensor(rows)


def choose_score_path(body: nn.Module, *, longest: int, dtype: torch.dtype = torch.float32) -> Choice:
    """The fastest path whose scores of two random pairs are those of single rows through the model's own forward, as `choose_path` does."""
    if not hasattr(causal_model(body), "score"):
        raise ConfigError(
            f"{type(causal_model(body)).__name__} has no linear layer `score` behind its last hidden state",
            doing="choosing how scores are computed",
            fix="take another family: llama, mistral, qwen, gemma and most others have one",
        )
    with undisturbed(body), torch.no_grad(), run_autocast(body, dtype):
        examples = check_pairs(causal_model(body), longest=longest)
        oracle = _flat(ScoresModel(body)(examples))
        allowed = (EXACT if is_exact(body, dtype) else ROUNDED) * max(1.0, float(oracle.abs().max()))
        difference = partial(_largest_difference, oracle=oracle)
        return first_right(body, Trial("scores", examples, partial(ScoresModel, body), difference, allowed))


def _largest_difference(found: PairScores, oracle: Tensor) -> float:
    """The largest difference of a score; NaN where one is none."""
    return float((_flat(found) - oracle).abs().max())


def _flat(scores: PairScores) -> Tensor:
    return torch.cat([scores.chosen, scores.rejected])
