"""Sketches estimate how much two texts have in common, and what is nearly the same is found by them."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from orpo.core.records import Message, Source
from orpo.data.example import Example
from orpo.data.likeness import ALIKE, likeness, near_prompts
from orpo.data.sketches import EMPTY, MAX_CHARACTERS, SketchFile, sketches_of

WORDS = [f"word{number}" for number in range(2000)]
SOURCE = Source("a.jsonl", 1)


def example(prompt: str, *answers: str) -> Example:
    return Example(prompt, answers, SOURCE)


def text(numbers: random.Random, num: int) -> str:
    return " ".join(numbers.choice(WORDS) for _ in range(num))


def changed(numbers: random.Random, words: str, num: int) -> str:
    """`words` with `num` of them replaced."""
    parts = words.split()
    for place in numbers.sample(range(len(parts)), num):
        parts[place] = f"new{place}"
    return " ".join(parts)


def windows(words: str) -> set[bytes]:
    """The definition: 16 bytes from each start of a word, letters and digits alone, case folded."""
    folded = re.sub(r"[^a-z0-9]", "\0", words.lower()).encode() + bytes(16)
    return {folded[match.start() : match.start() + 16] for match in re.finditer(rb"(?<![a-z0-9])[a-z0-9]", folded)}


def estimate(first: str, second: str) -> float:
    """The share of windows in common that two sketches give."""
    one, two = sketches_of([example(first), example(second)])[:, 0]
    return float(np.sum((one == two) & (one != EMPTY)) / np.sum((one != EMPTY) | (two != EMPTY)))


@pytest.mark.parametrize("num_changed", [0, 4, 20, 60, 200])
def test_the_share_of_bins_that_agree_is_that_of_windows_in_common_within_its_error(num_changed):
    numbers = random.Random(num_changed)
    shares, estimates = [], []
    for _ in range(60):
        first = text(numbers, 200)
        second = changed(numbers, first, num_changed)
        shares.append(len(windows(first) & windows(second)) / len(windows(first) | windows(second)))
        estimates.append(estimate(first, second))
    # A mean of 60 sketches of 64 bins: its standard error is below 0.5 / sqrt(60 * 64) = 0.008, and 1 bin in 128 agrees by chance.
    assert np.mean(estimates) == pytest.approx(np.mean(shares), abs=0.03)


def test_case_and_punctuation_count_for_nothing_and_words_do():
    one, same, other = sketches_of([example("Hello, World: a-b!"), example("hello. world? a b"), example("hello world a c")])[:, 0]
    assert (one == same).all()
    assert (one != other).any()


def test_scripts_without_spaces_are_cut_at_each_character():
    first = "これは長い文章であり多くの文字を含むので一文字だけ変えてもほとんど同じである"
    assert estimate(first, first.replace("長", "短")) > 0.6
    assert estimate(first, "全く別の内容を持つ文章はここから始まり何も共有しないはずだと思われます") < 0.2


def test_chosen_and_rejected_in_exchange_are_other_answers_and_the_prompt_is_a_half_of_its_own():
    answers = [" ".join(WORDS[start : start + 30]) for start in (0, 40)]
    one, exchanged = sketches_of([example("What is it?", *answers), example("What is it?", *reversed(answers))])
    assert (one[0] == exchanged[0]).all()
    assert ((one[1] == exchanged[1]) & (one[1] != EMPTY)).mean() < 0.1


def test_a_system_text_that_many_rows_share_does_not_make_their_prompts_alike():
    system = Message("system", " ".join(WORDS[:100]))
    chats = [Example((system, Message("user", words)), ((Message("assistant", "a"),),), SOURCE) for words in ("one two", "three four")]
    plain = [example("one two", "a"), example("three four", "a")]
    assert (sketches_of(chats) == sketches_of(plain)).all()


def test_sketches_do_not_depend_on_what_is_sketched_beside_them_and_an_empty_text_has_none():
    numbers = random.Random(0)
    rows = [example(text(numbers, num), text(numbers, 9), text(numbers, num)) for num in range(1, 80)] + [example("?", "", "b")]
    file = SketchFile()
    for row in rows:
        file.append(row)
    alone = np.concatenate([sketches_of([row]) for row in rows])
    assert (file.rows(np.arange(len(rows))) == alone).all()
    assert (alone[-1, 0] == EMPTY).all()
    for half in (0, 1):
        assert file.num_bins(half).tolist() == (alone[:, half] != EMPTY).sum(axis=1).tolist()
        bands = np.concatenate([file.bands(half, quarter) for quarter in range(4)]).T
        bins = alone[:, half].reshape(-1, 16, 4)
        is_rich = (bins != EMPTY).sum(axis=2) != 1
        assert (bands[is_rich] == np.ascontiguousarray(bins).view(np.uint32)[..., 0][is_rich]).all()


def test_no_more_than_the_first_characters_are_read():
    start = "word " * (MAX_CHARACTERS // 5 + 1)
    assert estimate(start + "one thing", start + "quite another") == 1


def found_in(rows: list[Example]) -> tuple[list[bool], list[bool]]:
    """What likeness marks: prompts, wholes. Hashes are those of the texts."""
    file = SketchFile()
    for row in rows:
        file.append(row)
    prompts = np.array([hash(row.prompt) & (2**64 - 1) for row in rows], dtype=np.uint64)
    wholes = np.array([hash((row.prompt, row.completions)) & (2**64 - 1) for row in rows], dtype=np.uint64)
    found = likeness(file, prompts, wholes)
    return found.prompts.tolist(), found.wholes.tolist()


def test_rows_that_nearly_repeat_an_earlier_one_are_marked_prompt_and_whole():
    numbers = random.Random(3)
    prompt, chosen, rejected, other = (text(numbers, 40) for _ in range(4))
    near = changed(numbers, prompt, 1)
    rows = [
        example(prompt, chosen, rejected),
        example(near, changed(numbers, chosen, 1), rejected),  # all of it nearly
        example(near, other, rejected),  # a prompt that was there, to the letter; answers that were not
        example(prompt, chosen, rejected),  # a duplicate
        example(other, chosen, rejected),  # answers that were there to another prompt
        example(prompt, changed(numbers, chosen, 2), rejected),  # the same prompt, answers nearly
        example(changed(numbers, prompt, 20), chosen, rejected),  # half of the prompt is another
    ]
    assert found_in(rows) == ([False, True] + [False] * 5, [False, True, False, False, False, True, False])


def test_short_texts_are_never_nearly_the_same_and_short_answers_must_be_the_same():
    short = [example(f"What is {number}?", " yes", " no") for number in range(300)]
    assert not any(map(any, found_in(short)))
    prompt = " ".join(WORDS[:40])
    rows = [example(prompt, " yes", " no"), example(f"{prompt} now", " yes", " no"), example(f"{prompt} then", " no", " yes")]
    assert found_in(rows) == ([False, True, True], [False, True, False])


def test_nearly_all_of_many_near_repeats_are_found_and_hardly_any_other_row():
    numbers = random.Random(5)
    firsts = [example(text(numbers, 60), text(numbers, 60), text(numbers, 60)) for _ in range(500)]
    near = [example(*(changed(numbers, str(part), 2) for part in (row.prompt, *row.completions))) for row in firsts]
    prompts, wholes = found_in([*firsts, *near])
    assert not any(prompts[:500] + wholes[:500])
    # Two of 60 words: about 6 of 66 windows differ either way, a share of 0.83 or so against the threshold of 0.7.
    assert ALIKE == 0.7
    assert sum(prompts[500:]) > 490
    assert sum(wholes[500:]) > 490


def test_held_out_prompts_near_a_trained_one_are_found_among_the_rows_that_are_meant():
    numbers = random.Random(7)
    firsts = [example(text(numbers, 40), "a", "b") for _ in range(40)]
    file, other = SketchFile(), SketchFile()
    for row in firsts:
        file.append(row)
        other.append(example(changed(numbers, str(row.prompt), 1), "c", "d"))
    trained, held = np.arange(0, 40, 2), np.arange(10)
    assert near_prompts(file, trained, other, held).tolist() == [True, False] * 5
    assert near_prompts(file, np.arange(0), other, held).tolist() == [False] * 10
    assert near_prompts(file, trained, file, np.array([1, 2])).tolist() == [False, True]
