"""The reward model that is trained: pairs enter, the scores of their answers leave, on the same packs and paths as log-probs.

It is transformers' own kind of model, sequence classification with one label, whose score is read where transformers reads it: at the last
token of a row that is not padding. So a saved folder loads without this library and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from orpo.core.logps import PairScores
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.engine.body import causal_model
from orpo.engine.dropout import dropout_rates
from orpo.engine.layout import Layout
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Choice, Path
from orpo.engine.startup_check import EXACT, check_pairs, in_words, is_exact, run_autocast, undisturbed
from orpo.errors import ConfigError, OrpoError

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
            return self.engine.nothing()
        if self.engine.path is Path.PLAIN:
            return torch.stack([row_score(self.body, e.prompt_ids, ids) for e in examples for ids in e.completions])
        causal, batch, hidden = self.engine.packed(examples, with_prompt=False)
        rows = score_rows(examples, batch.layout, pad_id=causal.config.get_text_config().pad_token_id).to(hidden.device)
        scores: Tensor = causal.score(hidden.index_select(0, rows))[:, 0].double()
        return scores


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
    refused: list[tuple[Path, str]] = []
    with undisturbed(body), torch.no_grad(), run_autocast(body, dtype):
        examples = check_pairs(causal_model(body), longest=longest)
        oracle = _flat(ScoresModel(body)(examples))
        allowed = (EXACT if is_exact(body, dtype) else ROUNDED) * max(1.0, float(oracle.abs().max()))
        for path in (Path.SHARED, Path.PACKED, Path.PADDED):
            reason = _why_not(body, path, examples, oracle, allowed)
            if not reason:
                return Choice(path, tuple(refused))
            refused.append((path, reason))
    return Choice(Path.PLAIN, tuple(refused))


def _why_not(body: nn.Module, path: Path, examples: list[TokenizedExample], oracle: Tensor, allowed: float) -> str:
    """Why `path` cannot be taken; '' when its scores are right."""
    if path is Path.SHARED and dropout_rates(body):
        return "dropout would fall on both answers alike"
    model = ScoresModel(body, path=path)
    try:
        difference = float((_flat(model(examples)) - oracle).abs().max())
        calls, layers = model.engine.attention_calls, causal_model(body).config.get_text_config().num_hidden_layers
    except (OrpoError, torch.OutOfMemoryError, MemoryError):
        raise  # a signal, or memory: it says nothing about the path
    except Exception as error:  # any failure of a model's own code on packs means that it cannot take them, and is shown
        return in_words(error)
    finally:
        model.release()
    if path in (Path.SHARED, Path.PACKED) and (not calls or calls % layers):
        return f"{calls} of {layers} layers attend through transformers' attention interface"
    return "" if difference <= allowed else f"scores differ by {difference:.2g} from single rows (allowed {allowed:g})"


def _flat(scores: PairScores) -> Tensor:
    return torch.cat([scores.chosen, scores.rejected])
