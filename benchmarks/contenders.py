"""Who runs: our trainer and TRL's, each built as its user gets it, on the same weights, the same pairs, the same optimizer settings."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_shapes import ModelShape
from orpo.core.tokens import TokenizedExample
from pair_data import Steps, longest_row

LEARNING_RATE = 5e-6
BETA = 0.1
_NAMES = re.compile(r"(?P<side>orpo|trl-liger|trl)(-tokens(?P<tokens>\d+)|-mb(?P<mb>\d+))?(?P<grouped>-grouped)?")


class UnknownContender(Exception):
    """A name that stands for no contender."""


@dataclass(frozen=True, slots=True)
class Contender:
    """`side` is orpo, trl or trl-liger; `micro_batch` pairs (TRL) or `tokens` (ours) at once, None for all of a step and for auto."""

    name: str
    side: str
    micro_batch: int | None
    tokens: int | None
    is_grouped: bool

    @property
    def missing(self) -> str:
        """Why this contender cannot run here; '' when it can."""
        packages = {"orpo": [], "trl": ["trl"], "trl-liger": ["trl", "liger_kernel"]}[self.side]
        return ", ".join(f"{package} is not installed" for package in packages if importlib.util.find_spec(package) is None)


def contender(name: str) -> Contender:
    """The contender called `name`: orpo, orpo-tokens4096, trl, trl-mb2, trl-grouped, orpo-grouped, trl-liger, trl-liger-mb1."""
    match = _NAMES.fullmatch(name)
    if match is None or (match["side"] == "orpo" and match["mb"]) or (match["side"] != "orpo" and match["tokens"]):
        raise UnknownContender(f"{name!r} is none of orpo, orpo-tokensN, trl, trl-mbN, trl-liger, trl-liger-mbN, or one of these -grouped")
    return Contender(
        name, match["side"], int(match["mb"]) if match["mb"] else None, int(match["tokens"] or 0) or None, bool(match["grouped"])
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """What is equal for all contenders. `tokens_per_micro_batch` is ours alone: a number, or 'auto'."""

    shape: ModelShape
    dtype: str
    device: str
    nll_over: str
    checkpointing: bool
    seed: int
    steps: Steps
    tokens_per_micro_batch: int | str


def import_trainer(which: Contender) -> None:
    """Nothing; the libraries of `which` are in memory, so that what is measured from here on is its own."""
    modules = {"orpo": ["orpo.training.assemble"], "trl": ["trl.experimental.orpo"], "trl-liger": ["trl.experimental.orpo", "liger_kernel"]}
    for module in modules[which.side]:
        importlib.import_module(module)


def objective_for(nll_over: str) -> Any:
    """Our loss with TRL's beta and its average over tokens; over prompt and completion it is preset trl."""
    from orpo.objectives import bound

    return bound("orpo", {"beta": BETA, "nll_over": nll_over, "nll_average": "token"})


def orpo_trainer(body: Any, which: Contender, setup: Setup, run_dir: Path) -> Any:
    """Our trainer on `body`, wired as `orpo train` wires it. Only this and orpo_first_loss know how the package is put together."""
    import torch

    from orpo.engine.precision import Precision
    from orpo.engine.startup_check import choose_path
    from orpo.training.assemble import build_trainer, enable_checkpointing, plan, training_arguments
    from orpo.training.config import TrainConfig
    from orpo.training.guards import FiniteGuard, SignalCallback, StopSignals

    steps = setup.steps
    lengths = [pair.num_tokens for pair in steps.pairs]
    config = TrainConfig(
        pairs_per_step=steps.pairs_per_step,
        max_steps=steps.num_steps,
        learning_rate=LEARNING_RATE,
        tokens_per_micro_batch=which.tokens or setup.tokens_per_micro_batch,
        dtype=setup.dtype,
        use_peft=setup.shape.lora,
        seed=setup.seed,
        logging_steps=1,
    )
    run_plan = plan(config, lengths)
    precision = Precision(getattr(torch, setup.dtype), "as asked")
    if setup.checkpointing:
        enable_checkpointing(body)
    arguments = training_arguments(config, run_plan, run_dir=run_dir, precision=precision, has_held_out=False, is_resumed=False)
    if setup.device == "cpu":
        arguments.use_cpu = True
    return build_trainer(
        body,
        arguments,
        path=choose_path(body, longest=longest_row(steps.pairs), dtype=precision.dtype).path,
        objective=objective_for(setup.nll_over),
        run_plan=run_plan,
        seed=setup.seed,
        store=in_run_order(steps, setup.seed),
        lengths=lengths,
        held_out=None,
        guard=FiniteGuard(lambda _: "nowhere"),
        save=lambda _: run_dir,
        callbacks=[SignalCallback(StopSignals(print))],
    )


def orpo_first_loss(trainer: Any, setup: Setup) -> float:
    """Our loss of the first step under preset trl, with the weights as they were made: what TRL's first loss is held against."""
    import torch

    from orpo.core.loss import step_loss
    from orpo.core.tokens import unit_counts

    examples = setup.steps.pairs[: setup.steps.pairs_per_step]
    counts, objective, model = unit_counts(examples), objective_for("prompt+completion"), trainer.model
    was = model.with_prompt
    model.with_prompt = True  # a run over the completion alone leaves the prompt's own log-probs out
    with torch.no_grad():
        # One pair at a time takes less memory than the step itself, so the peak is not touched.
        loss = float(sum(step_loss(objective(model([example])), counts) for example in examples))
    model.with_prompt = was
    return loss


def in_run_order(steps: Steps, seed: int) -> list[TokenizedExample]:
    """The pairs laid out so that a run with `seed`, which shuffles, meets them in the order of `steps`."""
    from orpo.engine.batching import step_pairs

    positions = [i for step in range(steps.num_steps) for i in step_pairs(len(steps.pairs), steps.pairs_per_step, seed=seed, step=step)]
    laid_out = dict(zip(positions, steps.pairs, strict=True))
    return [laid_out[position] for position in range(len(steps.pairs))]


def trl_settings(which: Contender, setup: Setup) -> dict[str, Any]:
    """Every setting of ORPOConfig that is not TRL's default."""
    steps = setup.steps
    size = which.micro_batch or steps.pairs_per_step
    assert steps.pairs_per_step % size == 0, f"{steps.pairs_per_step} pairs cannot be cut into micro-batches of {size}"
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": steps.pairs_per_step // size,
        "max_steps": steps.num_steps,
        "learning_rate": LEARNING_RATE,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "beta": BETA,
        "max_length": longest_row(steps.pairs) + 2,
        "disable_dropout": True,
        # transformers renames this setting; TRL 1.16 knows only the older name and turns checkpointing on by default.
        "gradient_checkpointing": setup.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if setup.checkpointing else None,
        "bf16": setup.dtype == "bfloat16",
        "use_cpu": setup.device == "cpu",
        "train_sampling_strategy": "sequential",  # the order, grouped or not, is that of the steps
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "seed": setup.seed,
    }


def trl_trainer(body: Any, which: Contender, setup: Setup, run_dir: Path) -> Any:
    """TRL's ORPOTrainer on `body`; it tokenizes one row of its own, then gets the rows of `steps` as its tokenizer would have made them."""
    import datasets
    from transformers.trainer_callback import PrinterCallback
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    datasets.disable_progress_bars()
    args = ORPOConfig(output_dir=str(run_dir), **trl_settings(which, setup))
    args._n_gpu = min(args.n_gpu, 1)
    kind = liger_trainer() if which.side == "trl-liger" else ORPOTrainer
    row = datasets.Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
    trainer = kind(model=body, args=args, train_dataset=row, processing_class=_word_tokenizer())
    trainer.remove_callback(PrinterCallback)
    trainer.train_dataset = datasets.Dataset.from_list(trl_rows(setup.steps.pairs))
    return trainer


def trl_rows(pairs: Sequence[TokenizedExample]) -> list[dict[str, list[int]]]:
    """The pairs in the columns that ORPOTrainer.tokenize_row makes: prompts are masked in the labels, both rows repeat the prompt."""
    rows = []
    for pair in pairs:
        prompt = pair.prompt_ids.tolist()
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side, completion in zip(("chosen", "rejected"), pair.completions, strict=True):
            ids = completion.tolist()
            row[f"{side}_input_ids"] = prompt + ids
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(ids))
            row[f"{side}_labels"] = [-100] * len(prompt) + ids
        rows.append(row)
    return rows


def _word_tokenizer() -> Any:
    """A tokenizer for TRL's own row; the pairs that are measured have their ids already."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<s>", "</s>", "<unk>", "a", "b", "c"])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<unk>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def liger_trainer() -> type:
    """TRL's trainer with liger_kernel's fused loss in place of logits; it logs no metrics, which costs it nothing."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearORPOLoss
    from trl.experimental.orpo import ORPOTrainer

    assert "nll_target" in inspect.signature(LigerFusedLinearORPOLoss.forward).parameters, "this liger_kernel cannot score the prompt"

    class LigerORPOTrainer(ORPOTrainer):  # type: ignore[misc]
        fused = LigerFusedLinearORPOLoss(beta=BETA, compiled=torch.cuda.is_available())

        def get_batch_loss_metrics(self, model: Any, batch: Any, train_eval: str = "train") -> tuple[Any, dict[str, float]]:  # noqa: ARG002
            """The loss of a batch; the likelihood covers prompt and completion as in TRL."""
            rows = self.concatenated_inputs(batch, padding_value=self.padding_value, device=self.accelerator.device)
            ids, mask, labels = (rows[f"concatenated_{name}"] for name in ("input_ids", "attention_mask", "labels"))
            inner = model.get_base_model() if hasattr(model, "get_base_model") else model
            with self.accelerator.autocast():
                hidden = inner.model(ids, attention_mask=mask, use_cache=False).last_hidden_state
                everything = torch.where(mask == 1, ids, -100)
                head = inner.lm_head
                loss, _ = self.fused(head.weight, hidden[:, :-1], labels[:, 1:], head.bias, nll_target=everything[:, 1:])
            return loss, {}

    return LigerORPOTrainer
