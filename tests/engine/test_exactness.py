"""Every path gives the numbers of single unpadded rows: however a step is cut, at the edges of lengths, and pair by pair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, step_loss
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.engine.batching import micro_batches
from orpo.engine.body import causal_model, switch_back, switch_to_packs
from orpo.engine.layout import common_prefix, pack
from orpo.engine.model import LogpsModel
from orpo.engine.packed import packed_hidden, packed_sums
from orpo.engine.paths import Path
from orpo.engine.views import logps_of
from orpo.objectives import PRESETS, bound

VOCABULARY, WINDOW = 37, 4
LENGTHS = [(5, 4, 3), (1, 6, 2), (9, 1, 7), (3, 3, 3), (12, 8, 1), (2, 11, 5)]


def pair(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> TokenizedExample:
    first, *answers = (np.array(ids, dtype=np.int32) for ids in (prompt, chosen, rejected))
    return TokenizedExample(first, tuple(answers), Source("pairs.jsonl", 1))


def drawn(*lengths: int, seed: int = 0) -> TokenizedExample:
    generator = np.random.default_rng([seed, *lengths])
    return pair(*(generator.integers(0, VOCABULARY, size=length).tolist() for length in lengths))


def tiny(family: str = "llama", **changes: Any) -> Any:
    """A random model in fp32 whose weights are large enough that every token seen changes every log-prob."""
    import transformers

    config: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    config |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    if family == "mistral":
        return transformers.MistralForCausalLM(transformers.MistralConfig(**config | {"sliding_window": WINDOW} | changes)).train()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**config | changes)).train()


def objective(preset: str) -> Callable[[PairLogps], Loss]:
    return bound("orpo", {key: value for key, value in PRESETS[preset].items() if key != "learning_rate"})


def whole_step(
    model: LogpsModel, cut: Sequence[Sequence[TokenizedExample]], *, preset: str, hinted: bool
) -> tuple[float, dict[str, Tensor]]:
    """Loss of one step made of the micro-batches `cut`, and its gradient for every parameter, as the trainer makes them."""
    counts = unit_counts([example for members in cut for example in members])
    loss_of = objective(preset)

    def share(part: PairLogps, _: slice = slice(None)) -> Tensor:
        return step_loss(loss_of(part), counts)

    model.zero_grad()
    total = 0.0
    for members in cut:
        loss = share(model(members, share=share if hinted else None))
        loss.backward()
        total += loss.item()
    model.release()
    return total, {name: parameter.grad.clone() for name, parameter in model.body.named_parameters() if parameter.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal gradients, relative to the largest number of each, or to 1 where that is smaller."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        allowed = tolerance * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}")


PAIRS = tuple(drawn(*lengths) for lengths in LENGTHS)


@functools.cache
def stepped() -> Any:
    """The model of the tests of a step."""
    return tiny()


@functools.cache
def oracle(preset: str) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step of PAIRS, from single rows."""
    return whole_step(LogpsModel(stepped(), path=Path.PLAIN), [PAIRS], preset=preset, hinted=False)


def assert_same_step(cut: Sequence[Sequence[TokenizedExample]], *, path: Path, preset: str, hinted: bool, rows: int) -> None:
    """PAIRS cut into the micro-batches `cut`, with a head that holds `rows` rows of logits, make the oracle's step."""
    model = LogpsModel(stepped(), path=path, with_prompt=preset == "trl", chunk_bytes=rows * VOCABULARY * 4)
    total, gradients = whole_step(model, cut, preset=preset, hinted=hinted)
    assert total == pytest.approx(oracle(preset)[0], abs=1e-5)
    assert len(gradients) == len(list(stepped().parameters()))
    assert_same(gradients, oracle(preset)[1])


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("preset", ["trl", "paper", "llama-factory"])
@pytest.mark.parametrize("path", list(Path))
def test_a_step_in_one_piece_is_that_of_single_rows(path: Path, preset: str, hinted: bool) -> None:
    assert_same_step([PAIRS], path=path, preset=preset, hinted=hinted, rows=1000)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(len(LENGTHS))),
    budget=st.integers(1, 90),
    num_ranks=st.integers(1, 4),
    path=st.sampled_from(list(Path)),
    preset=st.sampled_from(["trl", "paper"]),
    hinted=st.booleans(),
    rows=st.integers(1, 40),
)
def test_a_step_is_the_same_under_any_token_budget_over_any_number_of_ranks(
    order: list[int], budget: int, num_ranks: int, path: Path, preset: str, hinted: bool, rows: int
) -> None:
    pairs = [PAIRS[i] for i in order]
    ranks = micro_batches([example.num_tokens for example in pairs], budget, num_ranks=num_ranks)
    cut = [[pairs[i] for i in members] for bins in ranks for members in bins]
    assert_same_step(cut, path=path, preset=preset, hinted=hinted, rows=rows)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    order=st.permutations(range(len(LENGTHS))),
    ends=st.sets(st.integers(1, len(LENGTHS) - 1)),
    path=st.sampled_from([Path.SHARED, Path.PACKED, Path.PADDED]),
    preset=st.sampled_from(["trl", "llama-factory"]),
    hinted=st.booleans(),
    rows=st.integers(1, 40),
)
def test_a_step_is_the_same_in_any_order_cut_at_any_places(
    order: list[int], ends: set[int], path: Path, preset: str, hinted: bool, rows: int
) -> None:
    edges = [0, *sorted(ends), len(LENGTHS)]
    cut = [[PAIRS[i] for i in order[start:end]] for start, end in pairwise(edges)]
    assert_same_step(cut, path=path, preset=preset, hinted=hinted, rows=rows)


EDGES = {
    "a prompt of one token": (drawn(1, 5, 4), 1),
    "a chosen answer of one token": (drawn(6, 1, 5), 6),
    "a rejected answer of one token": (drawn(6, 5, 1), 6),
    "one token everywhere": (pair([3], [4], [5]), 1),
    "one token everywhere, the same": (pair([3], [3], [3]), 1),
    "identical answers": (pair([3, 4, 5], [6, 7, 8, 2], [6, 7, 8, 2]), 6),
    "chosen is a beginning of rejected": (pair([3, 4, 5], [6, 7], [6, 7, 8, 9, 2]), 4),
    "rejected is a beginning of chosen": (pair([3, 4, 5], [6, 7, 8, 9, 2], [6, 7, 8]), 5),
    "answers alike past the prompt": (pair([3, 4], [9, 8, 7, 6, 11, 2], [9, 8, 7, 6, 12, 13, 14, 2]), 6),
    "answers alike past a prompt of one token": (pair([3], [9, 8, 7, 6, 11, 2], [9, 8, 7, 6, 12, 13]), 5),
    "a prompt longer than the window": (drawn(3 * WINDOW, 2, 3), 3 * WINDOW),
    "a chosen answer longer than the window": (drawn(2, 3 * WINDOW, 2, seed=1), 2),
    "a rejected answer longer than the window": (drawn(2, 2, 3 * WINDOW), 2),
    "all longer than the window": (drawn(2 * WINDOW, 2 * WINDOW + 1, 3 * WINDOW), 2 * WINDOW),
}


def weighted_sum(logps: PairLogps) -> Tensor:
    """A number that depends on each log-prob sum by a factor of its own."""
    assert logps.prompt is not None
    parts = [logps.chosen.total, logps.rejected.total, logps.prompt.total]
    return torch.stack([(column + 1) * (parts[column] * torch.arange(1, len(parts[column]) + 1)).sum() for column in range(3)]).sum() / 10


@pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED, Path.PADDED])
@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("name", EDGES)
def test_edges_have_the_log_probs_and_gradients_of_single_rows(name: str, family: str, path: Path) -> None:
    edge, prefix = EDGES[name]
    assert common_prefix(edge) == prefix
    body = tiny(family)
    found: dict[Path, tuple[PairLogps, dict[str, Tensor]]] = {}
    for way in (Path.PLAIN, path):
        model = LogpsModel(body, path=way)
        logps = model([edge, drawn(4, 3, 6), edge])
        model.zero_grad()
        weighted_sum(logps).backward()
        found[way] = logps, {key: parameter.grad.clone() for key, parameter in body.named_parameters()}
        model.release()
    for part in ("chosen", "rejected", "prompt"):
        ours, single = (getattr(found[way][0], part) for way in (path, Path.PLAIN))
        torch.testing.assert_close(ours.mean, single.mean, rtol=0, atol=1e-5)
        assert torch.equal(ours.num_tokens, single.num_tokens)
    assert_same(found[path][1], found[Path.PLAIN][1])


def test_the_window_of_the_edges_matters() -> None:
    """What the edges with a window rest on: without it the log-probs are others."""
    edge, _ = EDGES["all longer than the window"]
    with torch.no_grad():
        narrow, wide = (LogpsModel(tiny("mistral", sliding_window=window), path=Path.SHARED)([edge]) for window in (WINDOW, None))
    assert abs(float(narrow.rejected.mean) - float(wide.rejected.mean)) > 0.1


class TestIsolation:
    """Point 5: what a log-prob does not depend on has a gradient of exactly 0."""

    pairs = (drawn(5, 4, 6), drawn(3, 7, 2), drawn(6, 2, 5))

    def embedding_gradients(self, sharing: bool, family: str, side: str, which: int) -> tuple[Any, Tensor]:
        """The layout, and for each row of the pack the gradient of one log-prob sum of pair `which` to the row's embedding: [T, H]."""
        body = tiny(family)
        rows: list[Tensor] = []

        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            rows.append(output)

        body.get_input_embeddings().register_forward_hook(keep)
        before = switch_to_packs(body)
        batch = pack(self.pairs, sharing=sharing)
        hidden = packed_hidden(causal_model(body), batch)
        sums = packed_sums(body, batch, hidden, examples=self.pairs, chunk_bytes=7 * VOCABULARY * 4)
        logps = logps_of(sums, self.pairs, reads="pairs", with_prompt=True)
        gradient = torch.autograd.grad(getattr(logps, side).total[which], rows[0])[0][0]
        switch_back(body, before)
        return batch.layout, gradient

    @pytest.mark.parametrize("which", [0, 1, 2])
    @pytest.mark.parametrize("side", ["chosen", "rejected", "prompt"])
    @pytest.mark.parametrize("family", ["llama", "mistral"])
    @pytest.mark.parametrize("sharing", [True, False])
    def test_a_sum_depends_on_its_own_row_alone(self, sharing: bool, family: str, side: str, which: int) -> None:
        layout, gradient = self.embedding_gradients(sharing, family, side, which)
        example, own = layout.examples[which], self.pairs[which]
        branch = {"chosen": 0, "rejected": 1, "prompt": 0}[side]
        # The last token predicts nothing that is asked for: of the row, or of the prompt when it is the prompt's own log-probs.
        predicting = len(own.prompt_ids) - 1 + (0 if side == "prompt" else len(own.completions[branch]))
        start = example.branch_starts[branch]
        row = [*range(example.start, example.start + example.prefix), *range(start, start + example.branches[branch])]
        depends = torch.zeros(layout.num_rows, dtype=torch.bool)
        depends[row[:predicting]] = True
        assert torch.equal(gradient.ne(0).any(dim=1), depends)
        assert not gradient[~depends].any()
