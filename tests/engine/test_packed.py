"""A pack's model as a module: switching attention and back, empty shares, what is not asked for, and the memory of a micro-batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orpo.core.logps import PairLogps
from orpo.core.loss import step_loss
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.engine import attention_cpu
from orpo.engine.attention import NAME, PackedAttentionError
from orpo.engine.body import causal_model
from orpo.engine.head_chunks import Chunk, ChunkedHead
from orpo.engine.layout import pack
from orpo.engine.memory_trace import LiveBytes
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path
from orpo.objectives import PRESETS, bound

# PEFT 0.21 asks transformers 5.23 by the older of two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VOCABULARY, HIDDEN = 37, 24
OBJECTIVE = bound("orpo", {"beta": 0.5, "nll_over": "completion", "nll_average": "token"})


def drawn(*lengths: int, vocabulary: int = VOCABULARY) -> TokenizedExample:
    generator = np.random.default_rng(lengths)
    prompt, *answers = (generator.integers(0, vocabulary, size=length, dtype=np.int32) for length in lengths)
    return TokenizedExample(prompt, tuple(answers), Source("pairs.jsonl", 1))


PAIRS = [drawn(5, 4, 3), drawn(1, 6, 2), drawn(9, 1, 7)]


def tiny(vocabulary: int = VOCABULARY, *, lora: bool = False) -> Any:
    """A random Llama in fp32, in training mode; with LoRA its own weights, the head's among them, are frozen."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **tokens, initializer_range=0.3)).train()
    if not lora:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))


def micro_batch(model: LogpsModel, examples: Sequence[TokenizedExample], *, hinted: bool) -> Tensor:
    """The loss of one micro-batch as the trainer makes it, after its backward pass."""
    counts = unit_counts(examples)

    def share(part: PairLogps, _: slice = slice(None)) -> Tensor:
        return step_loss(OBJECTIVE(part), counts)

    loss = share(model(examples, share=share if hinted else None))
    loss.backward()
    return loss.detach()


PACKS = pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED])


class TestSwitching:
    @PACKS
    @pytest.mark.parametrize("lora", [False, True])
    def test_between_a_pack_and_release_the_body_refuses_rows_without_a_layout(self, path: Path, lora: bool) -> None:
        model = LogpsModel(tiny(lora=lora), path=path)
        micro_batch(model, PAIRS, hinted=True)
        with pytest.raises(PackedAttentionError, match="layout"):
            model.body(input_ids=torch.tensor([[3, 4, 5]]))
        with pytest.raises(PackedAttentionError, match="layout"):
            causal_model(model.body).generate(torch.tensor([[3, 4, 5]]), max_new_tokens=2, do_sample=False)
        model.release()

    @PACKS
    @pytest.mark.parametrize("lora", [False, True])
    def test_release_gives_back_logits_and_generation_as_they_were(self, path: Path, lora: bool) -> None:
        body = tiny(lora=lora)
        row = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])

        def seen() -> tuple[str, Tensor, Tensor]:
            text = body.generate(input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=5, do_sample=False)
            return causal_model(body).config._attn_implementation, body(input_ids=row).logits.detach(), text

        before = seen()
        model = LogpsModel(body, path=path)
        with torch.no_grad():
            first = model(PAIRS)
        model.release()
        after = seen()
        assert (before[0], after[0]) == ("sdpa", "sdpa")
        assert torch.equal(before[1], after[1])
        assert torch.equal(before[2], after[2])
        with torch.no_grad():
            assert torch.equal(model(PAIRS).chosen.total, first.chosen.total)
        model.release()

    def test_release_without_a_pack_and_release_twice_change_nothing(self) -> None:
        model = LogpsModel(tiny(), path=Path.SHARED)
        model.release()
        model(PAIRS)
        model.release()
        model.release()
        assert model.body.config._attn_implementation == "sdpa"

    @pytest.mark.parametrize("path", [Path.PADDED, Path.PLAIN])
    def test_paths_without_packs_leave_attention_alone(self, path: Path) -> None:
        model = LogpsModel(tiny(), path=path)
        micro_batch(model, PAIRS, hinted=False)
        assert model.body.config._attn_implementation == "sdpa"

    @PACKS
    def test_saved_in_between_the_model_is_an_ordinary_one(self, path: Path, tmp_path: Folder) -> None:
        from transformers import AutoModelForCausalLM

        body = tiny()
        row = torch.tensor([[3, 4, 5, 6]])
        logits = body(input_ids=row).logits
        model = LogpsModel(body, path=path)
        model(PAIRS)
        body.save_pretrained(tmp_path)
        assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert loaded.config._attn_implementation == "sdpa"
        torch.testing.assert_close(loaded(input_ids=row).logits, logits)

    def test_every_layer_attends_through_the_pack(self) -> None:
        model = LogpsModel(tiny(), path=Path.SHARED)
        model(PAIRS)
        assert model.attention_calls == model.body.config.num_hidden_layers


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("path", list(Path))
def test_no_examples_give_a_zero_gradient_to_every_trained_parameter(path: Path, lora: bool) -> None:
    model = LogpsModel(tiny(lora=lora), path=path)
    loss = step_loss(OBJECTIVE(model([], share=lambda part, _: pytest.fail("nothing to share"))), unit_counts(PAIRS))
    loss.backward()
    assert loss.item() == 0.0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or not parameter.grad.any(), name


@pytest.mark.parametrize("path", list(Path))
def test_the_prompts_own_log_probs_are_there_only_when_asked_for(path: Path) -> None:
    body = tiny()
    losses = {}
    for with_prompt in (True, False):
        model = LogpsModel(body, path=path, with_prompt=with_prompt)
        for examples in (PAIRS, []):
            assert (model(examples).prompt is not None) == with_prompt
        model.zero_grad()
        losses[with_prompt] = float(micro_batch(model, PAIRS, hinted=True)), [p.grad.clone() for p in body.parameters()]
        model.release()
    assert losses[True][0] == pytest.approx(losses[False][0], abs=1e-6)
    for left, right in zip(losses[True][1], losses[False][1], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED, Path.PADDED])
def test_a_hint_is_asked_group_by_group_and_changes_no_number(path: Path) -> None:
    """With room for the rows of one pair at least, each pair is asked for once, and not all at a time."""
    body = tiny()
    most = max(np.diff([0, *pack(PAIRS).table.ends]))
    found = []
    asked: list[int] = []
    for hinted in (True, False):
        model = LogpsModel(body, path=path, chunk_bytes=int(most) * VOCABULARY * 4)
        counts = unit_counts(PAIRS)

        def share(part: PairLogps, _: slice, counts: dict[str, int] = counts) -> Tensor:
            asked.append(len(part.chosen.total))
            return step_loss(OBJECTIVE(part), counts)

        model.zero_grad()
        loss = step_loss(OBJECTIVE(model(PAIRS, share=share if hinted else None)), counts)
        loss.backward()
        found.append((loss.item(), [parameter.grad.clone() for parameter in body.parameters()]))
        model.release()
    assert sum(asked) == len(PAIRS)
    assert len(asked) > 1
    assert found[0][0] == found[1][0]
    for left, right in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6 * max(1.0, float(right.abs().max())))


@pytest.mark.parametrize("factor", [1.0, 4.0])
@pytest.mark.parametrize("preset", ["paper", "trl"])
@pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED, Path.PADDED])
def test_a_hint_foretells_the_gradient_so_that_the_vocabulary_is_gone_through_once(
    path: Path, preset: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the objective, and however the trainer scales its loss (by the number of ranks). One pair shares tokens past its prompt."""
    rows: list[int] = []
    forward = ChunkedHead.forward

    def counted(self: ChunkedHead, hidden: Tensor, targets: Tensor) -> Chunk:
        rows.append(len(hidden))
        return forward(self, hidden, targets)

    monkeypatch.setattr(ChunkedHead, "forward", counted)
    loss_of = bound("orpo", {key: value for key, value in PRESETS[preset].items() if key != "learning_rate"})
    prompt, (chosen, rejected) = PAIRS[0].prompt_ids, PAIRS[0].completions
    tangled = TokenizedExample(prompt, (np.append(rejected, chosen), np.append(rejected, prompt)), Source("pairs.jsonl", 2))
    examples = [*PAIRS, tangled, *(drawn(40 + i, 60 - i, 3 * i + 1) for i in range(12))]
    counts = unit_counts(examples)
    with_prompt = preset == "trl"
    num_rows = len(pack(examples, sharing=path is Path.SHARED, with_prompt=with_prompt).table.rows)
    seen = {}
    for hinted in (True, False):
        rows.clear()
        model = LogpsModel(tiny(), path=path, with_prompt=with_prompt, chunk_bytes=300 * VOCABULARY * 4)
        logps = model(examples, share=(lambda part, _: step_loss(loss_of(part), counts)) if hinted else None)
        (step_loss(loss_of(logps), counts) * factor).backward()
        seen[hinted] = sum(rows)
    assert seen == {True: num_rows, False: 2 * num_rows}


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave, but for weights and their gradients."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.shapes = {tuple(weight.shape) for weight in weights} | {tuple(weight.shape)[::-1] for weight in weights}
        self.num, self.shape = 0, ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(outcome):
            if isinstance(leaf, Tensor) and tuple(leaf.shape) not in self.shapes and leaf.numel() > self.num:
                self.num, self.shape = leaf.numel(), tuple(leaf.shape)
        return outcome


WAYS = {"hint": (True, False), "no hint": (False, False), "LoRA": (True, True)}
CHUNK_ROWS = 32
SMALL, LARGE = 1999, 3998


def batch_of(num: int, vocabulary: int) -> list[TokenizedExample]:
    return [drawn(7, 15, 8 + index % 2, vocabulary=vocabulary) for index in range(num)]


def measured(mode: Callable[[list[nn.Parameter]], Any], way: str, num: int, vocabulary: int, path: Path = Path.SHARED) -> Any:
    """`mode` after one training micro-batch of `num` pairs."""
    hinted, lora = WAYS[way]
    body = tiny(vocabulary, lora=lora)
    model = LogpsModel(body, path=path, with_prompt=False, chunk_bytes=CHUNK_ROWS * SMALL * 4)
    examples = batch_of(num, vocabulary)
    with mode([*body.parameters(), *body.buffers()]) as watch:
        micro_batch(model, examples, hinted=hinted)
    return watch


@pytest.mark.parametrize("way", WAYS)
def test_no_tensor_has_tokens_times_vocabulary_elements_nor_grows_with_pairs(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Scores of attention come in batches of a fixed size, which at this vocabulary is larger than a chunk of the head.
    monkeypatch.setattr(attention_cpu, "CACHED_BYTES", 2**16)
    rows = len(pack(batch_of(4, SMALL), with_prompt=False).table.rows)
    largest = {(num, vocabulary): measured(Largest, way, num, vocabulary) for num in (4, 8) for vocabulary in (SMALL, LARGE)}
    assert rows * SMALL > 2 * CHUNK_ROWS * SMALL
    for (num, vocabulary), found in largest.items():
        assert found.num <= CHUNK_ROWS * SMALL, (num, vocabulary, found.shape)


def growth(way: str, path: Path = Path.SHARED) -> int:
    """How much more four more pairs cost with twice the vocabulary, in bytes of the peak."""
    peaks = {(num, vocabulary): measured(LiveBytes, way, num, vocabulary, path).most for num in (4, 8) for vocabulary in (SMALL, LARGE)}
    return abs(peaks[8, LARGE] - peaks[4, LARGE] - peaks[8, SMALL] + peaks[4, SMALL])


@pytest.mark.parametrize("way", WAYS)
def test_the_peak_does_not_grow_with_vocabulary_times_pairs(way: str) -> None:
    """To within one row of logits a pair."""
    assert growth(way) < 4 * 4 * (LARGE - SMALL)


def test_both_measures_see_a_head_that_holds_all_logits_of_a_row() -> None:
    """The oracle of the two tests above."""
    assert measured(Largest, "no hint", 1, LARGE, Path.PLAIN).num >= (7 + 15 - 1) * LARGE
    assert growth("no hint", Path.PLAIN) > 4 * 15 * 4 * (LARGE - SMALL)
