"""`from orpo import ORPOTrainer`: TRL's trainer by its face, `orpo train` behind it. What a script of TRL gives enters; a run leaves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import transformers

from orpo.data.rows import RowReader, open_dataset
from orpo.moving_in.orpo_config import ORPOConfig, notes_of, refuse_unsupported
from orpo.moving_in.peft_settings import settings_of, settings_of_adapted
from orpo.moving_in.script_arguments import PLACE, refuse, refuse_given, usable_args, usable_model, usable_rows, usable_tokenizer
from orpo.pipeline.given import Given
from orpo.pipeline.run import Run, run_training
from orpo.pipeline.run_data import checked_data, store_and_template
from orpo.runs.resume import resume_point
from orpo.training import models
from orpo.training.checkpointing import REQUIRED
from orpo.training.config import ResolvedConfig
from orpo.training.config_file import Setting
from orpo.training.ranks import is_first
from orpo.training.recording import RecordingCallback
from orpo.training.trainer import PreferenceTrainer

TRAIN, HELD_OUT, OTHER = "train_dataset", "eval_dataset", "evaluated dataset"


class ORPOTrainer:
    """Trains as `orpo train` does, with what TRL's ORPOTrainer is given. The model is trained in place.

    `train` writes the run directory `args.output_dir`: model/ or adapter/, metrics.jsonl, report.html. Raises the errors of `orpo.errors`.
    """

    def __init__(
        self,
        model: Any = None,
        args: ORPOConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Any = None,
        peft_config: Any = None,
        compute_metrics: Any = None,
    ) -> None:
        refuse_given(
            data_collator=data_collator,
            model_init=model_init,
            optimizers=optimizers if any(optimizers) else None,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            compute_metrics=compute_metrics,
        )
        self.args = usable_args(args)
        self.train_dataset, self.eval_dataset = usable_rows(train_dataset, TRAIN), usable_rows(eval_dataset, HELD_OUT)
        if self.train_dataset is None:
            refuse("train_dataset is missing", expected="a datasets.Dataset of preference pairs", fix="give train_dataset")
        self._given_model = usable_model(model)
        self._name = model if isinstance(model, str) else str(getattr(model, "name_or_path", "") or "model in memory")
        self.processing_class = usable_tokenizer(processing_class) or models.load_tokenizer(self._name)
        self._callbacks = list(callbacks or [])
        self.resolved = self._resolved(peft_config)
        self.run: Run | None = None
        self._trainer: PreferenceTrainer | None = None

    def _resolved(self, peft_config: Any) -> ResolvedConfig:
        """The settings of the run: those of args, what was given beside them, and TRL's defaults."""
        asked = getattr(self.args.eval_strategy, "value", self.args.eval_strategy)
        if asked != "no" and self.eval_dataset is None:
            refuse(f"eval_strategy is {asked}, but there is no eval_dataset", expected="pairs to evaluate", fix="give eval_dataset")
        beside: dict[str, Any] = {"model": self._name, "data": TRAIN, **self._adapters(peft_config)}
        beside |= {"eval_data": HELD_OUT} if self.eval_dataset is not None else {}
        pairs = self.args.moved_in().settings["pairs_per_step"].value
        moved = self.args.moved_in(
            known={"steps_per_epoch": ceil(len(self.train_dataset) / pairs)},
            beside={name: Setting(name, value, PLACE) for name, value in beside.items()},
        )
        refuse_unsupported(moved)
        return moved.resolved(notes=notes_of(moved))

    def _adapters(self, peft_config: Any) -> dict[str, Any]:
        """The LoRA settings of peft_config, or of a model that has adapters already."""
        if self._given_model is not None and hasattr(self._given_model, "peft_config"):
            if peft_config is not None:
                refuse("the model has adapters, and peft_config is given", expected="one of the two", fix="leave peft_config out")
            return settings_of_adapted(self._given_model)
        if peft_config is None:
            return {}
        architecture = self._given_model.config if self._given_model is not None else models.load_architecture(self._name)
        return settings_of(peft_config, architecture.model_type)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> Any:
        """transformers' TrainOutput of the finished run. As in TRL, a run starts over unless it is told to go on.

        Nothing is overwritten: an earlier run in output_dir is moved aside. A checkpoint is named by its folder, or True takes the newest.
        """
        if self.run is not None:
            refuse(
                "this trainer has trained already", expected="one call of train", fix="make a new ORPOTrainer; a model can be given again"
            )
        if isinstance(resume_from_checkpoint, str):
            _require_newest(Path(resume_from_checkpoint), Path(str(self.resolved.config.output_dir)))
        config = replace(self.resolved.config, fresh=not resume_from_checkpoint)
        given = Given(
            model=self._given_model,
            tokenizer=self.processing_class,
            rows=self._readers(),
            callbacks=tuple(self._callbacks),
            began=self._began,
        )
        self.run = run_training(replace(self.resolved, config=config), given=given)
        if self._trainer is not None:
            self._trainer.remove_callback(RecordingCallback)  # its files are closed
        return _train_output(self.state)

    def _readers(self) -> dict[str, RowReader]:
        held = {HELD_OUT: open_dataset(self.eval_dataset, HELD_OUT)} if self.eval_dataset is not None else {}
        return {TRAIN: open_dataset(self.train_dataset, TRAIN), **held}

    def _began(self, trainer: PreferenceTrainer) -> None:
        self._trainer = trainer

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Loss and metrics of the trained model over eval_dataset, or over other pairs. `train` itself evaluates before its first step."""
        trainer = self._trained("evaluate")
        kept = trainer.eval_store
        if eval_dataset is not None:
            trainer.eval_store = self._store(usable_rows(eval_dataset, OTHER))
        if trainer.eval_store is None:
            refuse("there is nothing to evaluate", expected="pairs", fix="give eval_dataset to ORPOTrainer or to evaluate")
        try:
            return trainer.evaluate(metric_key_prefix=metric_key_prefix)
        finally:
            trainer.eval_store = kept
            trainer.model.release()

    def _store(self, rows: Any) -> Any:
        """Other pairs, checked and tokenized as those of the run."""
        config, shape = self.resolved.config, models.shape_of(self.model.config, self._name)
        longest = models.effective_max_length(config.max_length, shape, is_explicit=False)
        opened = {OTHER: open_dataset(rows, OTHER)}
        return store_and_template(checked_data(config, (OTHER,), self.processing_class, max_length=longest, opened=opened))[0]

    @property
    def model(self) -> Any:
        """The model: trained once `train` is done; before, what was given."""
        if self._trainer is not None:
            return self._trainer.model.body
        if self._given_model is None:
            refuse("the model is not loaded before train()", expected="train() first", fix="or load it yourself and give it as model")
        return self._given_model

    @property
    def state(self) -> Any:
        """transformers' TrainerState (log_history, global_step); of a run that was finished before, that of its last checkpoint."""
        if self._trainer is not None:
            return self._trainer.state
        last = resume_point(self.run.run_dir, required=REQUIRED) if self.run is not None else None
        return transformers.TrainerState.load_from_json(str(last.path / "trainer_state.json")) if last else transformers.TrainerState()

    @property
    def accelerator(self) -> Any:
        """The accelerator of the finished run."""
        return self._trained("accelerator").accelerator

    def add_callback(self, callback: Any) -> None:
        """Nothing; `callback` is called during train()."""
        self._callbacks.append(callback)

    def save_model(self, output_dir: str | None = None) -> None:
        """Nothing; `output_dir` (args.output_dir where none is named) holds what from_pretrained reads: the model, or the adapter alone."""
        self._trained("save_model")
        assert self.run is not None, "a trained run"
        if not is_first():
            return
        target = Path(output_dir or str(self.resolved.config.output_dir))
        target.mkdir(parents=True, exist_ok=True)
        for path in self.run.model_dir.iterdir():
            if not (path.name == "README.md" and (target / path.name).exists()):  # the run's own card stays
                shutil.copy2(path, target / path.name)

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Prints metrics in transformers' table."""
        self._trained("log_metrics").log_metrics(split, dict(metrics))

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Writes metrics to SPLIT_results.json in the run directory, and with `combined` to all_results.json."""
        self._trained("save_metrics").save_metrics(split, dict(metrics), combined)

    def save_state(self) -> None:
        """Writes trainer_state.json to the run directory."""
        self._trained("save_state").save_state()

    def is_world_process_zero(self) -> bool:
        """True on the process that prints and writes files."""
        return is_first()

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:
        """Raises ConfigError: training never pushes."""
        refuse(
            "push_to_hub is not done here: nothing leaves this machine",
            expected="a decision of yours, after looking at the report",
            fix="trainer.model.push_to_hub(NAME), or hf upload NAME FOLDER",
        )

    def _trained(self, what: str) -> PreferenceTrainer:
        if self._trainer is None:
            done = f"; the finished run is in {self.run.run_dir}" if self.run is not None else ""
            refuse(f"{what} is called, but this trainer has made no step{done}", expected="train() first", fix="call train()")
        return self._trainer

    def __getattr__(self, name: str) -> NoReturn:
        """Raises AttributeError that says what there is."""
        offered = sorted(each for each in vars(type(self)) if not each.startswith("_"))
        raise AttributeError(f"orpo's ORPOTrainer has no {name!r}; it has {', '.join(offered)} (docs/moving-in.md)")


def _require_newest(checkpoint: Path, run_dir: Path) -> None:
    """Nothing; raises ConfigError unless `checkpoint` is what a resumed run would go on from."""
    if checkpoint.resolve() == run_dir.resolve():
        return
    newest = resume_point(run_dir, required=REQUIRED) if run_dir.is_dir() else None
    if newest is None or newest.path.resolve() != checkpoint.resolve():
        found = f"{newest.path}" if newest else f"none in {run_dir}"
        refuse(
            f"resume_from_checkpoint is {checkpoint}",
            expected=f"the newest valid checkpoint of output_dir ({found})",
            fix="resume_from_checkpoint=True takes it; to go back, move the later ones away",
        )


def _train_output(state: Any) -> Any:
    """What transformers' train() returns, out of the closing row of its log."""
    closing: Mapping[str, Any] = next((row for row in reversed(state.log_history) if "train_runtime" in row), {})
    metrics = {name: value for name, value in closing.items() if name != "step"}
    return transformers.trainer_utils.TrainOutput(state.global_step, float(closing.get("train_loss", 0.0)), metrics)
