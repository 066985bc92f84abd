"""`orpo eval` against figures computed by hand with the slow engine, and its gates."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.plain import pair_logps

Command = Callable[..., Any]


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Seven pairs that no run saw, with answers of several lengths."""
    texts = ["a city", "the sea, near a large city.", "bread", "flour, water and salt", "a warm sill", "no", "many people live there"]
    path = tmp_path / "held.jsonl"
    rows = [{"prompt": f"{i} what now?", "chosen": f" {text}", "rejected": f" {texts[i - 3]} no"} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def raw_ids(tokenizer: Any, row: dict[str, str]) -> list[list[int]]:
    """Prompt and answers as they stand, the answers with the end token."""
    prompt, *answers = (tokenizer(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "chosen", "rejected"))
    return [prompt, *([*ids, tokenizer.eos_token_id] for ids in answers)]


def chatml_ids(tokenizer: Any, row: dict[str, str]) -> list[list[int]]:
    """Prompt and answers as turns of ChatML, written out here. Nothing is learnt behind the end token: the last line break is left out."""
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    def plain(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = [start, *plain("user\n" + row["prompt"]), end, *plain("\n"), start, *plain("assistant\n")]
    return [prompt, *([*plain(row[name]), end] for name in ("chosen", "rejected"))]


def figures_by_hand(model: Any, ids: Sequence[Sequence[Sequence[int]]]) -> dict[str, float]:
    """The figures of `orpo eval`, from sums of the slow engine."""
    arrays = [[np.array(part, dtype=np.int32) for part in row] for row in ids]
    examples = [TokenizedExample(row[0], (row[1], row[2]), Source("x", 1)) for row in arrays]
    with torch.no_grad():
        logps = pair_logps(model.eval().float(), examples)
    chosen, rejected = (part.total / part.num_tokens for part in (logps.chosen, logps.rejected))
    margins = chosen - rejected
    num, right = len(examples), int((margins > 0).sum())
    half = 1.959964 * float(margins.std()) / math.sqrt(num)
    return {
        "num_pairs": num,
        "accuracy": right / num,
        "nll_loss": -float(logps.chosen.total.sum() / logps.chosen.num_tokens.sum()),
        "logps/chosen": float(chosen.mean()),
        "logps/rejected": float(rejected.mean()),
        "margin": float(margins.mean()),
        "margin_low": float(margins.mean()) - half,
        "margin_high": float(margins.mean()) + half,
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_equal(figures: dict[str, Any], by_hand: dict[str, float]) -> None:
    for name, value in by_hand.items():
        assert figures[name] == pytest.approx(value, abs=2e-5), name
    assert 0 <= figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"] <= 1


def evaluated(orpo: Command, *arguments: object) -> dict[str, Any]:
    outcome = orpo("eval", *arguments, "--json")
    assert (outcome.exit_code, outcome.err) == (0, ""), outcome.text
    figures: dict[str, Any] = json.loads(outcome.out)
    return figures


def test_a_full_run_has_the_figures_computed_by_hand(orpo: Command, full_run: Path, held_out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    figures = evaluated(orpo, full_run, "--data", held_out)
    tokenizer = AutoTokenizer.from_pretrained(full_run / "model")
    model = AutoModelForCausalLM.from_pretrained(full_run / "model")
    by_hand = figures_by_hand(model, [raw_ids(tokenizer, row) for row in rows_of(held_out)])
    assert_equal(figures, by_hand)
    assert figures["rows"] == 7
    assert figures["model"] == str(full_run / "model")
    assert 0 < figures["accuracy"] < 1, "the pairs tell right from wrong"


def test_a_model_folder_has_the_figures_of_that_model(orpo: Command, full_run: Path, tiny_llama: Path, held_out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModelForCausalLM.from_pretrained(tiny_llama)
    figures = evaluated(orpo, tiny_llama, "--data", held_out)
    assert_equal(figures, figures_by_hand(model, [raw_ids(tokenizer, row) for row in rows_of(held_out)]))
    assert figures["nll_loss"] > evaluated(orpo, full_run, "--data", held_out)["nll_loss"], "training changed nothing"
    assert evaluated(orpo, full_run / "model", "--data", held_out) == evaluated(orpo, full_run, "--data", held_out)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft 0.21 on transformers 5.23
def test_an_adapter_run_is_its_base_with_the_adapter_and_the_rows_of_its_new_tokens(
    orpo: Command, adapter_run: Path, held_out: Path
) -> None:
    import peft
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter_run / "adapter")
    assert max(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])) >= 300
    merged = peft.AutoPeftModelForCausalLM.from_pretrained(adapter_run / "adapter").merge_and_unload()
    by_hand = figures_by_hand(merged, [chatml_ids(tokenizer, row) for row in rows_of(held_out)])
    assert_equal(evaluated(orpo, adapter_run, "--data", held_out), by_hand)
    # The bare adapter folder knows no settings; told the template, it gives the same.
    assert_equal(evaluated(orpo, adapter_run / "adapter", "--data", held_out, "--template", "tokenizer"), by_hand)


def test_the_report_for_people_shows_the_same_figures(orpo: Command, full_run: Path, held_out: Path) -> None:
    figures = evaluated(orpo, full_run, "--data", held_out)
    outcome = orpo("eval", full_run, "--data", held_out)
    assert outcome.exit_code == 0
    assert re.fullmatch(rf"written      {full_run}/evaluations/pairs-[0-9a-f]+\.json\n", outcome.err), "and stay in the run"
    accuracy, low, high = (100 * figures[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    assert f"accuracy     {accuracy:.1f} % ({low:.1f}-{high:.1f}, 95 % Wilson interval)" in outcome.out
    assert f"NLL          {figures['nll_loss']:.4f} nats per chosen token" in outcome.out
    assert f"margin       {figures['margin']:.4f} " in outcome.out
    assert re.search(r"^pairs +7 of ", outcome.out, re.MULTILINE)


def test_rows_that_are_left_out_are_told(orpo: Command, full_run: Path, held_out: Path) -> None:
    with held_out.open("a") as file:
        file.write(json.dumps({"prompt": "p", "chosen": " same", "rejected": " same"}) + "\n")
    outcome = orpo("eval", full_run, "--data", held_out)
    assert outcome.exit_code == 0
    assert "dropped      1 x identical" in outcome.err
    assert (evaluated(orpo, full_run, "--data", held_out)["num_pairs"], evaluated(orpo, full_run, "--data", held_out)["rows"]) == (7, 8)


@pytest.mark.parametrize("gate", ["accuracy>=0", "accuracy <= 1", "num_pairs>6.5", "nll_loss<1e3", "logps/chosen<-.5", "margin>-1.0e+2"])
def test_a_gate_that_holds_passes(orpo: Command, tiny_llama: Path, held_out: Path, gate: str) -> None:
    assert orpo("eval", tiny_llama, "--data", held_out, "--require", gate).exit_code == 0


def test_gates_that_fail_end_with_4_after_the_figures(orpo: Command, tiny_llama: Path, held_out: Path) -> None:
    gates = [part for gate in ("num_pairs>7", "num_pairs>=7", "nll_loss<0.5") for part in ("--require", gate)]
    outcome = orpo("eval", tiny_llama, "--data", held_out, "--json", *gates)
    figures = json.loads(outcome.out)
    assert outcome.exit_code == 4
    assert outcome.err.startswith(f"{tiny_llama}: a required figure was not reached: ")
    assert f"num_pairs > 7 but is 7; nll_loss < 0.5 but is {figures['nll_loss']:.4g}" in outcome.err


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("acuracy>0.5", ("'acuracy'", "not measured", "accuracy, accuracy_low")),
        ("model>1", ("'model'", "not measured")),
        ("accuracy=0.5", ("no condition", '"accuracy>0.6"')),
        ("accuracy>", ("no condition",)),
        ("accuracy>1e", ("no condition",)),
        ("accuracy>nan", ("no condition",)),
        ("accuracy", ("no condition",)),
        ("0.5<accuracy", ("no condition",)),
    ],
)
def test_a_gate_that_cannot_be_checked_is_refused_before_anything_is_measured(
    orpo: Command, monkeypatch: pytest.MonkeyPatch, tiny_llama: Path, held_out: Path, gate: str, words: tuple[str, ...]
) -> None:
    import orpo.pipeline.evaluate as module

    monkeypatch.setattr(module, "evaluate", lambda *_, **__: pytest.fail("measured"))
    outcome = orpo("eval", tiny_llama, "--data", held_out, "--require", gate)
    assert (outcome.exit_code, outcome.out) == (2, "")
    for word in words:
        assert word in outcome.err


def test_a_run_that_is_missing_is_told_with_the_nearest_name(orpo: Command, tmp_path: Path, held_out: Path) -> None:
    (tmp_path / "runs" / "demo-1").mkdir(parents=True)
    outcome = orpo("eval", tmp_path / "runs" / "demo-2", "--data", held_out)
    assert outcome.exit_code == 2
    assert "does not exist" in outcome.err
    assert "demo-1?" in outcome.err


def test_a_run_that_is_not_finished_says_how_to_finish_it(orpo: Command, full_run: Path, tmp_path: Path, held_out: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(full_run, unfinished, ignore=shutil.ignore_patterns("model"))
    outcome = orpo("eval", unfinished, "--data", held_out)
    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"{unfinished} holds no finished model")
    assert "run the same `orpo train` command again" in outcome.err


def test_bad_data_is_named_with_its_place(orpo: Command, full_run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": "b"}\n')
    outcome = orpo("eval", full_run, "--data", "bad.jsonl")
    assert outcome.exit_code == 3
    assert outcome.err.startswith("bad.jsonl:2: ")


def test_rows_longer_than_the_positions_are_left_out_as_in_training(
    orpo: Command, make_tiny_llama: Callable[..., Path], tmp_path: Path, held_out: Path
) -> None:
    short = make_tiny_llama(tmp_path / "short", positions=32)
    with held_out.open("a") as file:
        file.write(json.dumps({"prompt": "why? " * 40, "chosen": " yes", "rejected": " no"}) + "\n")
    outcome = orpo("eval", short, "--data", held_out)
    assert outcome.exit_code == 0
    assert "dropped      1 x prompt-too-long" in outcome.err
    refused = orpo("eval", short, "--data", held_out, "--max-length", 33)
    assert refused.exit_code == 2
    assert "only 32 positions" in refused.err
    assert orpo("eval", short, "--data", held_out, "--max-length", 0).exit_code == 3


def test_a_template_whose_tokens_the_model_has_not_is_refused(
    orpo: Command, make_tiny_llama: Callable[..., Path], tmp_path: Path, held_out: Path
) -> None:
    model = make_tiny_llama(tmp_path / "small", vocabulary=300)
    outcome = orpo("eval", model, "--data", held_out, "--template", "chatml")
    assert outcome.exit_code == 2
    assert "the template adds 2 tokens" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_encoder_decoder_model_is_refused(orpo: Command, tiny_llama: Path, tmp_path: Path, held_out: Path) -> None:
    import transformers

    folder = tmp_path / "t5"
    transformers.T5Config(vocab_size=512, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_llama / name, folder / name)
    outcome = orpo("eval", folder, "--data", held_out)
    assert outcome.exit_code == 2
    assert "decoder-only" in outcome.err


def test_a_run_trained_with_a_template_file_does_not_need_the_file_afterwards(
    orpo: Command, tiny_llama: Path, pairs_file: Path, tmp_path: Path, held_out: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "own.jinja").write_text(
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% if message['role'] == 'assistant' %}</s>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    arguments = ("--max-steps", 1, "--num-samples", 0, "--dtype", "float32", "--template", "own.jinja", "--output-dir", "run")
    trained = orpo("train", "--model", tiny_llama, "--data", pairs_file, *arguments)
    assert trained.exit_code == 0, trained.text
    (tmp_path / "own.jinja").unlink()
    tokenizer, model = (kind.from_pretrained(tmp_path / "run" / "model") for kind in (AutoTokenizer, AutoModelForCausalLM))

    def ids(row: dict[str, str]) -> list[list[int]]:
        encode = lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
        return [encode(f"[user]{row['prompt']}[assistant]"), *([*encode(row[n]), tokenizer.eos_token_id] for n in ("chosen", "rejected"))]

    assert_equal(evaluated(orpo, "run", "--data", held_out), figures_by_hand(model, [ids(row) for row in rows_of(held_out)]))
