"""The benchmark of ORPO's rivals at toy size: both sides compute the same loss in every step, and the figures count what a step needs."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench_rivals
import bench_step
from contenders import Setup, UnknownContender, contender
from first_losses import LossesDiffer, first_losses
from gemm_floor import step_work
from model_shapes import SHAPES, ModelShape, build_body
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.errors import ConfigError
from pair_data import plan_steps, random_batches, random_pairs
from rivals import CASES, add_noise, as_reference, case_name, extra_forwards, frozen_reference, rival_rows
from rounds import Round
from step_bench import compare

pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")

TOY = ["--shape", "tiny", "--layers", "1", "--data", "synthetic", "--longest-row", "150", "--rounds", "2", "--pairs-per-step", "3"]
NAMES = [case_name(*case) for case in CASES]


def in_threads(plans: Mapping[str, tuple[Any, ...]], *, rounds: int) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """What `rounds.interleaved` returns, from threads of this process: several seconds of imports are saved. Their memory means nothing."""
    results: dict[str, list[Any]] = {}
    for name, (work, *arguments) in plans.items():
        mine, theirs = Pipe()
        thread = threading.Thread(target=_until_closed, args=(work, theirs, *arguments), daemon=True)
        thread.start()
        results[name] = []
        for _ in range(rounds + 1):
            mine.send("go")
            results[name].append(mine.recv())
        mine.close()
        thread.join()
        if isinstance(results[name][-1], Exception):
            raise results[name][-1]
    return results, {}


def _until_closed(work: Callable[..., None], pipe: Any, *arguments: Any) -> None:
    try:
        work(pipe, *arguments)
    except EOFError:
        return  # no more rounds are asked for
    except Exception as error:
        pipe.send(error)
        pipe.close()


def compared(name: str, seen: dict[str, list[Round]]) -> dict[str, Any]:
    """The comparison of case `name`; `seen` then holds the rounds of each side."""

    def take(plans: Mapping[str, tuple[Any, ...]], *, rounds: int) -> Any:
        results, failed = in_threads(plans, rounds=rounds)
        seen.update(results)
        return results, failed

    options = bench_rivals.parser().parse_args(TOY)
    return compare(bench_rivals.rival_comparison(options, *bench_rivals.NAMES[name]), take=take)


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_of_a_rival_have_the_same_loss_in_every_step(name: str) -> None:
    seen: dict[str, list[Round]] = {}
    result = compared(name, seen)
    ours, theirs = ([loss for one in seen[side] for loss in one.losses] for side in ("ours", "trl"))
    assert len(ours) == 3
    tolerance = {"ipo": 1e-4, "reward": 1e-6}.get(name.partition("-")[0], 1e-5)
    assert ours == pytest.approx(theirs, abs=tolerance)
    assert result["first_loss"]["losses"]["ours"] == ours[0]
    at_the_start = {"dpo": np.log(2), "ipo": 25, "kto": 0.5, "reward": np.log(2)}[name.partition("-")[0]]
    assert abs(ours[0] - at_the_start) > 100 * tolerance, "a loss that does not depend on log-probs would compare nothing"
    assert set(result["ratios"]) == {"ours over trl"}
    for figures in result["contenders"].values():
        assert figures["pairs"] == 6
        assert ("reference_seconds" in figures) == name.endswith("precomputed")
        assert figures.get("reference_seconds", 1) > 0


def test_all_rivals_stand_in_one_table_and_what_was_measured_stays_when_a_case_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare_or_fail(wanted: Any) -> dict[str, Any]:
        if wanted.objective == "dpo":
            raise LossesDiffer("ours 1, trl 2")
        return compare(wanted, take=in_threads)

    out = tmp_path / "rivals.json"
    monkeypatch.setattr(bench_rivals, "compare", compare_or_fail)
    monkeypatch.setattr(sys, "argv", ["bench_rivals.py", *TOY, "--cases", "reward,dpo-live", "--out", str(out)])
    with pytest.raises(LossesDiffer):
        bench_rivals.main()
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["what"] == "step-rivals"
    assert list(content["cases"]) == ["reward"]
    assert content["environment"]["libraries"]["trl"]
    table = [line for line in out.with_suffix(".md").read_text(encoding="utf-8").splitlines() if line.startswith("| reward |")]
    assert [line.split(" | ")[1] for line in table] == ["ours", "trl"]
    speed = content["cases"]["reward"]["ratios"]["ours over trl"]["speed"]
    assert f"| {speed:.2f} (" in table[1]
    assert "objective: reward" in capsys.readouterr().out


def pair(prompt: int, chosen: int, rejected: int) -> TokenizedExample:
    ids = [np.arange(2, 2 + num, dtype=np.int32) for num in (prompt, chosen, rejected)]
    return TokenizedExample(ids[0], (ids[1], ids[2]), Source("made", 1))


@pytest.mark.parametrize(
    ("objective", "reference", "flops"),
    [
        # N = 8*8 + 2*(8*4) + 8*8 + 3*(8*10) = 432; S = 5+3+2 + 4+1+6 = 21; S_h = 5 + 7 = 12; V H = 100 * 8
        ("dpo", "live", 8 * 432 * 21 + 8 * 800 * 12),
        ("ipo", "precomputed", 6 * 432 * 21 + 6 * 800 * 12),
        ("kto", "live", 12 * 432 * 21 + 12 * 800 * 12),  # of the baseline, policy and reference; the reference of the answers themselves
        ("kto", "precomputed", 8 * 432 * 21 + 8 * 800 * 12),
        ("reward", "", 6 * 432 * 21),
    ],
)
def test_the_floor_of_a_rival_counts_the_passes_of_its_reference_and_its_baseline(objective: str, reference: str, flops: int) -> None:
    shape = ModelShape(1, 8, 2, 1, 10, 100, tied=True, head_dim=4)
    nll_over = "nothing" if objective == "reward" else "completion"
    extra = extra_forwards(objective, reference)
    pairs = [pair(5, 3, 2), pair(4, 1, 6)]
    assert step_work(shape, pairs, nll_over=nll_over, checkpointing=False, extra_forwards=extra).flops == flops


def toy_setup(objective: str, reference: str) -> Setup:
    pairs = random_pairs(12, prompt=9, answer=5, spread=0.5, vocabulary=64, seed=1)
    steps = plan_steps(random_batches(pairs, num=2, size=4, seed=1), rounds=2)
    return Setup(SHAPES["tiny"], "float32", "cpu", "completion", False, 0, steps, "auto", objective, reference)


def test_trl_gets_both_answers_of_a_pair_and_the_mismatched_ones_of_another_pair_of_the_step() -> None:
    setup = toy_setup("kto", "live")
    rows = rival_rows(setup)
    assert len(rows) == 2 * len(setup.steps.pairs)
    assert [row["label"] for row in rows[:4]] == [True, False, True, False]
    longest = max(len(one.prompt_ids) + len(ids) for one in setup.steps.pairs for ids in one.completions)
    for number, row in enumerate(rows):
        pairs = setup.steps.pairs
        own = pairs[number // 2]
        assert row["prompt_ids"] == own.prompt_ids.tolist()
        assert row["completion_ids"] == own.completions[number % 2].tolist()
        first = number // 8 * 4
        others = [one.completions[number % 2].tolist() for one in pairs[first : first + 4] if one is not own]
        assert row["KL_completion_ids"] in [ids[: longest - len(own.prompt_ids)] for ids in others]


def test_the_reference_is_another_model_and_the_policy_is_itself_afterwards() -> None:
    setup = toy_setup("dpo", "precomputed")
    body = build_body(setup.shape, seed=0, device="cpu", dtype="float32", positions=64)
    own = {name: parameter.detach().clone() for name, parameter in body.named_parameters()}
    frozen = dict(frozen_reference(body, setup).named_parameters())
    with as_reference(body, setup.seed):
        for name, parameter in body.named_parameters():
            assert torch.equal(parameter, frozen[name])
            assert (parameter - own[name]).std() > 0.01
    assert all(torch.equal(parameter, own[name]) for name, parameter in body.named_parameters())
    assert not any(parameter.requires_grad for parameter in frozen.values())
    other = build_body(setup.shape, seed=0, device="cpu", dtype="float32", positions=64)
    add_noise(other, setup.seed)
    assert all(torch.equal(parameter, frozen[name]) for name, parameter in other.named_parameters())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--reference", "live"], "orpo reads no reference"),
        (["--objective", "reward", "--reference", "live"], "reward reads no reference"),
        (["--objective", "dpo", "--nll-over", "completion"], "--nll-over is of ORPO alone"),
        (["--objective", "dpo", "--sweep", "micro-batch"], "--sweep is of ORPO alone"),
        (["--objective", "dpo", "--shape", "tiny-lora"], "tiny-lora trains adapters"),
    ],
)
def test_options_that_an_objective_does_not_have_are_refused(options: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        bench_step.asked(bench_step.parser().parse_args(["--data", "synthetic", *options]))


def test_a_case_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'dpo'.*\n.*dpo-live"):
        bench_rivals.asked_cases(bench_rivals.parser().parse_args(["--cases", "dpo"]))


@pytest.mark.parametrize(
    ("options", "reference", "contenders"),
    [
        ([], "", ("orpo", "trl")),
        (["--objective", "dpo"], "live", ("ours", "trl")),
        (["--objective", "kto", "--reference", "precomputed", "--contenders", "ours"], "precomputed", ("ours",)),
        (["--objective", "reward"], "", ("ours", "trl")),
    ],
)
def test_the_objective_says_what_is_compared(options: list[str], reference: str, contenders: tuple[str, ...]) -> None:
    wanted = bench_step.asked(bench_step.parser().parse_args(["--shape", "tiny", "--data", "synthetic", *options]))
    assert (wanted.reference, wanted.contenders) == (reference, contenders)


@pytest.mark.parametrize("name", ["orpo", "trl-liger", "ours-mb2", "trl-tokens100"])
def test_a_contender_of_orpo_is_none_of_a_rival(name: str) -> None:
    with pytest.raises(UnknownContender, match=f"'{name}' is none of ours, ours-tokensN, trl, trl-mbN, or one of these -grouped"):
        contender(name, objective="dpo")


def test_the_loss_of_ipo_may_differ_by_ten_times_as_much() -> None:
    chosen = {name: contender(name, objective="ipo") for name in ("ours", "trl")}
    results = {name: [Round(1.0, (loss,), 1.0, 0.1)] for name, loss in (("ours", 25.0), ("trl", 25.0005))}
    assert first_losses(chosen, results, dtype="float32", objective="ipo")["largest_difference"] == pytest.approx(5e-4)
    with pytest.raises(LossesDiffer, match="ours 25"):
        first_losses(chosen, results, dtype="float32", objective="dpo")
