"""python -m evidence [--only NAME] [--fresh]: records what is not recorded yet, then writes docs/evidence.md."""

from __future__ import annotations

import argparse
import os
import shutil

# Matrices this small are slower on two threads than on one; said before torch is imported, and to all processes that are started here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console

from evidence.lab import Lab
from evidence.page import EXPERIMENTS, write_page
from evidence.records import ROOT, read_record, write_record

LAB = ROOT / "runs" / "evidence"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("--only", choices=list(EXPERIMENTS), help="record this experiment anew, and no other")
    parser.add_argument("--fresh", action="store_true", help="throw away the runs that are kept, and record everything anew")
    args = parser.parse_args()
    console = Console(soft_wrap=True)
    if args.fresh:
        shutil.rmtree(LAB, ignore_errors=True)
    wanted = [args.only] if args.only else [name for name in EXPERIMENTS if args.fresh or read_record(name) is None]
    for name in wanted:
        lab = Lab(LAB, say=lambda text: console.print(text, markup=False, highlight=False))
        content = EXPERIMENTS[name].record(lab)
        path = write_record(name, content, seconds=lab.seconds, cpu_seconds=lab.cpu_seconds)
        console.print(f"recorded {path.relative_to(ROOT)}: {lab.cpu_seconds:.0f} s of one core", markup=False, highlight=False)
    records = {name: found for name in EXPERIMENTS if (found := read_record(name)) is not None}
    console.print(f"wrote {write_page(records).relative_to(ROOT)}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
