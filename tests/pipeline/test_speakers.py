"""Who replies: runs in 4 bits, merged folders and checkpoints are found with what they need, and asked as they were trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import orpo
from orpo.core.records import Message, Source
from orpo.data.example import Example
from orpo.evaluation.generation import greedy_replies
from orpo.pipeline.exports import export
from orpo.pipeline.speakers import Speaker, Voice, base_speaker, generation_dtype, speaker_of, voice_of
from orpo.training import models
from orpo.training.four_bit import four_bit_layers

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

QUESTIONS = ("the quick cat", "a red house runs under", "why?")


@pytest.fixture(scope="module")
def four_bit_run(make_tiny_llama: Callable[..., Path], pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QLoRA run with ChatML's two tokens, which its base has no rows for."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'orpo[qlora]')")
    folder = tmp_path_factory.mktemp("four-bit")
    base = make_tiny_llama(folder / "base", hidden=128, vocabulary=300)
    settings: dict[str, Any] = {"max_steps": 3, "pairs_per_step": 4, "learning_rate": 1e-2, "dtype": "float32", "num_samples": 0}
    settings |= {"use_peft": True, "load_in_4bit": True, "template": "chatml", "max_length": 512, "seed": 7}
    return Path(orpo.train(model=str(base), data=str(pairs_file), output_dir=str(folder / "run"), **settings).run_dir)


def example(*turns: str) -> Example:
    roles = ("user", "assistant")
    return Example(tuple(Message(roles[index % 2], turn) for index, turn in enumerate(turns)), (), Source("x", 1))


def said(speaker: Speaker) -> list[str]:
    """Its replies to the questions."""
    ids = speaker.voice.prompt_ids([example(question) for question in QUESTIONS])
    with speaker.speaking():
        return [reply.text for reply in greedy_replies(speaker.body, speaker.voice.tokenizer, ids, max_new_tokens=6)]  # type: ignore[arg-type]


def test_a_run_in_4_bits_speaks_on_4_bit_weights_and_its_base_is_the_same_without_adapters(four_bit_run: Path) -> None:
    voice = voice_of(str(four_bit_run))
    tuned = speaker_of(voice, torch.float32)
    assert four_bit_layers(tuned.body)
    base = base_speaker(tuned, torch.float32)
    alone = models.load_model(voice.base, dtype=torch.float32, load_in_4bit=True)
    new = voice.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    models.add_token_rows(alone, len(voice.tokenizer), new, seed=7)
    before = said(base)
    assert before == said(Speaker("alone", voice, alone.eval()))
    assert said(tuned) != before
    assert said(base) == before, "adapters are off and on again"
    assert base.about == f"{voice.base}, adapters off, asked in the same way"


def test_a_merged_folder_and_a_checkpoint_say_what_the_run_says(four_bit_run: Path) -> None:
    export(str(four_bit_run), "merged", dtype="float32", base="4bit", say=lambda _: None)
    whole = said(speaker_of(voice_of(str(four_bit_run)), torch.float32))
    merged = voice_of(str(four_bit_run / "merged"))
    assert not merged.is_adapter
    assert Path(merged.base).name == "base", "the run that it lies in knows"
    assert said(speaker_of(merged, torch.float32)) == whole
    (checkpoint,) = four_bit_run.glob("checkpoint-*")
    assert said(speaker_of(voice_of(str(checkpoint)), torch.float32)) == whole


def test_a_run_on_transcripts_is_asked_by_transcripts(tiny_chat_llama: Path, tmp_path: Path) -> None:
    rows = [{side: f"\n\nHuman: {i}?\n\nAssistant: {side}" for side in ("chosen", "rejected")} for i in range(6)]
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {"max_steps": 1, "pairs_per_step": 2, "dtype": "float32", "num_samples": 0, "template": "raw"}
    run = orpo.train(model=str(tiny_chat_llama), data=str(tmp_path / "hh.jsonl"), output_dir=str(tmp_path / "run"), **settings)
    voice = voice_of(str(run.run_dir))
    assert voice.manner == "transcript"
    asked = [example("hi", "hello", "why?"), Example("why?", (), Source("x", 2))]
    expected = ["\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:", "\n\nHuman: why?\n\nAssistant:"]
    assert [decoded(voice, ids) for ids in voice.prompt_ids(asked)] == expected


def test_control_tokens_that_a_person_types_are_text(tiny_chat_llama: Path) -> None:
    voice = voice_of(str(tiny_chat_llama))
    (ids,) = voice.prompt_ids([Example("end <|im_end|> here", (), Source("x", 1))])
    assert decoded(voice, ids) == "<|im_start|>user\nend <|im_end|> here<|im_end|>\n<|im_start|>assistant\n"
    assert list(ids).count(voice.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1  # type: ignore[arg-type]


def decoded(voice: Voice, ids: Any) -> str:
    return str(voice.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def test_weights_are_float32_on_a_cpu_unless_asked_otherwise() -> None:
    assert generation_dtype("bfloat16") == torch.bfloat16
    assert generation_dtype("auto") == torch.float32 or torch.cuda.is_available()
