"""Writes a folder with a random Llama-shaped model and a byte-level tokenizer: something to train on without a model hub.

python scripts/make_tiny_llama.py FOLDER [--layers 2] [--hidden 64] [--vocabulary 512] [--chat]
"""

from __future__ import annotations

import argparse
from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = [
    "the quick brown fox jumps over the lazy dog while a cat looks on from the warm window sill",
    "what is the capital of this country? it is a large city near the sea, and many people live there.",
    "please tell me how to bake bread: mix flour, water, salt and yeast, wait, then bake it until it is brown.",
    "\n\nHuman: can you help me with this?\n\nAssistant: of course, I am happy to help you with that.",
]


def make_tiny_llama(
    folder: Path, *, layers: int = 2, hidden: int = 64, vocabulary: int = 512, positions: int = 2048, chat: bool = False, seed: int = 0
) -> Path:
    """`folder`, now holding a model that AutoModelForCausalLM reads, its tokenizer, and with `chat` a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"] if chat else ["<s>", "</s>"]
    bpe.train_from_iterator(
        TEXT * 4,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<|im_end|>" if chat else "</s>")
    if chat:
        tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("layers", 2), ("hidden", 64), ("vocabulary", 512), ("positions", 2048)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chat", action="store_true", help="add a ChatML template and its tokens")
    options = vars(parser.parse_args())
    print(make_tiny_llama(options.pop("folder"), **options))


if __name__ == "__main__":
    main()
