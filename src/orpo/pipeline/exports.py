"""What `orpo export` makes of a finished run: a folder for plain transformers, for llama.cpp, for Ollama, or for vLLM."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orpo.errors import ConfigError, OrpoError
from orpo.pipeline.agreement import percent
from orpo.pipeline.merging import Merge, Trained, token_rows, trained, write_merged
from orpo.pipeline.ollama import dialect_of, modelfile
from orpo.pipeline.run import quiet_libraries
from orpo.report.card import write_card
from orpo.runs import names
from orpo.training import models
from orpo.training.export import whole_folder

Say = Callable[[str], None]

OUTTYPES: Mapping[torch.dtype, str] = {torch.bfloat16: "bf16", torch.float32: "f32"}
"""What llama.cpp calls a dtype."""

CONVERTER = "convert_hf_to_gguf.py"

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank."""


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export: its folder, and what to do with it."""

    folder: Path
    next_step: str


def export(run: str, to: str, *, out: str | None = None, dtype: str = "bfloat16", base: str = "full", say: Say) -> Export:
    """The export of `run` to one of WRITERS, published whole at `out`, RUN/`to` where that is None. Nothing is ever overwritten.

    Raises ConfigError for what cannot be, OrpoError where the check fails; then nothing is published.
    """
    quiet_libraries()
    source = trained(run)
    target = Path(out).expanduser() if out else source.run_dir / to
    if target.exists():
        raise ConfigError(f"{target} exists already", doing=f"exporting to {to}", fix="give another name with --out, or remove it")
    merge = Merge(getattr(torch, dtype), onto_4_bit=_onto_4_bit(source, base, say))
    next_step = WRITERS[to](source, target, merge, say)
    return Export(target, next_step)


def _onto_4_bit(source: Trained, base: str, say: Say) -> bool:
    """Whether an adapter is merged onto the 4-bit weights of its base: where that is asked for, or where there are no others."""
    if base == "4bit" and not (source.is_adapter and source.config.load_in_4bit):
        raise ConfigError(f"--base 4bit is for runs with load_in_4bit, which {source.run_dir} is not", fix="leave out --base")
    if base == "full" and source.is_adapter and models.load_shape(source.base).quantised:
        say(f"note         {source.base} has its weights in 4 bits alone: the adapter is merged onto those, written out")
        return True
    return base == "4bit"


def _to_merged(source: Trained, target: Path, merge: Merge, say: Say) -> str:
    with whole_folder(target, need_bytes=weight_bytes(source, merge)) as staging:
        _write_with_card(source, staging, merge, say)
    return f"AutoModelForCausalLM.from_pretrained({str(target)!r})"


def _to_gguf(source: Trained, target: Path, merge: Merge, say: Say) -> str:
    converter = find_converter()
    if converter is None:
        raise ConfigError(
            "llama.cpp is not here: its convert_hf_to_gguf.py writes gguf files",
            doing="looking for it in $LLAMA_CPP and on PATH",
            fix="git clone https://github.com/ggml-org/llama.cpp && pip install gguf sentencepiece && export LLAMA_CPP=$PWD/llama.cpp",
        )
    with whole_folder(target, need_bytes=2 * weight_bytes(source, merge)) as staging:
        file = _write_gguf(source, staging, merge, converter, say)
    smaller = file.replace(OUTTYPES[merge.dtype], "Q4_K_M")
    return f"llama-cli -m {target / file}   (smaller: llama-quantize {target / file} {target / smaller} Q4_K_M)"


def _to_ollama(source: Trained, target: Path, merge: Merge, say: Say) -> str:
    dialect = dialect_of(source.tokenizer, is_raw=_is_raw(source))  # first: an unknown template is refused before anything is computed
    say(f"template     {dialect.description}")
    converter = find_converter()
    with whole_folder(target, need_bytes=2 * weight_bytes(source, merge)) as staging:
        if converter is not None:
            weights = f"./{_write_gguf(source, staging, merge, converter, say)}"
        else:
            say("note         llama.cpp is not here: Ollama gets safetensors, which it reads of common families (Llama, Mistral, Gemma)")
            weights = "./model"
            (staging / "model").mkdir()
            _write_with_card(source, staging / "model", merge, say)
        text = modelfile(weights, dialect, num_ctx=_context(source))
        (staging / "Modelfile").write_text(text, encoding="utf-8")
    return f"ollama create {source.name} -f {target / 'Modelfile'} && ollama run {source.name}"


def _to_vllm(source: Trained, target: Path, merge: Merge, say: Say) -> str:
    why_merged = "" if source.is_adapter else "all weights were trained"
    if source.is_adapter and token_rows(source.folder):
        why_merged = "the adapter brings rows of new tokens, which vLLM does not take in an adapter"
    need = weight_bytes(source, merge) if why_merged else 0
    with whole_folder(target, need_bytes=need) as staging:
        if why_merged:
            say(f"weights      merged: {why_merged}")
            _write_with_card(source, staging, merge, say)
            line = ["vllm", "serve", str(target.resolve()), "--served-model-name", source.name]
        else:
            say(f"weights      the adapter alone, on {source.base}; --to merged makes one model of both")
            shutil.copytree(source.folder, staging, dirs_exist_ok=True)
            line = _adapter_line(source, target)
        (staging / "serve.sh").write_text(f"#!/bin/sh\nexec {shlex.join(line)}\n", encoding="utf-8")
        (staging / "serve.sh").chmod(0o755)
    return shlex.join(line)


def _adapter_line(source: Trained, target: Path) -> list[str]:
    """The command that serves the adapter in `target` on its base, with the tokenizer (and chat template) it was trained with."""
    rank = int(json.loads((source.folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    allowed = next((size for size in VLLM_RANKS if size >= rank), rank)
    folder = str(target.resolve())
    adapters = ["--enable-lora", "--lora-modules", f"{source.name}={folder}", "--max-lora-rank", str(allowed)]
    return ["vllm", "serve", source.base, "--tokenizer", folder, *adapters]


WRITERS: Mapping[str, Callable[[Trained, Path, Merge, Say], str]] = {
    "merged": _to_merged,
    "gguf": _to_gguf,
    "ollama": _to_ollama,
    "vllm": _to_vllm,
}
"""What can be exported to -> who writes it and says what to do next."""


def _write_with_card(source: Trained, folder: Path, merge: Merge, say: Say) -> None:
    """The merged model and, of a run, its model card with the figures of the comparison."""
    figures = write_merged(source, folder, merge, say)
    if (source.run_dir / names.SUMMARY).is_file():
        write_card(source.run_dir, into=folder, library="transformers", extra=_merge_section(source, merge, figures))


def _merge_section(source: Trained, merge: Merge, figures: Mapping[str, Any]) -> str:
    """What the card says of the merge."""
    dtype = str(merge.dtype).removeprefix("torch.")
    difference, allowed = percent(figures["difference"]), percent(figures["allowed"])
    said = f"These weights are {dtype}. Their logits differ from those of {figures['compared_with']} by {difference} of their spread"
    said += f" (at most {allowed} was allowed)."
    if "drift_from_4_bit" in figures:
        said += f" From the run as it was trained, on 4-bit weights, they lie {percent(figures['drift_from_4_bit'])} apart."
    return f"## How it was {'merged' if source.is_adapter else 'written'}\n\n{said}"


def _write_gguf(source: Trained, staging: Path, merge: Merge, converter: Path, say: Say) -> str:
    """The name of the gguf file in `staging`, made by llama.cpp from a merged model that is gone afterwards."""
    file = f"{source.name}-{OUTTYPES[merge.dtype]}.gguf"
    with _scratch(staging.with_name(f"{staging.name}-merged")) as merged:
        write_merged(source, merged, merge, say)
        command = [sys.executable, str(converter), str(merged), "--outfile", str(staging / file), "--outtype", OUTTYPES[merge.dtype]]
        say(f"gguf         {shlex.join(command[1:2])} writes {file}")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not _is_gguf(staging / file):
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise OrpoError(
            f"llama.cpp's converter wrote no gguf file (exit {done.returncode}): {last}",
            where=str(converter),
            doing="converting the merged model; nothing was published",
            fix="see that this version of llama.cpp knows the model's family, and that its Python packages are installed",
        )
    return file


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """`folder`, empty, for what is needed in between; gone when the block ends, or at the next export where the process was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_converter() -> Path | None:
    """llama.cpp's converter, in the folder that LLAMA_CPP names or on PATH; None where it is nowhere. ConfigError for a wrong LLAMA_CPP."""
    named = os.environ.get("LLAMA_CPP")
    if not named:
        found = shutil.which(CONVERTER)
        return Path(found) if found else None
    path = Path(named).expanduser() / CONVERTER
    if not path.is_file():
        fix = "correct LLAMA_CPP, or unset it"
        raise ConfigError(f"there is no {CONVERTER} in {named}", where="LLAMA_CPP", expected="a checkout of llama.cpp", fix=fix)
    return path


def _is_raw(source: Trained) -> bool:
    """Whether it was trained on text as it stands, whatever template its tokenizer has."""
    report = source.run_dir / names.DATA_REPORT
    template = json.loads(report.read_text(encoding="utf-8")).get("template") if report.is_file() else ""
    return source.config.template == "raw" or "no chat template" in str(template)


def _context(source: Trained) -> int:
    """Tokens of context to offer: what was trained on is the least, the model's positions are the most."""
    positions = models.load_shape(source.base).max_positions or 4096
    return min(positions, max(4096, source.config.max_length))


def weight_bytes(source: Trained, merge: Merge) -> int:
    """Bytes that the merged model will take."""
    stored = sum(path.stat().st_size for path in Path(models.located(source.base)).glob("*.safetensors"))
    # Stored in at least two bytes a number; a Hub id is not looked at.
    return stored * merge.dtype.itemsize // 2
