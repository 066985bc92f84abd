"""Time and peak memory of the head's forward and backward pass, per strategy and chunk size, beside the plain head and torch's fused loss.

Times are taken in rounds: every round runs each case once and one bare product [M, H] x [H, V], so that ratios compare neighbours in time.
"GEMM units" are a case's time over the bare product's. A plain trained head is 3 products and the elementwise work.

    python benchmarks/bench_head.py --tokens 64 --vocabulary 512 --width 32 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from orpo.engine.head import Head, Hint, token_logps

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Problem:
    """Inputs of a step: leaves that require gradients, targets, and d loss / d logp of each row."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    coefficients: Tensor
    ends: list[int]
    bf16: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run the step."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds; memory beyond inputs and outputs that existed before, in MiB, NaN where it cannot be measured."""

    name: str
    seconds: float
    gemm_units: float
    over_plain: float
    peak_mib: float


def make_problem(arguments: argparse.Namespace) -> Problem:
    generator = torch.Generator().manual_seed(0)
    tokens, device = arguments.tokens, arguments.device
    hidden = torch.randn(tokens, arguments.width, generator=generator)
    weight = torch.randn(arguments.vocabulary, arguments.width, generator=generator) * 0.05
    targets = torch.randint(arguments.vocabulary, (tokens,), generator=generator)
    ends = [*range(arguments.example, tokens, arguments.example), tokens]
    coefficients = -torch.rand(tokens, generator=generator) / tokens
    hidden, weight, targets, coefficients = (part.to(device) for part in (hidden, weight, targets, coefficients))
    return Problem(hidden.requires_grad_(), weight.requires_grad_(), targets, coefficients, ends, arguments.dtype == "bf16")


def step(problem: Problem, logps_of: Callable[[Tensor], Tensor], *, trained: bool) -> None:
    """Forward and backward; gradients are dropped."""
    weight = problem.weight if trained else problem.weight.detach()
    with torch.autocast(problem.hidden.device.type, torch.bfloat16, enabled=problem.bf16):
        logps = logps_of(weight)
    leaves = [problem.hidden, problem.weight] if trained else [problem.hidden]
    torch.autograd.grad((logps * problem.coefficients).sum(), leaves)


def plain(problem: Problem, weight: Tensor) -> Tensor:
    logits = F.linear(problem.hidden, weight).float()
    return logits.log_softmax(-1).gather(1, problem.targets.unsqueeze(1)).squeeze(1)


def fused(problem: Problem, weight: Tensor, *, chunk_mib: float, hinted: bool) -> Tensor:
    hint = Hint(problem.ends, lambda _, start, end: problem.coefficients[start:end]) if hinted else None
    return token_logps(problem.hidden, Head(weight), problem.targets, chunk_bytes=int(chunk_mib * MIB), hint=hint)


def torch_fused(problem: Problem, weight: Tensor) -> Tensor:
    return -F.linear_cross_entropy(problem.hidden, weight, problem.targets, reduction="none").float()


def cases_of(problem: Problem, chunks_mib: Sequence[float]) -> list[Case]:
    def case(name: str, logps_of: Callable[[Tensor], Tensor], *, trained: bool = True) -> Case:
        return Case(name, lambda: step(problem, logps_of, trained=trained))

    cases = [case("plain, trained", partial(plain, problem)), case("plain, frozen", partial(plain, problem), trained=False)]
    if hasattr(F, "linear_cross_entropy"):
        cases.append(case("torch linear_cross_entropy, trained", partial(torch_fused, problem)))
    for mib in chunks_mib:
        cases.append(case(f"hinted, {mib:g} MiB", partial(fused, problem, chunk_mib=mib, hinted=True)))
        cases.append(case(f"recomputed, {mib:g} MiB", partial(fused, problem, chunk_mib=mib, hinted=False)))
        cases.append(case(f"frozen, {mib:g} MiB", partial(fused, problem, chunk_mib=mib, hinted=False), trained=False))
    return cases


def seconds_of(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def resident_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def peak_mib_of(run: Callable[[], None], device: str) -> float:
    """Peak memory of a run beyond what was held before: the allocator's count on CUDA, resident memory on Linux, NaN elsewhere."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the high-water mark
    except OSError:
        return float("nan")
    held = resident_mib("VmRSS:")
    run()
    return resident_mib("VmHWM:") - held


def measure(cases: Sequence[Case], problem: Problem, *, rounds: int, device: str) -> list[Row]:
    peaks = [peak_mib_of(case.run, device) for case in cases]  # also the warm-up
    dtype = torch.bfloat16 if problem.bf16 else torch.float32
    hidden, weight = problem.hidden.detach().to(dtype), problem.weight.detach().to(dtype)
    out = torch.empty(len(hidden), len(weight), dtype=dtype, device=device)

    def product() -> None:
        torch.mm(hidden, weight.t(), out=out)

    product()
    taken: list[list[float]] = []
    units: list[float] = []
    for _ in range(rounds):
        units.append(min(seconds_of(product, device) for _ in range(3)))
        taken.append([seconds_of(case.run, device) for case in cases])
    rows = []
    for index, case in enumerate(cases):
        base = 1 if "frozen" in case.name else 0
        rows.append(
            Row(
                case.name,
                statistics.median(times[index] for times in taken),
                statistics.median(times[index] / unit for times, unit in zip(taken, units, strict=True)),
                statistics.median(times[index] / times[base] for times in taken),
                peaks[index],
            )
        )
    return rows


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def parse(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1200, help="rows of the head, M")
    parser.add_argument("--vocabulary", type=int, default=49152, help="V")
    parser.add_argument("--width", type=int, default=576, help="hidden size, H")
    parser.add_argument("--example", type=int, default=50, help="rows per example, for the hint")
    parser.add_argument("--chunks-mib", type=float, nargs="+", default=[16, 32, 64, 128], help="chunk_bytes to try, in MiB")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16 runs the product under autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write figures and conditions here as JSON")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> None:
    arguments = parse(given)
    problem = make_problem(arguments)
    rows = measure(cases_of(problem, arguments.chunks_mib), problem, rounds=arguments.rounds, device=arguments.device)
    conditions = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": torch.cuda.get_device_name() if arguments.device == "cuda" else processor(),
        "load_average": os.getloadavg()[0],
        "command": " ".join(["python", "benchmarks/bench_head.py", *given]),
    }
    for name, value in conditions.items():
        print(f"{name}: {value}")
    print(f"\n{'case':<38}{'seconds':>9}{'GEMM units':>12}{'of plain':>10}{'peak MiB':>10}")
    for row in rows:
        print(f"{row.name:<38}{row.seconds:>9.3f}{row.gemm_units:>12.2f}{row.over_plain:>10.2f}{row.peak_mib:>10.0f}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({**conditions, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
