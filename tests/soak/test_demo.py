"""What `orpo demo` promises: accuracy and the oracle's score rise beyond doubt; with SFT the rejected answers become likelier too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest


def demo(folder: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Held-out figures and the oracle's, before and after; printed with the seconds it took."""
    from orpo.pipeline.demo import run_demo

    started = time.monotonic()
    sections = run_demo(output_dir=str(folder / "run"), **settings).summary.sections
    evaluation, oracle = sections["evaluation"], sections["oracle"]
    before, after, oracle_before, oracle_after = evaluation["before"], evaluation["after"], oracle["before"], oracle["after"]
    print(f"\n{settings}: {time.monotonic() - started:.0f} s")
    for name, old, new in (("accuracy", before, after), ("score", oracle_before, oracle_after)):
        low, high = (f"{name}_low", f"{name}_high") if name == "accuracy" else ("low", "high")
        print(f"  {name} {old[name]:.3f} ({old[low]:.3f}-{old[high]:.3f}) -> {new[name]:.3f} ({new[low]:.3f}-{new[high]:.3f})")
    print(f"  log p chosen {before['logps/chosen']:.3f} -> {after['logps/chosen']:.3f}", end="")
    print(f", rejected {before['logps/rejected']:.3f} -> {after['logps/rejected']:.3f}")
    return before, after, oracle_before, oracle_after


def rises_beyond_doubt(folder: Path, **settings: Any) -> None:
    """Asserts what ORPO promises: 95 % intervals apart; chosen likelier, rejected less likely, the margin grown (the paper's Fig. 7)."""
    before, after, oracle_before, oracle_after = demo(folder, objective="orpo", **settings)
    assert after["accuracy_low"] > before["accuracy_high"]
    assert oracle_after["low"] > oracle_before["high"]
    assert after["logps/chosen"] > before["logps/chosen"]
    assert after["logps/rejected"] < before["logps/rejected"]
    margins = [part["logps/chosen"] - part["logps/rejected"] for part in (before, after)]
    assert margins[1] > margins[0] + 0.5


def lifts_both(folder: Path, **settings: Any) -> None:
    """Asserts what SFT on the chosen answers does: rejected answers become likelier as well (the paper's Fig. 3)."""
    before, after, _, _ = demo(folder, objective="sft", **settings)
    assert after["logps/chosen"] > before["logps/chosen"]
    assert after["logps/rejected"] > before["logps/rejected"]


def test_the_demo_lifts_accuracy_and_the_oracles_score(tmp_path: Path) -> None:
    rises_beyond_doubt(tmp_path, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_lifts_accuracy_and_score_with_other_seeds(tmp_path: Path, seed: int) -> None:
    rises_beyond_doubt(tmp_path, seed=seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sft_lifts_the_rejected_answers_too(tmp_path: Path, seed: int) -> None:
    lifts_both(tmp_path, seed=seed)
