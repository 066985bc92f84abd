"""What a figure was measured on: versions, hardware, command. For env.json, the report, and `orpo env`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("orpo", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "numpy", "pyarrow")
OPTIONAL = ("bitsandbytes",)


def environment() -> dict[str, Any]:
    """Versions, machine and command line as plain JSON. No environment variables: they hold secrets."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: library_version(name) for name in LIBRARIES} | _installed(OPTIONAL),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_memory_gib(), 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The machine in a few words for people."""
    gpus = facts["gpus"]
    if gpus:
        return f"{len(gpus)} x {gpus[0]}, {facts['cores']} CPU cores, {facts['memory_gib']:.0f} GiB"
    return f"{facts['cores']} CPU cores, {facts['memory_gib']:.0f} GiB, no GPU"


@cache  # each reads and parses a file, and every checkpoint names six
def library_version(name: str) -> str:
    """The version of an installed library."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _installed(names: Iterable[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name) is not None}


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float:
    import psutil

    return float(psutil.virtual_memory().total) / 2**30


def peak_memory_gib() -> float:
    """The largest memory of this process so far: of the GPU where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
