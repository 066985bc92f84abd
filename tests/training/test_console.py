"""The live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from orpo.training.console import TrainingView, is_live, rate, sparkline


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=100)


def pipe() -> Console:
    return Console(file=StringIO(), width=100, soft_wrap=True)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def table_text(view: TrainingView) -> str:
    console = Console(file=StringIO(), width=100)
    console.print(view.table())
    return text_of(console)


def line_of(text: str, name: str) -> list[str]:
    """Words after `name` in the one line that begins with it."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.strip().removeprefix(name).split()


def train_row(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "split": "train", "loss": loss, "num_tokens": 1000 * step, "seconds": 1.0 * step, **more}


def eval_row(step: int, accuracy: float) -> dict[str, Any]:
    return {"step": step, "split": "eval", "loss": 2.0, "rewards/accuracies": accuracy, "num_pairs": 10}


def test_a_sparkline_is_the_one_drawn_by_hand() -> None:
    # Eight equal steps from 0 to 8: the last one belongs to the highest block.
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], width=9) == "▁▂▃▄▅▆▇██"
    assert sparkline([2.0, 1.0]) == "█▁"
    assert sparkline([3.0, 3.0, 3.0]) == "▁▁▁"
    assert sparkline([1.0]) == sparkline([]) == ""


def test_a_long_sparkline_shows_means_of_equal_runs() -> None:
    # Runs of two: means 1, 5, 9, whose heights are 0, half and all of the span.
    assert sparkline([0, 2, 4, 6, 8, 10], width=3) == "▁▅█"
    assert len(sparkline([float(i % 7) for i in range(1000)])) == 16


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (949.6, "950"), (3100, "3.1k"), (2.4e6, "2.4M"), (7e9, "7000.0M")])
def test_a_rate_is_short(value: float, text: str) -> None:
    assert rate(value) == text


def test_a_terminal_gets_a_live_table_with_now_start_and_trend() -> None:
    console = terminal()
    with TrainingView(console, 8, beta=0.5) as view:
        assert view.live is not None
        for step, loss in ((1, 4.0), (2, 3.0), (3, 2.0)):
            view.show(train_row(step, loss, nll_loss=loss - 0.5, log_odds_ratio=-2.0 + step))
        view.say("a word [bold]in between[/bold]")
        text = table_text(view)
    assert line_of(text, "loss") == ["2", "4", "█▅▁"]
    assert line_of(text, "NLL")[:3] == ["1.5", "3.5", "█▅▁"]
    # Weight 0.5 times minus the mean log sigmoid: 0.5 * 1 at first, 0.5 * -1 in the end.
    assert line_of(text, "odds part")[:3] == ["-0.5", "0.5", "█▅▁"]
    assert "step 3/8" in text
    assert "━" * 24 in text
    shown = text_of(console)
    assert "\x1b[" in shown
    assert "now" in shown
    assert "start" in shown
    assert "trend" in shown
    assert "a word [bold]in between[/bold]" in shown, "what is said is shown as it is, never read as markup"


def test_held_out_accuracy_shows_its_wilson_interval_and_its_start() -> None:
    view = TrainingView(terminal(), 8)
    view.show(eval_row(0, 0.5))
    view.show(eval_row(8, 0.8))
    assert line_of(table_text(view), "held-out accuracy") == ["80%", "50%", "(49-94)", "10", "pairs,", "95", "%", "interval"]


def test_what_training_does_not_compute_is_shown_of_held_out_pairs() -> None:
    view = TrainingView(terminal(), 8)
    view.show({**eval_row(0, 0.5), "logps/rejected": -3.0})
    assert "log p rejected" not in table_text(view), "no training step has shown yet what it computes"
    view.show(train_row(1, 2.0))
    view.show({**eval_row(1, 0.5), "logps/rejected": -2.5})
    assert line_of(table_text(view), "log p rejected, held out")[:2] == ["-2.5", "-3"]


def test_the_time_left_follows_from_the_steps_of_this_session(monkeypatch: pytest.MonkeyPatch) -> None:
    import orpo.training.console as module

    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with TrainingView(pipe(), 100, first_step=40, started=100.0) as view:
        clock[0] = 120.0
        view.show(train_row(50, 1.0, num_tokens=9000, seconds=60.0))
        # 10 steps took 20 s, so the other 50 take 100 s.
        assert "step 50/100" in table_text(view)
        assert "1:40 left" in table_text(view)
        # The counts of a resumed run are those of all its steps, and so are its seconds: 9000 in 60 s.
        assert "150 tok/s" in table_text(view)


def test_a_pipe_gets_one_plain_line_for_each_row() -> None:
    console = pipe()
    with TrainingView(console, 8, beta=0.1) as view:
        assert view.live is None
        view.show(train_row(1, 2.5, nll_loss=2.25, learning_rate=1e-5, **{"rewards/accuracies": 0.75}))
        view.show(eval_row(1, 0.8))
    assert text_of(console).splitlines() == [
        "step 1/8  loss 2.5  NLL 2.25  pairs told apart 0.75  lr 1.00e-05",
        "held out at step 1  loss 2  pairs told apart 0.8  (49-94 %, 10 pairs)",
    ]


@pytest.mark.parametrize(("name", "value"), [("CI", "1"), ("CI", "true"), ("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_asks_for_no_animation_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert is_live(terminal())
    monkeypatch.setenv(name, value)
    console = terminal()
    assert not is_live(console)
    with TrainingView(console, 2) as view:
        view.show(train_row(1, 2.5))
        assert view.live is None
    assert text_of(console) == "step 1/2  loss 2.5\n"


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [terminal, pipe])
def test_a_figure_that_is_not_finite_is_named_and_breaks_no_trend(make: Any, lost: float) -> None:
    console = make()
    with TrainingView(console, 4) as view:
        view.show(train_row(1, 3.0, nll_loss=2.0))
        view.show(train_row(2, lost, nll_loss=1.0))
        view.show(train_row(3, 2.0, nll_loss=0.5))
        text = table_text(view)
    assert line_of(text, "loss") == ["2", "3", "█▁"]
    assert line_of(text, "NLL")[:3] == ["0.5", "2", "█▃▁"]
    (line,) = [line for line in text_of(console).splitlines() if "not finite" in line]
    assert "not finite: loss" in line
    assert "step 2" in line
