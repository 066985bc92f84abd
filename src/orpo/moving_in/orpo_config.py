"""`from orpo import ORPOConfig`: TRL's ORPOConfig, name by name and default by default. Its settings enter, ours leave, or a refusal."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar

import transformers

from orpo.errors import ConfigError
from orpo.moving_in.from_trl import TRL
from orpo.moving_in.translation import MovedIn, Row, moved_in
from orpo.training.config_file import Setting
from orpo.training.config_values import shown

PLACE = "ORPOConfig"


def _field(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass
class ORPOConfig(transformers.TrainingArguments):  # type: ignore[misc]
    """The settings of ORPOTrainer under TRL's names. One that has no counterpart raises ConfigError, and says what to do instead.

    Fields and defaults are those of TRL 1.16; those at the end are names of older versions, which old scripts still write.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*transformers.TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

    learning_rate: float = _field(1e-6, "Peak learning rate.")
    logging_steps: float = _field(10, "Steps between two logs.")
    gradient_checkpointing: bool = _field(True, "Activations are recomputed where memory asks for it, whatever this says.")
    bf16: bool | None = _field(None, "bfloat16 products; unset takes it where it is fast.")
    lr_scheduler_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "The schedules offered need none."})

    max_length: int | None = _field(1024, "Longest row in tokens, prompt and completion.")
    max_completion_length: int | None = _field(None, "Of encoder-decoders, which are not trained here.")
    beta: float = _field(0.1, "Weight of the odds ratio term; the paper's lambda.")
    disable_dropout: bool = _field(True, "Switch off dropout in the model.")
    padding_value: int | None = _field(None, "Nothing is padded here.")
    generate_during_eval: bool = _field(False, "The report shows replies before and after training.")
    is_encoder_decoder: bool | None = _field(None, "Decoder-only models are trained here.")
    model_init_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "For loading a model that is named."})
    trust_remote_code: bool = _field(False, "Code from a model folder is never run.")
    dataset_num_proc: int | None = _field(None, "Rows are read in one pass here.")

    warmup_ratio: float | None = _field(None, "Older name: warmup_steps below 1 is a share of the run.")
    evaluation_strategy: str | None = _field(None, "Older name of eval_strategy.")
    max_prompt_length: int | None = _field(None, "Older: prompts have no limit of their own here.")
    label_pad_token_id: int | None = _field(None, "Older: nothing is padded here.")
    truncation_mode: str | None = _field(None, "Older: a long row loses its end.")
    overwrite_output_dir: bool | None = _field(None, "Older: an earlier run is moved aside.")
    logging_dir: str | None = _field(None, "Older: trackers choose their own folder.")
    save_safetensors: bool | None = _field(None, "Older: weights are always safetensors.")
    group_by_length: bool | None = _field(None, "Older: the engine packs rows of any length.")

    def __post_init__(self) -> None:
        self._given = {item.name for item in fields(self) if getattr(self, item.name) != _default(item)}
        refuse_unsupported(self.moved_in())
        asked = self.bf16
        self.bf16 = False  # transformers refuses it on a CPU; here a CPU has it too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # gradient_checkpointing is TRL's name, and its successor is not in all versions
            super().__post_init__()
        self.bf16 = asked
        self._settled = {item.name: getattr(self, item.name) for item in fields(self)}

    def moved_in(self, *, known: Mapping[str, Any] | None = None, beside: Mapping[str, Setting] | None = None) -> MovedIn:
        """What the settings come to here: those given, those changed since, and TRL's defaults. Raises ConfigError for a wrong value.

        `known` and `beside` are those of orpo.moving_in.translation.moved_in.
        """
        names = ["output_dir", *(name for name in self._names() if name != "output_dir")]
        found = [Setting("trainer", "orpo", PLACE), *(Setting(name, _plain(getattr(self, name)), PLACE) for name in names)]
        return moved_in(TRL, found, processes=int(os.environ.get("WORLD_SIZE", "1")), known=known, beside=beside)

    def _names(self) -> list[str]:
        """The fields that were given, or set since."""
        settled = getattr(self, "_settled", {})
        changed = {name for name, value in settled.items() if getattr(self, name) != value}
        return [item.name for item in fields(self) if item.name in self._given | changed]


def _default(item: Any) -> Any:
    return item.default_factory() if item.default is MISSING and item.default_factory is not MISSING else item.default


def _plain(value: Any) -> Any:
    """`value` as a file would hold it."""
    if isinstance(value, Enum):
        return value.value
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def refuse_unsupported(moved: MovedIn) -> None:
    """Nothing; raises ConfigError naming every setting that was given and has no counterpart, each with its reason."""
    refused = [row for row in moved.of("unsupported") if row.is_given]
    if not refused:
        return
    raise ConfigError(
        "; ".join(f"{row.setting.name} is {shown(row.setting.value)}: {row.became.why}" for row in refused),
        where=PLACE,
        doing="reading TRL's settings",
        fix=f"take {'it' if len(refused) == 1 else 'them'} out; docs/moving-in.md says what stands in their place",
    )


def notes_of(moved: MovedIn) -> tuple[str, ...]:
    """What to tell of settings that were given: a line for each that means something else here, one for all that are not needed."""
    changed = [f"{PLACE}: {_said(row)}: {row.became.why}" for row in moved.of("changed") if row.is_given and row.setting.name != "trainer"]
    unneeded = [row.setting.name for row in moved.of("unneeded") if row.is_given]
    return (*changed, *([f"{PLACE}: not needed here: {', '.join(unneeded)}"] if unneeded else []))


def _said(row: Row) -> str:
    ours: Sequence[str] = [f"{name} {shown(value)}" for name, value in row.became.ours.items()]
    return f"{row.written} -> {', '.join(ours)}" if ours else row.written
