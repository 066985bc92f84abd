"""Weights for lopsided labels, and how many pairs labelled answers could give."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.data.label_balance import balancing_weights, label_warnings, num_possible_pairs


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((100, 100), (1, 1)), ((90, 100), (1, 1)), ((150, 100), (1, 1)), ((100, 300), (3, 1)), ((400, 100), (1, 4)), ((7, 0), (1, 1))],
)
def test_weights_even_out_what_is_lopsided_and_leave_the_rest(counts, weights):
    assert balancing_weights(*counts) == weights


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_weighted_counts_are_as_far_apart_as_the_paper_allows(num_desirable, num_undesirable):
    desirable_weight, undesirable_weight = balancing_weights(num_desirable, num_undesirable)
    ratio = desirable_weight * num_desirable / (undesirable_weight * num_undesirable)
    assert min(desirable_weight, undesirable_weight) == 1
    assert (0.9 if desirable_weight == undesirable_weight else 1) - 1e-9 <= ratio <= 1.5
    assert desirable_weight == undesirable_weight or ratio <= 4 / 3


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_possible_pairs_are_the_rarer_label_of_each_group_summed(answers):
    groups, labels = array("Q", [group for group, _ in answers]), array("b", [label for _, label in answers])
    expected = sum(min(answers.count((group, True)), answers.count((group, False))) for group in range(4))
    assert num_possible_pairs(groups, labels) == expected


def test_lopsided_labels_are_told_with_the_weights_to_set():
    ((kind, num, message),) = label_warnings(20, 90, 0)
    assert (kind, num) == ("lopsided-labels", 1)
    assert "20 answers are desirable, 90 undesirable: desirable_weight 4.5 with undesirable_weight 1 evens them out" in message
    assert label_warnings(90, 90, 0) == label_warnings(0, 0, 0) == []


@pytest.mark.parametrize("counts", [(5, 0), (0, 5)])
def test_a_label_that_is_missing_is_told(counts):
    ((kind, num, message),) = label_warnings(*counts, 0)
    assert (kind, num) == ("one-label", 5)
    assert "learns from both" in message


def test_pairs_that_could_be_made_are_offered_with_their_number():
    ((kind, num, message),) = label_warnings(1200, 1200, 1100)
    assert (kind, num) == ("possible-pairs", 1100)
    assert "1,100 pairs can be made" in message
    assert "--pair-labelled" in message
