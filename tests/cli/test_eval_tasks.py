"""Benchmarks of the lm-eval library on the built-in model: a few documents of our own in IFEval's form, checked by hand."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'orpo[lm-eval]'"
)
# Libraries of lm-eval warn of each other's names when they are imported; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = 24
DOCUMENTS: list[dict[str, Any]] = [
    {"prompt": "What is the opposite of hot? Use no commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "prompt": "What is 2 plus 3? Answer in at least two words.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"relation": "at least", "num_words": 2}],
    },
    {
        "prompt": "What is 2 plus 3? Answer in at least fifty words, without commas.",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{"relation": "at least", "num_words": 50}, {}],
    },
]


@pytest.fixture
def copy_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the documents, as the hub holds a data set; caches are kept apart, and nothing asks for tables of nltk."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "IFEval"
    folder.mkdir()
    rows = [{"key": 1000 + number, **document} for number, document in enumerate(DOCUMENTS)]
    (folder / "ifeval_input_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def nltk_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that ifeval looks for when it is imported is there, so that it is not fetched; none of our documents needs it."""
    import nltk

    (tmp_path / "nltk" / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])


def replies() -> list[str]:
    """The greedy replies of the built-in model to the documents, through its chat template."""
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from orpo.data.world import builtin_model_path
    from orpo.evaluation.generation import greedy_replies

    tokenizer = AutoTokenizer.from_pretrained(builtin_model_path())
    body = AutoModelForCausalLM.from_pretrained(builtin_model_path())
    asked = [[{"role": "user", "content": document["prompt"]}] for document in DOCUMENTS]
    ids = [tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False) for turns in asked]
    made = greedy_replies(body, tokenizer, [np.array(one, dtype=np.int32) for one in ids], max_new_tokens=TOKENS)
    return [reply.text for reply in made]


@needs_library
@pytest.mark.usefixtures("nltk_tables")
def test_ifeval_has_the_figures_of_its_instructions_checked_by_hand(orpo: Command, copy_of_data: Path) -> None:
    import re

    from orpo.data.world import builtin_model_path

    said = replies()
    commas, words = ["," in text for text in said], [len(re.findall(r"\w+", text)) for text in said]
    followed = [[not commas[0]], [words[1] >= 2], [words[2] >= 50, not commas[2]]]
    arguments = ("--tasks", "ifeval", "--task-data", f"ifeval={copy_of_data}", "--max-new-tokens", TOKENS, "--json")
    outcome = orpo("eval", builtin_model_path(), *arguments)
    assert outcome.exit_code == 0, outcome.text
    assert outcome.err == "", "libraries are quiet where no terminal is"
    figures = json.loads(outcome.out)
    assert figures["ifeval/num_documents"] == 3
    assert figures["ifeval/prompt_level_strict_acc"] == pytest.approx(sum(map(all, followed)) / 3)
    assert figures["ifeval/inst_level_strict_acc"] == pytest.approx(sum(map(sum, followed)) / 4)
    share = figures["ifeval/prompt_level_strict_acc"]
    # The standard error of a mean with the variance of the sample.
    assert figures["ifeval/prompt_level_strict_acc_stderr"] == pytest.approx((share * (1 - share) / 2) ** 0.5, abs=1e-6)


@needs_library
@pytest.mark.usefixtures("nltk_tables")
def test_a_run_keeps_its_benchmarks_and_gates_see_them(orpo: Command, copy_of_data: Path, full_run: Path, tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(full_run, tmp_path / "own-run")
    arguments = ("--tasks", "ifeval", "--task-data", f"ifeval={copy_of_data}", "--num-documents", 2, "--max-new-tokens", 4)
    outcome = orpo("eval", run, *arguments, "--require", "ifeval/prompt_level_strict_acc>=0", "--require", "ifeval/num_documents>2")
    assert outcome.exit_code == 4, outcome.text
    assert "ifeval/num_documents > 2 but is 2" in outcome.err
    assert "2 documents of each, without a chat template" in outcome.err
    assert "standard error" in outcome.out
    assert "ifeval" in (run / "report.html").read_text().split('<section id="benchmarks"')[1].split("</section>")[0]


@needs_library
@pytest.mark.usefixtures("nltk_tables")
def test_a_data_set_that_cannot_be_had_ends_with_1_and_says_how_to_copy_it(
    orpo: Command, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    import orpo.pipeline.benchmarks as module

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module, "speaker_of", lambda *_: pytest.fail("loaded"))
    outcome = orpo("eval", tiny_llama, "--tasks", "ifeval")
    assert (outcome.exit_code, outcome.out) == (1, "")
    assert "the data set of ifeval is not on this machine, and could not be fetched" in outcome.err
    assert "hf download ORG/NAME --repo-type dataset --local-dir FOLDER, then --task-data ifeval=FOLDER" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("\n") <= 4, "libraries that try in vain are quiet"


@needs_library
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tasks", "ifevil"), ("no task 'ifevil'", "did you mean ifeval")),
        (("--tasks", "ifeval", "--task-data", "ifeval"), ("names no folder", "TASK=FOLDER")),
        (("--tasks", "ifeval", "--task-data", "gsm8k=data"), ("names the task 'gsm8k', which is not measured",)),
        (("--tasks", "ifeval", "--task-data", "ifeval=nowhere"), ("there is no folder nowhere", "hf download")),
    ],
)
def test_tasks_and_copies_that_are_not_there_are_refused(
    orpo: Command, tiny_llama: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome = orpo("eval", tiny_llama, *arguments)
    assert outcome.exit_code == 2, outcome.text
    for word in words:
        assert word in outcome.err


def test_without_the_library_it_is_said_how_to_install_it(orpo: Command, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import orpo.evaluation.lm_eval_tasks as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    outcome = orpo("eval", tiny_llama, "--tasks", "ifeval")
    assert outcome.exit_code == 2
    assert "--tasks needs the lm-eval library, which is not installed" in outcome.err
    assert "pip install 'orpo[lm-eval]'" in outcome.err
