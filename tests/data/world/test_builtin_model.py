import os
import socket

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from orpo.core.records import PreferencePair
from orpo.data.world import builtin_model_path, score_reply, world_pairs

PATH = builtin_model_path()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


def load():
    return AutoModelForCausalLM.from_pretrained(PATH)


def prompt_text(tokenizer, pair: PreferencePair) -> str:
    return tokenizer.apply_chat_template([pair.prompt[0].as_dict()], add_generation_prompt=True, tokenize=False)


def mean_logps(model, tokenizer, pairs: list[PreferencePair], side: str) -> torch.Tensor:
    """Mean log-prob of each completion, one row per pair."""
    rows = []
    for pair in pairs:
        prompt = tokenizer(prompt_text(tokenizer, pair))["input_ids"]
        rows.append((prompt, tokenizer(getattr(pair, side)[0].content + "<|im_end|>")["input_ids"]))
    ids = torch.full((len(rows), max(len(p) + len(c) for p, c in rows)), tokenizer.pad_token_id)
    mask = torch.zeros(ids.shape)
    for index, (prompt, completion) in enumerate(rows):
        ids[index, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        mask[index, len(prompt) : len(prompt) + len(completion)] = 1
    logps = model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (logps * mask[:, 1:]).sum(1) / mask.sum(1)


def train(model, tokenizer, num_steps: int, beta: float) -> None:
    """A few steps on chosen replies, with the odds ratio term of the ORPO paper (eq. 6) at weight beta."""
    pairs = world_pairs("train", 8 * num_steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.0)
    for step in range(num_steps):
        batch = pairs[8 * step : 8 * step + 8]
        chosen = mean_logps(model, tokenizer, batch, "chosen")
        loss = -chosen.mean()
        if beta:
            rejected = mean_logps(model, tokenizer, batch, "rejected")
            log_odds = (chosen - torch.log1p(-chosen.exp())) - (rejected - torch.log1p(-rejected.exp()))
            loss = loss - beta * F.logsigmoid(log_odds).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def greedy_replies(model, tokenizer, pairs: list[PreferencePair]) -> list[str]:
    batch = tokenizer([prompt_text(tokenizer, pair) for pair in pairs], return_tensors="pt", padding=True, padding_side="left")
    made = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40)
    return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_loads_without_network_as_float32_with_one_to_two_million_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the built-in model reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = load()
    assert 1_000_000 <= model.num_parameters() <= 2_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert len(AutoTokenizer.from_pretrained(PATH)) == model.config.vocab_size == 1024


def test_its_files_stay_under_six_megabytes() -> None:
    assert sum(file.stat().st_size for file in PATH.iterdir()) < 6e6
    assert all(os.access(file, os.R_OK) and file.stat().st_mode & 0o044 for file in PATH.iterdir())


def test_the_tokenizer_gives_back_every_text_of_the_world_and_any_other(tokenizer) -> None:
    texts = [
        text for pair in world_pairs("held_out", 300) for text in (pair.prompt[0].content, pair.chosen[0].content, pair.rejected[0].content)
    ]
    for text in [*texts, "Grüße, 日本 🙂\n\ttabs  and  spaces"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_text_of_the_world_is_short_in_tokens(tokenizer) -> None:
    lengths = [len(tokenizer(pair.chosen[0].content)["input_ids"]) for pair in world_pairs("train", 300)]
    assert max(lengths) <= 40
    assert sum(lengths) / len(lengths) < 20


def test_the_chat_template_writes_turns_and_the_prompt_is_a_prefix_of_the_conversation_in_tokens(tokenizer) -> None:
    turns = [{"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "Sure! 2 plus 3 is 5."}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == "<|im_start|>user\nWhat is 2 plus 3?<|im_end|>\n<|im_start|>assistant\nSure! 2 plus 3 is 5.<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    prompt_ids, whole_ids = tokenizer(prompt)["input_ids"], tokenizer(whole)["input_ids"]
    assert whole_ids[: len(prompt_ids)] == prompt_ids
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_the_base_model_answers_fluently_but_seldom_as_one_would_like(tokenizer) -> None:
    pairs = world_pairs("held_out", 100)
    scores = [
        score_reply(pair.prompt[0].content, reply) for pair, reply in zip(pairs, greedy_replies(load(), tokenizer, pairs), strict=True)
    ]
    unknown = sum(any(note.startswith(("beside", "breaks off")) for note in score.notes) for score in scores)
    assert unknown <= 5
    assert sum(score.perfect for score in scores) <= 40
    assert sum(score.correct for score in scores) >= 60


def test_sft_lifts_rejected_replies_too_and_orpo_holds_them_back_while_both_learn_the_chosen(tokenizer) -> None:
    held_out = world_pairs("held_out", 40)
    change = {}
    for name, beta in (("sft", 0.0), ("orpo", 1.0)):
        torch.manual_seed(0)
        model = load()
        with torch.no_grad():
            before = {side: mean_logps(model, tokenizer, held_out, side) for side in ("chosen", "rejected")}
        train(model, tokenizer, num_steps=20, beta=beta)
        with torch.no_grad():
            after = {side: mean_logps(model, tokenizer, held_out, side) for side in ("chosen", "rejected")}
        change[name] = {side: (after[side] - before[side]).mean().item() for side in before}
        accuracy = (after["chosen"] > after["rejected"]).float().mean().item()
    assert change["sft"]["chosen"] > 0.1
    assert change["sft"]["rejected"] > 0.03
    assert change["orpo"]["chosen"] > 0.1
    margin = {name: sides["chosen"] - sides["rejected"] for name, sides in change.items()}
    assert margin["orpo"] > margin["sft"] + 0.1
    assert accuracy > 0.85
