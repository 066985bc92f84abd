"""The model card: its header, its numbers, its picture."""

from __future__ import annotations

import struct
from typing import Any

import yaml

from orpo.report.card import render_card, write_card
from orpo.report.plot import render_plot
from orpo.runs.summary import read_run


def header(text: str) -> dict[str, Any]:
    loaded = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def with_model(files: dict[str, Any], name: str) -> dict[str, Any]:
    summary = files["summary.json"]
    return {**files, "summary.json": {**summary, "sections": {**summary["sections"], "model": {"model": name, "objective": "orpo"}}}}


def test_the_header_names_a_base_model_of_the_hub(make_run: Any, orpo_files: dict[str, Any]) -> None:
    found = header(render_card(make_run(with_model(orpo_files, "Qwen/Qwen3-4B-Base"))))
    assert found == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "Qwen/Qwen3-4B-Base",
        "tags": ["orpo", "preference-optimization", "alignment"],
    }


def test_a_path_of_somebodys_disk_is_no_base_model(make_run: Any, orpo_files: dict[str, Any]) -> None:
    for name in ("built-in", "/home/me/model", "../me/model", "a/b/c"):
        assert "base_model" not in header(render_card(make_run(with_model(orpo_files, name))))


def test_an_adapter_is_for_peft(make_run: Any) -> None:
    run_dir = make_run()
    (run_dir / "adapter").mkdir()
    assert header(render_card(run_dir))["library_name"] == "peft"


def test_the_objective_is_a_tag(make_run: Any) -> None:
    assert header(render_card(make_run("sft")))["tags"][:2] == ["orpo", "sft"]


def test_the_card_holds_the_numbers_of_the_run(make_run: Any) -> None:
    text = render_card(make_run()).replace("\u202f", " ").replace("\u2212", "-")
    assert "built-in, tuned with ORPO (β 0.5) on 400 preference pairs by orpo 0.1.0." in text
    assert "| pairs told apart | 52 % | 88 % |" in text
    assert "| NLL of the chosen, nats per token | 2.03 | 1.37 |" in text
    assert "| mean log p of the rejected | -2.11 | -2.41 |" in text
    assert "| oracle score | 41 % | 83 % |" in text
    assert "```\norpo demo --seed 7\n```" in text
    assert "9f" * 32 in text


def test_without_held_out_pairs_there_is_no_table_of_them(make_run: Any) -> None:
    text = render_card(make_run("no-eval"))
    assert "| held out |" not in text
    assert "Nothing was measured on held-out pairs" in text


def test_a_command_cannot_end_its_code_block(make_run: Any, orpo_files: dict[str, Any]) -> None:
    summary = {**orpo_files["summary.json"], "command": ["orpo", "````\n<b>"]}
    assert "`````\norpo '````\n<b>'\n`````" in render_card(make_run({**orpo_files, "summary.json": summary}))


def test_writing_puts_a_picture_beside_the_card_that_names_it(make_run: Any) -> None:
    run_dir = make_run()
    path = write_card(run_dir)
    assert path.read_text(encoding="utf-8") == render_card(run_dir)
    assert "](report_plot.png)" in path.read_text(encoding="utf-8")
    content = (run_dir / "report_plot.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1560, 510)
    assert content == render_plot(read_run(run_dir))


def test_a_run_that_logged_nothing_has_a_card_without_picture(make_run: Any, orpo_files: dict[str, Any]) -> None:
    run_dir = make_run({name: content for name, content in orpo_files.items() if name != "metrics.jsonl"})
    assert "report_plot.png" not in write_card(run_dir).read_text(encoding="utf-8")
    assert not (run_dir / "report_plot.png").exists()


def test_one_logged_step_is_enough_for_a_picture(make_run: Any) -> None:
    row = {"step": 1, "split": "train", "logps/chosen": -1.9, "logps/rejected": -2.0, "rewards/accuracies": 1.0}
    assert write_card(make_run({"metrics.jsonl": [row]})).exists()
