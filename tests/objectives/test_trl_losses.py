"""The rivals against TRL 1.16's own loss functions: the same log-probs of tokens go into both, loss and gradients must agree.

TRL's trainers are not built: their loss methods are called with a stand-in that holds what they read, and a model that returns log-probs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, PairScores
from orpo.core.loss import Loss, denominator, step_loss
from orpo.objectives.dpo import dpo
from orpo.objectives.ipo import ipo
from orpo.objectives.kto import baseline_of, kto, mismatched_log_ratio
from orpo.objectives.reward import reward
from orpo.objectives.simpo import simpo

pytestmark = pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")

LENGTHS = torch.tensor([3, 1, 7, 2, 5, 4, 2, 6, 1, 4, 4, 8])
"""Tokens of six chosen and six rejected answers, or of twelve labelled ones."""

MASK = torch.arange(9) < LENGTHS[:, None]  # [12, 9]: the answers at the left, padding at the right
TOLERANCE = 1e-5


def token_logps(seed: int) -> Tensor:
    """Log-probs of tokens in fp32, [12, 9], 0 where there is no token."""
    return (-0.05 - 3 * torch.rand(12, 9, generator=torch.Generator().manual_seed(seed))) * MASK


def completions(tokens: Tensor, rows: slice = slice(None)) -> CompletionLogps:
    return CompletionLogps((tokens * MASK).sum(1)[rows], LENGTHS[rows].float())


def pairs(tokens: Tensor) -> PairLogps:
    return PairLogps(completions(tokens, slice(0, 6)), completions(tokens, slice(6, 12)), None)


def accelerator() -> SimpleNamespace:
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value)


def model_of(tokens: Tensor) -> Callable[..., Any]:
    """A model whose fused head gives `tokens`, 0 where there is none, and blanks for what TRL shows beside them."""
    blank = torch.zeros(tokens.shape)
    return lambda **_: SimpleNamespace(log_probs=tokens * MASK, entropy=blank, mean_logits=blank, is_top1=blank.bool())


def inputs() -> dict[str, Tensor]:
    """One more position than log-probs: the first token, which nothing predicts and which is no part of an answer."""
    mask = torch.cat([torch.zeros(12, 1, dtype=torch.long), MASK.long()], dim=1)
    return {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def trainer(**settings: Any) -> SimpleNamespace:
    """What TRL's loss methods read of their trainer."""
    training = SimpleNamespace(training=True)
    metrics = {"train": defaultdict(list)}
    common = {"model": training, "accelerator": accelerator(), "aux_loss_enabled": False, "precompute_ref_logps": True}
    return SimpleNamespace(**common, _metrics=metrics, _total_train_tokens=0, _tp_size=1, **settings)


def trl_dpo(loss_type: str, tokens: Tensor, reference: Tensor, beta: float, smoothing: float = 0.0) -> tuple[Tensor, dict[str, float]]:
    """TRL's DPO loss of one of its kinds, and its metrics."""
    from trl import DPOTrainer

    kind = {"loss_types": [loss_type], "loss_weights": [1.0], "beta": beta, "label_smoothing": smoothing}
    self = trainer(**kind, ld_alpha=None, f_divergence_type="reverse_kl", use_weighting=False)
    chosen, rejected = (reference * MASK).sum(1).chunk(2)
    loss = DPOTrainer._compute_loss(self, model_of(tokens), {**inputs(), "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}, False)
    return loss, {name: values[-1] for name, values in self._metrics["train"].items()}


def assert_same(ours: Tensor, theirs: Tensor, tokens: Tensor) -> None:
    """Loss and gradient for every token agree, and the gradient is not nothing."""
    (left,), (right,) = (torch.autograd.grad(loss, tokens) for loss in (ours, theirs))
    assert right.abs().max() > 1e-4
    assert ours.item() == pytest.approx(theirs.item(), abs=TOLERANCE)
    torch.testing.assert_close(left, right, rtol=0, atol=TOLERANCE)


def shown(loss: Loss, counts: dict[str, int]) -> dict[str, float]:
    return {name: metric.total.item() / (denominator(counts, metric.unit) if metric.unit else 1) for name, metric in loss.metrics.items()}


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_trls_sigmoid_loss_with_its_rewards(beta: float) -> None:
    tokens, reference = token_logps(1).requires_grad_(), token_logps(2)
    theirs, metrics = trl_dpo("sigmoid", tokens, reference, beta)
    loss = dpo(pairs(tokens), pairs(reference), beta=beta)
    assert_same(step_loss(loss, {"pairs": 6}), theirs, tokens)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        assert shown(loss, {"pairs": 6})[name] == pytest.approx(metrics[name], abs=TOLERANCE), name
    assert metrics["logps/chosen"] == pytest.approx(pairs(tokens).chosen.total.mean().item()), "TRL shows sums here, and means for ORPO"


def test_dpo_with_label_smoothing_is_trls_conservative_loss() -> None:
    """TRL has it as "sigmoid" of CPOTrainer, which has no reference: log ratios stand in for log-probs."""
    from trl.experimental.cpo import CPOTrainer

    tokens, reference = token_logps(1).requires_grad_(), token_logps(2)
    self = SimpleNamespace(loss_type="sigmoid", beta=0.5, label_smoothing=0.1, alpha=0.0, accelerator=accelerator())
    chosen, rejected = ((tokens - reference) * MASK).sum(1).chunk(2)
    theirs = CPOTrainer.cpo_loss(self, chosen, rejected)[0].mean()
    loss = dpo(pairs(tokens), pairs(reference), beta=0.5, label_smoothing=0.1)
    assert_same(step_loss(loss, {"pairs": 6}), theirs, tokens)


def test_label_smoothing_of_trls_dpo_trainer_is_another_loss() -> None:
    """What docs/objectives.md says: "sigmoid" does not read it there, and "robust" divides by 1 - 2e with the other sign."""
    tokens, reference = token_logps(1), token_logps(2)
    ignored = trl_dpo("sigmoid", tokens, reference, 0.5, 0.1)[0].item()
    robust = trl_dpo("robust", tokens, reference, 0.5, 0.1)[0].item()
    ours = step_loss(dpo(pairs(tokens), pairs(reference), beta=0.5, label_smoothing=0.1), {"pairs": 6}).item()
    plain = step_loss(dpo(pairs(tokens), pairs(reference), beta=0.5), {"pairs": 6}).item()
    assert ignored == pytest.approx(plain, abs=TOLERANCE)
    assert abs(robust - ours) > 1e-2
    assert abs(plain - ours) > 1e-2


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_ipo_of_means_is_trls_ipo_with_its_rewards_and_ipo_of_sums_is_not(tau: float) -> None:
    tokens, reference = token_logps(1).requires_grad_(), token_logps(2)
    theirs, metrics = trl_dpo("ipo", tokens, reference, tau)
    loss = ipo(pairs(tokens), pairs(reference), tau=tau, logps="mean")
    assert_same(step_loss(loss, {"pairs": 6}), theirs, tokens)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        assert shown(loss, {"pairs": 6})[name] == pytest.approx(metrics[name], abs=TOLERANCE), name
    assert abs(step_loss(ipo(pairs(tokens), pairs(reference), tau=tau), {"pairs": 6}).item() - theirs.item()) > 0.1


def test_simpo_is_trls_loss_of_that_name_with_its_rewards() -> None:
    from trl.experimental.cpo import CPOTrainer

    tokens = token_logps(1).requires_grad_()
    self = SimpleNamespace(loss_type="simpo", beta=2.5, simpo_gamma=1.4, label_smoothing=0.0, alpha=0.0, accelerator=accelerator())
    chosen, rejected = ((tokens * MASK).sum(1) / LENGTHS).chunk(2)
    losses, chosen_rewards, rejected_rewards = CPOTrainer.cpo_loss(self, chosen, rejected)
    loss = simpo(pairs(tokens), beta=2.5, gamma=1.4)
    assert_same(step_loss(loss, {"pairs": 6}), losses.mean(), tokens)
    assert shown(loss, {"pairs": 6})["rewards/chosen"] == pytest.approx(chosen_rewards.mean().item(), abs=TOLERANCE)
    assert shown(loss, {"pairs": 6})["rewards/rejected"] == pytest.approx(rejected_rewards.mean().item(), abs=TOLERANCE)


@pytest.mark.parametrize("labels", [[True, False, True, True] * 3, [True] * 12, [False] * 12])
@pytest.mark.parametrize("away", [0.0, 2.0], ids=["baseline above 0", "baseline clamped at 0"])
def test_kto_is_trls_with_its_weights_its_baseline_and_its_metrics(labels: list[bool], away: float) -> None:
    from trl import KTOTrainer

    tokens, reference = token_logps(1).requires_grad_(), token_logps(2)
    policy_kl, reference_kl = token_logps(4) * (1 + away), token_logps(3) * 1.5
    kls = [(values * MASK).sum(1) for values in (policy_kl, reference_kl)]
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7, "beta": 0.3}
    self = trainer(**weights, calculate_KL=True, loss_type="kto", _compute_kl_logps=lambda *_: kls[0])
    batch = {**inputs(), "label": torch.tensor(labels), "ref_logps": (reference * MASK).sum(1), "ref_KL_logps": kls[1]}
    theirs = KTOTrainer._compute_loss(self, model_of(tokens), batch, False)

    baseline = baseline_of(mismatched_log_ratio(completions(policy_kl), completions(reference_kl)), 12)
    assert (baseline.item() == 0) == (away > 0)
    policy, other = (LabelledLogps(completions(values), torch.tensor(labels)) for values in (tokens, reference))
    counts = {"completions": 12, "desirable": sum(labels), "undesirable": 12 - sum(labels)}
    loss = kto(policy, other, baseline, **weights)
    assert_same(step_loss(loss, counts), theirs, tokens)
    metrics = {name: values[-1] for name, values in self._metrics["train"].items()}
    ours = shown(loss, counts)
    for name in ("kl", "rewards/chosen", "rewards/rejected"):
        assert ours[name] == pytest.approx(metrics.get(name, 0.0), abs=TOLERANCE), name
    if "rewards/margins" in metrics:
        assert ours["rewards/chosen"] - ours["rewards/rejected"] == pytest.approx(metrics["rewards/margins"], abs=TOLERANCE)


@pytest.mark.parametrize(("margin", "centring"), [(0.0, None), (0.6, None), (0.0, 0.01), (0.6, 0.2)])
def test_the_reward_loss_is_trls_with_its_metrics(margin: float, centring: float | None) -> None:
    from trl import RewardTrainer

    scores = torch.randn(12, 1, generator=torch.Generator().manual_seed(5)).requires_grad_()
    self = trainer(args=SimpleNamespace(center_rewards_coefficient=centring))
    batch = {"attention_mask": torch.ones(12, 3), **({"margin": torch.full((6,), margin)} if margin else {})}
    theirs = RewardTrainer.compute_loss(self, lambda **_: SimpleNamespace(logits=scores), batch)
    loss = reward(PairScores(scores[:6, 0], scores[6:, 0]), margin=margin, centring=centring or 0.0)
    assert_same(step_loss(loss, {"pairs": 6}), theirs, scores)
    metrics = {name: values[-1] for name, values in self._metrics["train"].items()}
    ours = shown(loss, {"pairs": 6})
    assert ours["rewards/margins"] == pytest.approx(metrics["margin"], abs=TOLERANCE)
    assert ours["rewards/accuracies"] == pytest.approx(metrics["accuracy"], abs=TOLERANCE)
    assert (ours["rewards/chosen"] + ours["rewards/rejected"]) / 2 == pytest.approx(metrics["mean_reward"], abs=TOLERANCE)
