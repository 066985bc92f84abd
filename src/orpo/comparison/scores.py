"""From what was measured of models to figures with intervals: means over seeds and items, and differences to the baseline on the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orpo.comparison.bootstrap import Estimate, Values, estimate
from orpo.comparison.figures import Figure, wins

Measured = Mapping[str, Any]
"""What measure.py made of one model: `items` by figure, `weights`, how many prompts were answered by `samples`."""


def scores(figures: Sequence[Figure], models: Sequence[Measured], *, base: Measured | None) -> dict[str, Any]:
    """Figure -> its mean over `models` (one for each seed) and items, the interval, the mean of each model, and the number of items."""
    found = {}
    for figure in figures:
        values = values_of(figure, models, base=base)
        if values is None:
            continue
        weights = models[0]["weights"].get(figure.id)
        num = models[0]["samples"] if figure.id == "diversity/across_inputs" else values.shape[1]
        per_seed = [float(np.average(row, weights=weights)) for row in values]
        found[figure.id] = {**estimate(values, weights=weights).as_dict(), "per_seed": per_seed, "num_items": num}
    return found


def against(figures: Sequence[Figure], ours: Sequence[Measured], theirs: Sequence[Measured], *, base: Measured | None) -> dict[str, Any]:
    """Figure -> the difference between `ours` and `theirs`, models of the same seeds in the same order, on the same items."""
    found = {}
    for figure in figures:
        mine, other = (values_of(figure, models, base=base) for models in (ours, theirs))
        if mine is not None and other is not None:
            found[figure.id] = estimate(mine - other, weights=ours[0]["weights"].get(figure.id)).as_dict()
    return found


def values_of(figure: Figure, models: Sequence[Measured], *, base: Measured | None) -> Values | None:
    """The values of a figure: [models, items]; None where it was not measured of all of them."""
    rows = [_items(figure, model, base) for model in models]
    return None if not rows or any(row is None for row in rows) else np.array(rows, dtype=np.float64)


def _items(figure: Figure, model: Measured, base: Measured | None) -> list[float] | None:
    if figure.id != "win_rate":
        values: list[float] | None = model["items"].get(figure.id)
        return values
    if base is None or "oracle/score" not in model["items"]:
        return None
    return wins(model["items"]["oracle/score"], base["items"]["oracle/score"])


def difference(entry: Mapping[str, Any], name: str) -> Estimate | None:
    """The difference to the baseline of a pipeline's entry in compare.json; None where there is none."""
    found = entry.get("against", {}).get(name)
    return Estimate(**found) if found else None
