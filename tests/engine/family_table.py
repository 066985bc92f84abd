"""The table of all families: which path each takes, and why no faster one. `family_page` is docs/engine-families.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers
from families import NOT_TRIED, tiny_config, tiny_model

from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path
from orpo.engine.plain import pair_logps
from orpo.engine.startup_check import check_pairs, choose_path, largest_difference
from orpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Row:
    """What a family does: the path it takes (or 'refused', 'not tried'), how far its log-probs are from single rows', and reasons."""

    family: str
    path: str
    reasons: tuple[str, ...] = ()
    difference: float | None = None

    def __str__(self) -> str:
        shown = "" if self.difference is None else f"{self.difference:.1e}"
        return f"{self.family:26} {self.path:10} {shown:8} {'; '.join(self.reasons)}"


def family_row(family: str) -> Row:
    """The path of a tiny model of `family`, in fp32 on the CPU, for rows longer than its windows."""
    if family in NOT_TRIED:
        return Row(family, "not tried", (NOT_TRIED[family],))
    if tiny_config(family).is_encoder_decoder:
        return Row(family, "refused", ("encoder-decoder",))
    body = tiny_model(family)
    try:
        choice = choose_path(body, longest=200)
    except ConfigError:
        return Row(family, "refused", ("not causal as its config comes: tokens see those after them",))
    pairs = check_pairs(body, longest=200)
    engine = LogpsModel(body, path=choice.path)
    with torch.no_grad():
        oracle = pair_logps(body, pairs)
        difference = largest_difference(engine(pairs), oracle)
    engine.release()
    said = {path: _said(reason) for path, reason in choice.refused}
    packs = {said[path] for path in (Path.SHARED, Path.PACKED) if path in said}
    reasons = [*sorted(packs), *([f"padded: {said[Path.PADDED]}"] if Path.PADDED in said and said[Path.PADDED] not in packs else [])]
    return Row(family, choice.path.value, tuple(reasons), difference)


def _said(reason: str) -> str:
    """A reason without figures and without what depends on the version of Python."""
    if "differ by" in reason:
        return "its log-probs differ from those of single rows"
    name, _, message = reason.partition(": ")
    if name in ("PackedAttentionError", "CannotFuseHead"):
        return message
    return f"its code fails there ({name})" if name.endswith("Error") else reason


def family_page(rows: list[Row]) -> str:
    """docs/engine-families.md."""
    groups = {path: [row for row in rows if row.path == path] for path in ("shared", "packed", "padded", "plain", "refused", "not tried")}
    counts = ", ".join(f"{len(group)} {path}" for path, group in groups.items() if group)
    lines = [PAGE_HEAD.format(version=transformers.__version__, num=len(rows), counts=counts)]
    lines += ["## Shared", "", ", ".join(row.family for row in groups.pop("shared")) + ".", ""]
    for path, group in groups.items():
        if group:
            lines += [f"## {path.capitalize()}", "", "| family | why no faster way |", "|---|---|"]
            lines += [f"| {row.family} | {'; '.join(row.reasons).replace('|', '/')} |" for row in group] + [""]
    return "\n".join(lines)


PAGE_HEAD = """# Which families of models take which path

Made by `ORPO_WRITE_FAMILIES=1 python -m pytest -n 0 -s tests/engine/test_families.py -k table`; without the variable that test compares.

All {num} names under which transformers {version} knows a causal language model: {counts}.
But for encoder-decoders and those not tried, each was tried with a tiny random model in fp32 on a CPU, without dropout, with every window
shorter than the rows; log-probs of the path taken equal those of single rows through the model's own forward to 1e-5. A real run makes this
choice again for its own model at its start, and says what it found.

* shared: a pair's distinct tokens once, in one pack.
* packed: rows in one pack, prompts twice. No family needs it by nature; dropout outside attention does, and a router that draws at random.
* padded: rows of like length, padded, through the model's own attention.
* plain: one row at a time.
* refused: an error before training starts.

A family's options matter: a hybrid without its other layers, or a window that is switched off, may take a faster path than is shown here.
"""
