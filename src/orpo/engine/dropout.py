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


def _places(model: nn.Module) -> Iterator[tuple[str, Any, str, float]]:
    """(name of the module, module, attribute, rate): modules of torch keep it as `p`, layers that call F.dropout as a number of theirs."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            yield name, module, "p", float(module.p)
            continue
        for attribute, value in vars(module).items():
            if isinstance(value, float) and "drop" in attribute:
                yield name, module, attribute, value
