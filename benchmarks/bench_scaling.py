"""How cost grows: seconds and memory of a pair with its length, and rows per second and memory of the data check with the size of a file.

python benchmarks/bench_scaling.py --part length --out benchmarks/results/DATE-length.json
python benchmarks/bench_scaling.py --part data --max-rows 1000000 --out benchmarks/results/DATE-data.json

Every point has a process of its own, so that its peak memory is its own. Pairs are random: half prompt, a quarter each answer.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from model_shapes import SHAPES
from pair_data import random_pairs
from rounds import interleaved, resident_peak_gib
from step_bench import Comparison, compare, result_file, with_layers
from step_options import ends_well

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
WORDS = ("please", "tell", "me", "how", "to", "bake", "bread", "mix", "flour", "water", "salt", "and", "yeast", "wait", "until", "brown")


def length_points(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds per pair and peak memory for each length; one pair at a time, so that the memory is that of a pair of this length."""
    shape = with_layers(SHAPES[options.shape], options.layers)
    points = []
    for total in (length for length in LENGTHS if length <= options.max_length):
        num = options.pairs_per_step
        wanted = Comparison(
            contenders=("orpo",),
            shape=shape,
            pairs=random_pairs(num * options.rounds, prompt=total / 2, answer=total / 4, spread=0.0, vocabulary=shape.vocabulary, seed=0),
            pairs_per_step=num,
            steps_per_round=1,
            rounds=options.rounds,
            dtype=options.dtype,
            device="cpu",
            nll_over="completion",
            checkpointing=options.checkpointing,
            tokens_per_micro_batch=total,
            seed=0,
        )
        figures = compare(wanted)["contenders"]["orpo"]
        figures["seconds_per_pair"] = 1 / figures["pairs_per_second"]
        points.append({"x": total, **figures})
        print(f"{total:>6,} tokens: {figures['seconds_per_pair']:.3f} s per pair, peak {figures['peak_memory_gib']:.2f} GiB")
    return points


def data_points(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows per second and peak memory of check_data, with tokens, for each number of rows."""
    points = []
    with tempfile.TemporaryDirectory(prefix="orpo-bench-") as folder:
        runpy.run_path(str(ROOT / "scripts" / "make_tiny_llama.py"))["make_tiny_llama"](Path(folder) / "model")
        for num in (num for num in ROWS if num <= options.max_rows):
            path = written_rows(Path(folder) / f"{num}.jsonl", num)
            results, failed = interleaved({"check": (check_rows, str(path), f"{folder}/model")}, rounds=0)
            if failed:
                points.append({"x": num, "failed": failed["check"]})
                break
            points.append({"x": num, "bytes": path.stat().st_size, **results["check"][0]})
            path.unlink()
            print(f"{num:>9,} rows: {points[-1]['rows_per_second']:,.0f} rows/s, peak {points[-1]['peak_memory_gib']:.2f} GiB")
    return points


def written_rows(path: Path, num: int) -> Path:
    """`path`, now holding `num` pairs of random words: prompts of about 40, answers of about 20."""
    numbers = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for row in range(num):
            prompt, chosen, rejected = (" ".join(numbers.choice(WORDS, size=size)) for size in numbers.poisson((40, 20, 20)) + 1)
            file.write(json.dumps({"prompt": f"{row} {prompt}", "chosen": f" {chosen} yes", "rejected": f" {rejected} no"}) + "\n")
    return path


def check_rows(pipe: Connection, path: str, model: str) -> None:
    """The work of a point's process: one pass of check_data over `path` with the tokenizer of `model`."""
    from transformers import AutoTokenizer

    from orpo.data.checks import check_data

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert pipe.recv() == "go"
    before, start = resident_peak_gib(), time.perf_counter()
    data = check_data([path], tokenizer=tokenizer)
    seconds = time.perf_counter() - start
    data.raise_if_errors()
    rows = data.report.rows
    peak = {"peak_memory_gib": resident_peak_gib(), "before_gib": before}
    pipe.send({"rows": rows, "pairs": data.report.pairs, "seconds": seconds, "rows_per_second": rows / seconds, **peak})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("length", "data"), required=True)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    length = parser.add_argument_group("length")
    length.add_argument("--shape", choices=tuple(SHAPES), default="135m")
    length.add_argument("--layers", type=int)
    length.add_argument("--max-length", type=int, default=LENGTHS[-1], help="longest pair, in distinct tokens")
    length.add_argument("--pairs-per-step", type=int, default=4)
    length.add_argument("--rounds", type=int, default=3)
    length.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    length.add_argument("--checkpointing", action="store_true")
    parser.add_argument_group("data").add_argument("--max-rows", type=int, default=ROWS[-1])
    options = parser.parse_args()
    points = length_points(options) if options.part == "length" else data_points(options)
    if options.out:
        given = {name: str(value) for name, value in vars(options).items()}
        print(f"written: {result_file(options.out, f'scaling-{options.part}', {'options': given, 'points': points})}")


if __name__ == "__main__":
    ends_well(main)
