"""A trained run, or any model folder, on held-out pairs: the same data path and the same engine as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from orpo.data.checks import check_data
from orpo.data.columns import parse_columns
from orpo.data.limits import Overlong
from orpo.errors import ConfigError
from orpo.evaluation.preference import pair_scores, summarize
from orpo.pipeline.run import quiet_libraries
from orpo.runs import names
from orpo.training import models
from orpo.training.config import TrainConfig, resolve_config

MERGED_DTYPE = torch.float32
"""Held-out figures are measured in fp32, so that they do not depend on the machine."""


def evaluate(
    run: str,
    data: Sequence[str],
    *,
    columns: str | None = None,
    template: str | None = None,
    max_length: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Figures of `run` (a run directory, a model folder, or a Hub id) on the pairs of `data`; template and max_length as in training.

    Raises ConfigError or DataError before the model is loaded.
    """
    quiet_libraries()
    folder, config = model_of(run)
    tokenizer = models.load_tokenizer(folder)
    checked = check_data(
        data,
        tokenizer=tokenizer,
        template=template or config.template,
        columns=parse_columns(columns) if columns else None,
        max_length=max_length or config.max_length,
        overlong=cast(Overlong, config.overlong),
        max_bad_rows=0,
        pair_labelled=False,
    )
    checked.raise_if_errors()
    for kind, num in checked.report.as_dict()["dropped"].items():
        say(f"dropped      {num:,} x {kind}")
    body = load_trained(folder, config, tokenizer)
    store = checked.store
    assert store is not None, "checked with a tokenizer"
    scores = pair_scores(body, store, tick=lambda: tick(len(store)))
    return {"model": folder, "data": list(data), "rows": checked.report.as_dict()["rows"], **summarize(scores)}


def model_of(run: str) -> tuple[str, TrainConfig]:
    """The folder with the model (or adapter) of `run`, and the settings it was trained with (the defaults for a plain model)."""
    path = Path(run)
    if not (path / names.CONFIG).is_file():
        return run, TrainConfig()
    config = resolve_config(file=path / names.CONFIG).config
    for folder in (path / names.ADAPTER, path / names.MODEL):
        if folder.is_dir():
            return str(folder), config
    raise ConfigError(
        f"{run} holds no finished model",
        expected=f"a run with {names.MODEL}/ or {names.ADAPTER}/",
        fix="run the same `orpo train` command again: it goes on from the last checkpoint",
    )


def load_trained(folder: str, config: TrainConfig, tokenizer: Any) -> Any:
    """The model in `folder`; for an adapter, its base with the adapter on top, in eval mode on the device that there is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (Path(folder) / "adapter_config.json").is_file():
        return models.load_model(folder, dtype=MERGED_DTYPE).to(device).eval()
    base = models.load_model(str(config.model) if config.model else models.adapter_base(Path(folder)), dtype=MERGED_DTYPE)
    return models.on_base(base, Path(folder), num_tokens=len(tokenizer)).to(device).eval()
