import hashlib
import json
import subprocess
import sys

import pytest

from orpo.core.records import PreferencePair, Source
from orpo.data.world import score_reply, world_pairs, write_world_jsonl
from orpo.data.world.draw import Draw
from orpo.data.world.families import FAMILIES, read_task
from orpo.data.world.tasks import draw_task
from orpo.errors import ConfigError, DataError

NUM_MANY = 1500
SPLITS = ("train", "held_out", "held_out_families")


def texts(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.prompt[0].content, pair.chosen[0].content, pair.rejected[0].content


def many(seed: int = 0) -> list[PreferencePair]:
    return [pair for split in SPLITS for pair in world_pairs(split, NUM_MANY, seed=seed)]


def test_the_same_seed_gives_the_same_text_as_on_the_day_the_model_was_made() -> None:
    text = "\n".join("\t".join((*texts(pair), pair.metadata["flaw"])) for pair in many())
    assert hashlib.sha256(text.encode()).hexdigest() == "e662ec4e9024dd94434d2d3472b0ebdc8bb36d2324425f58760c6a308b842207"


def test_another_seed_gives_other_pairs() -> None:
    assert [texts(p) for p in world_pairs("train", 50, seed=1)] != [texts(p) for p in world_pairs("train", 50, seed=2)]


def test_fewer_pairs_are_the_beginning_of_more() -> None:
    assert world_pairs("train", 300)[:40] == world_pairs("train", 40)


def test_every_chosen_reply_gets_full_marks_and_every_rejected_one_less() -> None:
    for seed in (0, 1):
        for pair in many(seed):
            prompt, chosen, rejected = texts(pair)
            assert score_reply(prompt, chosen).total == 1.0, (prompt, chosen)
            assert score_reply(prompt, rejected).total <= 0.75, (prompt, rejected)


def test_the_flaw_named_in_the_metadata_is_the_one_the_oracle_finds() -> None:
    for pair in many():
        prompt, _, rejected = texts(pair)
        score = score_reply(prompt, rejected)
        found = (score.correct, score.kind, score.direct)
        if pair.metadata["flaw"] == "stiff":
            assert found == (True, False, True), rejected
        elif pair.metadata["flaw"] == "wrong":
            assert found == (False, True, True), rejected
        else:
            assert found[1:] == (False, False), rejected


def test_train_and_held_out_share_no_prompt_and_no_fact_whatever_the_seed() -> None:
    facts = {
        split: {read_task(texts(pair)[0]).truth.item for seed in (0, 1) for pair in world_pairs(split, NUM_MANY, seed=seed)}
        for split in SPLITS
    }
    assert not facts["train"] & facts["held_out"]
    assert len(facts["held_out"]) > 100


def test_held_out_families_occur_in_no_other_split_and_every_family_occurs_where_it_belongs() -> None:
    names = {split: {pair.metadata["family"] for pair in world_pairs(split, 400)} for split in SPLITS}
    assert names["train"] == names["held_out"] == {family.name for family in FAMILIES if not family.held_out}
    assert names["held_out_families"] == {"past", "last word", "count"}


def test_prompts_of_one_call_differ_from_each_other() -> None:
    for split in SPLITS:
        prompts = [texts(pair)[0] for pair in world_pairs(split, 400)]
        assert len(set(prompts)) == 400


def test_chosen_and_rejected_state_their_answer_in_the_same_words_so_that_wording_does_not_tell_them_apart() -> None:
    for pair in world_pairs("train", 400):
        prompt, chosen, rejected = texts(pair)
        task = read_task(prompt)
        frames = [task.statements("\0").index(frame) for frame in task.statements("\0") if _states(task, frame, chosen)]
        assert any(_states(task, task.statements("\0")[frame], rejected) for frame in frames), (chosen, rejected)


def _states(task, frame: str, reply: str) -> bool:
    return any(frame.replace("\0", answer).lower() in reply.lower() for answer in (task.truth.answer, task.truth.mistake))


def test_a_question_is_read_back_as_the_task_it_was_made_from() -> None:
    draw = Draw("reading back")
    for family in FAMILIES:
        for _ in range(200):
            task = draw_task(family, draw)
            assert read_task(task.question) == task


def test_answers_are_true_by_an_account_that_does_not_use_the_generator() -> None:
    for pair in world_pairs("train", 600):
        prompt, chosen, _ = texts(pair)
        numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in prompt).split()]
        said = [int(word) for word in "".join(c if c.isdigit() else " " for c in chosen).split()]
        if pair.metadata["family"] == "sum":
            assert sum(numbers) in said
        if pair.metadata["family"] == "larger":
            assert said[-1] == max(numbers)
    assert score_reply("What is the plural of mouse?", "Sure! The plural of mouse is mice.").total == 1.0
    assert score_reply("What comes after Sunday?", "Sure! After Sunday comes Monday.").total == 1.0
    assert score_reply("What comes after December?", "Sure! After December comes January.").total == 1.0
    assert score_reply("Count the words: sun, tree, moon.", "Sure! The number of words is 3.").total == 1.0


def test_a_pair_knows_where_it_comes_from() -> None:
    assert world_pairs("train", 2)[1].source == Source("built-in world", 2, is_line=False)


def test_an_unknown_split_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="held_out_families"):
        world_pairs("test", 3)  # type: ignore[arg-type]


def test_the_file_holds_message_lists_with_family_and_flaw_one_object_per_line(tmp_path) -> None:
    pairs = world_pairs("train", 5)
    write_world_jsonl(tmp_path / "world.jsonl", pairs)
    rows = [json.loads(line) for line in (tmp_path / "world.jsonl").read_text().splitlines()]
    prompt, chosen, rejected = texts(pairs[3])
    assert len(rows) == 5
    assert rows[3] == {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "family": pairs[3].metadata["family"],
        "flaw": pairs[3].metadata["flaw"],
    }


def test_the_world_is_imported_without_torch_and_transformers() -> None:
    code = "import sys, orpo.data.world; print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_prompt_from_elsewhere_is_an_error_that_shows_it() -> None:
    with pytest.raises(DataError, match="Who won the match"):
        score_reply("Who won the match?", "Sure!")
