"""Rows of a log: whole lines, NaN named, the future cut off on resume."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from orpo.errors import StorageError
from orpo.runs.metrics import MetricsLog, read_metrics


@pytest.fixture
def path(run_dir):
    return run_dir / "metrics.jsonl"


def log_steps(path, *steps):
    with MetricsLog(path) as log:
        for step in steps:
            log.append({"step": step, "split": "train", "loss": 1.0 / step})


def test_rows_come_back_as_they_were_logged(path):
    with MetricsLog(path) as log:
        log.append({"step": 1, "split": "train", "loss": 0.1 + 0.2, "rewards/accuracies": np.float32(0.5), "num_tokens": np.int64(2**40)})
        assert read_metrics(path)[0]["loss"] == 0.30000000000000004, "a row is in the file at once"
        log.append({"step": 1, "split": "eval", "loss": 2})
    assert read_metrics(path) == [
        {"step": 1, "split": "train", "loss": 0.30000000000000004, "rewards/accuracies": 0.5, "num_tokens": 2**40},
        {"step": 1, "split": "eval", "loss": 2},
    ]


def test_nan_and_infinities_become_null_and_are_named(path):
    with MetricsLog(path) as log:
        log.append({"step": 1, "loss": float("nan"), "grad_norm": np.float32("inf"), "learning_rate": 0.1})
    assert read_metrics(path) == [{"step": 1, "loss": None, "grad_norm": None, "learning_rate": 0.1, "non_finite": ["loss", "grad_norm"]}]


def test_logging_goes_on_where_it_ended(path):
    log_steps(path, 1, 2)
    log_steps(path, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("kept", range(1, 30))
def test_a_last_line_cut_anywhere_is_left_out_and_the_next_row_stands_on_its_own(kept, path):
    log_steps(path, 1, 2)
    whole = path.read_bytes()
    line = whole[whole.index(b"\n") + 1 :]
    path.write_bytes(whole[: whole.index(b"\n") + 1] + line[:kept])
    complete = kept == len(line) - 1  # only the newline is missing: nothing of the row is lost
    assert [row["step"] for row in read_metrics(path)] == ([1, 2] if complete else [1])
    log_steps(path, 3)
    assert [row["step"] for row in read_metrics(path)] == ([1, 2, 3] if complete else [1, 3])


def test_a_row_complete_but_for_its_newline_is_kept(path):
    log_steps(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    log_steps(path, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_rows_after_a_step_are_removed_and_logging_goes_on(path):
    log_steps(path, 1, 2, 3, 4)
    with MetricsLog(path) as log:
        log.append({"step": 4, "split": "eval"})
        assert log.truncate_after(2) == 3
        log.append({"step": 3, "loss": 9.0})
        assert log.truncate_after(5) == 0
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert read_metrics(path)[-1]["loss"] == 9.0


def test_rows_that_stay_keep_their_bytes(path):
    path.write_bytes(b'{"step":  1, "x": 1e-05}\n{"step": 2}\n')
    with MetricsLog(path) as log:
        log.truncate_after(1)
    assert path.read_bytes() == b'{"step":  1, "x": 1e-05}\n'


def test_a_truncation_that_fails_leaves_every_row(path, monkeypatch):
    log_steps(path, 1, 2, 3)
    with MetricsLog(path) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(StorageError, match="no space left"):
                log.truncate_after(1)
        log.append({"step": 4})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(path, monkeypatch):
    log_steps(path, 1)
    with MetricsLog(path) as log:
        real, calls = os.write, []

        def write(descriptor, content):
            calls.append(1)
            if len(calls) > 1:
                raise OSError(28, "No space left on device")
            return real(descriptor, content[:5])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(StorageError, match="no space left") as caught:
                log.append({"step": 2, "loss": 1.0})
        assert "logging step 2" in str(caught.value)
        log.append({"step": 3})
    assert [row["step"] for row in read_metrics(path)] == [1, 3]


@pytest.mark.parametrize(
    "line", [b'{"step": 2, "lo', b"[1]", b'{"loss": 1.0}', b"\0\0\0\0", b'{"step": "2"}', b'{"step": 2, "step": 3}', b'{"step": NaN}', b""]
)
def test_a_damaged_line_in_the_middle_is_an_error_with_file_and_line(line, path):
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl:2: this line is damaged"):
        read_metrics(path)


def test_zero_bytes_at_the_end_after_a_power_cut_are_dropped(path):
    path.write_bytes(b'{"step": 1}\n' + bytes(100))
    log_steps(path, 2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_a_row_without_a_step_is_our_own_mistake(path):
    with MetricsLog(path) as log, pytest.raises(AssertionError, match="needs an int `step`"):
        log.append({"loss": 1.0})


def test_secrets_in_a_sample_are_redacted(path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "not-a-known-shape-1")
    with MetricsLog(path) as log:
        log.append({"step": 1, "reply": "the token is not-a-known-shape-1"})
    assert json.loads(path.read_text())["reply"] == "the token is [redacted HF_TOKEN]"
