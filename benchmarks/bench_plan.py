"""Planned against measured memory: for each shape the peak of real steps in a fresh process, and what `orpo.engine.memory` said before.

python benchmarks/bench_plan.py [--shape 135m] [--layers 8] [--tokens 2048] [--out plan.json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One training step: a Llama's sizes, what is trained, and how."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tokens: int
    row_length: int
    micro_batches: int
    lora: bool
    dtype: str
    checkpointing: bool


SHAPES = {
    "tiny": {"layers": 2, "hidden": 64, "intermediate": 128, "heads": 4, "kv_heads": 2, "vocabulary": 512},
    "135m": {"layers": 30, "hidden": 576, "intermediate": 1536, "heads": 9, "kv_heads": 3, "vocabulary": 49_152},
    "360m": {"layers": 32, "hidden": 960, "intermediate": 2560, "heads": 15, "kv_heads": 5, "vocabulary": 49_152},
}


def planned_and_measured(case: Case) -> dict[str, Any]:
    """Bytes that were planned, and the largest resident memory after three steps, of this process."""
    import torch

    from orpo.engine.memory import Surroundings, memory_model
    from orpo.engine.memory_free import process_bytes

    dtype = getattr(torch, case.dtype)
    around = Surroundings(dtype, "adamw_torch_fused", chunk_bytes=chunk_bytes(case))
    model = memory_model(lambda on: built(case, on), around, row_length=case.row_length)
    need = model.need(case.tokens, checkpointing=case.checkpointing, accumulates=case.micro_batches > 1)
    before = process_bytes("cpu")
    train(case)
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    predicted = need.peak_bytes + before
    return {"predicted": predicted, "measured": measured, "ratio": predicted / measured, "parts": {**need.parts, "process": before}}


def chunk_bytes(case: Case) -> int:
    """The logits that training would hold at a time for pairs of this length."""
    from orpo.engine.packed import chunk_bytes_for

    return chunk_bytes_for(case.row_length, case.vocabulary, "cpu")


def built(case: Case, checkpointing: bool) -> Any:
    """The model of `case`, with random weights."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        vocab_size=case.vocabulary,
        tie_word_embeddings=True,
    )
    body: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case.dtype) if case.lora else torch.float32)
    if case.lora:
        import peft

        body = peft.get_peft_model(body, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    if checkpointing:
        body.activation_checkpointing_enable({"use_reentrant": False})
    return body


def train(case: Case, num_steps: int = 3) -> None:
    """Nothing; `num_steps` optimizer steps of ORPO on random tokens, as the trainer makes them."""
    import numpy as np
    import torch

    from orpo.core.loss import step_loss
    from orpo.core.records import Source
    from orpo.core.tokens import TokenizedExample, unit_counts
    from orpo.engine.model import LogpsModel
    from orpo.engine.paths import Path as EnginePath
    from orpo.objectives import catalogue

    draw = np.random.default_rng(0)
    objective = catalogue.bound("orpo", {})
    body = built(case, case.checkpointing)
    body.train()
    model = LogpsModel(body, path=EnginePath.SHARED, with_prompt=False, chunk_bytes=chunk_bytes(case))
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], fused=True)
    prompt, answer = case.row_length // 2, case.row_length // 4

    def ids(num: int) -> Any:
        return draw.integers(0, case.vocabulary, num).astype(np.int32)

    for number in range(1, num_steps * case.micro_batches + 1):
        batch = [
            TokenizedExample(ids(prompt), (ids(answer), ids(answer)), Source("random", i + 1))
            for i in range(case.tokens // case.row_length)
        ]
        counts = unit_counts(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == "bfloat16"):
            logps = model(batch, share=lambda part, _, counts=counts: step_loss(objective(part), counts))
        step_loss(objective(logps), counts).backward()
        del logps

        if number % case.micro_batches == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Full and LoRA, float32 and bfloat16, with and without checkpointing, of the asked shape."""
    shape = SHAPES[arguments.shape] | ({"layers": arguments.layers} if arguments.layers else {})
    kinds = itertools.product((False, True), ("float32", "bfloat16"), (False, True))
    return [
        Case(
            **shape,
            tokens=arguments.tokens,
            row_length=arguments.row_length,
            micro_batches=arguments.micro_batches,
            lora=lora,
            dtype=dtype,
            checkpointing=checkpointing,
        )
        for lora, dtype, checkpointing in kinds
    ]


def in_fresh_process(case: Case) -> dict[str, Any]:
    """`planned_and_measured` of `case` in a process of its own: the largest resident memory of a process never falls."""
    command = [sys.executable, "-W", "ignore", __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def main() -> None:
    """Prints a line per case; with --out also writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--layers", type=int, help="in place of the shape's own")
    parser.add_argument("--tokens", type=int, default=2048, help="distinct tokens of a micro-batch")
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--micro-batches", type=int, default=2, help="of one step")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(planned_and_measured(Case(**json.loads(arguments.case)))))
        return
    rows = []
    for case in cases(arguments):
        row = {**asdict(case), **in_fresh_process(case)}
        rows.append(row)
        kind = f"{'LoRA' if case.lora else 'full':<5}{case.dtype:<9} checkpointing {'on' if case.checkpointing else 'off':<4}"
        print(
            f"{kind} planned {row['predicted'] / 2**20:8.0f} MiB  measured {row['measured'] / 2**20:8.0f} MiB  ratio {row['ratio']:.2f}",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
