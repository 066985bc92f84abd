"""`orpo export`: a finished run as a folder that other programs serve."""

from __future__ import annotations

import typer

from orpo.errors import ConfigError

FORMATS = ("merged", "gguf", "ollama", "vllm")
DTYPES = ("bfloat16", "float32")
BASES = ("full", "4bit")


def run_export(run: str, *, to: str, out: str | None, dtype: str, base: str) -> None:
    """Writes the export, and says where it lies and what to do with it. Exit 1, and nothing published, where its logits are not right."""
    for name, value, choices in (("to", to, FORMATS), ("dtype", dtype, DTYPES), ("base", base, BASES)):
        if value not in choices:
            raise ConfigError(f"--{name} is {value!r}", expected=f"one of {', '.join(choices)}", fix=f"for example --{name} {choices[0]}")
    from orpo.pipeline.exports import export

    done = export(run, to, out=out, dtype=dtype, base=base, say=typer.echo)
    typer.echo(f"wrote        {done.folder}/")
    typer.echo(f"next         {done.next_step}")
