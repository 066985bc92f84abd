"""From a trainer at a step boundary to a published checkpoint, in the order that survives a crash at any point."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orpo.engine.sharded import is_sharded
from orpo.errors import ConfigError, NotFiniteError
from orpo.runs.checkpoints import begin_staging, discard_staging, publish_staging
from orpo.runs.manifest import BaseModel, CheckpointFacts
from orpo.runs.rotation import rotate
from orpo.runs.storage import storage_errors
from orpo.training.environment import library_version
from orpo.training.models import located
from orpo.training.ranks import all_or_none, from_first
from orpo.training.sharded_state import Weights, whole_optimizer_state, whole_weights

if TYPE_CHECKING:
    from orpo.training.config import TrainConfig
    from orpo.training.trainer import PreferenceTrainer

FREE_FIELDS = frozenset(
    {
        "model",  # base_model's hash stands for it
        "data",  # the data fingerprint stands for it
        "eval_data",
        "output_dir",
        "fresh",
        "resume_anyway",
        "logging_steps",
        "eval_steps",
        "save_steps",
        "save_total_limit",
        "report_to",
        "reference",  # its three ways give the same numbers
        "reference_cache",
        "tokens_per_micro_batch",  # a step is the same however it is cut
        "gradient_checkpointing",
        "num_processes",  # world_size stands for it
        "sharding",  # a checkpoint holds whole weights and moments, however they were divided
        "num_samples",
        "max_new_tokens",
        "max_bad_rows",
        "preset",  # what it set stands for it
        "recipe",
    }
)
"""Settings that may change when a run is resumed; all others must match."""

REQUIRED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""Files without which a run cannot go on exactly where it stopped."""

LIBRARIES = ("orpo", "torch", "transformers", "peft", "accelerate", "tokenizers")


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What stays the same over a run: the settings that must match, the free ones, the data fingerprint and the base model."""

    identity: Mapping[str, Any]
    free: Mapping[str, Any]
    data: Mapping[str, Any]
    base_model: BaseModel

    def facts(self, *, epoch: float, samples_seen: int, world_size: int) -> CheckpointFacts:
        """The facts of a checkpoint of this run."""
        return CheckpointFacts(
            epoch=epoch,
            samples_seen=samples_seen,
            world_size=world_size,
            identity={**self.identity, "world_size": world_size},
            base_model=self.base_model,
            free=self.free,
            data=self.data,
            libraries={name: library_version(name) for name in LIBRARIES},
        )


def run_identity(config: TrainConfig, *, resolved: Mapping[str, Any], data: Mapping[str, Any], base_model: BaseModel) -> RunIdentity:
    """The identity of a run: `resolved` holds what was decided at start (the dtype, the objective's options with their defaults)."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    identity = {name: value for name, value in values.items() if name not in FREE_FIELDS} | dict(resolved)
    free = {name: value for name, value in values.items() if name in FREE_FIELDS - {"output_dir", "fresh", "resume_anyway"}}
    return RunIdentity(identity, free, data, base_model)


def base_model_facts(model: str) -> BaseModel:
    """Id, commit and sha256 over the safetensors files (names and contents) of a folder, or of a Hub model, fetched first."""
    folder, revision = Path(located(model)), None
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.safetensors.index.json"]))
        revision = folder.name
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"{model} has no weights as safetensors",
            expected="model.safetensors, or its shards; other formats can run code when they are loaded",
            fix="convert it: load it with transformers and save_pretrained it to a folder",
        )
    digest = hashlib.sha256()
    with storage_errors(folder, "reading the base model's weights"):
        for path in files:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return BaseModel(id=str(model), revision=revision, weights_sha256=digest.hexdigest())


def checkpoint_saver(
    run_dir: Path, run: RunIdentity, *, tokenizer: Any, keep: int, say: Callable[[str], None], before: Callable[[], None]
) -> Callable[[PreferenceTrainer], Path]:
    """A function that publishes the trainer's state as checkpoint-N. `before` makes the metrics log durable first.

    Order: rank 0 clears staging; all ranks write below it; rank 0 hashes, syncs, writes the manifest and renames; only then old ones go.
    """

    def save(trainer: PreferenceTrainer) -> Path:
        step, is_first = trainer.state.global_step, trainer.args.process_index == 0
        refuse_non_finite(trainer)

        def begin() -> Path:
            before()
            return begin_staging(run_dir, step, need_bytes=expected_size(trainer))

        def publish() -> Path:
            seen, world_size = trainer.progress.num_pairs, trainer.args.world_size
            facts = run.facts(epoch=float(trainer.state.epoch or 0), samples_seen=seen, world_size=world_size)
            published = publish_staging(run_dir, staging, step=step, facts=facts, required=REQUIRED)
            for note in published.notes:
                say(note)
            rotate(run_dir, keep)
            return published.path

        staging = from_first(begin)
        try:
            for write in (_write_weights, _write_state):
                # One after the other: a process that could not write must not be missed by others that gather what is divided.
                with all_or_none(), storage_errors(staging, f"writing checkpoint-{step}", need_bytes=expected_size(trainer)):
                    write(trainer, staging, tokenizer)
            return from_first(publish)
        except Exception:
            if is_first:
                discard_staging(staging)
            raise

    return save


def _write_weights(trainer: PreferenceTrainer, staging: Path, tokenizer: Any) -> None:
    """Weights and tokenizer, under the names that transformers gives them."""
    weights = whole_weights(trainer.model.body)
    if trainer.args.process_index == 0:
        save_body(trainer.model.body, tokenizer, staging, weights=weights)


def _write_state(trainer: PreferenceTrainer, staging: Path, _: Any) -> None:
    """Optimizer, scheduler, RNG and state, under the names that transformers gives them. No pickle of arguments."""
    if is_sharded(trainer.model.body):
        state = whole_optimizer_state(trainer.optimizer)
        if trainer.args.process_index == 0:
            torch.save(state, staging / "optimizer.pt")
            torch.save(trainer.lr_scheduler.state_dict(), staging / "scheduler.pt")
    else:
        trainer._save_optimizer_and_scheduler(str(staging))
    trainer._save_rng_state(str(staging))
    if trainer.args.process_index == 0:
        trainer.state.save_to_json(str(staging / "trainer_state.json"))


def save_body(body: Any, tokenizer: Any, folder: Path, *, weights: Weights | None = None) -> None:
    """Nothing; `folder` holds the model (or the adapter alone) as safetensors, and the tokenizer. `weights` are those of a divided body."""
    is_adapter = hasattr(body, "peft_config")
    # The trained rows of new tokens are in the adapter; the base's own embeddings need no second copy.
    options: dict[str, Any] = {"save_embedding_layers": False} if is_adapter else {}
    body.save_pretrained(folder, **options, **({} if weights is None else {"state_dict": weights}))
    if is_adapter and hasattr(body.get_base_model(), "generation_config"):
        body.get_base_model().generation_config.save_pretrained(folder)  # where replies end
    tokenizer.save_pretrained(folder)


def expected_size(trainer: PreferenceTrainer) -> int:
    """Bytes a checkpoint will take: trained weights (or all, without an adapter), and two fp32 moments of what is trained."""
    body = trainer.model.body
    parameters = list(body.parameters())
    trained = sum(int(p.numel()) for p in parameters if p.requires_grad)
    weights: int = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad or not hasattr(body, "peft_config"))
    return weights + 8 * trained


def refuse_non_finite(trainer: PreferenceTrainer) -> None:
    """Raises NotFiniteError when a trained parameter is not finite: such a checkpoint is never published."""
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and not _is_finite(parameter):
            raise NotFiniteError(
                f"the weights of {name.removeprefix('body.')} are not finite after step {trainer.state.global_step}",
                doing="saving a checkpoint; nothing was published, earlier checkpoints are intact",
                fix="lower learning_rate, or set dtype: float32, and run again: it resumes from the last good checkpoint",
            )


def _is_finite(parameter: torch.Tensor) -> bool:
    """Whether all of it is, on every process alike."""
    finite: Any = torch.isfinite(parameter.detach()).all()
    return bool(finite.full_tensor() if hasattr(finite, "full_tensor") else finite)
