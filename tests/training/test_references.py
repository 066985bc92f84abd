"""Reference log-probs: adapters off, a frozen copy and a table are one; a table is used again only where it is whole and of the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.tokens import TokenizedExample
from orpo.engine.paths import Path as EnginePath
from orpo.engine.plain import row_logps
from orpo.errors import ConfigError, StorageError
from orpo.training.mismatched import first_visit, mismatched_in_steps, mismatched_once
from orpo.training.models import add_token_rows, token_layers
from orpo.training.reference_table import read_table, scope_of, table_totals
from orpo.training.references import Totals, live_totals

# PEFT 0.21 asks transformers 5.23 by the older of two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

NEW_IDS = [35, 36]
PATHS = [EnginePath.SHARED, EnginePath.PACKED, EnginePath.PADDED, EnginePath.PLAIN]


def with_adapters(base: Any, *, trained: bool) -> Any:
    """LoRA on all layers and the head, and trained rows of NEW_IDS; `trained` moves all of them away from the base."""
    import peft

    targets = ["q_proj", "v_proj", "down_proj", "lm_head"] if not base.config.tie_word_embeddings else ["q_proj", "v_proj", "down_proj"]
    rows = {name: ids for name, ids in token_layers(base, NEW_IDS).items() if name not in targets}
    body = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=targets, trainable_token_indices=rows, task_type="CAUSAL_LM"))
    if trained:
        with torch.no_grad():
            for name, parameter in body.named_parameters():
                if parameter.requires_grad:
                    assert "lora" in name or "token" in name, name
                    parameter.add_(torch.randn_like(parameter))
    return body


def by_hand(body: Any, examples: Sequence[TokenizedExample]) -> list[float]:
    """Summed log-probs of all completions, each in a row of its own."""
    with torch.no_grad():
        return [
            float(row_logps(body, e.prompt_ids, ids)[len(e.prompt_ids) - 1 :].double().sum()) for e in examples for ids in e.completions
        ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_with_adapters_off_a_peft_model_is_its_base_and_afterwards_itself(
    path: EnginePath, tied: bool, tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    base = tiny_body(tie_word_embeddings=tied)
    add_token_rows(base, 37, NEW_IDS, seed=0)
    examples = drawn(7, "labelled")
    assert any(set(NEW_IDS) & set(e.prompt_ids.tolist()) for e in examples)
    expected = by_hand(base, examples)
    body = with_adapters(base, trained=True).train()
    trained = {name for name, parameter in body.named_parameters() if parameter.requires_grad}
    policy = live_totals(body, path=path, dtype=torch.float32)(examples, [])
    off = live_totals(body, path=path, dtype=torch.float32, adapters=False)
    assert off(examples, []).tolist() == pytest.approx(expected, abs=1e-5)
    assert float((policy - off(examples, [])).abs().min()) > 1e-2
    assert torch.equal(live_totals(body, path=path, dtype=torch.float32)(examples, []), policy)
    assert {name for name, parameter in body.named_parameters() if parameter.requires_grad} == trained
    assert body.training
    assert body.config._attn_implementation == "sdpa"


def test_before_the_first_step_the_policy_is_its_reference_to_the_last_bit(
    tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    body = with_adapters(tiny_body(), trained=False)
    for path in PATHS:
        policy, reference = (
            live_totals(body, path=path, dtype=torch.float32, adapters=adapters)(drawn(9), []) for adapters in (True, False)
        )
        assert torch.equal(policy, reference)
        assert reference.dtype == torch.float64
        assert not reference.requires_grad


def test_dropout_is_off_in_a_reference(tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]) -> None:
    body = tiny_body(attention_dropout=0.5).train()
    totals = live_totals(body, path=EnginePath.PADDED, dtype=torch.float32)
    assert torch.equal(totals(drawn(5), []), totals(drawn(5), []))
    assert body.training


class Counted:
    """A scorer that counts the examples it was asked for."""

    def __init__(self, body: Any) -> None:
        self.totals, self.num = live_totals(body, path=EnginePath.SHARED, dtype=torch.float32), 0

    def __call__(self, examples: Sequence[TokenizedExample], positions: Sequence[int]) -> torch.Tensor:
        self.num += len(examples)
        return self.totals(examples, positions)


def table(examples: Sequence[TokenizedExample], folder: Path, score: Totals, **facts: Any) -> tuple[Totals, list[str]]:
    said: list[str] = []
    made = table_totals(examples, folder=folder, facts={"weights": "abc", **facts}, score=lambda: score, device="cpu", say=said.append)
    return made, said


def test_adapters_off_a_frozen_copy_and_a_table_give_the_same_numbers(
    tmp_path: Path, tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    base = tiny_body()
    frozen = live_totals(copy.deepcopy(base).requires_grad_(False), path=EnginePath.SHARED, dtype=torch.float32)
    off = live_totals(with_adapters(base, trained=True), path=EnginePath.SHARED, dtype=torch.float32, adapters=False)
    for reads in ("pairs", "labelled", "rankings"):
        examples = drawn(23, reads)
        precomputed, _ = table(examples, tmp_path, frozen)
        for positions in ([4, 0, 17], [22], []):
            batch = [examples[position] for position in positions]
            for totals in (off, precomputed):
                torch.testing.assert_close(totals(batch, positions), frozen(batch, positions), rtol=0, atol=1e-6 * 30)
        means = [len(ids) for e in examples for ids in e.completions]
        both = precomputed(examples, range(23)) / torch.tensor(means), off(examples, range(23)) / torch.tensor(means)
        torch.testing.assert_close(*both, rtol=0, atol=1e-6)


class TestTheTable:
    @pytest.fixture
    def examples(self, drawn: Callable[..., list[TokenizedExample]]) -> list[TokenizedExample]:
        return drawn(12, "labelled")

    @pytest.fixture
    def score(self, tiny_body: Callable[..., Any]) -> Counted:
        return Counted(tiny_body())

    def file(self, folder: Path) -> Path:
        (path,) = folder.glob("reference-*.logps")
        return path

    def test_is_made_once_and_then_read(self, tmp_path: Path, examples: list[TokenizedExample], score: Counted) -> None:
        first, said = table(examples, tmp_path / "cache", score)
        assert score.num == 12
        assert "scored" in said[0]
        again, said = table(examples, tmp_path / "cache", score)
        assert score.num == 12
        assert "read from" in said[0]
        assert torch.equal(first(examples, range(12)), again(examples, range(12)))
        assert first(examples, range(12)).tolist() == pytest.approx(score.totals(examples, []).tolist(), abs=1e-4)

    @pytest.mark.parametrize("change", ["a token", "the weights", "the order", "where an answer ends"])
    def test_of_anything_else_is_made_anew(self, change: str, tmp_path: Path, examples: list[TokenizedExample], score: Counted) -> None:
        table(examples, tmp_path, score)
        other, facts = list(examples), {}
        if change == "a token":
            other[3] = copy.deepcopy(examples[3])
            other[3].completions[0][0] ^= 1
        elif change == "the weights":
            facts = {"weights": "abd"}
        elif change == "the order":
            other[0], other[1] = other[1], other[0]
        else:
            index = next(i for i in range(12) if len(examples[i].prompt_ids) > 1)
            old = examples[index]
            answer = np.concatenate([old.prompt_ids[-1:], old.completions[0]])
            other[index] = replace(old, prompt_ids=old.prompt_ids[:-1], completions=(answer, *old.completions[1:]))
        table(other, tmp_path, score, **facts)
        assert score.num == 24
        assert len(list(tmp_path.glob("reference-*.logps"))) == 2

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "header", "other fingerprint"])
    def test_that_is_damaged_is_said_and_made_again(
        self, damage: str, tmp_path: Path, examples: list[TokenizedExample], score: Counted
    ) -> None:
        first, _ = table(examples, tmp_path, score)
        path = self.file(tmp_path)
        whole = path.read_bytes()
        header, _, content = whole.partition(b"\n")
        path.write_bytes(
            {
                "cut": whole[:-3],
                "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
                "empty": b"",
                "header": header[:-4] + b"\n" + content,
                "other fingerprint": json.dumps({**json.loads(header), "fingerprint": "0" * 64}).encode() + b"\n" + content,
            }[damage]
        )
        again, said = table(examples, tmp_path, score)
        assert score.num == 24
        assert "is not used" in said[0]
        assert torch.equal(first(examples, range(12)), again(examples, range(12)))
        assert path.read_bytes() == whole

    def test_that_cannot_be_written_leaves_no_half_file(
        self, tmp_path: Path, examples: list[TokenizedExample], score: Counted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("orpo.runs.atomic.os.write", full)
        with pytest.raises(StorageError, match="no space left"):
            table(examples, tmp_path, score)
        assert list(tmp_path.iterdir()) == []

    def test_of_other_examples_is_noticed_when_it_is_asked(self, tmp_path: Path, examples: list[TokenizedExample], score: Counted) -> None:
        made, _ = table(examples, tmp_path, score)
        wrong = next(i for i in range(1, 12) if len(examples[i].completions) != len(examples[0].completions))
        with pytest.raises(AssertionError, match="not the examples scored"):
            made([examples[0]], [wrong])

    def test_knows_its_scope(self, tmp_path: Path, examples: list[TokenizedExample], score: Counted) -> None:
        table(examples, tmp_path, score)
        numbers, why = read_table(self.file(tmp_path), scope_of(examples, {"weights": "abc"}))
        assert numbers is not None
        assert (len(numbers), why) == (sum(len(e.completions) for e in examples), "")
        assert read_table(tmp_path / "none.logps", scope_of(examples, {})) == (None, "")


class TestMismatchedPairs:
    @pytest.mark.parametrize("num", [2, 8, 9, 10])
    def test_every_prompt_of_a_step_stands_beside_answers_of_another(self, num: int, drawn: Callable[..., list[TokenizedExample]]) -> None:
        from orpo.engine.batching import step_pairs

        store, steps = drawn(num, "labelled"), 9
        pairs = mismatched_in_steps(store, pairs_per_step=4, seed=1, num_steps=steps, longest=99)
        assert len(pairs) == sum(len(step_pairs(num, 4, seed=1, step=step)) for step in range(steps))
        for step in range(steps):
            members = step_pairs(num, 4, seed=1, step=step)
            visits = range(first_visit(step, num, 4), first_visit(step + 1, num, 4))
            places = [pairs.places(visit) for visit in visits]
            assert [prompt for prompt, _ in places] == members
            assert all(prompt != answers for prompt, answers in places)
            if len(members) > 1:
                assert sorted(answers for _, answers in places) == sorted(members)
            for visit, (prompt, answers) in zip(visits, places, strict=True):
                assert pairs[visit].prompt_ids is store[prompt].prompt_ids
                assert [ids.tolist() for ids in pairs[visit].completions] == [ids.tolist() for ids in store[answers].completions]

    def test_all_held_out_answers_are_used_once(self, drawn: Callable[..., list[TokenizedExample]]) -> None:
        pairs = mismatched_once(drawn(7, "labelled"), seed=3, longest=99)
        assert sorted(pairs.places(i)[1] for i in range(7)) == list(range(7))
        assert all(pairs.places(i)[0] != pairs.places(i)[1] for i in range(7))

    def test_no_row_is_longer_than_the_longest_of_the_data(self, drawn: Callable[..., list[TokenizedExample]]) -> None:
        store = drawn(40, "labelled")
        longest = max(len(e.prompt_ids) + max(map(len, e.completions)) for e in store)
        pairs = mismatched_once(store, seed=0, longest=longest)
        lengths = [len(pairs[i].prompt_ids) + len(ids) for i in range(40) for ids in pairs[i].completions]
        assert max(lengths) == longest
        assert all(len(ids) for i in range(40) for ids in pairs[i].completions)

    def test_one_example_has_no_other(self, drawn: Callable[..., list[TokenizedExample]]) -> None:
        with pytest.raises(ConfigError, match="pairs_per_step is 1") as caught:
            mismatched_in_steps(drawn(8), pairs_per_step=1, seed=0, num_steps=1, longest=99)
        assert "at least 2" in str(caught.value)
        with pytest.raises(ConfigError, match="there are 1 examples"):
            mismatched_once(drawn(1), seed=0, longest=99)
