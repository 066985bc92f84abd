"""TRL's side of a comparison: its settings and its trainer for every objective, on weights and token ids that are given."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contenders import BETA, LEARNING_RATE, Contender, Setup
from orpo.core.tokens import TokenizedExample
from pair_data import longest_row

TRL_TRAINERS: Mapping[str, tuple[str, str]] = {
    "orpo": ("trl.experimental.orpo", "ORPO"),
    "dpo": ("trl.trainer.dpo_trainer", "DPO"),
    "ipo": ("trl.trainer.dpo_trainer", "DPO"),
    "kto": ("trl.trainer.kto_trainer", "KTO"),
    "reward": ("trl.trainer.reward_trainer", "Reward"),
}
"""Objective -> the module of TRL that has its trainer, and what that is called before Trainer and Config."""

TRL_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "orpo": {"beta": BETA},
    "dpo": {"beta": BETA, "loss_type": "sigmoid"},
    "ipo": {"beta": BETA, "loss_type": "ipo"},
    "kto": {"beta": BETA, "loss_type": "kto"},
    "reward": {},
}
"""Objective -> what TRL's configuration says of it."""


def import_trainer(which: Contender, objective: str) -> None:
    """Nothing; the libraries of `which` are in memory, so that what is measured from here on is its own."""
    theirs = [TRL_TRAINERS[objective][0]]
    modules = {"trl": theirs, "trl-liger": [*theirs, "liger_kernel"]}
    for module in modules.get(which.side, ["orpo.training.assemble"]):
        importlib.import_module(module)


def trl_settings(which: Contender, setup: Setup) -> dict[str, Any]:
    """Every setting of TRL's configuration that is not its default."""
    steps = setup.steps
    size = which.micro_batch or steps.pairs_per_step
    assert steps.pairs_per_step % size == 0, f"{steps.pairs_per_step} pairs cannot be cut into micro-batches of {size}"
    rows = 2 if setup.objective == "kto" else 1  # a pair is two labelled answers
    return {
        "per_device_train_batch_size": rows * size,
        "gradient_accumulation_steps": steps.pairs_per_step // size,
        "max_steps": steps.num_steps,
        "learning_rate": LEARNING_RATE,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        **TRL_OPTIONS[setup.objective],
        **({"precompute_ref_log_probs": setup.reference == "precomputed"} if setup.reference else {}),
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
    """TRL's ORPOTrainer on `body`."""
    return prepared_trainer(body, which, setup, run_dir, rows=trl_rows(setup.steps.pairs))


def prepared_trainer(body: Any, which: Contender, setup: Setup, run_dir: Path, *, rows: list[dict[str, Any]], ref_model: Any = None) -> Any:
    """TRL's trainer of the objective on `body`: it tokenizes one row of its own, then gets `rows` as its tokenizer would have made them."""
    import datasets
    from transformers.trainer_callback import PrinterCallback

    datasets.disable_progress_bars()
    place, name = TRL_TRAINERS[setup.objective]
    module = importlib.import_module(place)
    args = getattr(module, f"{name}Config")(output_dir=str(run_dir), **trl_settings(which, setup))
    args._n_gpu = min(args.n_gpu, 1)
    kind = liger_trainer() if which.side == "trl-liger" else getattr(module, f"{name}Trainer")
    row = datasets.Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
    reference = {"ref_model": ref_model} if ref_model is not None else {}
    trainer = kind(model=body, args=args, train_dataset=row, processing_class=_word_tokenizer(), **reference)
    trainer.remove_callback(PrinterCallback)
    trainer.train_dataset = datasets.Dataset.from_list(rows)
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
