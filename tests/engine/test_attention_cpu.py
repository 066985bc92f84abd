"""Attention over a pack in blocks of plain matrix products, against a dense mask and against its slow twin."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import CASES, PLAIN_CASES, SCORE_CASES, Case, assert_as_oracle, expected, inputs, sees, values_and_gradients
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from orpo.engine import attention_cpu
from orpo.engine.attention import attend_by_example
from orpo.engine.attention_cpu import attend_in_blocks
from orpo.engine.layout import Layout

LONG = Case(((40, (90, 3)), (0, (65, 5)), (64, (1, 30))))


@pytest.fixture(params=[0, 6, 10_000], ids=["weights made again", "some weights kept", "weights kept"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four queries, so that small cases have several."""
    monkeypatch.setattr(attention_cpu, "BLOCK", 4)
    monkeypatch.setattr(attention_cpu, "LONGEST_KEPT", request.param)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", PLAIN_CASES)
def test_values_and_gradients_are_those_of_a_dense_mask(name: str) -> None:
    assert_as_oracle(attend_in_blocks, PLAIN_CASES[name])


@pytest.mark.usefixtures("small_blocks")
@given(case=CASES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_and_gradients_are_those_of_a_dense_mask_for_any_layout(case: Case) -> None:
    assert_as_oracle(attend_in_blocks, case)


@pytest.mark.parametrize("window", [None, 5, 64, 100])
def test_rows_of_several_whole_blocks_are_those_of_a_dense_mask(window: int | None) -> None:
    assert_as_oracle(attend_in_blocks, Case(LONG.sizes, window=window))


@pytest.mark.parametrize("name", SCORE_CASES)
def test_soft_caps_and_sinks_take_the_way_example_by_example(name: str) -> None:
    assert_as_oracle(attend_in_blocks, SCORE_CASES[name], tolerance=1e-5)


def _errors(case: Case, dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """Relative errors of output and gradients in `dtype`, in blocks and example by example, against the oracle on the same inputs."""
    tensors = inputs(case, dtype=dtype)
    truth = expected(case, [tensor.detach().double().requires_grad_() for tensor in tensors])
    options = {"scale": case.scale, "window": case.window, "softcap": None, "sinks": None}
    both = []
    for attention in (attend_in_blocks, attend_by_example):
        got = values_and_gradients(lambda q, k, v, attend=attention: attend(q, k, v, case.layout, **options), tensors)
        both.append([float((ours.double() - true).norm() / true.norm()) for ours, true in zip(got, truth, strict=True)])
    return both[0], both[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.12, 1.0], ids=["even weights", "peaked weights"])
def test_it_is_about_as_near_the_truth_as_its_slow_twin(dtype: torch.dtype, scale: float) -> None:
    ours, twin = _errors(Case(LONG.sizes, head_dim=64, scale=scale), dtype)
    assert all(error <= 1.35 * other + 1e-7 for error, other in zip(ours, twin, strict=True)), (ours, twin)


@pytest.mark.parametrize("window", [None, 3])
def test_nothing_flows_between_branches_or_examples(window: int | None) -> None:
    case = Case(((3, (2, 4, 1)), (2, (3, 2))), window=window)
    query, key, value = inputs(case, dtype=torch.float32)
    out = attend_in_blocks(query, key, value, case.layout, scale=case.scale, window=window, softcap=None, sinks=None)
    seen = sees(case.layout, window)
    for row in range(case.layout.num_rows):
        for gradient in torch.autograd.grad(out[0, row].sum(), [key, value], retain_graph=True):
            assert not gradient[0, :, ~seen[row]].any()


def test_scores_stay_exact_under_autocast() -> None:
    case = Case(LONG.sizes, head_dim=64)
    tensors = inputs(case, dtype=torch.bfloat16)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend_in_blocks(query, key, value, case.layout, scale=case.scale, window=None, softcap=None, sinks=None)

    plain = values_and_gradients(attend, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = values_and_gradients(attend, tensors)
    assert all(torch.equal(a, b) for a, b in zip(plain, under_autocast, strict=True))


def test_blocks_leave_out_keys_outside_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "BLOCK", 4)
    layout: Layout = Case(((5, (4, 2)),)).layout
    # (first and last query, keys of the prefix from and to, own keys from): rows 0-8 are prefix and first branch, 9 and 10 the second.
    assert list(attention_cpu._blocks(layout, None)) == [(0, 4, 0, 0, 0), (4, 8, 0, 0, 0), (8, 9, 0, 0, 0), (9, 11, 0, 5, 9)]
    assert list(attention_cpu._blocks(layout, 3)) == [(0, 4, 0, 0, 0), (4, 8, 0, 0, 2), (8, 9, 0, 0, 6), (9, 11, 3, 5, 9)]


def test_blocks_with_about_as_many_keys_share_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "BLOCK", 4)
    layout: Layout = Case(((5, (4, 2)), (5, (4, 2)))).layout
    batches = attention_cpu._batches(layout, None, 2, 1)
    assert [(batch.num, batch.width) for batch in batches] == [(2, 4), (4, 8), (2, 12)]
    assert batches is attention_cpu._batches(layout, None, 2, 1)
    monkeypatch.setattr(attention_cpu, "CACHED_BYTES", 1)
    assert [batch.num for batch in attention_cpu._batches(layout, 100, 2, 1)] == [1] * 8


@pytest.mark.parametrize("value_dim", [3, 12])
def test_values_may_be_narrower_or_wider_than_keys(value_dim: int) -> None:
    case = PLAIN_CASES["several pairs"]
    query, key, _ = inputs(case)
    value = torch.randn(1, case.kv_heads, case.layout.num_rows, value_dim, dtype=torch.float64, requires_grad=True)
    options = {"scale": case.scale, "window": None, "softcap": None, "sinks": None}
    got = values_and_gradients(lambda q, k, v: attend_in_blocks(q, k, v, case.layout, **options), [query, key, value])
    for ours, true in zip(got, expected(case, [query, key, value]), strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-10, atol=1e-10)
