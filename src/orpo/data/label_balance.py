"""What labels say about a data set as a whole: counts and hashes enter; weights that even the labels out, and possible pairs, leave."""

from __future__ import annotations

from array import array
from math import ceil, floor

import numpy as np

LOWEST, HIGHEST = 0.9, 1.5
"""Desirable answers per undesirable one that need no weights. KTO (arXiv:2402.01306) asks for desirable_weight x desirable between 1 and
1.5 times undesirable_weight x undesirable (its first version: 1 to 4/3); a few per cent under 1 are not worth a warning."""


def balancing_weights(num_desirable: int, num_undesirable: int) -> tuple[float, float]:
    """(desirable_weight, undesirable_weight), one of them 1, the other 1 or more, with two decimals.

    With them, weight x count of desirable answers is between 1 and 4/3 times that of undesirable ones; (1, 1) where the counts are
    between LOWEST and HIGHEST already, or one of them is 0: no weight makes up for a label that is missing.
    """
    if not num_desirable or not num_undesirable or LOWEST <= num_desirable / num_undesirable <= HIGHEST:
        return 1.0, 1.0
    if num_desirable < num_undesirable:
        return ceil(100 * num_undesirable / num_desirable) / 100, 1.0
    return 1.0, floor(100 * num_desirable / num_undesirable) / 100


def num_possible_pairs(groups: array[int], is_desirable: array[int]) -> int:
    """How many pairs the answers give when each desirable one is paired with an undesirable one of its group (64-bit hashes)."""
    if not groups:
        return 0
    _, group = np.unique(np.frombuffer(groups, dtype=np.uint64), return_inverse=True)
    num_all = np.bincount(group)
    num_good = np.bincount(group[np.frombuffer(is_desirable, dtype=np.int8) != 0], minlength=len(num_all))
    return int(np.minimum(num_good, num_all - num_good).sum())


def label_figures(num_desirable: int, num_undesirable: int, possible_pairs: int) -> dict[str, int | float]:
    """The figures of labelled data as a report has them."""
    desirable_weight, undesirable_weight = balancing_weights(num_desirable, num_undesirable)
    return {
        "desirable": num_desirable,
        "undesirable": num_undesirable,
        "desirable_weight": desirable_weight,
        "undesirable_weight": undesirable_weight,
        "possible_pairs": possible_pairs,
    }


def label_warnings(num_desirable: int, num_undesirable: int, possible_pairs: int) -> list[tuple[str, int, str]]:
    """What is worth a warning about labelled data: (kind, how many, message)."""
    counts = f"{num_desirable:,} answers are desirable, {num_undesirable:,} undesirable"
    if num_desirable + num_undesirable == 0:
        return []
    warnings = []
    desirable_weight, undesirable_weight = balancing_weights(num_desirable, num_undesirable)
    if not num_desirable or not num_undesirable:
        warnings.append(("one-label", num_desirable + num_undesirable, f"{counts}: an objective for labelled answers learns from both"))
    elif desirable_weight != undesirable_weight:
        weights = f"desirable_weight {desirable_weight:g} with undesirable_weight {undesirable_weight:g}"
        rule = "desirable_weight x desirable should be 1 to 1.5 times undesirable_weight x undesirable"
        warnings.append(("lopsided-labels", 1, f"{counts}: {weights} evens them out (KTO: {rule})"))
    if possible_pairs:
        message = f"{possible_pairs:,} pairs can be made of rows that share a prompt, for objectives that read pairs: --pair-labelled"
        warnings.append(("possible-pairs", possible_pairs, message))
    return warnings
