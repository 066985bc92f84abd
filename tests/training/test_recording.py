"""The Trainer's logs become rows with the names that scripts rely on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import transformers

from orpo.training.recording import RecordingCallback, metrics_row


def test_a_training_log_is_a_row_of_its_step_without_the_trainers_own_columns() -> None:
    logs = {"loss": 1.5, "nll_loss": 1.25, "logps/chosen": -1.25, "grad_norm": 0.5, "learning_rate": 1e-5, "epoch": 0.25, "seconds": 3.0}
    assert metrics_row(logs, 7) == {
        "step": 7,
        "split": "train",
        "loss": 1.5,
        "nll_loss": 1.25,
        "logps/chosen": -1.25,
        "grad_norm": 0.5,
        "learning_rate": 1e-5,
        "seconds": 3.0,
    }


def test_an_evaluation_loses_the_prefix_of_its_names() -> None:
    logs = {"eval_loss": 2.0, "eval_rewards/accuracies": 0.75, "eval_num_pairs": 8, "seconds": 1.0, "epoch": 1.0}
    assert metrics_row(logs, 0) == {"step": 0, "split": "eval", "loss": 2.0, "rewards/accuracies": 0.75, "num_pairs": 8, "seconds": 1.0}


def test_the_closing_summary_of_the_trainer_is_no_row() -> None:
    assert metrics_row({"train_runtime": 9.0, "train_loss": 1.0, "total_flos": 3.0}, 9) is None
    assert metrics_row({}, 9) is None


def test_rows_go_to_every_sink_in_order_on_the_first_rank_alone() -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    callback = RecordingCallback(lambda row: seen.append(("file", row)), lambda row: seen.append(("view", row)))
    arguments, control = SimpleNamespace(), transformers.TrainerControl()
    for is_first in (False, True):
        state = transformers.TrainerState(global_step=3, is_world_process_zero=is_first)
        callback.on_log(arguments, state, control, logs={"loss": 1.0})
        callback.on_log(arguments, state, control, logs={"train_runtime": 1.0})
    row = {"step": 3, "split": "train", "loss": 1.0}
    assert seen == [("file", row), ("view", row)]
