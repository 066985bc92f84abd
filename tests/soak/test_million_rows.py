"""A broken line among a million rows is named exactly, and the check needs no more memory for a million rows than for ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest


def write_rows(path: Path, num: int, broken: int) -> Path:
    """`num` rows, of which line `broken` lacks its closing quote."""
    with path.open("w") as file:
        for number in range(1, num + 1):
            row = json.dumps({"prompt": f"question {number}", "chosen": f" answer {number}", "rejected": f" no {number}"})
            file.write((row[:-2] if number == broken else row) + "\n")
    return path


def check(path: Path) -> tuple[int, str, float]:
    """Exit code, error text, and peak memory in MiB of `orpo check`."""
    code = (
        "import resource, sys\nfrom orpo.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "check", str(path)], capture_output=True, text=True, check=False)
    error, _, peak = done.stderr.rpartition("PEAK ")
    return done.returncode, error, float(peak)


def named_within_memory(folder: Path, *, num: int, broken: int, most_mib: float) -> None:
    """Asserts what this file promises, and prints the figures."""
    _, _, few = check(write_rows(folder / "few.jsonl", 10_000, 9_001))
    started = time.monotonic()
    code, error, peak = check(write_rows(folder / "many.jsonl", num, broken))
    print(f"{num:,} rows in {time.monotonic() - started:.0f} s, peak {peak:.0f} MiB (10,000 rows: {few:.0f} MiB); {error.splitlines()[0]}")
    assert code == 3
    assert error.startswith(f"{folder / 'many.jsonl'}:{broken}: ")
    assert peak < few + most_mib


def test_a_broken_line_among_a_hundred_thousand_rows_is_named(tmp_path: Path) -> None:
    named_within_memory(tmp_path, num=100_000, broken=90_001, most_mib=20)


@pytest.mark.soak
def test_a_broken_line_among_a_million_rows_is_named(tmp_path: Path) -> None:
    named_within_memory(tmp_path, num=1_000_000, broken=900_001, most_mib=100)
