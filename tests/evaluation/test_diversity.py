"""Figures worked out by hand from the words of short texts, and the slow way over all pairs as an oracle."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import sqrt

import pytest

from orpo.evaluation.diversity import EMBEDDING, diversity_of, mean_cosine

# "a b": a, b, ^a, ab, b$ (length sqrt 5); "a c": a, c, ^a, ac, c$ (sqrt 5); they share a and ^a: 2 / 5.
# "x": x, ^x, x$ (sqrt 3), shared with nobody.


def test_the_same_text_is_alike_and_texts_without_a_common_word_are_not():
    assert mean_cosine(["the sky is blue", "The sky  is blue"]) == pytest.approx(1)
    assert mean_cosine(["a b", "x"]) == pytest.approx(0)


def test_neighbours_count_as_words_do():
    assert mean_cosine(["a b", "a c"]) == pytest.approx(2 / 5)
    # The same words the other way round: a and b are shared, no neighbour is.
    assert mean_cosine(["a b", "b a"]) == pytest.approx(2 / 5)


def test_a_word_said_twice_counts_twice():
    # "a a": a twice, ^a, aa, a$: length sqrt(4 + 3); "a": a, ^a, a$: sqrt 3; product 2 + 1 + 1.
    assert mean_cosine(["a a", "a"]) == pytest.approx(4 / sqrt(7 * 3))


def test_an_empty_reply_is_alike_to_another_and_to_nothing_else():
    assert mean_cosine(["", "  "]) == pytest.approx(1)
    assert mean_cosine(["", "a b"]) == pytest.approx(0)


def test_per_input_is_over_samples_of_a_prompt_and_across_inputs_over_first_samples():
    found = diversity_of([["a b", "a c"], ["x", "x"], ["a c", "x"]])
    assert found.per_input == pytest.approx((2 / 5 + 1 + 0) / 3)
    # first samples: a b, x, a c; of three pairs one has 2 / 5.
    assert found.across_inputs == pytest.approx(2 / 15)
    assert (found.num_prompts, found.num_samples, found.embedding) == (3, 2, EMBEDDING)


def test_the_sum_of_vectors_gives_what_all_pairs_give():
    texts = ["The answer is four.", "It is four!", "four", "I am glad that you ask. The answer is five.", "", "four four four"]

    def terms(text: str) -> Counter[object]:
        for mark in ".!":
            text = text.replace(mark, f" {mark} ")
        words = ["^", *text.lower().split(), "$"]
        return Counter([*words[1:-1], *((words[i], words[i + 1]) for i in range(len(words) - 1))])

    def cosine(left: Counter[object], right: Counter[object]) -> float:
        return sum(left[term] * right[term] for term in left) / sqrt(sum(n * n for n in left.values()) * sum(n * n for n in right.values()))

    slow = [cosine(terms(left), terms(right)) for left, right in combinations(texts, 2)]
    assert mean_cosine(texts) == pytest.approx(sum(slow) / len(slow))


@pytest.mark.parametrize("rows", [[["a", "b"]], [["a"], ["b"]], [["a", "b"], ["a", "b", "c"]]])
def test_too_few_or_unequal_samples_are_our_own_mistake(rows: list[list[str]]):
    with pytest.raises(AssertionError, match=r"at least two|equally many"):
        diversity_of(rows)
