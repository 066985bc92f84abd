"""Whether the longer answer wins: shares, means and the rule for a warning, by hand."""

from __future__ import annotations

import pytest

from orpo.data.checks import check_data
from orpo.data.length_bias import FEWEST_PAIRS, LengthCounts, length_sentence


def counted(*pairs: tuple[int, int]) -> LengthCounts:
    counts = LengthCounts("tokens")
    for chosen, rejected in pairs:
        counts.add(chosen, rejected)
    return counts


def test_figures_are_those_of_the_pairs_and_the_share_leaves_equal_lengths_out():
    figures = counted((5, 3), (9, 3), (4, 4), (2, 6)).figures()
    assert (figures["pairs"], figures["chosen_longer"], figures["chosen_shorter"]) == (4, 2, 1)
    assert figures["longer_share"] == round(2 / 3, 4)
    assert (figures["mean_chosen"], figures["mean_rejected"], figures["mean_difference"]) == (5.0, 4.0, 1.0)
    # Wilson's interval of 2 in 3: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96
    assert (figures["longer_share_low"], figures["longer_share_high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert length_sentence(figures).startswith(
        "chosen is the longer one in 67 % of pairs of unequal length (95 % interval 21-94); on average"
    )


def test_pairs_of_equal_length_have_no_share_and_no_pairs_have_no_figures():
    figures = counted((3, 3)).figures()
    assert figures["longer_share"] is None
    assert "the same length in every pair" in length_sentence(figures)
    assert LengthCounts("tokens").figures() == {}


@pytest.mark.parametrize(
    ("num_longer", "num_shorter", "is_lopsided"),
    [
        (FEWEST_PAIRS, 0, True),
        (FEWEST_PAIRS - 1, 0, False),  # too few to say
        (600, 400, False),  # the share is the threshold; its interval lies on both sides
        (640, 360, True),  # 0.640, interval 0.610-0.669
        (360, 640, True),
        (500, 500, False),
    ],
)
def test_it_is_lopsided_when_the_whole_interval_lies_beyond_the_threshold(num_longer, num_shorter, is_lopsided):
    assert counted(*[(2, 1)] * num_longer, *[(1, 2)] * num_shorter).is_lopsided is is_lopsided


def test_the_check_warns_in_tokens_with_a_tokenizer_and_in_characters_without(byte_tokenizer, tmp_path):
    import json

    rows = [{"prompt": f"What is {number}?", "chosen": " it is the sea" + "!" * (number % 3), "rejected": " no"} for number in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for tokenizer, unit, rejected in ((None, "characters", 3.0), (byte_tokenizer, "tokens", None)):
        report = check_data([str(tmp_path / "a.jsonl")], tokenizer=tokenizer).report
        assert (report.lengths["unit"], report.lengths["longer_share"], report.warnings["length-bias"]) == (unit, 1.0, 1)
        assert rejected is None or (report.lengths["mean_chosen"], report.lengths["mean_rejected"]) == (15.0, rejected)
        (finding,) = (finding for finding in report.findings if finding.kind == "length-bias")
        assert "in 100 % of pairs" in finding.message
        assert finding.effect
        assert finding.fix
