"""`orpo eval` with a judge, on diversity, and of a reward model: against transformers, one row at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Command = Callable[..., Any]

TOKENS = 8
QUESTIONS = [f"{i}: what is the capital?" for i in range(6)]


@pytest.fixture(scope="session")
def reward_run(tiny_llama: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of a few steps."""
    import orpo

    folder = tmp_path_factory.mktemp("runs") / "reward"
    settings = {"max_steps": 3, "pairs_per_step": 4, "learning_rate": 1e-2, "dtype": "float32", "objective": "reward"}
    return Path(orpo.train(model=str(tiny_llama), data=str(pairs_file), output_dir=str(folder), **settings).run_dir)


@pytest.fixture(scope="session")
def reward_adapter_run(tiny_llama: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by LoRA."""
    import orpo

    folder = tmp_path_factory.mktemp("runs") / "reward-adapter"
    settings: dict[str, Any] = {"max_steps": 2, "pairs_per_step": 4, "learning_rate": 1e-2, "dtype": "float32", "objective": "reward"}
    return Path(
        orpo.train(model=str(tiny_llama), data=str(pairs_file), output_dir=str(folder), use_peft=True, lora_r=4, **settings).run_dir
    )


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Six prompts, one of them twice."""
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in [*QUESTIONS, QUESTIONS[0]]))
    return path


@pytest.fixture
def own_run(full_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be written to."""
    import shutil

    return Path(shutil.copytree(full_run, tmp_path / "own-run"))


def evaluated(orpo: Command, *arguments: object) -> dict[str, Any]:
    outcome = orpo("eval", *arguments, "--json")
    assert (outcome.exit_code, outcome.err) == (0, ""), outcome.text
    figures: dict[str, Any] = json.loads(outcome.out)
    return figures


def scored(folder: Path, rows: list[list[int]]) -> list[float]:
    """The score of each row by the reward model in `folder`."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([ids])).logits[0, 0]) for ids in rows]


def replied(folder: str | Path, prompts: list[str]) -> list[str]:
    """The greedy reply of the model in `folder` to each prompt, one at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval().float(), AutoTokenizer.from_pretrained(folder)
    replies = []
    for prompt in prompts:
        ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        made: list[int] = []
        while len(made) < TOKENS:
            with torch.no_grad():
                token = int(model(input_ids=torch.tensor([ids + made])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            made.append(token)
        replies.append(tokenizer.decode(made, skip_special_tokens=True))
    return replies


def test_the_accuracy_of_a_reward_model_is_that_of_its_scores(orpo: Command, reward_run: Path, pairs_file: Path) -> None:
    from transformers import AutoTokenizer

    figures = evaluated(orpo, reward_run, "--data", pairs_file)
    tokenizer = AutoTokenizer.from_pretrained(reward_run / "model")
    pairs = [json.loads(line) for line in pairs_file.read_text().splitlines()]

    def ids(row: dict[str, str], name: str) -> list[int]:
        parts = [tokenizer(row[part], add_special_tokens=False)["input_ids"] for part in ("prompt", name)]
        return [*parts[0], *parts[1], tokenizer.eos_token_id]

    chosen, rejected = (scored(reward_run / "model", [ids(row, name) for row in pairs]) for name in ("chosen", "rejected"))
    right = sum(one > other for one, other in zip(chosen, rejected, strict=True))
    assert (figures["num_pairs"], figures["accuracy"]) == (24, pytest.approx(right / 24))
    assert figures["rewards/chosen"] == pytest.approx(sum(chosen) / 24, abs=1e-4)
    assert figures["margin"] == pytest.approx((sum(chosen) - sum(rejected)) / 24, abs=1e-4)
    assert "nll_loss" not in figures, "a reward model has no log-probs"


def test_a_reward_model_by_lora_is_measured_with_its_adapter(orpo: Command, reward_adapter_run: Path, pairs_file: Path) -> None:
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    figures = evaluated(orpo, reward_adapter_run, "--data", pairs_file)
    folder = reward_adapter_run / "adapter"
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = peft.PeftModel.from_pretrained(model, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = json.loads(pairs_file.read_text().splitlines()[0])
    total = 0.0
    for row in map(json.loads, pairs_file.read_text().splitlines()):
        ids = (
            tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            + tokenizer(row["chosen"], add_special_tokens=False)["input_ids"]
        )
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([[*ids, tokenizer.eos_token_id]])).logits[0, 0])
    assert figures["rewards/chosen"] == pytest.approx(total / 24, abs=1e-4)


def test_the_win_rate_against_the_base_is_that_of_replies_made_and_scored_one_at_a_time(
    orpo: Command, own_run: Path, tiny_llama: Path, reward_run: Path, questions: Path
) -> None:
    from transformers import AutoTokenizer

    arguments = ("--vs", "base", "--judge", reward_run, "--prompts", questions, "--max-new-tokens", TOKENS)
    figures = evaluated(orpo, own_run, *arguments)
    ours, theirs = replied(own_run / "model", QUESTIONS), replied(tiny_llama, QUESTIONS)
    assert ours != theirs, "training changed nothing"
    tokenizer = AutoTokenizer.from_pretrained(reward_run / "model")

    def ids(prompt: str, reply: str) -> list[int]:
        return [*tokenizer(prompt + reply, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    first, second = ([ids(*asked) for asked in zip(QUESTIONS, said, strict=True)] for said in (ours, theirs))
    leads = [a - b for a, b in zip(scored(reward_run / "model", first), scored(reward_run / "model", second), strict=True)]
    wins, losses = sum(lead > 1e-3 for lead in leads), sum(lead < -1e-3 for lead in leads)
    assert (figures["num_prompts"], figures["wins"], figures["losses"]) == (6, wins, losses), "a prompt that stands twice is asked once"
    assert figures["win_rate"] == pytest.approx((wins + figures["ties"] / 2) / 6)
    assert figures["mean_characters"] == pytest.approx(sum(map(len, ours)) / 6)
    assert figures["mean_characters_other"] == pytest.approx(sum(map(len, theirs)) / 6)
    rows = [json.loads(line) for path in (own_run / "evaluations").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [(row["prompt"], row["reply"], row["other"]) for row in rows] == list(zip(QUESTIONS, ours, theirs, strict=True))


def test_a_win_rate_stays_in_the_run_and_its_report_and_gates_see_it(
    orpo: Command, own_run: Path, reward_run: Path, questions: Path
) -> None:
    arguments = ("--vs", "base", "--judge", reward_run, "--prompts", questions, "--max-new-tokens", 4, "--num-prompts", 3)
    outcome = orpo("eval", own_run, *arguments, "--require", "num_prompts>=3", "--require", "win_rate>1")
    assert outcome.exit_code == 4, outcome.text
    assert "win_rate > 1 but is" in outcome.err
    assert "repeated     1 prompts" in outcome.err
    assert "win rate     " in outcome.out
    assert "scores at most 0.001 apart are one" in outcome.out
    (path,) = (own_run / "evaluations").glob("*.json")
    kept = json.loads(path.read_text())
    assert (kept["kind"], kept["steps"], kept["figures"]["num_prompts"]) == ("win_rate", 3, 3)
    assert "Not measured. It takes a judge" not in (own_run / "report.html").read_text()


def test_a_run_against_itself_is_all_ties(orpo: Command, own_run: Path, reward_run: Path, questions: Path) -> None:
    figures = evaluated(orpo, own_run, "--vs", own_run / "model", "--judge", reward_run, "--prompts", questions, "--max-new-tokens", 4)
    assert (figures["ties"], figures["win_rate"], figures["length_matched/num_prompts"]) == (6, 0.5, 6)


def test_an_adapter_is_measured_against_its_base_without_it(
    orpo: Command, adapter_run: Path, reward_run: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import orpo.pipeline.evaluations as module

    monkeypatch.setattr(module, "_keep", lambda *_: None)
    arguments = ("--judge", reward_run, "--prompts", questions, "--num-prompts", 2, "--max-new-tokens", 4)
    assert evaluated(orpo, adapter_run, "--vs", "base", *arguments)["num_prompts"] == 2
    # The bare adapter knows no settings, but which model it sits on.
    assert evaluated(orpo, adapter_run / "adapter", "--vs", "base", *arguments)["num_prompts"] == 2


def test_sampled_replies_are_the_same_for_the_same_seed_and_others_for_another(
    orpo: Command, own_run: Path, reward_run: Path, questions: Path
) -> None:
    arguments = ("--vs", "base", "--judge", reward_run, "--prompts", questions, "--max-new-tokens", 6, "--replies", "sampled")

    def replies(seed: int) -> list[str]:
        evaluated(orpo, own_run, *arguments, "--seed", seed)
        paths = sorted((own_run / "evaluations").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(line)["reply"] for line in paths[-1].read_text().splitlines()]

    first = replies(1)
    assert replies(1) == first
    assert replies(2) != first


def test_the_diversity_of_samples_is_measured_and_kept(orpo: Command, own_run: Path, questions: Path) -> None:
    from orpo.evaluation.diversity import diversity_of

    arguments = ("--diversity", "--prompts", questions, "--max-new-tokens", 6, "--num-samples", 3)
    figures = evaluated(orpo, own_run, *arguments)
    assert (figures["diversity/num_prompts"], figures["diversity/num_samples"]) == (6, 3)
    assert 0 < figures["diversity/per_input"] < 1
    same = diversity_of([["a b"] * 3] * 2)
    assert figures["diversity/across_inputs"] < same.across_inputs
    outcome = orpo("eval", own_run, *arguments, "--require", "diversity/per_input>1")
    assert outcome.exit_code == 4
    assert "diversity/per_input > 1 but is" in outcome.err
    assert "Diversity of replies" in (own_run / "report.html").read_text()


def test_the_oracle_judges_the_built_in_world_and_refuses_another(orpo: Command, tmp_path: Path, questions: Path, tiny_llama: Path) -> None:
    from orpo.data.world import builtin_model_path, world_pairs, write_world_jsonl

    write_world_jsonl(tmp_path / "world.jsonl", world_pairs("held_out", 4, seed=0))
    model = builtin_model_path()
    arguments = ("--judge", "oracle", "--prompts", "world.jsonl", "--max-new-tokens", 12)
    figures = evaluated(orpo, model, "--vs", model, *arguments)
    assert (figures["ties"], figures["tie_within"]) == (4, 0.0)
    refused = orpo("eval", tiny_llama, "--vs", tiny_llama, "--judge", "oracle", "--prompts", questions)
    assert refused.exit_code == 2
    assert "questions.jsonl:1: '0: what is the capital?' is not a question of the built-in world" in refused.err


CONVERSATION = {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}


@pytest.mark.parametrize(
    ("judge", "prompt", "words"),
    [
        ("full_run", {"prompt": "why?"}, ("is no reward model: it is a LlamaForCausalLM", "orpo train --objective reward")),
        ("adapter_run", {"prompt": "why?"}, ("is no reward model: its adapter was trained as a language model",)),
        ("reward_run", CONVERSATION, ("the judge", "cannot read this prompt", "no chat template")),
    ],
)
def test_a_judge_that_cannot_judge_is_refused_before_anything_is_generated(
    orpo: Command,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tiny_chat_llama: Path,
    tmp_path: Path,
    judge: str,
    prompt: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    import orpo.pipeline.contest as module

    monkeypatch.setattr(module, "speaker_of", lambda *_: pytest.fail("loaded"))
    (tmp_path / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    run = request.getfixturevalue(judge)
    outcome = orpo("eval", tiny_chat_llama, "--vs", tiny_chat_llama, "--judge", run, "--prompts", "prompts.jsonl")
    assert outcome.exit_code == 2, outcome.text
    for word in words:
        assert word in outcome.err


def test_a_classifier_of_several_classes_is_no_judge(orpo: Command, tiny_llama: Path, tmp_path: Path, questions: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(tiny_llama, num_labels=3).save_pretrained(tmp_path / "three")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "three")
    outcome = orpo("eval", tiny_llama, "--vs", tiny_llama, "--judge", "three", "--prompts", questions)
    assert outcome.exit_code == 2
    assert "gives 3 scores for a text, a reward model one" in outcome.err


def test_a_prompt_that_leaves_the_judge_no_room_for_a_reply_is_named(
    orpo: Command, make_tiny_llama: Callable[..., Path], tiny_llama: Path, tmp_path: Path, questions: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    short = make_tiny_llama(tmp_path / "short", positions=32)
    AutoModelForSequenceClassification.from_pretrained(short, num_labels=1).save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(short).save_pretrained(tmp_path / "judge")
    outcome = orpo("eval", tiny_llama, "--vs", tiny_llama, "--judge", "judge", "--prompts", questions, "--max-new-tokens", 30)
    assert outcome.exit_code == 2
    assert "questions.jsonl:1: the judge judge cannot read this prompt: it has" in outcome.err
    assert "more than 32 positions" in outcome.err
    assert "lower --max-new-tokens" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("nothing is to be measured", "--tasks ifeval")),
        (("--vs", "base"), ("--vs base needs --judge", "--judge oracle")),
        (("--judge", "oracle"), ("--judge oracle needs --vs", "--vs base")),
        (("--vs", "base", "--judge", "oracle"), ("--vs needs prompts", "--prompts FILE")),
        (("--diversity",), ("--diversity needs prompts",)),
        (("--data", "x", "--num-samples", 3), ("--num-samples changes nothing without --diversity",)),
        (("--data", "x", "--seed", 3), ("--seed changes nothing without --replies sampled",)),
        (("--data", "x", "--prompts", "y"), ("--prompts changes nothing without --vs",)),
        (("--data", "x", "--task-data", "ifeval=y"), ("--task-data changes nothing without --tasks",)),
        (("--tasks", "ifeval", "--template", "raw"), ("--template changes nothing without --data",)),
        (("--diversity", "--prompts", "y", "--num-samples", 1), ("--num-samples is 1", "2 or more")),
        (("--vs", "base", "--judge", "oracle", "--prompts", "y", "--replies", "best"), ("--replies is 'best'", "greedy, sampled")),
        (("--vs", "base", "--judge", "oracle", "--prompts", "y"), ("is no run directory", "--vs MODEL")),
    ],
)
def test_settings_that_contradict_or_change_nothing_are_refused(
    orpo: Command, tiny_llama: Path, tmp_path: Path, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / "y").with_suffix(".jsonl").write_text('{"prompt": "why?"}\n')
    given = [f"{argument}.jsonl" if argument == "y" else argument for argument in arguments]
    outcome = orpo("eval", tiny_llama, *given)
    assert (outcome.exit_code, outcome.out) == (2, "")
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize("gate", ["win_rate>0.5", "num_flips<3", "ifeval/prompt_level_strict_acc>0.1", "accuracy>0.1"])
def test_a_gate_on_what_is_not_measured_ends_with_2(orpo: Command, tiny_llama: Path, questions: Path, gate: str) -> None:
    outcome = orpo("eval", tiny_llama, "--diversity", "--prompts", questions, "--require", gate)
    assert outcome.exit_code == 2
    assert "which is not measured" in outcome.err


def test_a_gate_on_flips_of_a_judge_without_an_order_ends_with_2_after_the_figures(
    orpo: Command, tiny_llama: Path, reward_run: Path, questions: Path
) -> None:
    arguments = ("--judge", reward_run, "--prompts", questions, "--max-new-tokens", 2, "--require", "num_flips<1")
    outcome = orpo("eval", tiny_llama, "--vs", tiny_llama, *arguments)
    assert outcome.exit_code == 2
    assert "win rate" in outcome.out
    assert "'num_flips', which is not measured" in outcome.err


def test_a_judge_with_a_chat_template_reads_prompt_and_reply_as_a_conversation(tiny_chat_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from orpo.core.records import Message, Source
    from orpo.core.tokens import TokenizedExample
    from orpo.data.prompts import Prompt
    from orpo.evaluation.judging import Contest
    from orpo.pipeline.scorers import scorer_of

    AutoModelForSequenceClassification.from_pretrained(tiny_chat_llama, num_labels=1).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat_llama)
    tokenizer.save_pretrained(tmp_path)
    turns = tuple(Message(role, text) for role, text in (("user", "a?"), ("assistant", "b."), ("user", "c?")))
    prompts = [Prompt(turns, Source("p.jsonl", 1)), Prompt("d?", Source("p.jsonl", 2))]
    found = scorer_of(str(tmp_path)).read([Contest(prompt, "Yes.", "No, never.") for prompt in prompts])
    asked = [[turn.as_dict() for turn in turns], [{"role": "user", "content": "d?"}]]
    for example, conversation in zip(found, asked, strict=True):
        assert isinstance(example, TokenizedExample)
        for ids, reply in zip(example.completions, ("Yes.", "No, never."), strict=True):
            whole = [*conversation, {"role": "assistant", "content": reply}]
            text = tokenizer.apply_chat_template(whole, tokenize=False).rstrip()
            assert [*example.prompt_ids.tolist(), *ids.tolist()] == tokenizer(text, add_special_tokens=False)["input_ids"]
