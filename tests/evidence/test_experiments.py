"""Experiments at toy size: what they record is what the page reads, kept work is not done again, and its cost is counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evidence import fig3_fig7, gradient, no_penalty
from evidence.lab import Lab, changes
from orpo.pipeline import demo


def test_autograd_is_minus_delta_h_and_the_factor_is_one_over_one_minus_p(tmp_path: Path):
    content = gradient.record(Lab(tmp_path), num_cases=5)
    assert content["minus"] < 1e-12
    # Autograd is the negative of +delta h, so twice its own length away from it.
    assert content["plus"] == pytest.approx(2)
    assert content["factors"]["autograd"] == pytest.approx([1 / (1 - probability) for probability in gradient.PROBABILITIES])
    assert [claim.verdict for claim in gradient.claims(content)] == ["shown", "opposite", "opposite"]


def test_a_piece_of_work_is_done_once_and_its_cost_counted_once(tmp_path: Path):
    done: list[Path] = []

    def work(folder: Path) -> dict[str, int]:
        done.append(folder)
        return {"answer": 42}

    first = Lab(tmp_path)
    assert first.once("piece", {"a": 1}, work)[0] == {"answer": 42}
    assert first.once("piece", {"a": 2}, work)[0] == {"answer": 42}
    kept = json.loads((done[0] / "figures.json").read_text())
    (done[0] / "figures.json").write_text(json.dumps(kept | {"seconds": 5.0, "cpu_seconds": 4.0}))
    second = Lab(tmp_path)
    for _ in range(2):
        assert second.once("piece", {"a": 1}, work)[0] == {"answer": 42}
    assert (len(done), second.seconds, second.cpu_seconds) == (2, 5.0, 4.0)


def test_a_piece_that_was_interrupted_is_done_again_from_its_start(tmp_path: Path):
    def broken(folder: Path) -> dict[str, int]:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Lab(tmp_path).once("piece", {}, broken)
    found, _ = Lab(tmp_path).once("piece", {}, lambda folder: {"is_empty": not list(folder.iterdir())})
    assert found == {"is_empty": True}


def test_two_steps_of_sft_and_orpo_are_recorded_from_the_same_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "NUM_TRAIN", 16)
    monkeypatch.setattr(demo, "NUM_HELD_OUT", 8)
    monkeypatch.setitem(demo.SETTINGS, "warmup_steps", 0)
    content: dict[str, Any] = fig3_fig7.record(Lab(tmp_path), seeds=(1,), steps=2)
    curves = {name: runs[0]["curve"] for name, runs in content["runs"].items()}
    assert {name: curve["step"] for name, curve in curves.items()} == {"sft": [0, 2], "orpo": [0, 2]}
    # The same base on the same held-out pairs, and then not the same any more.
    for side in ("chosen", "rejected"):
        assert curves["sft"][side][0] == pytest.approx(curves["orpo"][side][0])
        assert curves["sft"][side][1] != pytest.approx(curves["orpo"][side][1], abs=1e-6)
    assert changes(content["runs"]["sft"][0])["chosen"] == curves["sft"]["chosen"][1] - curves["sft"]["chosen"][0]
    assert fig3_fig7.picture(content).axes


def test_pushes_are_those_worked_out_by_hand(tmp_path: Path):
    content = no_penalty.record(Lab(tmp_path), num_pairs=2)
    assert content["pushes"]["sft"]["rejected"] == {"mean": 0, "least": 0, "most": 0, "num": content["pushes"]["orpo"]["rejected"]["num"]}
    assert content["pushes"]["orpo"]["rejected"]["most"] < 0
    # Along the chosen answer SFT pushes every other token down by p / m.
    assert content["sft_elsewhere_over_p"]["least"] == pytest.approx(1)
    assert content["sft_elsewhere_over_p"]["most"] == pytest.approx(1)
