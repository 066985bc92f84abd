"""The real pairs beside the repository, end to end, with counts taken anew from the files. Skipped where they are absent."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers


def hh_counts(path: Path) -> tuple[int, int]:
    """Rows of the file, and rows whose transcripts differ and end with an answer: counted on the text, without our reader."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    pairs = [row for row in rows if row["chosen"] != row["rejected"] and all(row[k].rsplit("\n\nAssistant:", 1)[1].strip() for k in row)]
    return len(rows), len(pairs)


def sharegpt_counts(path: Path) -> tuple[int, int]:
    """The same for the sharegpt file."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return len(rows), sum(row["chosen"]["value"].strip() != row["rejected"]["value"].strip() for row in rows)


CASES = [
    ("hh-harmless-pairs.jsonl.gz", hh_counts, "hh-transcripts", "tiny_llama"),
    ("mixed-long-pairs.json", sharegpt_counts, "sharegpt-ranking", "tiny_chat_llama"),
]


@pytest.mark.parametrize(("name", "count", "shape", "model"), CASES, ids=[case[0] for case in CASES])
def test_real_pairs_train_to_a_model_that_loads_and_a_report(
    train: Callable[..., Any],
    rows: Callable[..., Any],
    shared_data: Path,
    request: pytest.FixtureRequest,
    name: str,
    count: Callable[[Path], tuple[int, int]],
    shape: str,
    model: str,
) -> None:
    # The tiny tokenizer makes a token of almost every letter: twice the length leaves room for all rows of the long file.
    folder = str(request.getfixturevalue(model))
    run = train(
        model=folder,
        data=str(shared_data / name),
        max_steps=15,
        save_steps=0,
        learning_rate=3e-3,
        pairs_per_step=2,
        overlong="cut-completion",
    )
    report = json.loads((run.run_dir / "data_report.json").read_text())
    num_rows, num_pairs = count(shared_data / name)
    assert report["shape"] == shape
    assert (report["rows"], report["num_errors"]) == (num_rows, 0)
    assert report["pairs"] + sum(report["dropped"].values()) == num_rows
    assert report["pairs"] + report["dropped"].get("prompt-too-long", 0) + report["dropped"].get("identical-after-cut", 0) == num_pairs
    losses = [row["loss"] for row in rows(run.run_dir)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    transformers.AutoModelForCausalLM.from_pretrained(run.model_dir)
    assert (run.run_dir / "report.html").stat().st_size > 10_000
