"""The benchmarks at toy size: they end in figures with the right fields, count work as it is counted by hand, and refuse unequal losses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench_gpu
import bench_scaling
import bench_step
import first_losses
import plot
import step_bench
from contenders import UnknownContender, contender, in_run_order
from gemm_floor import step_work
from model_shapes import SHAPES, ModelShape
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.batching import step_pairs
from pair_data import grouped_batches, longest_row, plan_steps, random_batches, random_pairs
from rounds import ContenderFailed, Process, Round, processes
from step_options import ends_well
from trl_peers import trl_rows

FIGURES = {
    "seconds_per_step",
    "seconds_of_rounds",
    "pairs_per_second",
    "distinct_tokens_per_second",
    "peak_memory_gib",
    "peak_memory_above_libraries_gib",
    "floor_seconds_per_step",
    "share_of_floor",
    "distinct_tokens",
    "head_rows",
    "pairs",
    "padded_tokens",
    "settings",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def run(module: Any, out: Path, *options: str) -> dict[str, Any]:
    """The result file of `module` run with `options`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{module.__name__}.py", *options, "--out", str(out)])
        module.main()
    content: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert content["environment"]["command"][:1] == [f"{module.__name__}.py"]
    assert content["environment"]["cpu"]
    assert content["environment"]["libraries"]["torch"]
    assert content["date"]
    return content


def pair(prompt: int, chosen: int, rejected: int) -> TokenizedExample:
    ids = [np.arange(2, 2 + num, dtype=np.int32) for num in (prompt, chosen, rejected)]
    return TokenizedExample(ids[0], (ids[1], ids[2]), Source("made", 1))


def assert_has_plots(path: Path) -> None:
    png, svg = plot.write_plot(path)
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert png.stat().st_size > 5000
    assert "</svg>" in svg.read_text(encoding="utf-8")


def test_a_step_of_ours_and_of_trl_has_every_figure_a_plot_and_the_same_first_loss(folder: Path) -> None:
    out = folder / "step.json"
    options = ("--shape", "tiny", "--layers", "1", "--data", "synthetic", "--contenders", "orpo,trl", "--rounds", "2")
    result = run(bench_step, out, *options, "--pairs-per-step", "2")
    assert set(result["contenders"]) == {"orpo", "trl"}
    for figures in result["contenders"].values():
        assert set(figures) == FIGURES
        assert len(figures["seconds_of_rounds"]) == 2
        assert figures["seconds_per_step"]["min"] <= figures["seconds_per_step"]["median"] <= figures["seconds_per_step"]["max"]
        assert 0 < figures["peak_memory_above_libraries_gib"] < figures["peak_memory_gib"]
        assert figures["share_of_floor"] > 0
    ours, theirs = result["first_loss"]["losses"].values()
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert result["contenders"]["trl"]["settings"]["gradient_checkpointing"] is False
    assert result["contenders"]["orpo"]["settings"]["path"] == "shared"
    assert set(result["ratios"]) == {"orpo over trl"}
    assert "| orpo |" in out.with_suffix(".md").read_text(encoding="utf-8")
    assert_has_plots(out)


@pytest.mark.soak
def test_the_gpu_benchmark_runs_on_a_cpu_and_names_the_peer_that_is_not_installed(folder: Path) -> None:
    options = ("--device", "cpu", "--shape", "tiny-lora", "--data", "hh-like", "--contenders", "orpo,trl-liger", "--rounds", "1")
    if contender("trl-liger").missing == "":
        pytest.skip("liger_kernel is installed here")
    options += ("--dtype", "float32", "--nll-over", "completion")
    result = run(bench_gpu, folder / "gpu.json", *options, "--steps-per-round", "2")
    assert result["skipped"] == {"trl-liger": "liger_kernel is not installed"}
    assert set(result["contenders"]) == {"orpo"}
    assert result["contenders"]["orpo"]["pairs"] == 16
    assert 5 < result["first_loss"]["losses"]["orpo"] < 8  # ln 512 and a little, by a forward pass of its own


@pytest.mark.soak
def test_the_cost_of_a_pair_is_measured_by_its_length(folder: Path) -> None:
    options = ("--part", "length", "--shape", "tiny", "--layers", "1", "--rounds", "1", "--max-length", "256", "--pairs-per-step", "1")
    result = run(bench_scaling, folder / "length.json", *options)
    assert [point["x"] for point in result["points"]] == [256]
    assert result["points"][0]["distinct_tokens"] == 256
    assert result["points"][0]["seconds_per_pair"] > 0
    assert_has_plots(folder / "length.json")


@pytest.mark.soak
def test_the_data_check_is_measured_by_the_rows_of_a_file(folder: Path) -> None:
    result = run(bench_scaling, folder / "data.json", "--part", "data", "--max-rows", "1000")
    (point,) = result["points"]
    assert point["rows"] == point["pairs"] == 1000
    assert point["rows_per_second"] == pytest.approx(1000 / point["seconds"])
    assert point["peak_memory_gib"] >= point["before_gib"] > 0
    assert_has_plots(folder / "data.json")


@pytest.mark.parametrize("sweep", ["micro-batch", "prompt-share"])
def test_a_sweep_has_a_plot(sweep: str, tmp_path: Path) -> None:
    spread = {"min": 0.9, "median": 1.0, "max": 1.1}
    of_one = dict.fromkeys(FIGURES, 1.0) | {"seconds_per_step": spread, "seconds_of_rounds": [0.9, 1.1]}
    equal = {"pairs_per_step": 4, "shape": {"layers": 2}}
    points = [{"x": x, "contenders": {"orpo": of_one, "trl": of_one}, "equal": equal} for x in (1, 2)]
    content = {"what": "step-sweep", "sweep": sweep, "shape": "tiny", "dtype": "float32", "points": points}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert_has_plots(tmp_path / "sweep.json")


def test_a_file_that_is_no_result_has_no_plot(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert plot.write_plot(tmp_path / "other.json") == []


@pytest.mark.parametrize(
    ("nll_over", "checkpointing", "lora", "flops"),
    [
        # N = 8*8 + 2*(8*4) + 8*8 + 3*(8*10) = 432 a layer, 864; S = 5+3+2 + 4+1+6 = 21; S_h = 5 + 7 = 12; V H = 100 * 8
        ("completion", False, False, 6 * 864 * 21 + 6 * 800 * 12),
        ("prompt+completion", False, False, 6 * 864 * 21 + 6 * 800 * (12 + 4 + 3)),
        ("completion", True, False, 8 * 864 * 21 + 6 * 800 * 12),
        ("completion", False, True, 4 * 864 * 21 + 4 * 800 * 12),
    ],
)
def test_the_floor_counts_the_products_of_a_step_as_by_hand(nll_over: str, checkpointing: bool, lora: bool, flops: int) -> None:
    shape = ModelShape(2, 8, 2, 1, 10, 100, tied=True, head_dim=4, lora=lora)
    assert step_work(shape, [pair(5, 3, 2), pair(4, 1, 6)], nll_over=nll_over, checkpointing=checkpointing).flops == flops


def test_the_body_of_the_135m_shape_has_106_million_weights() -> None:
    assert SHAPES["135m"].body_parameters == 30 * (576 * 576 * 2 + 576 * 192 * 2 + 3 * 576 * 1536) == 106_168_320


def rounds(first_loss: float, *, trl_loss: float | None = None) -> list[Round]:
    return [Round(1.0, (first_loss,), 1.0, 0.1, trl_loss), Round(1.0, (first_loss,), 1.0, 0.1)]


def test_losses_that_differ_are_refused_with_both_values() -> None:
    chosen = {name: contender(name) for name in ("orpo", "trl")}
    same = {"orpo": rounds(9.0, trl_loss=6.00005), "trl": rounds(6.0)}
    assert first_losses.first_losses(chosen, same, dtype="float32")["largest_difference"] == pytest.approx(5e-5)
    other = {"orpo": rounds(9.0, trl_loss=6.0002), "trl": rounds(6.0)}
    with pytest.raises(first_losses.LossesDiffer, match=r"orpo 6\.000200, trl 6\.000000: 2\.0e-04 apart, at most 1e-04"):
        first_losses.first_losses(chosen, other, dtype="float32")
    with pytest.raises(first_losses.LossesDiffer):
        first_losses.first_losses(chosen, {**same, "orpo": rounds(9.0, trl_loss=float("nan"))}, dtype="float32")


def test_losses_are_compared_between_contenders_on_the_same_first_batch() -> None:
    """A grouped order begins with other pairs, and TRL cut into micro-batches has another loss by design."""
    chosen = {name: contender(name) for name in ("orpo", "trl", "trl-mb2", "orpo-grouped", "trl-grouped")}
    losses = {"orpo": rounds(9.0, trl_loss=6.0), "trl": rounds(6.0), "trl-mb2": rounds(5.0)}
    losses |= {"orpo-grouped": rounds(9.0, trl_loss=7.0), "trl-grouped": rounds(7.0)}
    assert first_losses.first_losses(chosen, losses, dtype="float32")["largest_difference"] == 0
    with pytest.raises(first_losses.LossesDiffer):
        first_losses.first_losses(chosen, {**losses, "trl-grouped": rounds(7.1)}, dtype="float32")


def test_our_shuffled_run_meets_the_pairs_in_the_order_of_the_steps() -> None:
    batches = random_batches(random_pairs(30, prompt=5, answer=3, spread=0.5, vocabulary=64, seed=1), num=3, size=4, seed=1)
    steps = plan_steps(batches, rounds=3)
    assert steps.num_steps == 4
    assert steps.measured_pairs == tuple(one for batch in batches for one in batch)
    laid_out = in_run_order(steps, seed=5)
    met = [laid_out[i] for step in range(4) for i in step_pairs(len(laid_out), 4, seed=5, step=step)]
    assert [id(one) for one in met] == [id(one) for one in steps.pairs]


def test_grouped_batches_hold_alike_lengths_and_span_the_epoch() -> None:
    pairs = random_pairs(64, prompt=40, answer=20, spread=0.6, vocabulary=64, seed=2)
    grouped = grouped_batches(pairs, num=4, size=4, seed=0)
    assert len({id(one) for batch in grouped for one in batch}) == 16
    spread = [longest_row(batch) - min(longest_row([one]) for one in batch) for batch in grouped]
    assert np.mean(spread) < 0.5 * (longest_row(pairs) - min(longest_row([one]) for one in pairs))
    lengths = [longest_row(batch) for batch in grouped]
    assert lengths == sorted(lengths, reverse=True)


def test_rows_for_trl_repeat_the_prompt_and_mask_it_in_the_labels() -> None:
    (row,) = trl_rows([pair(2, 1, 3)])
    assert row["prompt_input_ids"] == [2, 3]
    assert row["rejected_input_ids"] == [2, 3, 2, 3, 4]
    assert row["chosen_labels"] == [-100, -100, 2]
    assert row["chosen_attention_mask"] == [1, 1, 1]


@pytest.mark.parametrize("name", ["dpo", "orpo-mb2", "trl-tokens100", "trl-"])
def test_a_name_that_is_no_contender_is_refused(name: str) -> None:
    with pytest.raises(UnknownContender, match=name):
        contender(name)


def test_ratios_pair_the_rounds_and_the_kinds_of_order() -> None:
    figures = {
        "orpo": {"seconds_of_rounds": [1.0, 2.0], "pairs_per_second": 6.0, "peak_memory_gib": 1.0},
        "trl": {"seconds_of_rounds": [3.0, 5.0], "pairs_per_second": 2.0, "peak_memory_gib": 4.0},
        "trl-grouped": {"seconds_of_rounds": [1.0, 1.0], "pairs_per_second": 3.0, "peak_memory_gib": 2.0},
    }
    assert step_bench.ratios(figures) == {"orpo over trl": {"speed": 2.75, "least": 2.5, "most": 3.0, "memory": 0.25}}


def test_an_error_in_a_contenders_process_reaches_the_parent_with_its_traceback() -> None:
    with processes({"broken": (int, "no number")}) as running, pytest.raises(ContenderFailed, match="TypeError"):
        running["broken"].go()
    assert isinstance(running["broken"], Process)
    assert not running["broken"].process.is_alive()


def test_without_equal_losses_the_command_ends_with_exit_code_3_and_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    def differs() -> None:
        raise first_losses.LossesDiffer("orpo 1, trl 2")

    with pytest.raises(SystemExit) as ended:
        ends_well(differs)
    assert ended.value.code == 3
    assert capsys.readouterr().err == "no figures: orpo 1, trl 2\n"


def sweep_points(*options: str) -> list[bench_step.Point]:
    return list(bench_step.sweep_points(bench_step.parser().parse_args(["--shape", "tiny", *options])))


def test_a_sweep_of_micro_batches_gives_ours_as_many_tokens_as_trl_has_pairs() -> None:
    points = sweep_points("--sweep", "micro-batch", "--contenders", "orpo,trl", "--pairs-per-step", "4")
    assert [point.x for point in points] == [1, 2, 4]
    assert [list(point.curves.values()) for point in points] == [["orpo", "trl"]] * 3
    lengths = [one.num_tokens for one in points[0].wanted.pairs]
    assert len(lengths) == 4 * points[0].wanted.rounds
    whole = max(*lengths, round(4 * sum(lengths) / len(lengths)))
    assert list(points[2].curves) == [f"orpo-tokens{whole}", "trl-mb4"]
    assert list(points[0].curves) == [f"orpo-tokens{max(lengths)}", "trl-mb1"]


def test_a_sweep_of_the_prompts_share_keeps_the_tokens_of_a_pair() -> None:
    for point in sweep_points("--sweep", "prompt-share", "--contenders", "orpo"):
        prompt = np.median([len(one.prompt_ids) for one in point.wanted.pairs])
        answer = np.median([len(one.completions[0]) for one in point.wanted.pairs])
        assert prompt == pytest.approx(400 * point.x, rel=0.1)
        assert prompt + 2 * answer == pytest.approx(400, rel=0.1)
