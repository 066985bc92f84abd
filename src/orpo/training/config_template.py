"""The file that `orpo init` writes: the settings people change first, at their defaults, with a word on each."""

from __future__ import annotations

from orpo.training.config_text import yaml_value

_TEMPLATE = """\
# orpo train orpo.yaml         flags win over this file; `orpo train --help` lists every setting
model: {model}  # a folder, or a Hub id
data: {data}  # pairs: a file, a folder, a Hub id, or a [list]; look at them first: orpo check
# holdout: 0.05                # held-out pairs: below 1 a fraction, from 1 on a count; or eval_data: test.jsonl

objective: orpo                # or sft, to compare
beta: 0.1                      # weight of the odds ratio; 0.1 to 0.25 for 2.7B to 7B, 0.5 to 1.0 for small models
learning_rate: 8.0e-6          # the paper's, for all weights; with LoRA up to 2.0e-4
lr_scheduler_type: linear      # or cosine, constant_with_warmup, inverse_sqrt
warmup_steps: 0                # a number of steps; below 1 a fraction of the run

num_train_epochs: 1.0          # or max_steps: 500 in its place
pairs_per_step: 8              # what one update learns from; memory is up to tokens_per_micro_batch
max_length: 2048               # tokens of a prompt with one completion
overlong: drop                 # rows beyond it: drop, cut-completion or error; all are counted

use_peft: false                # true trains LoRA adapters alone
# lora_r: 16                   # their rank, with use_peft: true
dtype: auto                    # measured: bfloat16 where it is fast, else float32

logging_steps: 10
# eval_steps: 100              # with held-out pairs; otherwise at start and end
save_steps: 0                  # steps between checkpoints; 0 saves at the end
seed: 0
# output_dir: runs/my-run      # otherwise a new numbered folder under runs/
"""


def init_yaml(*, model: str = "Qwen/Qwen3-0.6B-Base", data: str = "pairs.jsonl") -> str:
    """A commented orpo.yaml of the settings people change first; it resolves to the defaults with `model` and `data` set."""
    return _TEMPLATE.format(model=yaml_value(model), data=yaml_value(data))
