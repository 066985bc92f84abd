"""A pair of 8,192 tokens under a vocabulary of 128,256: its logits alone would take 4 GiB."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench_plan(root: Path) -> ModuleType:
    """benchmarks/bench_plan.py, which measures a step in a process of its own."""
    spec = importlib.util.spec_from_file_location("bench_plan", root / "benchmarks" / "bench_plan.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_plan"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.soak
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pair_of_8192_tokens_trains_in_the_memory_that_was_planned(bench_plan: ModuleType, checkpointing: bool) -> None:
    case = bench_plan.Case(
        layers=4,
        hidden=256,
        intermediate=704,
        heads=4,
        kv_heads=2,
        vocabulary=128_256,
        tokens=8192,
        row_length=8192,
        micro_batches=1,
        lora=False,
        dtype="float32",
        checkpointing=checkpointing,
    )
    outcome = bench_plan.in_fresh_process(case)
    print(
        f"\ncheckpointing {checkpointing}: planned {outcome['predicted'] / 2**30:.2f} GiB, measured {outcome['measured'] / 2**30:.2f} GiB"
    )
    assert 0.8 <= outcome["ratio"] <= 1.2
    assert outcome["measured"] < 4 * 8192 * 128_256, "less than one fp32 tensor of all logits"
