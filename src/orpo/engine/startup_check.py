"""Which path to log-probs a model can take: tried at the start of a run, against single rows through the model's own forward."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orpo.core.logps import PairLogps
from orpo.core.records import Source
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.engine.body import causal_model, layer_stack
from orpo.engine.dropout import dropout_rates
from orpo.engine.head import token_logps
from orpo.engine.head_of import head_of
from orpo.engine.model import LogpsModel
from orpo.engine.packed import CHUNK_BYTES
from orpo.engine.paths import Choice, Path
from orpo.engine.plain import RowLogps, pair_logps, row_logps
from orpo.errors import ConfigError, OrpoError

WINDOWS = (
    *("sliding_window", "sliding_window_size", "attention_window_size", "window_size", "local_attention"),
    *("attention_chunk_size", "index_topk"),
)
"""Attributes of configs that bound how far back, or at how many tokens, a layer looks."""

EXACT = 2e-5
"""How far mean log-probs may lie from those of single rows where products run in fp32 or better, in nats."""


def choose_path(body: nn.Module, *, longest: int, dtype: torch.dtype = torch.float32) -> Choice:
    """The fastest path whose log-probs of two random pairs equal those of single rows through the model's own forward.

    `longest` is the longest row of the data: where a sliding window is shorter, the check uses pairs longer than the window. `dtype` is
    that of the run's matrix products; a CPU is checked in the weights' own, for its paths do not depend on it. Weights, modes, attention
    implementation and random states are left as they were. Raises ConfigError for a model whose training would not be what was asked for.
    """
    _refuse_config(body)
    with undisturbed(body), torch.no_grad(), run_autocast(body, dtype):
        examples = check_pairs(causal_model(body), longest=longest)
        causal = causal_model(body)
        row, why_plain = _row_by_fused_head(causal, exact=is_exact(body, dtype))
        oracle = pair_logps(causal, examples, row=row)
        allowed = EXACT if is_exact(body, dtype) else rounding(causal, examples, oracle, row)
        _refuse_lookahead(causal, examples, oracle, allowed, row)
        if why_plain:
            return Choice(Path.PLAIN, ((Path.SHARED, why_plain),))
        difference = partial(largest_difference, oracle=oracle)
        return first_right(body, Trial("mean log-probs", examples, partial(LogpsModel, body), difference, allowed))


def _row_by_fused_head(causal: Any, *, exact: bool) -> tuple[RowLogps, str]:
    """How the oracle scores a row, and why the fused head cannot be used ('' where it can).

    Rows go through the model's own layers alone; its own logits are compared with the fused head's once, on a short row. So a long row
    never makes all its logits, and in bf16 the rounding of logits is not taken for an error of a path.
    """
    ids = np.random.default_rng(1).integers(0, causal.config.get_text_config().vocab_size, size=24, dtype=np.int32)
    try:
        fused = fused_row_logps(causal, ids[:8], ids[8:]).double()
        targets = torch.from_numpy(ids.astype(np.int64)).to(causal.device)
        logits = causal(input_ids=targets[None], use_cache=False).logits[0, :-1]
        own = torch.log_softmax(logits.double(), dim=-1).gather(-1, targets[1:, None]).squeeze(-1)
    except (OrpoError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a head or a model of another kind: its own forward is what is left
        return row_logps, _in_words(error)
    # Token by token: signed differences would cancel. Half-precision logits are each rounded to about eps of their size.
    difference = float((fused - own).abs().mean())
    allowed = EXACT if exact else float(torch.finfo(logits.dtype).eps * logits.abs().max())
    if difference <= allowed:
        return fused_row_logps, ""
    return row_logps, f"the fused head differs by {difference:.2g} from the model's own logits (allowed {allowed:g})"


def fused_row_logps(causal: Any, prompt_ids: TokenIds, completion_ids: TokenIds) -> Tensor:
    """As `plain.row_logps`, by the fused head on the hidden states of one unpadded row."""
    row = torch.from_numpy(np.concatenate([prompt_ids, completion_ids]).astype(np.int64)).to(causal.device)
    hidden = layer_stack(causal)(input_ids=row[None], use_cache=False).last_hidden_state[0, :-1]
    return token_logps(hidden, head_of(causal), row[1:], chunk_bytes=CHUNK_BYTES)


def _in_words(error: Exception) -> str:
    """An error as one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


@contextmanager
def undisturbed(body: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module's mode and all random states are what they were."""
    training = [module for module in body.modules() if module.training]
    numpys, pythons = np.random.get_state(), random.getstate()
    devices = {parameter.device for parameter in body.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices):
        body.eval()
        try:
            yield
        finally:
            body.eval()
            for module in training:
                module.training = True
            np.random.set_state(numpys)
            random.setstate(pythons)


def _refuse_config(body: nn.Module) -> None:
    """Nothing; raises ConfigError for a setting of the model that the engine would otherwise pass over in silence."""
    config = causal_model(body).config
    if any(getattr(part, "output_router_logits", False) for part in (config, config.get_text_config())):
        raise ConfigError(
            "the model's config sets output_router_logits: true, which asks for a loss on its router; no objective here contains it",
            doing="choosing how log-probs are computed",
            fix="set output_router_logits to false in the model's config.json",
        )
    adapter = getattr(body, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False):
        raise ConfigError(
            f"the adapter is {type(adapter).__name__}, which puts learned tokens before every row; the engine counts on rows as they are",
            doing="choosing how log-probs are computed",
            fix="use LoRA, or train all weights",
        )


def _refuse_lookahead(causal: Any, examples: list[TokenizedExample], oracle: PairLogps, allowed: float, row: RowLogps) -> None:
    """Nothing; raises ConfigError where a prompt's log-probs depend on the answer behind it: such a model sees what it should predict."""
    assert oracle.prompt is not None, "asked for"
    # An answer of the same length: some models choose among equal scores by the length of a row.
    beside_other = [row(causal, e.prompt_ids, e.completions[0][::-1])[: len(e.prompt_ids) - 1].double().mean() for e in examples]
    difference = float((torch.stack(beside_other) - oracle.prompt.mean).abs().max())
    if difference > allowed:
        raise ConfigError(
            f"{type(causal).__name__} sees tokens before it predicts them: a prompt's log-prob moves by {difference:.2g} with its answer",
            doing="choosing how log-probs are computed",
            expected="a causal language model",
            fix="name a decoder-only model; an encoder's config.json needs is_decoder: true",
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """What paths are tried with. `build(path=...)` makes a model of the engine; what it gives for `examples` (`what`, in words) is right
    where its `difference` from single rows is at most `allowed`."""

    what: str
    examples: list[TokenizedExample]
    build: Callable[..., Any]
    difference: Callable[[Any], float]
    allowed: float


def first_right(body: nn.Module, trial: Trial) -> Choice:
    """The fastest path that gives what single rows give, and why no faster one does. Call it on an `undisturbed` body."""
    refused: list[tuple[Path, str]] = []
    for path in (Path.SHARED, Path.PACKED, Path.PADDED):
        reason = _why_not(body, path, trial)
        if not reason:
            return Choice(path, tuple(refused))
        refused.append((path, reason))
    return Choice(Path.PLAIN, tuple(refused))


def _why_not(body: nn.Module, path: Path, trial: Trial) -> str:
    """Why `path` cannot be taken; '' when it is right."""
    rates = dropout_rates(body)
    if path is Path.SHARED and rates:
        place, rate = next(iter(rates.items()))
        return f"dropout {rate:g} in {place} would fall on both answers alike"
    model = trial.build(path=path)
    try:
        difference = trial.difference(model(trial.examples))
        calls, layers = model.attention_calls, causal_model(body).config.get_text_config().num_hidden_layers
        # A pass in training mode: attention refuses its own dropout there, and a router may draw its experts at random.
        body.train()
        in_training = trial.difference(model(trial.examples))
    except (OrpoError, torch.OutOfMemoryError, MemoryError):
        raise  # a signal, or memory: it says nothing about the path
    except Exception as error:  # any failure of a model's own code on packs means that it cannot take them, and is shown
        if "can't allocate memory" in str(error):
            raise
        return _in_words(error)
    finally:
        body.eval()
        model.release()
    # Some layers attend twice, and some stacks run several times over; a layer that mixes tokens in another way attends never.
    if path in (Path.SHARED, Path.PACKED) and (not calls or calls % layers):
        return f"{calls} of {layers} layers attend through transformers' attention interface"
    if not difference <= trial.allowed:
        return f"{trial.what} differ by {difference:.2g} from single rows (allowed {trial.allowed:g})"
    if path is Path.SHARED and not in_training <= trial.allowed:
        return "in training the model draws at random, and what it draws would fall on both answers alike"
    return ""


def is_exact(body: nn.Module, dtype: torch.dtype) -> bool:
    """Whether matrix products run in fp32 or better, where rounding explains no more than EXACT."""
    weights = next(body.parameters())
    exact = weights.dtype == torch.float64 or (weights.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest")
    return exact and (not weights.is_cuda or dtype == torch.float32)


def rounding(causal: Any, examples: list[TokenizedExample], oracle: PairLogps, row: RowLogps = row_logps) -> float:
    """How far mean log-probs may lie from those of single rows in bf16 or fp16, in nats: a tenth of what the prompt is worth, in bounds.

    A model that hardly heeds its prompts (untrained, or with small logits) would pass with a broken attention if all were allowed
    what rounding explains in a trained one. What a prompt is worth: the change of an answer's mean log-prob behind the prompt reversed.
    """
    backwards = [replace(e, prompt_ids=np.ascontiguousarray(e.prompt_ids[::-1])) for e in examples]
    other = pair_logps(causal, backwards, row=row)
    pairs = ((other.chosen, oracle.chosen), (other.rejected, oracle.rejected))
    worth = float(torch.cat([(left.mean - right.mean).abs() for left, right in pairs]).max())
    return min(max(0.1 * worth, 2e-3), 3e-2)


def largest_difference(found: PairLogps, oracle: PairLogps) -> float:
    """The largest difference of a mean log-prob, in nats per token; infinite where one is not finite."""
    assert found.prompt is not None, "asked for"
    assert oracle.prompt is not None, "asked for"
    pairs = ((found.chosen, oracle.chosen), (found.rejected, oracle.rejected), (found.prompt, oracle.prompt))
    differences = torch.cat([(left.mean - right.mean).detach().abs() for left, right in pairs])
    return float(differences.max()) if bool(differences.isfinite().all()) else float("inf")


def check_pairs(causal: Any, *, longest: int) -> list[TokenizedExample]:
    """Two random pairs of unlike lengths: one past, one up to the longest of the model's bounds that a row of `longest` tokens exceeds."""
    text = causal.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or longest + 30
    bound = max((size for size in _bounds(text) if size < longest and size + 30 <= positions), default=0)
    past, up_to = (bound + 5, max(6, bound - 14)) if bound else (13, 6)
    generator = np.random.default_rng(0)
    lengths = ((past, 11, 7), (up_to, 5, 14))
    return [_random_pair(generator, int(text.vocab_size), *parts) for parts in lengths]


def _bounds(text: Any) -> list[int]:
    """Lengths past which a model of config `text` computes in another way."""
    rope = getattr(text, "rope_parameters", None) or {}
    # Long RoPE turns all rows of a batch by other angles once one of them is this long: packs and padded rows may not mix them.
    ropes = [part for part in (rope, *rope.values()) if isinstance(part, dict) and part.get("rope_type") == "longrope"]
    sizes = [getattr(text, name, None) for name in WINDOWS] + [part.get("original_max_position_embeddings") for part in ropes]
    return [size for size in sizes if isinstance(size, int) and size > 0]


def _random_pair(generator: np.random.Generator, vocabulary: int, *lengths: int) -> TokenizedExample:
    prompt, chosen, rejected = (generator.integers(0, vocabulary, size=length, dtype=np.int32) for length in lengths)
    return TokenizedExample(prompt, (chosen, rejected), Source("start-up check", 1))


def run_autocast(body: nn.Module, dtype: torch.dtype) -> Any:
    """What a run computes in on a GPU; a CPU is checked in the weights' own dtype."""
    device = next(body.parameters()).device.type
    return torch.autocast(
        device, dtype=dtype if dtype != torch.float32 else torch.bfloat16, enabled=device == "cuda" and dtype != torch.float32
    )
