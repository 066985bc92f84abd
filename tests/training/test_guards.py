"""The finite check and the signals, without a model."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, RankedLogps
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.errors import NotFiniteError
from orpo.training.guards import FiniteGuard, StopSignals


def pairs(num: int) -> list[TokenizedExample]:
    ids = np.array([1, 2], dtype=np.int32)
    return [TokenizedExample(ids, (ids, ids), Source("pairs.jsonl", 10 + i)) for i in range(num)]


def logps(chosen: list[float]) -> PairLogps:
    part = CompletionLogps(torch.tensor(chosen), torch.ones(len(chosen)))
    fine = CompletionLogps(torch.full((len(chosen),), -1.0), torch.ones(len(chosen)))
    return PairLogps(chosen=part, rejected=fine, prompt=fine)


def test_labelled_answers_and_rankings_are_saved_by_the_number_of_the_answer() -> None:
    ids = np.array([1, 2], dtype=np.int32)
    examples = [TokenizedExample(ids, (ids,) * num, Source("answers.jsonl", num), (True,) * num) for num in (1, 3)]
    flat = CompletionLogps(torch.tensor([-1.0, -2.0, math.nan, -4.0]), torch.ones(4))
    table = CompletionLogps(torch.tensor([[-1.0, 0.0, 0.0], [-2.0, math.nan, -4.0]]), torch.ones(2, 3))
    for logps in (LabelledLogps(flat, torch.ones(4, dtype=torch.bool)), RankedLogps(table, None)):
        saved = Saved()
        guard = FiniteGuard(saved)
        guard.begin(0, examples)
        guard.saw(examples, logps)
        guard.end(torch.tensor(math.nan))
        assert guard.must_skip(1.0)
        assert saved[0]["suspects"] == ["answers.jsonl:3"]
        assert [pair["logps"] for pair in saved[0]["pairs"]] == [
            {"completion 1": "-1.0"},
            {"completion 1": "-2.0", "completion 2": "nan", "completion 3": "-4.0"},
        ]


class Saved(list[dict[str, Any]]):
    def __call__(self, report: dict[str, Any]) -> str:
        self.append(report)
        return "the-saved-batch.json"


def step(guard: FiniteGuard, *, number: int, loss: float, norm: float, chosen: list[float]) -> bool:
    examples = pairs(len(chosen))
    guard.begin(number, examples)
    guard.saw(examples, logps(chosen))
    guard.end(torch.tensor(loss))
    return guard.must_skip(torch.tensor(norm))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)])
def test_a_step_is_skipped_when_loss_or_gradient_is_not_finite(loss: float, norm: float) -> None:
    saved = Saved()
    assert step(FiniteGuard(saved), number=4, loss=loss, norm=norm, chosen=[-1.0, -2.0])
    assert saved[0]["step"] == 5
    assert len(saved[0]["pairs"]) == 2


def test_a_finite_step_is_taken_and_saves_nothing() -> None:
    saved = Saved()
    assert not step(FiniteGuard(saved), number=0, loss=1.0, norm=2.0, chosen=[-1.0])
    assert saved == []


def test_the_saved_batch_names_the_pair_whose_log_prob_went_wrong() -> None:
    saved = Saved()
    step(FiniteGuard(saved), number=0, loss=math.nan, norm=math.nan, chosen=[-1.0, math.nan, -3.0])
    assert saved[0]["suspects"] == ["pairs.jsonl:11"]
    assert saved[0]["pairs"][1]["prompt_ids"] == [1, 2]


def test_three_in_a_row_stop_the_run_and_a_good_step_between_them_does_not() -> None:
    guard = FiniteGuard(Saved())
    for good in (False, False, True, False, False):
        step(guard, number=0, loss=1.0 if good else math.nan, norm=1.0, chosen=[-1.0])
    with pytest.raises(NotFiniteError, match="3rd step in a row") as caught:
        step(guard, number=7, loss=math.nan, norm=1.0, chosen=[math.nan])
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith("pairs.jsonl:10: ")
    assert "the-saved-batch.json" in str(caught.value)
    assert guard.num_skipped == 5


def test_the_first_signal_is_remembered_and_the_second_acts_as_before() -> None:
    # A suite started in the background inherits SIGINT ignored; what is there before must be known here.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    said: list[str] = []
    with StopSignals(said.append) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.stop_number == signal.SIGINT
        assert "SIGINT received" in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, inherited)


def test_sigusr1_asks_for_a_checkpoint_without_stopping() -> None:
    with StopSignals(lambda text: None) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.wants_save
        assert signals.stop_number == 0
