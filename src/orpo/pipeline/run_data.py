"""The data of a run: checked as its objective reads them, split into training and held-out examples, and said in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from orpo.core.records import Reads
from orpo.data.checks import CheckedData, check_data
from orpo.data.columns import parse_columns
from orpo.data.limits import Overlong
from orpo.data.rows import RowReader
from orpo.data.store import TokenStore
from orpo.data.templates import Template
from orpo.data.traces import Overlap, overlap
from orpo.errors import ConfigError
from orpo.objectives import catalogue
from orpo.pipeline.part import Part
from orpo.training.config import TrainConfig

Say = Callable[[str], None]


OVERLAP_SAID = {
    "held_out_prompts_also_trained_on": "held-out prompts are also in the training data: held-out accuracy looks better than it is",
    "held_out_prompts_nearly_trained_on": "held-out prompts are nearly the same as one of the training data",
}


def checked_data(
    config: TrainConfig,
    paths: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int,
    max_positions: int | None = None,
    template: Template | None = None,
    opened: Mapping[str, RowReader] | None = None,
) -> CheckedData:
    """All rows of `paths` (of `opened`, where it names them) checked and tokenized in one pass, by `template` where one is resolved.

    Raises DataError naming file and line.
    """
    data = check_data(
        paths,
        tokenizer=tokenizer,
        template=template or config.template,
        columns=parse_columns(config.columns) if config.columns else None,
        max_length=max_length,
        overlong=cast(Overlong, config.overlong),
        max_bad_rows=config.max_bad_rows,
        pair_labelled=config.pair_labelled,
        reads=reads_of(config.objective),
        max_positions=max_positions,
        opened=opened,
    )
    data.raise_if_errors()
    return data


def checked_sources(
    config: TrainConfig,
    tokenizer: Any,
    *,
    max_length: int,
    max_positions: int | None,
    opened: Mapping[str, RowReader] | None = None,
) -> tuple[CheckedData, CheckedData | None]:
    """The data to train on, and those of `eval_data` (None without) by the same template. Raises DataError naming file and line."""
    checked = partial(checked_data, config, tokenizer=tokenizer, max_length=max_length, max_positions=max_positions, opened=opened)
    data = checked(config.data)
    return data, checked(config.eval_data, template=data.template) if config.eval_data else None


def reads_of(objective: str) -> Reads:
    """What the data of `objective` are checked and tokenized as."""
    reads = catalogue.reads(objective)
    return "pairs" if reads == "scores" else reads


def is_scored(objective: str) -> bool:
    """Whether `objective` reads the scores of a scalar head, and so trains a reward model in place of a language model."""
    return catalogue.reads(objective) == "scores"


def store_and_template(data: CheckedData) -> tuple[TokenStore, Template]:
    """The tokenized pairs and the template of data that were checked with a tokenizer."""
    assert data.store is not None, "checked without a tokenizer"
    assert data.template is not None, "checked without a tokenizer"
    return data.store, data.template


def split_pairs(config: TrainConfig, data: CheckedData, held: CheckedData | None) -> tuple[Part, Part | None]:
    """Training and held-out pairs: from two sources, or a seeded share of one. Raises ConfigError when nothing is left to train on.

    What an objective does not learn from, training does not compute: sft trains on the chosen answers. Held-out pairs are always whole.
    """
    store, _ = store_and_template(data)
    num, alone = len(store), catalogue.learns_chosen_alone(config.objective)
    if held is not None:
        held_store, _ = store_and_template(held)
        return Part(store, range(num), alone), Part(held_store, range(len(held_store)))
    num_held = round(config.holdout * num) if 0 < config.holdout < 1 else int(config.holdout)
    if not num_held:
        return Part(store, range(num), alone), None
    if num_held >= num:
        raise ConfigError(f"holdout takes {num_held} of {num} pairs and leaves none to train on", fix="hold out fewer")
    # A stream of its own: the order of training pairs must not depend on how many are held out.
    order = np.random.default_rng([config.seed, 2**32]).permutation(num)
    return Part(store, np.sort(order[num_held:]).tolist(), alone), Part(store, np.sort(order[:num_held]).tolist())


def split_report(data: CheckedData, held: CheckedData | None, train_part: Part, held_out: Part | None) -> dict[str, Any]:
    """What data_report.json says: the check of the training data, how it was split, and the check of the held-out data."""
    report: dict[str, Any] = {**data.report.as_dict(), "trained_on": len(train_part), "held_out": len(held_out) if held_out else 0}
    if held is not None:
        report["eval_data"] = held.report.as_dict()
    if held_out is not None:
        other = data if held is None else held
        rows = [np.array(part.indices, dtype=np.int64) for part in (train_part, held_out)]
        report.update(overlap_figures(overlap(data.traces, other.traces, trained_rows=rows[0], held_rows=rows[1])))
    return report


def overlap_figures(found: Overlap) -> dict[str, int]:
    """What a report has on prompts that are both trained on and held out."""
    return {"held_out_prompts_also_trained_on": found.same, "held_out_prompts_nearly_trained_on": found.near}


def say_data(report: Mapping[str, Any], data: CheckedData, say: Say) -> None:
    """One line on the data, one on the template, one for each kind of row dropped or warned about."""
    say(f"data         {report['rows']:,} rows, {report['pairs']:,} {data.report.noun}s, shape {report['shape']}")
    held = f"{report['held_out']:,} held out" if report["held_out"] else "none held out (--holdout 0.05, or --eval-data FILE)"
    say(f"{'pairs' if data.report.noun == 'pair' else 'examples':<13}{report['trained_on']:,} to train on, {held}")
    _, template = store_and_template(data)
    say(f"template     {template.description}")
    for note in template.notes:
        say(f"note         {note}")
    for finding in report["findings"]:
        say(f"{finding['severity']:<13}{finding['num']:,} x {finding['kind']}: {finding['effect']}")
    for key, said in OVERLAP_SAID.items():
        if report.get(key):
            say(f"warning      {report[key]:,} {said}")
