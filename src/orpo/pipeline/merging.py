"""An adapter and its base enter, one model leaves that needs neither; what it says is compared with what the adapter said on its base."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from orpo.errors import ConfigError, OrpoError
from orpo.pipeline.agreement import Agreement, agreement, last_logits, percent, sample_rows
from orpo.pipeline.evaluate import base_of, model_of
from orpo.pipeline.run_data import is_scored
from orpo.runs import names
from orpo.training import four_bit, models
from orpo.training.config import TrainConfig
from orpo.training.references import adapters_off
from orpo.training.trained_adapters import on_base

Say = Callable[[str], None]

ALLOWED: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.bfloat16: 0.03}
"""How far logits of the merged model may lie from the adapter's on the same base, as a share of their spread: what rounding explains."""

DRIFT_ALLOWED = 0.3
"""How far they may lie from those of the model as it was trained, on 4-bit weights: several times what NF4 usually costs."""


ROOM = 1.3
"""A model is compared on a GPU with this many times its weights in free memory: a few hundred tokens of logits come on top."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What is exported: the folder of the result, the settings it was trained with, the base (the folder itself without an adapter)."""

    run_dir: Path
    folder: Path
    config: TrainConfig
    base: str
    tokenizer: Any

    @property
    def is_adapter(self) -> bool:
        """Whether the result is an adapter on a base."""
        return (self.folder / "adapter_config.json").is_file()

    @property
    def name(self) -> str:
        """What the export may be called."""
        return names.slug(self.run_dir.resolve().name)


@dataclass(frozen=True, slots=True)
class Merge:
    """How to merge: the dtype of the weights, and onto the base in full, or onto its 4-bit weights written out."""

    dtype: torch.dtype
    onto_4_bit: bool = False


def trained(run: str) -> Trained:
    """The result of `run` (a run directory, or a folder with a model). Raises ConfigError for a reward model, which writes nothing."""
    folder, config = model_of(run)
    if is_scored(config.objective):
        raise ConfigError(f"{run} holds a reward model; exports are of models that write", fix=f"load {folder} with transformers or PEFT")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"the folder {run} does not exist", expected="a run directory, or a folder with a model", fix="check the name")
    tokenizer = models.load_tokenizer(folder)
    return Trained(Path(run), path, config, base_of(folder, config), tokenizer)


def write_merged(source: Trained, staging: Path, merge: Merge, say: Say) -> dict[str, Any]:
    """Writes a model that plain transformers loads into `staging`; the figures of the comparison, which were said as well.

    What is compared is what was written, loaded anew. Raises OrpoError where it lies further from the adapter on its base than allowed.
    """
    rows, what = sample_rows(source.run_dir, source.tokenizer)
    as_trained = _logits_in_four_bits(source, rows, say)
    body = _on_base(source, merge, written_out=merge.onto_4_bit)
    before = last_logits(body, rows)
    untrained = before
    if source.is_adapter:
        with adapters_off(body):
            untrained = last_logits(body, rows)
        body = body.merge_and_unload()
    _save(body.to(merge.dtype), source, staging)
    del body
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    written = models.load_model(str(staging), dtype=merge.dtype)
    after = last_logits(_placed(written), rows)
    expected = as_trained if merge.onto_4_bit and as_trained else before
    return _compared(source, merge, after, {"adapter": expected, "untrained": untrained, "trained": as_trained}, what, say)


def _compared(
    source: Trained, merge: Merge, after: list[torch.Tensor], others: Mapping[str, list[torch.Tensor]], what: str, say: Say
) -> dict[str, Any]:
    """The figures; raises OrpoError where one is not within what is allowed."""
    name = str(merge.dtype).removeprefix("torch.")
    allowed = ALLOWED[merge.dtype]
    base = "4-bit base, as trained" if merge.onto_4_bit else "base in full"
    against = f"the adapter on its {base}" if source.is_adapter else "the model of the run"
    exact = agreement(after, others["adapter"])
    say(f"compared     on {what}, what was written and loaded again ({name}) against {against}:")
    say(f"             {exact} (allowed {percent(allowed)})")
    figures: dict[str, Any] = {"compared_with": against, "difference": exact.difference, "allowed": allowed}
    if source.is_adapter:
        effect = agreement(others["adapter"], others["untrained"])
        figures["effect_of_training"] = effect.difference
        say(f"             for comparison: with the adapter off they differ by {percent(effect.difference)}")
    _require(exact, allowed, f"the model that was written does not say what {against} says")
    if source.is_adapter and merge.dtype == torch.bfloat16 and exact.difference > 0.5 * effect.difference:
        say("note         rounding the weights to bfloat16 is more than half of what training changed; --dtype float32 keeps all of it")
    if not merge.onto_4_bit and others["trained"]:
        drift = agreement(after, others["trained"])
        figures |= {"drift_from_4_bit": drift.difference, "drift_allowed": DRIFT_ALLOWED}
        say(f"             against the run as it was trained, on 4-bit weights: {drift} (allowed {percent(DRIFT_ALLOWED)})")
        _require(drift, DRIFT_ALLOWED, "on the base in full the adapter does not say what it said on the 4-bit weights it was trained on")
    return figures


def _require(found: Agreement, allowed: float, problem: str) -> None:
    if not found.difference <= allowed:
        raise OrpoError(
            f"{problem}: logits differ by {percent(found.difference)} of their spread",
            doing="comparing the export before it is published; nothing was published",
            expected=f"at most {percent(allowed)}",
            fix="try --dtype float32, or --base 4bit for a run with load_in_4bit; if it stays, please report it",
        )


def _logits_in_four_bits(source: Trained, rows: list[torch.Tensor], say: Say) -> list[torch.Tensor]:
    """Logits of the run as it was trained, [] where it was not in 4 bits or cannot be loaded so here."""
    if not source.config.load_in_4bit:
        return []
    if not four_bit.is_installed():
        say("note         not compared with the 4-bit weights it was trained on: bitsandbytes is not installed")
        return []
    base = models.load_model(source.base, dtype=torch.float32, load_in_4bit=True)
    return last_logits(_placed(on_base(base, source.folder, num_tokens=len(source.tokenizer))), rows)


def _on_base(source: Trained, merge: Merge, *, written_out: bool) -> Any:
    """The model to export, an adapter on its base: in the base's own dtype or a wider one, so that merged weights are rounded once."""
    if written_out:
        base = four_bit.dequantised(models.load_model(source.base, dtype=torch.float32, load_in_4bit=True), torch.float32)
    else:
        base = models.load_model(source.base, dtype=_wider(source.base, merge.dtype))
    if not source.is_adapter:
        return _placed(base)
    # The rows that training began with: what the adapter changes is then told from them.
    models.add_token_rows(base, len(source.tokenizer), token_rows(source.folder), seed=source.config.seed)
    return _placed(on_base(base, source.folder, num_tokens=len(source.tokenizer)))


def token_rows(adapter: Path) -> list[int]:
    """The ids of the tokens whose rows the adapter brings."""
    layers = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("trainable_token_indices") or {}
    return sorted({token for ids in layers.values() for token in ids})


def _wider(model: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which `model` is stored, or `dtype` where that holds more."""
    stored = transformers.AutoConfig.from_pretrained(models.located(model), trust_remote_code=False).get_text_config().dtype
    return torch.promote_types(stored or torch.float32, dtype)


def _placed(body: Any) -> Any:
    """`body` on the GPU where it fits beside its activations, else where it is."""
    need = sum(parameter.nbytes for parameter in body.parameters())
    fits = torch.cuda.is_available() and need * ROOM < torch.cuda.mem_get_info()[0]
    return (body.to("cuda") if fits else body).eval()


def _save(body: Any, source: Trained, staging: Path) -> None:
    """Nothing; `staging` holds the model, its tokenizer and where its replies end."""
    if (source.folder / "generation_config.json").is_file():
        body.generation_config = transformers.GenerationConfig.from_pretrained(source.folder)
        body.config.eos_token_id = source.tokenizer.eos_token_id
    body.save_pretrained(staging)
    source.tokenizer.save_pretrained(staging)
