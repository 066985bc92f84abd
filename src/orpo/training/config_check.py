"""What no single value shows: settings that contradict, that would change nothing, or that are far from what ORPO needs. No torch."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from orpo.errors import ConfigError
from orpo.objectives.catalogue import needs_baseline, needs_reference
from orpo.training.config_fields import (
    BITSANDBYTES_OPTIMIZERS,
    DEFAULTS,
    FIELDS,
    TRACKERS,
    TrainConfig,
    is_adamw,
    objectives_with,
    option_about,
    reference_way,
)
from orpo.training.config_values import Unfit, converted, shown

FULL_RATES = (5e-7, 1e-4)
LORA_RATES = (5e-6, 1e-3)
"""Beyond these a note is given. Published ORPO runs take 1e-6 to 8e-6 on all weights, 8e-6 to 2e-4 with LoRA; small models take more."""

POLYNOMIAL_END = 1e-7
"""Where transformers ends a polynomial schedule that is told nothing else; it refuses a peak at or below."""

LORA_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
ADAM_SETTINGS = ("adam_beta1", "adam_beta2")
SHARDED_OPTIMIZERS = ("adamw_torch_fused", "adamw_torch")


@dataclass(frozen=True, slots=True)
class Places:
    """Where each setting came from. Without origins, a setting that differs from its default counts as given."""

    config: TrainConfig
    origins: Mapping[str, str] | None

    def is_given(self, name: str) -> bool:
        """True when a preset, a file or a flag names it."""
        if self.origins is None:
            return name in FIELDS and getattr(self.config, name) != DEFAULTS[name]
        return self.origins.get(name, "default") != "default"

    def where(self, name: str) -> str:
        """The place an error begins with; '' for a default."""
        return place_of((self.origins or {}).get(name, ""))

    def named(self, name: str) -> str:
        """The setting with its place, for errors that name two."""
        origin = (self.origins or {}).get(name, "")
        return f"{name} ({origin})" if origin not in ("", "default") else name


def place_of(origin: str) -> str:
    """`orpo.yaml:9` of 'orpo.yaml:9 (as pref_beta)', `--beta` of 'flag --beta', '' of 'default'."""
    return "" if origin == "default" else origin.partition(" (as ")[0].removeprefix("flag ")


def check_config(config: TrainConfig, *, origins: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Notes for the user about settings that are allowed and unusual. Raises ConfigError for those that cannot be.

    `origins` is that of resolve_config: with it, errors begin with the place and defaults are told from what was given.
    """
    places = Places(config, origins)
    _require_values(places)
    _require_options(places)
    return tuple(chain.from_iterable(check(config, places) for check in CHECKS))


def require(about: Any, name: str, value: object, places: Places) -> None:
    """Nothing; raises ConfigError when `value` is of another type or out of range."""
    try:
        converted(about, value)
    except Unfit as unfit:
        raise unfit_error(name, value, unfit, origin=(places.origins or {}).get(name, "")) from None


def unfit_error(name: str, value: object, unfit: Unfit, *, origin: str) -> ConfigError:
    """The ConfigError of a value that does not fit its setting."""
    written = origin.partition(" (as ")[2].removesuffix(")")
    said = f"{name} ({written})" if written else name
    fix = unfit.fix or _default_fix(name)
    return ConfigError(f"{said} is {shown(value)}", where=place_of(origin), expected=unfit.expected, fix=fix)


def _default_fix(name: str) -> str:
    default = DEFAULTS.get(name)
    return f"the default is {shown(default)}" if default not in (None, "", ()) else "correct it, or remove it"


def _require_values(places: Places) -> None:
    """Every value is of its kind and in range; those not set are left out."""
    for name, about in FIELDS.items():
        value = getattr(places.config, name)
        if value != DEFAULTS[name] or isinstance(value, bool) != isinstance(DEFAULTS[name], bool):
            require(about, name, value, places)


def _require_options(places: Places) -> None:
    """Every option of the objective is known to it, of its kind and in range."""
    config, options = places.config, option_about(places.config.objective)
    for name, value in config.objective_options.items():
        if name not in options:
            raise foreign_option(name, config.objective, where=places.where(name))
        require(options[name][0], name, value, places)


def require_bitsandbytes(config: TrainConfig, origins: Mapping[str, str]) -> None:
    """Nothing; raises ConfigError where training needs bitsandbytes and it is not installed. To plan or to read a run it need not be."""
    name = "load_in_4bit" if config.load_in_4bit else "optim" if config.optim in BITSANDBYTES_OPTIMIZERS else ""
    if name and importlib.util.find_spec("bitsandbytes") is None:
        said = shown(getattr(config, name)).strip("'")
        fix = f"pip install 'orpo[qlora]', or remove {name}"
        raise ConfigError(f"{name} {said} needs bitsandbytes, which is not installed", where=place_of(origins.get(name, "")), fix=fix)


def foreign_option(name: str, objective: str, *, where: str) -> ConfigError:
    """The error for an option that belongs to other objectives, which are named, or to none."""
    owners = ", ".join(objectives_with(name))
    return ConfigError(
        f"objective {objective} has no option {name}" + (f": it belongs to {owners}" if owners else ""),
        where=where,
        expected=f"the options of {objective}: {', '.join(option_about(objective))}",
        fix=f"remove {name}" + (f", or set objective to {owners.replace(', ', ' or ')}" if owners else ""),
    )


def _contradiction(first: str, second: str, problem: str, places: Places, *, fix: str) -> ConfigError:
    """Names both settings and their places; begins with the place of the one that was given last."""
    return ConfigError(
        f"{places.named(first)} and {places.named(second)} contradict: {problem}",
        where=places.where(first) or places.where(second),
        fix=fix,
    )


def _source(config: TrainConfig, places: Places) -> Iterator[str]:
    if not config.model:
        expected = "a folder, a Hub id such as Qwen/Qwen3-0.6B-Base, or builtin (1.4 M parameters, to try things out)"
        raise ConfigError("no model is given", expected=expected, fix="add --model MODEL, or model: MODEL to a settings file")
    if not config.data:
        raise ConfigError("no data are given", expected="preference pairs", fix="add --data FILE, or data: FILE to a settings file")
    if config.eval_data and config.holdout:
        problem = "both say which pairs are held out"
        raise _contradiction("holdout", "eval_data", problem, places, fix="remove one of the two")
    both = {_identity(path) for path in config.data} & {_identity(path) for path in config.eval_data}
    if both:
        raise ConfigError(
            f"{min(both)} is in {places.named('data')} and in {places.named('eval_data')}",
            where=places.where("eval_data"),
            expected="held-out pairs that are never trained on",
            fix="give another file as eval_data, or hold out a part of the data with holdout: 0.1",
        )
    yield from ()


def _identity(path: str) -> str:
    """A file by its real path, whatever way it was written; a Hub id as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _loss(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.preset is not None and config.objective != "orpo":
        problem = "presets are those of orpo"
        raise _contradiction("preset", "objective", problem, places, fix="remove preset, or set objective: orpo")
    yield from _reference(config, places)
    if config.objective == "orpo" and config.objective_options.get("beta") == 0:
        yield "beta is 0: the odds ratio has no weight, so this equals SFT on the chosen answers"


def _reference(config: TrainConfig, places: Places) -> Iterator[str]:
    for name in ("reference", "reference_cache"):
        if places.is_given(name) and not needs_reference(config.objective):
            problem = f"{config.objective} reads no reference model"
            raise _contradiction(name, "objective", problem, places, fix=f"remove {name}, or choose an objective that reads one")
    if config.reference == "adapter" and not config.use_peft:
        problem = "without use_peft there are no adapters to switch off"
        raise _contradiction("reference", "use_peft", problem, places, fix="set use_peft: true, or reference: precomputed")
    if config.reference_cache is not None and reference_way(config) != "precomputed":
        problem = f"reference {reference_way(config)} keeps nothing"
        raise _contradiction("reference_cache", "reference", problem, places, fix="remove reference_cache, or set reference: precomputed")
    if needs_baseline(config.objective) and config.pairs_per_step < 2:
        problem = f"{config.objective} measures its baseline on prompts beside answers of other examples of the step"
        raise _contradiction("pairs_per_step", "objective", problem, places, fix="set pairs_per_step to 2 or more")
    yield from ()


def _length(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.max_steps != -1 and config.max_steps < 1:
        expected = "at least 1, or -1 to go by num_train_epochs"
        raise ConfigError(
            f"max_steps is {config.max_steps}", where=places.where("max_steps"), expected=expected, fix="set the steps, or remove it"
        )
    if config.max_steps > 0 and places.is_given("max_steps") and places.is_given("num_train_epochs"):
        problem = "each sets the length of the run"
        raise _contradiction("max_steps", "num_train_epochs", problem, places, fix="remove one of the two")
    if 0 < config.max_steps < config.warmup_steps:
        problem = f"a warm-up of {config.warmup_steps} steps does not end within {config.max_steps}"
        fix = "lower warmup_steps; 0.1 is a tenth of the run"
        raise _contradiction("warmup_steps", "max_steps", problem, places, fix=fix)
    yield from ()


def _optimizer(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.lr_scheduler_type == "constant" and config.warmup_steps:
        fix = "set lr_scheduler_type: constant_with_warmup"
        raise _contradiction("lr_scheduler_type", "warmup_steps", "a constant rate has no warm-up", places, fix=fix)
    if config.lr_scheduler_type == "polynomial" and config.learning_rate <= POLYNOMIAL_END:
        problem = f"a polynomial course ends at {POLYNOMIAL_END:g}, which is not below the peak"
        raise _contradiction("learning_rate", "lr_scheduler_type", problem, places, fix="raise learning_rate, or use linear")
    for name in ADAM_SETTINGS:
        if places.is_given(name) and not is_adamw(config.optim):
            raise _contradiction(name, "optim", f"{config.optim} does not read it", places, fix=f"remove {name}, or use an adamw optimizer")
    low, high = LORA_RATES if config.use_peft else FULL_RATES
    if not low <= config.learning_rate <= high:
        kind, published = ("with LoRA", "8e-6 to 2e-4") if config.use_peft else ("on all weights", "1e-6 to 8e-6")
        side, danger = ("below", "little will change") if config.learning_rate < low else ("above", "the model may forget what it knew")
        yield (
            f"learning_rate {config.learning_rate:g} is far {side} the {published} of published ORPO runs {kind}: "
            f"{danger}, unless the model is very small"
        )


def _lora(config: TrainConfig, places: Places) -> Iterator[str]:
    for name in LORA_SETTINGS:
        if places.is_given(name) and not config.use_peft:
            raise _contradiction(
                name, "use_peft", "without use_peft there are no adapters", places, fix=f"set use_peft: true, or remove {name}"
            )
    yield from ()


def _four_bit(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.load_in_4bit and not config.use_peft:
        problem = "weights in 4 bits are frozen, and without adapters nothing is left to train"
        raise _contradiction("load_in_4bit", "use_peft", problem, places, fix="set use_peft: true (QLoRA), or load_in_4bit: false")
    yield from ()


def _processes(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.sharding == "none":
        return
    problem, name, fix = "", "", "set sharding: none"
    if config.num_processes == 1:
        problem, name, fix = "one process has none to divide weights with", "num_processes", "remove one of the two"
    elif config.load_in_4bit:
        problem, name = "weights in 4 bits are not divided", "load_in_4bit"
    elif config.optim not in SHARDED_OPTIMIZERS:
        problem, name, fix = f"the state of {config.optim} is not divided", "optim", f"use {' or '.join(SHARDED_OPTIMIZERS)}"
    if problem:
        raise _contradiction("sharding", name, problem, places, fix=fix)
    yield from ()


def _watching(config: TrainConfig, places: Places) -> Iterator[str]:
    if config.eval_steps and not (config.eval_data or config.holdout):
        raise ConfigError(
            f"{places.named('eval_steps')} is {config.eval_steps}, but neither eval_data nor holdout gives held-out pairs",
            where=places.where("eval_steps"),
            fix="add holdout: 0.1, or eval_data, or remove eval_steps",
        )
    for name in (config.report_to,) if isinstance(config.report_to, str) else config.report_to:
        _require_tracker(name, places)
    if config.output_dir is not None and Path(config.output_dir).is_file():
        fix = "name a folder; it may be a new one"
        raise ConfigError(f"output_dir {config.output_dir} is a file", where=places.where("output_dir"), expected="a folder", fix=fix)
    yield from ()


def _require_tracker(name: str, places: Places) -> None:
    where = places.where("report_to")
    if name == "none" and isinstance(places.config.report_to, str):
        return
    if name not in TRACKERS:
        raise ConfigError(f"report_to names {name!r}", where=where, expected=f"none, or of {', '.join(TRACKERS)}", fix=_near(name))
    if importlib.util.find_spec(TRACKERS[name]) is None:
        fix = f"pip install {TRACKERS[name].replace('_', '-')}, or remove report_to"
        raise ConfigError(f"report_to names {name}, which is not installed", where=where, fix=fix)


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, TRACKERS, n=1)
    return f"did you mean {near[0]}?" if near else "remove report_to; metrics.jsonl and the report are always written"


Check = Callable[[TrainConfig, Places], Iterator[str]]
CHECKS: tuple[Check, ...] = (_source, _loss, _length, _optimizer, _lora, _four_bit, _processes, _watching)
