"""Dropout in a model: where it is, and switching it off. With dropout the branches of a pair cannot share their prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def dropout_rates(model: nn.Module) -> dict[str, float]:
    """Every dropout above 0 in `model`: the name of its place -> its rate."""
    return {f"{place}.{attribute}".strip("."): rate for place, _, attribute, rate in _places(model) if rate > 0}


def disable_dropout(model: nn.Module) -> int:
    """How many places of `model` had a dropout above 0; all are 0 now. Adapters that are added later bring their own."""
    found = [(module, attribute) for _, module, attribute, rate in _places(model) if rate > 0]
    for module, attribute in found:
        setattr(module, attribute, 0.0)
    return len(found)


READ_AT_EACH_FORWARD = {
    "blt": ("dropout",),
    "falcon": ("attention_dropout", "hidden_dropout"),
    "persimmon": ("attention_dropout",),
    "prophetnet": ("dropout",),
}
"""Model types whose layers ask their config for a rate in every forward (transformers 5.23): there the config itself is the place."""


def _places(model: nn.Module) -> Iterator[tuple[str, Any, str, float]]:
    """(name of the module, module, attribute, rate): modules of torch keep it as `p`, layers that call F.dropout as a number of theirs."""
    configs: set[int] = set()
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        if config is not None and id(config) not in configs:
            configs.add(id(config))
            for attribute in READ_AT_EACH_FORWARD.get(getattr(config, "model_type", ""), ()):
                yield f"{name}.config".strip("."), config, attribute, float(getattr(config, attribute))
        if isinstance(module, nn.modules.dropout._DropoutNd):
            yield name, module, "p", float(module.p)
            continue
        for attribute, value in vars(module).items():
            if isinstance(value, float) and "drop" in attribute:
                yield name, module, attribute, value
