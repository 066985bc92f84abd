"""A trained run, or any model folder, on held-out pairs: the same data path and the same engine as in training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from orpo.core.tokens import TokenizedExample
from orpo.data.checks import check_data
from orpo.data.columns import parse_columns
from orpo.data.limits import Overlong
from orpo.data.templates import CHOICES
from orpo.errors import ConfigError
from orpo.evaluation import preference, rewards
from orpo.pipeline.run import quiet_libraries
from orpo.pipeline.run_data import is_scored
from orpo.runs import names
from orpo.training import models
from orpo.training.config import TrainConfig, resolve_config
from orpo.training.trained_adapters import adapter_base, on_base

Tick = Callable[[], None]

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
    tokenizer, shape = models.load_tokenizer(folder), models.load_shape(base_of(folder, config))
    num_known, mapping = len(tokenizer), columns or config.columns
    asked = config.max_length if max_length is None else max_length
    checked = check_data(
        data,
        tokenizer=tokenizer,
        template=template or trained_template(config),
        columns=parse_columns(mapping) if mapping else None,
        max_length=models.effective_max_length(asked, shape, is_explicit=max_length is not None),
        overlong=cast(Overlong, config.overlong),
        max_bad_rows=0,
        pair_labelled=config.pair_labelled,
    )
    checked.raise_if_errors()
    _check_tokens(tokenizer, shape, folder, num_new=len(tokenizer) - num_known)
    for kind, num in checked.report.as_dict()["dropped"].items():
        say(f"dropped      {num:,} x {kind}")
    store = checked.store
    assert store is not None, "checked with a tokenizer"
    figures = _figures(folder, config, tokenizer, store, tick=lambda: tick(len(store)))
    return {"model": folder, "data": list(data), "rows": checked.report.as_dict()["rows"], **figures}


def figures_of(run: str) -> tuple[str, ...]:
    """The names of the figures of `run` on pairs: by log-probs, or by the scores of a reward model."""
    folder, config = model_of(run)
    return rewards.FIGURES if is_reward_model(folder, config) else preference.FIGURES


def _figures(folder: str, config: TrainConfig, tokenizer: Any, examples: Sequence[TokenizedExample], *, tick: Tick) -> dict[str, float]:
    """The figures of the model in `folder` on `examples`."""
    if is_reward_model(folder, config):
        body = load_trained(folder, config, tokenizer, load=models.load_scorer)
        return rewards.summarize(rewards.reward_scores(body, examples, tick=tick))
    body = load_trained(folder, config, tokenizer)
    return preference.summarize(preference.pair_scores(body, examples, tick=tick))


def is_reward_model(folder: str, config: TrainConfig) -> bool:
    """Whether the weights in `folder` (or of a Hub id) end in a score, and not in log-probs."""
    adapter = Path(folder) / "adapter_config.json"
    if is_scored(config.objective):
        return True
    if adapter.is_file():
        return bool(json.loads(adapter.read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS")
    return any("SequenceClassification" in name for name in models.load_architecture(folder).architectures or ())


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


def base_of(folder: str, config: TrainConfig) -> str:
    """The model that the adapter in `folder` sits on; `folder` itself where there is no adapter."""
    path = Path(folder)
    if not (path / "adapter_config.json").is_file():
        return folder
    base = adapter_base(path)
    return base if Path(base).is_dir() or not config.model else str(config.model)


def trained_template(config: TrainConfig) -> str:
    """The template choice that gives the training's tokens. A template file was saved with the tokenizer and may be gone since."""
    return config.template if config.template in CHOICES else "tokenizer"


def _check_tokens(tokenizer: Any, shape: models.ModelShape, folder: str, *, num_new: int) -> None:
    """Nothing; raises ConfigError for tokens without an embedding row. An adapter brings rows of its own for those of its tokenizer."""
    if num_new and len(tokenizer) > shape.vocabulary:
        raise ConfigError(
            f"the template adds {num_new} tokens for which {folder} has no embedding rows, so it was not trained with this template",
            fix="use the template that it was trained with (--template tokenizer, or raw)",
        )
    if not (Path(folder) / "adapter_config.json").is_file():
        models.check_tokenizer(tokenizer, shape, folder, num_new=num_new)


def load_trained(folder: str, config: TrainConfig, tokenizer: Any, *, load: Callable[..., Any] = models.load_model) -> Any:
    """The model in `folder` by `load`; for an adapter, its base with the adapter on top, in eval mode on the device that there is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (Path(folder) / "adapter_config.json").is_file():
        return load(folder, dtype=MERGED_DTYPE).to(device).eval()
    base = load(base_of(folder, config), dtype=MERGED_DTYPE, load_in_4bit=config.load_in_4bit)
    return on_base(base, Path(folder), num_tokens=len(tokenizer)).to(device).eval()
