"""What memory there is: of the device that trains, within the limits that a container sets."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def free_bytes(device: str) -> int:
    """Free memory for this process: of its GPU; or its share, as one of LOCAL_WORLD_SIZE, of this machine within a container's limits."""
    if device == "cuda":
        free: int = torch.cuda.mem_get_info()[0]
        return free
    import psutil

    free = int(psutil.virtual_memory().available)
    left = _container_free(Path("/sys/fs/cgroup"))
    return (free if left is None else min(free, left)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def process_bytes(device: str) -> int:
    """Memory of this process now: resident on a CPU; on a GPU what its context and libraries took is no longer free, and 0 is left."""
    if device == "cuda":
        return 0
    import psutil

    return int(psutil.Process().memory_info().rss)


def _container_free(folder: Path) -> int | None:
    """What the control group leaves (version 2); None without a limit. Its file cache can be given back and counts as free."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines()).get("inactive_file", "0")
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(cached))
