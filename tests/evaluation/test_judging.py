"""Decisions of scripted judges, and the win rate they come to, against values computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import factorial, isclose

import pytest

from orpo.core.records import Source
from orpo.data.prompts import Prompt
from orpo.data.world import world_pairs
from orpo.errors import ConfigError
from orpo.evaluation.judging import LOSS, TIE, WIN, Contest, Decision, decisions
from orpo.evaluation.oracle_judge import OracleJudge, question_of
from orpo.evaluation.win_rate import FIGURES, Share, are_matched, win_rate


@dataclass(frozen=True)
class Scripted:
    """A judge that says what `lead` says, and remembers what it was asked."""

    lead: Callable[[Contest], float]
    has_order: bool = False
    tie_within: float = 0.0
    name: str = "scripted"
    asked: list[tuple[str, str]] = field(default_factory=list)

    def leads(self, contests: Sequence[Contest]) -> list[float]:
        self.asked.extend((contest.first, contest.second) for contest in contests)
        return [self.lead(contest) for contest in contests]


def contests(*pairs: tuple[str, str]) -> list[Contest]:
    return [Contest(Prompt("why?", Source("p.jsonl", i + 1)), *pair) for i, pair in enumerate(pairs)]


def longer(contest: Contest) -> float:
    return float(len(contest.first) - len(contest.second))


def test_a_lead_within_the_threshold_is_a_tie_and_its_sign_decides_beyond_it() -> None:
    judge = Scripted(longer, tie_within=2.0)
    decided = decisions(judge, contests(("abcd", "a"), ("abc", "a"), ("a", "abcd"), ("a", "abc")))
    assert [decision.outcome for decision in decided] == [WIN, TIE, LOSS, TIE]


def test_the_same_text_twice_is_a_tie_that_no_judge_is_asked_about() -> None:
    judge = Scripted(lambda _: 1.0)
    assert decisions(judge, contests(("a", "a"), ("a", "b"), ("", ""))) == [Decision(TIE), Decision(WIN), Decision(TIE)]
    assert judge.asked == [("a", "b")]


def test_a_judge_with_an_order_is_asked_in_both_and_one_that_prefers_a_place_decides_nothing() -> None:
    judge = Scripted(lambda _: 1.0, has_order=True)
    decided = decisions(judge, contests(("a", "b"), ("c", "d")))
    assert judge.asked == [("a", "b"), ("c", "d"), ("b", "a"), ("d", "c")]
    assert decided == [Decision(TIE, has_flipped=True)] * 2


def test_a_judge_with_an_order_that_says_the_same_both_times_decides() -> None:
    decided = decisions(Scripted(longer, has_order=True), contests(("abc", "a"), ("a", "abc"), ("ab", "cd")))
    assert decided == [Decision(WIN), Decision(LOSS), Decision(TIE)]


def test_a_win_that_becomes_a_tie_in_the_other_order_is_a_flip_too() -> None:
    judge = Scripted(lambda contest: float(contest.first == "a"), has_order=True)
    assert decisions(judge, contests(("a", "b"))) == [Decision(TIE, has_flipped=True)]


def test_a_judge_without_an_order_is_asked_once() -> None:
    judge = Scripted(longer)
    decisions(judge, contests(("abc", "a")))
    assert judge.asked == [("abc", "a")]


def test_the_figures_are_those_computed_by_hand() -> None:
    decided = [Decision(outcome) for outcome in [WIN] * 5 + [TIE] * 2 + [LOSS] * 3]
    # Lengths differ by at most a tenth of the longer in the first, the second and the last contest.
    lengths = [(100, 90), (90, 100), (100, 89), (10, 40), (10, 40), (10, 40), (10, 40), (40, 10), (40, 10), (50, 50)]
    figures = win_rate(decided, lengths, has_order=False).figures()
    assert tuple(figures) == FIGURES
    assert (figures["num_prompts"], figures["wins"], figures["ties"], figures["losses"]) == (10, 5, 2, 3)
    assert figures["win_rate"] == pytest.approx(0.6)
    # Wilson for 6 of 10: (0.6 + 0.19207) / 1.38415 -+ 1.95996 sqrt(0.024 + 0.0096036) / 1.38415.
    assert (figures["win_rate_low"], figures["win_rate_high"]) == (pytest.approx(0.31267, abs=1e-4), pytest.approx(0.83182, abs=1e-4))
    assert (figures["length_matched/num_prompts"], figures["length_matched/win_rate"]) == (3, pytest.approx(2 / 3))
    assert (figures["mean_characters"], figures["mean_characters_other"]) == (46.0, 50.9)
    assert figures["num_flips"] is None


def test_flips_are_counted_for_a_judge_with_an_order() -> None:
    decided = [Decision(TIE, has_flipped=True), Decision(WIN), Decision(TIE)]
    figures = win_rate(decided, [(1, 9)] * 3, has_order=True).figures()
    assert figures["num_flips"] == 1
    assert figures["length_matched/num_prompts"] == 0
    assert figures["length_matched/win_rate"] is None, "a rate of nothing is none"


def exact_quantiles(share: Share) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the rate of a resample, from the multinomial distribution itself."""
    probabilities: dict[float, float] = {}
    for wins, ties in product(range(share.num + 1), repeat=2):
        losses = share.num - wins - ties
        if losses >= 0:
            ways = factorial(share.num) // (factorial(wins) * factorial(ties) * factorial(losses))
            chance = ways * (share.wins / share.num) ** wins * (share.ties / share.num) ** ties * (share.losses / share.num) ** losses
            rate = (wins + ties / 2) / share.num
            probabilities[rate] = probabilities.get(rate, 0.0) + chance
    assert isclose(sum(probabilities.values()), 1.0)
    seen, low, high = 0.0, None, None
    for rate in sorted(probabilities):
        seen += probabilities[rate]
        low = rate if low is None and seen >= 0.025 else low
        high = rate if high is None and seen >= 0.975 else high
    assert low is not None
    assert high is not None
    return low, high


@pytest.mark.parametrize("share", [Share(5, 2, 3), Share(9, 1, 10), Share(1, 0, 19)])
def test_the_bootstrap_interval_is_that_of_the_resampling_distribution(share: Share) -> None:
    low, high = share.bootstrap()
    exact = exact_quantiles(share)
    # One step of the rate is 0.5 / n: a quantile of a finite sample may fall on the next one.
    assert (low, high) == (pytest.approx(exact[0], abs=0.5 / share.num), pytest.approx(exact[1], abs=0.5 / share.num))
    assert share.bootstrap() == (low, high), "the draws are seeded"


def test_all_wins_have_a_bootstrap_interval_without_width_and_a_wilson_interval_with_one() -> None:
    share = Share(4, 0, 0)
    assert share.bootstrap() == (1.0, 1.0)
    # 1 / (1 + z^2 / 4)
    assert share.wilson == (pytest.approx(0.51011, abs=1e-4), 1.0)


@pytest.mark.parametrize(("first", "second", "matched"), [(0, 0, True), (0, 1, False), (9, 10, True), (89, 100, False), (100, 90, True)])
def test_lengths_are_matched_within_a_tenth_of_the_longer(first: int, second: int, matched: bool) -> None:
    assert are_matched(first, second) is matched
    assert are_matched(second, first) is matched


def world_contest(first: str | None = None, second: str | None = None) -> Contest:
    pair = world_pairs("held_out", 1, seed=0)[0]
    assert not isinstance(pair.chosen, str)
    assert not isinstance(pair.rejected, str)
    prompt = Prompt(pair.prompt, pair.source)
    return Contest(prompt, pair.chosen[0].content if first is None else first, pair.rejected[0].content if second is None else second)


def test_the_oracle_prefers_the_answer_that_the_world_calls_better() -> None:
    assert [d.outcome for d in decisions(OracleJudge(), [world_contest(), world_contest().swapped])] == [WIN, LOSS]
    assert decisions(OracleJudge(), [world_contest("Bananas!", "Apples!")]) == [Decision(TIE)], "two replies that are worth as little"


def test_the_oracle_refuses_a_prompt_of_another_world() -> None:
    with pytest.raises(ConfigError, match=r"p\.jsonl:3: 'Who are you\?' is not a question of the built-in world") as caught:
        question_of(Prompt("Who are you?", Source("p.jsonl", 3)))
    assert "--judge RUN" in str(caught.value)
