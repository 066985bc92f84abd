"""Which path to log-probs a model can take: tried at the start of a run, against single rows through the model's own forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from orpo.core.logps import PairLogps
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.body import causal_model
from orpo.engine.dropout import dropout_rates
from orpo.engine.model import PairLogpsModel
from orpo.engine.paths import Choice, Path
from orpo.engine.plain import pair_logps


def choose_path(body: nn.Module, *, longest: int, dtype: torch.dtype = torch.float32) -> Choice:
    """The fastest path whose log-probs of two random pairs equal those of single rows through the model's own forward.

    `longest` is the longest row of the data: where a sliding window is shorter, the check uses pairs longer than the window. `dtype` is
    that of the run's matrix products; a CPU is checked in the weights' own, for its paths do not depend on it. Weights, mode and attention
    implementation are left as they were.
    """
    was_training = body.training
    body.eval()
    try:
        examples = check_pairs(causal_model(body), longest=longest)
        with torch.no_grad(), _autocast(body, dtype):
            oracle = pair_logps(causal_model(body), examples)
            return _first_right(body, examples, oracle, dtype)
    finally:
        body.train(was_training)


def _first_right(body: nn.Module, examples: list[TokenizedExample], oracle: PairLogps, dtype: torch.dtype) -> Choice:
    refused: list[tuple[Path, str]] = []
    for path in (Path.SHARED, Path.PACKED, Path.PADDED):
        reason = _why_not(body, path, examples, oracle, dtype)
        if not reason:
            return Choice(path, tuple(refused))
        refused.append((path, reason))
    return Choice(Path.PLAIN, tuple(refused))


def _why_not(body: nn.Module, path: Path, examples: list[TokenizedExample], oracle: PairLogps, dtype: torch.dtype) -> str:
    """Why `path` cannot be taken; '' when its log-probs are right."""
    rates = dropout_rates(body)
    if path is Path.SHARED and rates:
        place, rate = next(iter(rates.items()))
        return f"dropout {rate:g} in {place} would fall on both answers alike"
    model = PairLogpsModel(body, path=path)
    try:
        found = model(examples)
        calls, layers = model.attention_calls, causal_model(body).config.get_text_config().num_hidden_layers
    except Exception as error:  # any failure of a model's own code on packs means that it cannot take them, and is shown
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else 'no message'}"
    finally:
        model.release()
    if path in (Path.SHARED, Path.PACKED) and calls != layers:
        return f"{calls} of {layers} layers attend through transformers' attention interface"
    difference = largest_difference(found, oracle)
    allowed = tolerance(body, dtype)
    return "" if difference <= allowed else f"mean log-probs differ by {difference:.2g} from single rows (allowed {allowed:g})"


def tolerance(body: nn.Module, dtype: torch.dtype) -> float:
    """How far mean log-probs may lie from those of single rows, in nats: what rounding explains in the dtype that was checked in."""
    weights = next(body.parameters())
    is_exact = weights.dtype in (torch.float32, torch.float64) and (not weights.is_cuda or dtype == torch.float32)
    return 2e-5 if is_exact else 3e-2


def largest_difference(found: PairLogps, oracle: PairLogps) -> float:
    """The largest difference of a mean log-prob, in nats per token; infinite where one is not finite."""
    assert found.prompt is not None, "asked for"
    assert oracle.prompt is not None, "asked for"
    pairs = ((found.chosen, oracle.chosen), (found.rejected, oracle.rejected), (found.prompt, oracle.prompt))
    differences = torch.cat([(left.mean - right.mean).abs() for left, right in pairs])
    return float(differences.max()) if bool(differences.isfinite().all()) else float("inf")


def check_pairs(causal: Any, *, longest: int) -> list[TokenizedExample]:
    """Two random pairs of unlike lengths; longer than the sliding window where a row of `longest` tokens is."""
    text = causal.config.get_text_config()
    window = getattr(text, "sliding_window", None) or 0
    positions = getattr(text, "max_position_embeddings", None) or longest
    prompt = window + 5 if 0 < window < longest and window + 30 <= positions else 13
    generator = np.random.default_rng(0)
    lengths = ((prompt, 11, 7), (max(2, prompt // 2), 5, 14))
    return [_random_pair(generator, int(text.vocab_size), *parts) for parts in lengths]


def _random_pair(generator: np.random.Generator, vocabulary: int, *lengths: int) -> TokenizedExample:
    prompt, chosen, rejected = (generator.integers(0, vocabulary, size=length, dtype=np.int32) for length in lengths)
    return TokenizedExample(prompt, (chosen, rejected), Source("start-up check", 1))


def _autocast(body: nn.Module, dtype: torch.dtype) -> Any:
    device = next(body.parameters()).device.type
    return torch.autocast(
        device, dtype=dtype if dtype != torch.float32 else torch.bfloat16, enabled=device == "cuda" and dtype != torch.float32
    )
