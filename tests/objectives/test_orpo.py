"""The ORPO loss against the paper written out by hand, its closed-form gradient, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import Loss, step_loss
from orpo.errors import ConfigError
from orpo.objectives.orpo import orpo
from orpo.objectives.sft import sft
from orpo.objectives.stable import log_odds

Pairs = Callable[..., PairLogps]
Means = Callable[[Tensor, Tensor], PairLogps]

EDGES = [-50.0, -1.0, -1e-3, -1e-6, -1e-8, 0.0]
COMBINATIONS = list(product(("completion", "prompt+completion"), ("sequence", "token"), (1.0, 0.3)))


def counts_of(policy: PairLogps) -> dict[str, int]:
    """The step-wide counts if `policy` is the whole step."""
    chosen, prompt = int(policy.chosen.num_tokens.sum()), int(policy.prompt.num_tokens.sum())
    return {"pairs": len(policy.chosen.total), "chosen_tokens": chosen, "prompt_and_chosen_tokens": chosen + prompt}


def paper_loss(chosen: list[float], rejected: list[float], beta: float) -> float:
    """Equations 3 to 7 in plain floats, from log-probs of each token of one pair."""
    p_chosen = math.exp(sum(chosen) / len(chosen))  # eq. 3: log P = 1/m sum log p
    p_rejected = math.exp(sum(rejected) / len(rejected))
    odds_chosen, odds_rejected = p_chosen / (1 - p_chosen), p_rejected / (1 - p_rejected)  # eq. 4
    ratio = odds_chosen / odds_rejected  # eq. 5
    loss_or = -math.log(1 / (1 + math.exp(-math.log(ratio))))  # eq. 7
    return -sum(chosen) / len(chosen) + beta * loss_or  # eq. 6


def test_the_loss_is_equations_3_to_7_of_the_paper(pairs: Pairs) -> None:
    chosen = [[-0.2, -1.1, -0.7], [-2.0], [-0.4, -0.01]]
    rejected = [[-3.0, -0.3], [-1.9, -0.1, -0.2, -5.0], [-0.5]]
    totals = [torch.tensor([sum(row) for row in rows], dtype=torch.float64) for rows in (chosen, rejected)]
    policy = pairs((*totals, torch.zeros(3, dtype=torch.float64)), ([3, 1, 2], [2, 4, 1], [0, 0, 0]))
    expected = sum(paper_loss(*pair, 0.25) for pair in zip(chosen, rejected, strict=True)) / 3
    assert step_loss(orpo(policy, beta=0.25), counts_of(policy)).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("nll_over", "nll_average", "expected"),
    [
        ("completion", "sequence", (6.0 / 3 + 2.0 / 1) / 2),
        ("completion", "token", (6.0 + 2.0) / (3 + 1)),
        ("prompt+completion", "sequence", ((6.0 + 4.0) / (3 + 2) + (2.0 + 1.0) / (1 + 5)) / 2),
        ("prompt+completion", "token", (6.0 + 4.0 + 2.0 + 1.0) / (3 + 2 + 1 + 5)),
    ],
)
def test_each_choice_of_likelihood_is_the_average_worked_out_by_hand(
    pairs: Pairs, nll_over: Any, nll_average: Any, expected: float
) -> None:
    totals = [torch.tensor(column, dtype=torch.float64) for column in ([-6.0, -2.0], [-1.0, -1.0], [-4.0, -1.0])]
    policy = pairs(tuple(totals), ([3, 1], [1, 1], [2, 5]))
    loss = orpo(policy, beta=0.0, nll_over=nll_over, nll_average=nll_average)
    counts = counts_of(policy)
    assert step_loss(loss, counts).item() == pytest.approx(expected, rel=1e-14)
    nll = loss.metrics["nll_loss"]
    assert (nll.total / counts[nll.unit]).item() == pytest.approx(expected, rel=1e-14)


def test_autograd_gives_minus_delta_h(means: Means) -> None:
    """The paper prints grad L_OR = delta * h; L_OR is a minus log, so descent on the printed sign would raise the rejected answer."""
    a_w = torch.tensor([-0.1, -2.0, -0.5, -7.0], dtype=torch.float64, requires_grad=True)
    a_l = torch.tensor([-0.3, -0.4, -6.0, -7.0], dtype=torch.float64, requires_grad=True)
    orpo(means(a_w, a_l)).terms[1].total.backward()
    p_w, p_l = a_w.detach().exp(), a_l.detach().exp()
    delta = 1 / (1 + (p_w / (1 - p_w)) / (p_l / (1 - p_l)))
    assert a_w.grad is not None
    assert a_l.grad is not None
    # h = grad log P_w / (1 - P_w) - grad log P_l / (1 - P_l), and log P is the leaf itself.
    torch.testing.assert_close(a_w.grad, -delta / (1 - p_w), rtol=1e-12, atol=0)
    torch.testing.assert_close(a_l.grad, +delta / (1 - p_l), rtol=1e-12, atol=0)


def test_the_odds_term_is_the_identity_in_probabilities(means: Means) -> None:
    """L_OR = -log P_w - log(1 - P_l) + log(P_w + P_l - 2 P_w P_l)."""
    generator = torch.Generator().manual_seed(3)
    p_w, p_l = torch.rand(2, 200, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    expected = -p_w.log() - (1 - p_l).log() + (p_w + p_l - 2 * p_w * p_l).log()
    actual = orpo(means(p_w.log(), p_l.log())).terms[1].total
    assert actual.item() == pytest.approx(expected.sum().item(), rel=1e-9)


@pytest.mark.parametrize(("nll_over", "nll_average", "temperature"), COMBINATIONS)
def test_gradients_are_right_for_every_combination_of_options(
    pairs: Pairs, eight: Any, nll_over: Any, nll_average: Any, temperature: float
) -> None:
    leaves, counts = eight

    def whole_step(*totals: Tensor) -> Tensor:
        policy = pairs(totals, counts)
        loss = orpo(policy, beta=0.7, nll_over=nll_over, nll_average=nll_average, odds_temperature=temperature)
        return step_loss(loss, counts_of(policy))

    assert torch.autograd.gradcheck(whole_step, leaves, eps=1e-6, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("chosen", EDGES)
@pytest.mark.parametrize("rejected", EDGES)
def test_loss_and_gradients_are_finite_where_the_model_is_certain(means: Means, chosen: float, rejected: float) -> None:
    assert_finite(means, chosen, rejected)


@given(chosen=st.floats(-1e300, 0.0), rejected=st.floats(-1e300, 0.0))
def test_loss_and_gradients_are_finite_for_all_log_probs(chosen: float, rejected: float) -> None:
    assert_finite(one_token_pair, chosen, rejected)


def one_token_pair(chosen: Tensor, rejected: Tensor) -> PairLogps:
    """One pair of one-token completions. A fixture would be made once for all of hypothesis' examples."""
    return PairLogps(*(CompletionLogps(total, torch.ones(1)) for total in (chosen, rejected, torch.zeros(1))))


def assert_finite(means: Means, chosen: float, rejected: float) -> None:
    """The odds term is finite, does not push the chosen answer down, nor the rejected one up."""
    a_w, a_l = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected))
    loss = orpo(means(a_w, a_l))
    (gradient_w, gradient_l) = torch.autograd.grad(loss.terms[1].total, (a_w, a_l))
    assert all(term.total.isfinite() for term in loss.terms)
    assert all(metric.total.isfinite() for metric in loss.metrics.values())
    assert -math.inf < gradient_w.item() <= 0 <= gradient_l.item() < math.inf


def test_a_rejected_answer_the_model_is_certain_of_is_still_pushed_down(means: Means) -> None:
    """From fp32 logits whose softmax is exactly 1, descent on the odds term alone brings the rejected answer down."""
    logits = torch.tensor([[18.0, 0.0, 0.0]], requires_grad=True)
    assert torch.log_softmax(logits, -1)[0, 0].item() == 0.0
    chosen = torch.tensor([-1.0])
    for _ in range(20):
        loss = orpo(means(chosen, torch.log_softmax(logits, -1)[:, 0]), beta=1.0)
        (gradient,) = torch.autograd.grad(loss.terms[1].total, logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert torch.log_softmax(logits, -1)[0, 0].item() < -0.5


def test_a_chosen_answer_the_model_is_certain_of_gets_a_bounded_pull(means: Means) -> None:
    """The pull on the logits is delta in the limit, about odds(rejected) * (1 - P_w): none, and no noise from dividing by 1 - P."""
    logits = torch.tensor([[18.0, 0.0, 0.0]], requires_grad=True)
    loss = orpo(means(torch.log_softmax(logits, -1)[:, 0], torch.tensor([-1.0])), beta=1.0)
    (gradient,) = torch.autograd.grad(loss.terms[1].total, logits)
    assert gradient.abs().max().item() < 1e-6


@pytest.mark.parametrize(("nll_over", "nll_average", "temperature"), COMBINATIONS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_step_is_the_same_however_it_is_cut(
    pairs: Pairs, eight: Any, size: int, nll_over: Any, nll_average: Any, temperature: float
) -> None:
    leaves, counts = eight
    step_counts = counts_of(pairs(leaves, counts))

    def cut_into(size: int) -> tuple[Tensor, list[Tensor], dict[str, float]]:
        total, metrics = torch.zeros((), dtype=torch.float64), dict[str, float]()
        for start in range(0, 8, size):
            part = slice(start, start + size)
            policy = pairs(tuple(leaf[part] for leaf in leaves), tuple(column[part] for column in counts))
            loss = orpo(policy, beta=0.5, nll_over=nll_over, nll_average=nll_average, odds_temperature=temperature)
            total = total + step_loss(loss, step_counts)
            for name, metric in loss.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + metric.total.item()
        return total, list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)), metrics

    whole, parts = cut_into(8), cut_into(size)
    torch.testing.assert_close(parts[0], whole[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-12)
    assert parts[2] == pytest.approx(whole[2], rel=1e-12)


def test_a_micro_batch_without_pairs_adds_nothing_and_keeps_its_graph(pairs: Pairs) -> None:
    leaf = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    nothing = leaf[:0]
    loss = orpo(pairs((nothing, nothing, nothing), ([], [], [])))
    share = step_loss(loss, {"pairs": 8, "chosen_tokens": 40, "prompt_and_chosen_tokens": 60})
    share.backward()
    assert share.item() == 0.0
    assert leaf.grad is not None
    assert all(metric.total.item() == 0.0 for metric in loss.metrics.values())


@pytest.mark.parametrize("nll_over", ["completion", "prompt+completion"])
def test_beta_0_is_sft_with_the_same_average_also_where_the_model_is_certain(pairs: Pairs, eight: Any, nll_over: Any) -> None:
    leaves, counts = eight
    with torch.no_grad():
        leaves[1][2] = 0.0
    policy = pairs(leaves, counts)
    with_odds = step_loss(orpo(policy, beta=0.0, nll_over=nll_over), counts_of(policy))
    without = step_loss(sft(policy, nll_over=nll_over, nll_average="sequence"), counts_of(policy))
    assert with_odds.item() == without.item()
    for left, right in zip(
        torch.autograd.grad(with_odds, leaves, materialize_grads=True, allow_unused=True),
        torch.autograd.grad(without, leaves, materialize_grads=True, allow_unused=True),
        strict=True,
    ):
        assert torch.equal(left, right)


def test_the_temperature_multiplies_the_log_odds_ratio_inside_the_sigmoid_only(means: Means) -> None:
    a_w, a_l = torch.tensor([-0.2], dtype=torch.float64), torch.tensor([-1.5], dtype=torch.float64)
    ratio = math.log(math.exp(-0.2) / (1 - math.exp(-0.2))) - math.log(math.exp(-1.5) / (1 - math.exp(-1.5)))
    loss = orpo(means(a_w, a_l), odds_temperature=0.25)
    assert loss.terms[1].total.item() == pytest.approx(math.log1p(math.exp(-0.25 * ratio)), rel=1e-13)
    assert loss.metrics["log_odds_ratio"].total.item() == pytest.approx(-math.log1p(math.exp(-0.25 * ratio)), rel=1e-13)
    assert loss.metrics["log_odds_chosen"].total.item() == pytest.approx(ratio, rel=1e-13)


def test_metrics_are_the_figures_worked_out_by_hand(pairs: Pairs) -> None:
    totals = [torch.tensor(column, requires_grad=True) for column in ([-3.0, -4.0, 0.0], [-12.0, -1.0, 0.0], [0.0, 0.0, 0.0])]
    loss = orpo(pairs(tuple(totals), ([3, 2, 1], [4, 1, 5], [1, 1, 1])), beta=0.5)
    shown = {name: metric.total.item() for name, metric in loss.metrics.items()}
    assert shown["logps/chosen"] == -1.0 - 2.0 + 0.0
    assert shown["logps/rejected"] == -3.0 - 1.0 + 0.0
    assert shown["rewards/chosen"] == -1.5
    assert shown["rewards/rejected"] == -2.0
    assert shown["rewards/margins"] == 0.5
    assert shown["rewards/accuracies"] == 1.0, "the third pair is a tie, and a tie is not accurate"
    # log odds(a) = -log(e^-a - 1); chosen -1 and -2 against rejected -3 and -1, so those of -1 cancel.
    assert shown["log_odds_chosen"] == pytest.approx(math.log((math.exp(3) - 1) / (math.exp(2) - 1)), rel=1e-13)
    assert shown["odds_clamped"] == 2.0, "both answers of the third pair"
    assert loss.metrics["odds_clamped"].unit == ""
    assert all(metric.total.dtype == torch.float64 and not metric.total.requires_grad for metric in loss.metrics.values())


def test_accuracy_does_not_depend_on_beta(means: Means) -> None:
    loss = orpo(means(torch.tensor([-1.0]), torch.tensor([-2.0])), beta=0.0)
    assert loss.metrics["rewards/accuracies"].total.item() == 1.0


def test_terms_and_metrics_have_the_units_that_divide_them(pairs: Pairs, eight: Any) -> None:
    def units(nll_over: Any, nll_average: Any) -> tuple[list[tuple[str, str, float]], str]:
        loss: Loss = orpo(pairs(*eight), beta=0.3, nll_over=nll_over, nll_average=nll_average)
        return [(term.name, term.unit, term.weight) for term in loss.terms], loss.metrics["nll_loss"].unit

    odds = ("odds_ratio", "pairs", 0.3)
    assert units("completion", "sequence") == ([("nll", "pairs", 1.0), odds], "pairs")
    assert units("prompt+completion", "sequence") == ([("nll", "pairs", 1.0), odds], "pairs")
    assert units("completion", "token") == ([("nll", "chosen_tokens", 1.0), odds], "chosen_tokens")
    assert units("prompt+completion", "token") == ([("nll", "prompt_and_chosen_tokens", 1.0), odds], "prompt_and_chosen_tokens")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "beta is -0.1"),
        ({"beta": math.nan}, "beta is nan"),
        ({"beta": math.inf}, "beta is inf"),
        ({"odds_temperature": 0.0}, "odds_temperature is 0.0"),
        ({"odds_temperature": math.inf}, "odds_temperature is inf"),
        ({"nll_over": "prompt"}, "nll_over is 'prompt'\n  expected: 'completion' or 'prompt+completion'"),
        ({"nll_average": "tokens"}, "nll_average is 'tokens'\n  expected: 'sequence' or 'token'"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(means: Means, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        orpo(means(torch.tensor([-1.0]), torch.tensor([-2.0])), **options)
    assert str(caught.value).startswith(message)


def test_for_uniform_probabilities_the_log_odds_ratio_spreads_as_in_figure_6() -> None:
    """Standard deviations 1.414 (= sqrt 2) for the log probability ratio and 2.565 (= pi sqrt(2/3)) for the log odds ratio, times beta."""
    generator, beta = torch.Generator().manual_seed(6), 0.1
    a_w, a_l = torch.rand(2, 400_000, generator=generator, dtype=torch.float64).log()
    assert (beta * (a_w - a_l)).std().item() == pytest.approx(1.414 * beta, rel=0.01)
    assert (beta * (log_odds(a_w) - log_odds(a_l))).std().item() == pytest.approx(2.565 * beta, rel=0.01)
