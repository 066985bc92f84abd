"""Kernels for CUDA: their index arithmetic on any machine, the kernels themselves where there is a GPU."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from attention_oracle import CASES, PLAIN_CASES, SCORE_CASES, Case, assert_as_oracle, expected, inputs, sees, values_and_gradients
from hypothesis import given, settings
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from orpo.engine import attention_cuda, attention_flex
from orpo.engine.attention import attend_by_example
from orpo.engine.attention_cuda import attend, choose_backend
from orpo.engine.attention_flex import attend_flex, block_mask, mask_function, score_function
from orpo.engine.attention_varlen import attend_varlen, gathered, segments_of
from orpo.engine.layout import Layout

cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def segment_by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    softcap: float | None = None,
) -> Tensor:
    """What a variable-length kernel does, as its documentation says: per segment, causal from the bottom right corner, windows on it."""
    assert query_ends.dtype == key_ends.dtype == torch.int32
    outputs = []
    groups = query.shape[1] // key.shape[1]
    left, right = window_size
    for (q0, q1), (k0, k1) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        assert 0 < q1 - q0 <= longest_query
        assert q1 - q0 <= k1 - k0 <= longest_key
        keys, values = (tensor[k0:k1].repeat_interleave(groups, dim=1) for tensor in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[q0:q1], keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        diagonal = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        columns = torch.arange(k1 - k0)[None]
        seen = (columns <= diagonal + right) & ((columns >= diagonal - left) | torch.tensor(left < 0))
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), values))
    assert len(query) == q1
    assert len(key) == k1
    return torch.cat(outputs)


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout, **options: Any) -> Tensor:
    softcap = {"softcap": options["softcap"]} if options["softcap"] is not None else {}
    sizes = {name: options[name] for name in ("scale", "window")}
    return attend_varlen(query, key, value, layout, function=segment_by_segment, **sizes, **softcap)


@pytest.mark.parametrize("name", [*PLAIN_CASES, "soft-cap", "soft-cap in a window"])
def test_one_variable_length_call_gives_what_a_dense_mask_gives(name: str) -> None:
    assert_as_oracle(_varlen, (PLAIN_CASES | SCORE_CASES)[name])


@given(case=CASES)
@settings(deadline=None, max_examples=40)
def test_one_variable_length_call_gives_what_a_dense_mask_gives_for_any_layout(case: Case) -> None:
    assert_as_oracle(_varlen, case)


def test_segments_of_two_examples_are_as_counted_by_hand() -> None:
    # Rows 0-1 prefix, 2-4 and 5 branches; rows 6 prefix, 7 and 8-9 branches.
    segments = segments_of(Case(((2, (3, 1)), (1, (1, 2)))).layout)
    assert segments.query_ends.tolist() == [0, 5, 6, 8, 10]
    assert segments.key_ends.tolist() == [0, 5, 8, 10, 13]
    assert (segments.longest_query, segments.longest_key) == (5, 5)
    gather = segments.gather
    assert gather is not None
    assert gather.sources.tolist() == [0, 1, 2, 3, 4, 0, 1, 5, 6, 7, 6, 8, 9]
    assert gather.first.tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 11, 12]
    assert [(rows.tolist(), copies.tolist()) for rows, copies in gather.further] == [([0, 1, 6], [5, 6, 10])]


@pytest.mark.parametrize("name", ["unshared", "one branch"])
def test_keys_are_not_copied_where_nothing_is_shared(name: str) -> None:
    assert segments_of(PLAIN_CASES[name].layout).gather is None


def test_gathering_is_index_select_with_its_gradient() -> None:
    gather = segments_of(PLAIN_CASES["three branches"].layout).gather
    assert gather is not None
    rows = torch.randn(len(gather.first), 2, 3, dtype=torch.float64, requires_grad=True)
    want = values_and_gradients(lambda x: x.index_select(0, gather.sources), [rows])
    got = values_and_gradients(lambda x: gathered(x, gather), [rows])
    torch.testing.assert_close(got, want)


def test_no_pass_of_the_gathers_backward_adds_twice_to_a_row() -> None:
    gather = segments_of(PLAIN_CASES["three branches"].layout).gather
    assert gather is not None
    assert len(gather.further) == 2
    assert all(len(rows.unique()) == len(rows) for rows, _ in gather.further)


def test_indices_are_built_once_for_all_layers() -> None:
    case = PLAIN_CASES["several pairs"]
    layout = case.layout
    for _ in range(2):
        _varlen(*inputs(case), layout, scale=1.0, window=None, softcap=None)
        kept = layout.cache["segments", torch.device("cpu")]
    assert kept is layout.cache["segments", torch.device("cpu")]
    assert len(layout.cache) == 1


def _dense_mask(case: Case) -> Tensor:
    function = mask_function(case.layout, case.window, torch.device("cpu"))
    rows = torch.arange(case.layout.num_rows)
    zero = torch.zeros((), dtype=torch.int64)
    return function(zero, zero, rows[:, None], rows[None])


@given(case=CASES)
@settings(deadline=None, max_examples=40)
def test_the_mask_function_sees_what_the_oracle_sees(case: Case) -> None:
    assert torch.equal(_dense_mask(case), sees(case.layout, case.window))


def test_the_score_function_caps() -> None:
    place = [torch.zeros((), dtype=torch.int64)] * 4
    got = score_function(5.0)(torch.tensor([0.0, 5.0, -1000.0], dtype=torch.float64), *place)
    torch.testing.assert_close(got, torch.tensor([0.0, 5 * 0.761594155955765, -5.0], dtype=torch.float64))


@pytest.mark.parametrize("window", [None, 5, 200])
@pytest.mark.parametrize("pairs_at_once", [1, 2**26])
def test_blocks_are_full_or_partial_or_left_out_as_the_mask_says(window: int | None, pairs_at_once: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(attention_flex, "MOST_PAIRS_AT_ONCE", pairs_at_once)
    layout = Case(((300, (40, 30)), (5, (10, 3)))).layout
    blocks = block_mask(layout, window, torch.device("cpu"))
    seen = torch.nn.functional.pad(sees(layout, window), (0, 512 - layout.num_rows, 0, 512 - layout.num_rows)).view(4, 128, 4, 128)
    some, every = seen.any(dim=3).any(dim=1), seen.all(dim=3).all(dim=1)
    assert bool(every.any()) == (window is None)
    for listed, want in (("kv", some & ~every), ("full_kv", every)):
        numbers, indices = getattr(blocks, f"{listed}_num_blocks")[0, 0], getattr(blocks, f"{listed}_indices")[0, 0]
        for row in range(4):
            assert indices[row, : numbers[row]].tolist() == want[row].nonzero()[:, 0].tolist()


@pytest.fixture
def uncompiled() -> Iterator[Callable[..., Any]]:
    """flex_attention without a compiler; it warns that this is slow."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield flex_attention


@pytest.mark.parametrize("name", ["several pairs", "window smaller than prefixes", "unshared", *SCORE_CASES])
def test_flex_attention_gives_what_a_dense_mask_gives(name: str, uncompiled: Callable[..., Any]) -> None:
    case = (PLAIN_CASES | SCORE_CASES)[name]
    query, key, value, *sinks = inputs(case, dtype=torch.float32)
    options = {"scale": case.scale, "window": case.window, "softcap": case.softcap, "sinks": sinks[0] if sinks else None}
    # Detached, since flex_attention refuses inputs on the CPU that ask for gradients.
    got = attend_flex(query.detach(), key.detach(), value.detach(), case.layout, **options, function=uncompiled)
    want = expected(case, [query, key, value, *sinks])[0]
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["soft-cap", "sinks"])
def test_the_functions_given_to_flex_attention_have_the_gradients_of_a_dense_mask(name: str) -> None:
    def materialised(query: Tensor, key: Tensor, value: Tensor, *, score_mod: Any, block_mask: Any, scale: float, **_: Any) -> Any:
        """flex_attention's definition, all scores at once."""
        key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
        rows = torch.arange(query.shape[2])
        zero = torch.zeros((), dtype=torch.int64)
        scores = query @ key.transpose(2, 3) * scale
        scores = score_mod(scores, zero, zero, rows[:, None], rows[None]) if score_mod else scores
        scores = scores.masked_fill(~block_mask.mask_mod(zero, zero, rows[:, None], rows[None]), float("-inf"))
        return scores.softmax(-1) @ value, types.SimpleNamespace(lse=scores.logsumexp(-1))

    assert_as_oracle(lambda *args, **options: attend_flex(*args, **options, function=materialised), SCORE_CASES[name], tolerance=1e-6)


HOPPER = {"head_dim": 128, "value_dim": 128, "softcap": False, "sinks": False, "capability": (9, 0), "flash_attn": False}


@pytest.mark.parametrize(
    ("changes", "backend"),
    [
        ({}, "varlen"),
        ({"flash_attn": True}, "varlen"),
        ({"capability": (8, 0), "head_dim": 256, "value_dim": 256}, "varlen"),
        ({"softcap": True}, "flex"),
        ({"softcap": True, "flash_attn": True}, "flash-attn"),
        ({"sinks": True, "flash_attn": True}, "flex"),
        ({"softcap": True, "sinks": True, "flash_attn": True}, "flex"),
        ({"head_dim": 264, "value_dim": 264}, "by example"),
        ({"head_dim": 192}, "by example"),
        ({"head_dim": 100, "value_dim": 100}, "by example"),
        ({"capability": (7, 5)}, "by example"),
        ({"capability": (7, 5), "softcap": True, "flash_attn": True}, "by example"),
    ],
)
def test_a_kernel_is_chosen_by_what_the_layer_asks_and_the_machine_has(changes: dict[str, Any], backend: str) -> None:
    assert choose_backend(**(HOPPER | changes)) == backend


@pytest.mark.parametrize("installed", [None, "2.8.3", "2.6.3.post1"])
def test_flash_attn_counts_from_the_version_whose_backward_knows_soft_caps(installed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise attention_cuda.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(attention_cuda, "version", version)
    attention_cuda.flash_attn_version.cache_clear()
    assert attention_cuda.flash_attn_version() == {None: (0, 0), "2.8.3": (2, 8), "2.6.3.post1": (2, 6)}[installed]
    attention_cuda.flash_attn_version.cache_clear()


def test_flash_attn_is_called_with_its_own_argument_names(monkeypatch: pytest.MonkeyPatch) -> None:
    case = SCORE_CASES["soft-cap in a window"]
    calls = []

    def flash_attn_varlen_func(*args: Any, softmax_scale: float, causal: bool, deterministic: bool, **options: Any) -> Tensor:
        calls.append((causal, deterministic))
        return segment_by_segment(*args, scale=softmax_scale, **options)

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func))
    monkeypatch.setattr(attention_cuda, "flash_attn_version", lambda: (2, 8))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert_as_oracle(attend, case)
    assert calls == [(True, False)]


def _on_cuda(case: Case, attention: Callable[..., Tensor], dtype: torch.dtype, layout: Layout) -> list[Tensor]:
    """Values and gradients on the GPU, from inputs that bf16 holds exactly."""
    tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs(case, dtype=torch.bfloat16, device="cuda")]

    def call(query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None) -> Tensor:
        return attention(query, key, value, layout, scale=case.scale, window=case.window, softcap=case.softcap, sinks=sinks)

    return values_and_gradients(call, tensors)


LONG = ((300, (140, 90)), (0, (70, 33)), (17, (200, 1)))
GPU_CASES = {
    "varlen": Case(LONG, head_dim=64),
    "varlen in a window": Case(LONG, head_dim=64, window=100),
    "varlen with three branches": Case(((200, (40, 50, 60)), (90, (9, 8, 7))), head_dim=128),
    "varlen with wide heads": Case(LONG, head_dim=256),
    "flex with a soft-cap": Case(LONG, head_dim=64, softcap=2.0),
    "flex with a soft-cap in a window": Case(LONG, head_dim=128, softcap=2.0, window=100),
    "flex with sinks": Case(LONG, head_dim=64, sinks=True, window=100),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=cuda) for name in GPU_CASES])
def test_a_gpu_kernel_is_as_near_the_truth_as_attention_by_example(name: str) -> None:
    case = GPU_CASES[name]
    layout = case.layout
    got = _on_cuda(case, attend, torch.bfloat16, layout)
    assert layout.cache["backend"] in name.split() or (layout.cache["backend"] == "flash-attn" and case.softcap)
    plain = _on_cuda(case, attend_by_example, torch.bfloat16, case.layout)
    truth = _on_cuda(case, attend_by_example, torch.float32, case.layout)
    for ours, slow, true in zip(got, plain, truth, strict=True):
        assert (ours.float() - true).norm() <= 1.5 * (slow.float() - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize("name", [pytest.param(name, marks=cuda) for name in GPU_CASES])
def test_two_backward_passes_on_a_gpu_give_the_same_bits(name: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (_on_cuda(GPU_CASES[name], attend, torch.bfloat16, GPU_CASES[name].layout) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=cuda) for seed in range(3)])
def test_gathering_on_a_gpu_gives_the_same_bits_without_asking_for_it(seed: int) -> None:
    segments = segments_of(GPU_CASES["varlen with three branches"].layout).to(torch.device("cuda"))
    assert segments.gather is not None
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = torch.randn(len(segments.gather.first), 8, 64, device="cuda", dtype=torch.bfloat16, generator=generator, requires_grad=True)
    first, second = (values_and_gradients(lambda x: gathered(x, segments.gather), [rows])[1] for _ in range(2))
    assert torch.equal(first, second)
