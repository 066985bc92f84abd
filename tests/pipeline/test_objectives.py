"""Every objective on log-probs from a data file to a report; reference log-probs, and runs that are resumed to the last bit."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.errors import ConfigError, DataError
from orpo.objectives import OBJECTIVES, needs_reference

NAMES = list(OBJECTIVES)


def words(draw: random.Random, least: int = 2, most: int = 9) -> str:
    return " ".join(
        draw.choices("the a cat dog house tree red blue runs sleeps under over and with small large".split(), k=draw.randint(least, most))
    )


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 labelled answers."""
    draw = random.Random(6)
    rows = [{"prompt": f"{n} {words(draw)}", "completion": f" {words(draw)}", "label": bool(n % 3)} for n in range(30)]
    return written(tmp_path_factory.mktemp("labelled") / "labelled.jsonl", rows)


@pytest.fixture(scope="session")
def ranked_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 rankings of two to four scored answers."""
    draw = random.Random(7)
    rows = []
    for n in range(20):
        answers = [f" {words(draw)}" for _ in range(draw.randint(2, 4))]
        rows.append(
            {"prompt": f"{n} {words(draw)}", "responses": answers, "scores": [float(len(answers) - k) for k in range(len(answers))]}
        )
    return written(tmp_path_factory.mktemp("ranked") / "ranked.jsonl", rows)


def hashes(run_dir: Path, step: int = 8) -> dict[str, str]:
    """sha256 of weights, optimizer, schedule and RNG of a checkpoint."""
    folder = run_dir / f"checkpoint-{step}"
    files = [folder / name for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth")] + sorted(folder.glob("*.safetensors"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forget_after(run_dir: Path, step: int) -> None:
    """Makes a finished run look as if it had been killed right after the checkpoint of `step`."""
    for path in run_dir.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)
    for name in ("model", "adapter"):
        shutil.rmtree(run_dir / name, ignore_errors=True)


def losses(rows: list[dict[str, Any]], split: str = "train") -> list[float]:
    return [row["loss"] for row in rows if row["split"] == split]


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_on_pairs_and_reports(name: str, train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    # PRO's default weighs answers by their scores, which pairs have not.
    options = {"temperature": "one"} if name == "pro" else {}
    run = train(objective=name, holdout=6, num_samples=2, max_new_tokens=4, max_steps=4, save_steps=0, **options)
    logged = rows(run.run_dir)
    assert all(math.isfinite(loss) for split in ("train", "eval") for loss in losses(logged, split))
    assert len(losses(logged)) == 4
    assert len(losses(logged, "eval")) == 2
    assert run.summary.status == "done"
    page = (run.run_dir / "report.html").read_text()
    assert name in page
    tables = list(run.run_dir.glob("reference-*.logps"))
    assert len(tables) == (0 if not needs_reference(name) else 4 if name == "kto" else 2)


@pytest.mark.parametrize("name", ["kto", "ulma"])
def test_labelled_answers_train(name: str, train: Callable[..., Any], rows: Callable[..., Any], labelled_file: str) -> None:
    run = train(data=labelled_file, objective=name, holdout=6, num_samples=2, max_new_tokens=4, max_steps=4, save_steps=0)
    logged = rows(run.run_dir)
    assert all(math.isfinite(loss) for split in ("train", "eval") for loss in losses(logged, split))
    assert [row["num_pairs"] for row in logged if row["split"] == "eval"] == [6, 6]


def test_rankings_train(train: Callable[..., Any], rows: Callable[..., Any], ranked_file: str) -> None:
    run = train(data=ranked_file, objective="pro", holdout=4, num_samples=2, max_new_tokens=4, max_steps=4, save_steps=0)
    found = losses(rows(run.run_dir))
    assert len(found) == 4
    assert all(math.isfinite(loss) for loss in found)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dpo", {}),
        ("dpo", {"reference": "copy"}),
        ("kto", {}),
        ("dpo", {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1}),
        ("kto", {"use_peft": True}),
        ("reward", {}),
        ("reward", {"use_peft": True, "lora_r": 4}),
    ],
    ids=["dpo, precomputed", "dpo, copy", "kto, precomputed", "dpo, adapter off, dropout", "kto, adapter off", "reward", "reward, lora"],
)
def test_a_resumed_run_ends_with_the_same_bits(
    name: str, settings: dict[str, Any], train: Callable[..., Any], rows: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = train(objective=name, holdout=4, **settings).run_dir
    whole, logged = hashes(run_dir), rows(run_dir)
    tables = {path.name: path.read_bytes() for path in run_dir.glob("reference-*.logps")}
    for step, lost in ((2, False), (6, True)):
        forget_after(run_dir, step)
        if lost:
            for path in run_dir.glob("reference-*.logps"):
                path.unlink()
        capsys.readouterr()
        train(objective=name, holdout=4, **settings)
        said = capsys.readouterr().out
        assert ("scored in" in said) == (lost and bool(tables))
        assert hashes(run_dir) == whole
        assert {path.name: path.read_bytes() for path in run_dir.glob("reference-*.logps")} == tables
        again = rows(run_dir)
        assert [(row["step"], row["loss"]) for row in again] == [(row["step"], row["loss"]) for row in logged]


def test_all_three_references_make_one_run(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    """With LoRA, whose adapters can be switched off; the first loss of DPO is ln 2 in all of them."""
    found = []
    for way in ("adapter", "copy", "precomputed"):
        logged = rows(train(way, objective="dpo", use_peft=True, lora_r=4, reference=way, holdout=4, save_steps=0).run_dir)
        found.append(losses(logged))
        assert losses(logged, "eval")[0] == pytest.approx(math.log(2), abs=1e-6)
    assert found[0][0] == pytest.approx(math.log(2), abs=1e-6)
    assert found[0][-1] < math.log(2) - 1e-4
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-6)


def test_a_cache_serves_another_run(train: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"objective": "dpo", "reference_cache": str(tmp_path / "cache"), "save_steps": 0, "max_steps": 2}
    first = train("one", **settings).run_dir
    assert "scored in" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").iterdir())) == 1
    train("two", beta=0.3, **settings)
    said = capsys.readouterr().out
    assert "read from" in said
    assert "scored in" not in said
    assert not list(first.glob("reference-*"))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"objective": "orpo", "reference": "copy"}, "orpo reads no reference model"),
        ({"objective": "dpo", "reference": "adapter"}, "no adapters to switch off"),
        ({"objective": "dpo", "reference": "copy", "reference_cache": "cache"}, "keeps nothing"),
        ({"objective": "kto", "pairs_per_step": 1}, "pairs_per_step"),
        ({"objective": "kto", "holdout": 1}, "there are 1 examples"),
    ],
)
def test_what_contradicts_is_said_before_anything_is_written(
    settings: dict[str, Any], text: str, train: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=text):
        train(**settings)
    assert not (tmp_path / "run").exists()


def test_rankings_without_scores_are_refused_before_the_model_is_loaded(train: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match="scores"):
        train(objective="pro")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("use_peft", [False, True])
def test_a_reward_model_loads_in_plain_transformers_and_scores_as_it_was_measured(
    use_peft: bool, train: Callable[..., Any], rows: Callable[..., Any], pairs_file: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = {"use_peft": True, "learning_rate": 3e-3} if use_peft else {}
    run = train(objective="reward", eval_data=str(pairs_file), data=str(copied(pairs_file)), max_steps=30, save_steps=0, **settings)
    logged = [row for row in rows(run.run_dir) if row["split"] == "eval"]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.1
    tokenizer = AutoTokenizer.from_pretrained(run.model_dir)
    if use_peft:
        from peft import AutoPeftModelForSequenceClassification

        model = AutoPeftModelForSequenceClassification.from_pretrained(run.model_dir, num_labels=1).eval()
    else:
        model = AutoModelForSequenceClassification.from_pretrained(run.model_dir).eval()
    scores = {"chosen": [], "rejected": []}
    with torch.no_grad():
        for row in map(json.loads, pairs_file.read_text().splitlines()):
            for name, found in scores.items():
                ids = tokenizer(row["prompt"] + row[name], return_tensors="pt").input_ids
                ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
                found.append(float(model(input_ids=ids).logits[0, 0]))
    means = {name: sum(found) / len(found) for name, found in scores.items()}
    assert means["chosen"] == pytest.approx(logged[-1]["rewards/chosen"], abs=1e-5)
    assert means["rejected"] == pytest.approx(logged[-1]["rewards/rejected"], abs=1e-5)
    assert means["chosen"] > means["rejected"]


def copied(path: Path) -> Path:
    """The same rows under another name: what is held out may not be the very file that is trained on."""
    copy = path.with_name("copy.jsonl")
    copy.write_text(path.read_text())
    return copy
