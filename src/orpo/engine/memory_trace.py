"""How much memory one training step of a model's body holds: the step runs on fake tensors, which have shapes and no contents.

A model is built from its config alone, so nothing is loaded and nothing is computed; every storage that a step makes is counted from
its first use to its release. Activations, gradients, casts of autocast and what checkpointing recomputes are thereby counted, not modelled.
"""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from orpo.engine.attention_cpu import BLOCK, LONGEST_KEPT
from orpo.engine.body import causal_model, layer_stack
from orpo.engine.four_bit_shape import held_bytes
from orpo.engine.remade import remade_activations
from orpo.engine.shared_casts import SharedCasts

ATTENTION = "orpo_counted"

ALWAYS_GIVEN_BACK = 32 * 2**20
"""From this size on glibc gives a block back to the system as soon as it is free."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Bytes of a model's weights, and what of them matters to a step. `num_` and `largest_trained` count numbers, not bytes.

    `rows_and_columns` is what an optimizer keeps that factors a matrix: one number per row and column, and all numbers of a vector;
    `eight_bit_moments` are the bytes of two moments in 8 bits.
    """

    num_parameters: int
    frozen_bytes: int
    trained_bytes: int
    num_trained: int
    largest_trained: int
    rows_and_columns: int
    eight_bit_moments: int
    vocabulary: int
    hidden: int
    num_layers: int
    head_is_trained: bool
    head_itemsize: int

    @property
    def weight_bytes(self) -> int:
        """All weights and buffers."""
        return self.frozen_bytes + self.trained_bytes


@dataclass(frozen=True, slots=True)
class StepTrace:
    """Bytes that the body holds beside its weights, for `tokens` tokens.

    `kept`: after the forward pass, autocast's casts included. `backward`: the most at any moment, gradients apart. `backward_first`: the
    most at any moment, with the gradients made so far, when none were there before. `gradients_then` are the gradients of that moment.
    `made` is the sum of all storages below ALWAYS_GIVEN_BACK, however short they lived. `estimated` says why the step could not be
    counted; '' where it was.
    """

    tokens: int
    kept: int
    backward: int
    backward_first: int
    gradients_then: int
    made: int
    estimated: str = ""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations make, until they are released."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.made = self.gradients = self.num_operations = 0
        self.most_apart = self.most = self.gradients_at_most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """What the operation gives; its new storages are counted."""
        outcome = func(*args, **(kwargs or {}))
        self.num_operations += 1
        for leaf in tree_leaves(outcome):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return outcome

    def became_gradient(self, parameter: Tensor) -> None:
        """Nothing; the bytes of `parameter.grad` count as gradients from now on."""
        assert parameter.grad is not None
        self.gradients += parameter.grad.untyped_storage().nbytes()

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, num = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        weakref.finalize(storage, self._release, key, num)
        self.now += num
        self.made += num if num < ALWAYS_GIVEN_BACK else 0
        self.most_apart = max(self.most_apart, self.now - self.gradients)
        if self.now > self.most:
            self.most, self.gradients_at_most = self.now, self.gradients

    def _release(self, key: int, num: int) -> None:
        self.known.discard(key)
        self.now -= num


class Uncountable(Exception):
    """A step of this model cannot run on fake tensors."""


def traced_step(build: Callable[[], nn.Module], *, rows: int, row_length: int, dtype: torch.dtype, device: str) -> StepTrace:
    """The memory of one step over `rows` rows of `row_length` tokens, without the head. `build` makes the model, on the meta device.

    `dtype` is that of the matrix products: a half type means autocast. Raises Uncountable where the model's code asks for contents.
    """
    with _fake_model(build, device) as model:
        return _step(model, rows=rows, row_length=row_length, dtype=dtype, device=device)


def ensure_countable(build: Callable[[], nn.Module], device: str) -> None:
    """Nothing; raises Uncountable where a model loops over positions: its operations grow with the row, and a trace takes minutes."""
    with _fake_model(build, device) as model:
        if _num_operations(model, 2) != _num_operations(model, 4):
            raise Uncountable("the model works through its positions one by one")


@contextmanager
def _fake_model(build: Callable[[], nn.Module], device: str) -> Iterator[nn.Module]:
    """The model that `build` makes, on fake tensors, while the block runs. What goes wrong in the block becomes Uncountable."""
    try:
        with torch.device("meta"):
            model = build()
        with _quiet_fake_tensors(), FakeTensorMode(), torch.device(device):
            _make_fake(model)
            yield model
    except Uncountable:
        raise
    except Exception as error:  # fake tensors end in many kinds of errors, most of them private to torch
        raise Uncountable("this model cannot be counted exactly") from error


@contextmanager
def _quiet_fake_tensors() -> Iterator[None]:
    """Nothing; torch logs a traceback for what becomes Uncountable, and a user would take it for a failure."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def model_sizes(build: Callable[[], nn.Module]) -> ModelSizes:
    """The sizes of the model that `build` makes, on the meta device."""
    with torch.device("meta"):
        model = build()
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    in_four_bits = held_bytes(model)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    embeds_outputs = causal_model(model).get_output_embeddings()
    head = (causal_model(model).score if embeds_outputs is None else embeds_outputs).weight  # a reward model has one row
    text = causal_model(model).config.get_text_config()
    return ModelSizes(
        num_parameters=sum(parameter.numel() for parameter in parameters),
        frozen_bytes=sum(in_four_bits.get(id(tensor), tensor.nbytes) for tensor in [*frozen, *model.buffers()]),
        trained_bytes=sum(parameter.nbytes for parameter in trained),
        num_trained=sum(parameter.numel() for parameter in trained),
        largest_trained=max(parameter.numel() for parameter in trained),
        rows_and_columns=sum(sum(p.shape) if p.dim() == 2 else p.numel() for p in trained),
        eight_bit_moments=sum(_moment_bytes(p, embeddings) for p in trained),
        vocabulary=head.shape[0],
        hidden=head.shape[1],
        num_layers=int(text.num_hidden_layers),
        head_is_trained=head.requires_grad,
        head_itemsize=head.itemsize,
    )


def _moment_bytes(parameter: Tensor, embeddings: Set[int]) -> int:
    """Bytes of two moments of `parameter` in 8 bits with a scale for every 256; bitsandbytes keeps small ones and embeddings in fp32."""
    if parameter.numel() < 4096 or id(parameter) in embeddings:
        return 8 * parameter.numel()
    return 2 * (parameter.numel() + 4 * -(-parameter.numel() // 256))


def _make_fake(model: nn.Module) -> None:
    """Nothing; parameters and buffers of `model` are replaced, shared ones by shared ones. Call it in a FakeTensorMode.

    PEFT moves its adapters with Module.to, which torch 2.13 cannot do on fake tensors: hence a model on the meta device first.
    """
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=parameter.requires_grad)
                module._parameters[name] = made.setdefault(id(parameter), empty)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = made.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))


def _step(model: nn.Module, *, rows: int, row_length: int, dtype: torch.dtype, device: str) -> StepTrace:
    causal = causal_model(model)
    AttentionInterface.register(ATTENTION, _counted_attention)
    with suppress(ValueError):  # models with attention code of their own run that
        causal.set_attn_implementation(ATTENTION)
    model.train()
    ids = torch.zeros(rows, row_length, dtype=torch.long)
    live = LiveBytes([*model.parameters(), *model.buffers()])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(live.became_gradient)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), live:
        warnings.simplefilter("ignore")
        casts = SharedCasts()
        casts.attach(layer_stack(causal))
        with torch.autocast(device, dtype, enabled=dtype != torch.float32), remade_activations():
            hidden = layer_stack(causal)(input_ids=ids, use_cache=False).last_hidden_state
            casts.forget()
            kept = live.now
        hidden.backward(torch.empty_like(hidden))
    return StepTrace(rows * row_length, kept, live.most_apart, live.most, live.gradients_at_most, live.made)


def _num_operations(model: nn.Module, row_length: int) -> int:
    live = LiveBytes([])
    with torch.no_grad(), live:
        layer_stack(causal_model(model))(input_ids=torch.zeros(1, row_length, dtype=torch.long), use_cache=False)
    return live.num_operations


def _counted_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention as the engine computes it: memory grows with the tokens, never with their square."""
    del module, attention_mask
    grouped = query.shape[1] != key.shape[1]
    out = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
    if query.device.type == "cpu":
        # attention_cpu.py keeps the weights of blocks with few keys: of those before each query, and half a block too many.
        num_kept = min(query.shape[2], LONGEST_KEPT)
        keys = num_kept * (num_kept // 2 + BLOCK // 2) // query.shape[2]
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
        out = _Keeps.apply(out, query.new_empty(*query.shape[:3], keys, dtype=dtype))  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


class _Keeps(torch.autograd.Function):
    """What comes in; `beside` is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, beside: Tensor) -> Tensor:
        ctx.save_for_backward(beside)
        return out.view_as(out)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
