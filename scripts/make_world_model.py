"""Make the built-in base model: its tokenizer, its pretraining on the mixed manners of the built-in world, and its files in the package.

    python scripts/make_world_model.py [--steps 1400] [--width 160] [--layers 4] [--seed 0] [--threads 2] [--out FOLDER]

Takes about 10 minutes on two cores with bf16 matrix units; another width or number of layers makes a smaller or larger sibling.
Training stops half-way down the schedule of the learning rate, on purpose: the base then writes fluently and is still unsure, so that
fine-tuning on one answer lifts its neighbours too, as it does in large models.
The text is the same for the same seed everywhere; the weights are the same on the same machine and versions, and behave alike elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orpo.data.world import builtin_model_path
from orpo.data.world.corpus import Turns, conversations, sheets
from orpo.data.world.draw import Draw

END_OF_TEXT, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
CONTROL = [END_OF_TEXT, TURN_START, TURN_END, PAD]
VOCABULARY = 1024
HEAD_WIDTH = 32
ROW_TOKENS = 160
ROWS_PER_STEP = 24
LEARNING_RATE = 3e-3
SHEET_SHARE = 0.3

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def as_text(turns: Turns) -> str:
    """A conversation as the chat template writes it."""
    return "".join(f"{TURN_START}{role}\n{text}{TURN_END}\n" for role, text in turns)


def texts(seed: int) -> Iterator[str]:
    """Endless documents: conversations and sheets."""
    talk, plain, draw = conversations(seed=seed), sheets(seed=seed), Draw("world documents", seed)
    while True:
        yield next(plain) + END_OF_TEXT if draw.chance(SHEET_SHARE) else as_text(next(talk))


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from the world's own text."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(islice(texts(seed), 30_000), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=PAD,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int, *, width: int, layers: int) -> LlamaForCausalLM:
    """The untrained model: 1.4 million parameters at width 160 with 4 layers. `width` is a multiple of 32, a head's own."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    heads, inner = width // HEAD_WIDTH, 16 * round(2.8 * width / 16)
    shape = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": HEAD_WIDTH}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=True, **shape, **ids)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(max_new_tokens=64, do_sample=False, **ids)
    return model


def rows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[int]]:
    """Endless training rows: whole documents, as many as fit, so that a row begins where a conversation begins."""
    source, row = texts(seed), list[int]()
    while True:
        for ids in tokenizer(list(islice(source, 2000)), add_special_tokens=False)["input_ids"]:
            if len(row) + len(ids) > ROW_TOKENS:
                yield row
                row = []
            row += ids[:ROW_TOKENS]


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of inputs and targets; padding is not a target."""
    source = rows(tokenizer, seed)
    while True:
        batch = torch.full((ROWS_PER_STEP, ROW_TOKENS), tokenizer.pad_token_id)
        for index, row in enumerate(islice(source, ROWS_PER_STEP)):
            batch[index, : len(row)] = torch.tensor(row)
        targets = batch[:, 1:].clone()
        targets[targets == tokenizer.pad_token_id] = -100
        yield batch[:, :-1], targets


def learning_rate(step: int, num_steps: int) -> float:
    """Linear warm-up over 100 steps, then a cosine down to a twentieth."""
    return LEARNING_RATE * min((step + 1) / 100, 0.525 + 0.475 * math.cos(math.pi * step / num_steps))


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, num_steps: int, seed: int) -> None:
    """Next-token training on all of a row's text, for the first half of the learning rate's schedule."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    started = time.perf_counter()
    for step, (inputs, targets) in enumerate(islice(batches(tokenizer, seed), num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 2 * num_steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == num_steps - 1:
            sys.stdout.write(f"step {step:5d}  loss {loss.item():.4f}  {time.perf_counter() - started:6.0f} s\n")
            sys.stdout.flush()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer. Weights are stored in bf16 to halve the file; config.json makes them load as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.dtype = "float32"
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which a shared installation cannot read


def main() -> None:
    """Make and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--width", type=int, default=160, help=f"a multiple of {HEAD_WIDTH}")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=builtin_model_path())
    args = parser.parse_args()
    if args.width < HEAD_WIDTH or args.width % HEAD_WIDTH:
        parser.error(f"--width is {args.width}; a multiple of {HEAD_WIDTH} is expected")
    torch.set_num_threads(args.threads)
    tokenizer = make_tokenizer(args.seed)
    model = make_model(tokenizer, args.seed, width=args.width, layers=args.layers)
    sys.stdout.write(json.dumps({"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}) + "\n")
    pretrain(model, tokenizer, args.steps, args.seed + 1)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
