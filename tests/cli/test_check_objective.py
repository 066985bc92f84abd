"""`orpo check --objective`: the data as an objective reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]


def write_rows(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_labelled_rows_are_checked_as_they_are_for_an_objective_that_reads_them(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"prompt": f"p {i // 2}", "completion": f" c {i}", "label": i % 4 == 0} for i in range(8)]
    write_rows(tmp_path / "a.jsonl", *rows)
    assert "--objective kto or ulma" in orpo("check", "a.jsonl").err
    for objective in ("kto", "ulma"):
        outcome = orpo("check", "a.jsonl", "--objective", objective, "--model", tiny_llama, "--show", 2)
        assert outcome.exit_code == 0, outcome.text
        assert "8 rows, 8 labelled answers, 0 errors" in outcome.out
        assert "2 desirable, 6 undesirable, evened out by desirable_weight 3\n" in outcome.out
        assert "2 pairs can be made" in outcome.out
        assert re.findall(r"^(\w+), \d+ tokens", outcome.out, re.MULTILINE) == ["prompt", "desirable", "prompt", "undesirable"]
        assert "ready: 8 labelled answers can be trained on" in outcome.out
    report = json.loads(orpo("check", "a.jsonl", "--objective", "kto", "--json").out)
    assert (report["reads"], report["pairs"], report["answers"]["desirable_weight"]) == ("labelled", 8, 3.0)


def test_ranked_rows_are_checked_as_rankings_for_an_objective_that_reads_them(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"prompt": f"p {i}", "responses": [" a", " b", " c"][: 2 + i % 2], "scores": [1, 3, 2][: 2 + i % 2]} for i in range(5)]
    write_rows(tmp_path / "a.jsonl", *rows)
    outcome = orpo("check", "a.jsonl", "--objective", "pro", "--model", tiny_llama, "--show", 1)
    assert outcome.exit_code == 0, outcome.text
    assert "5 rows, 5 rankings, 0 errors" in outcome.out
    assert "3 x 2 answers, 2 x 3 answers" in outcome.out
    assert re.findall(r"^answer \d of \d, score \d", outcome.out, re.MULTILINE) == ["answer 1 of 2, score 3", "answer 2 of 2, score 1"]
    assert "5 rows, 5 pairs, 0 errors" in orpo("check", "a.jsonl").out
    refused = orpo("check", "a.jsonl", "--objective", "kto")
    assert (refused.exit_code, refused.err.startswith("a.jsonl:1: ranked data")) == (3, True)


def test_an_unknown_objective_is_answered_with_the_nearest(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", {"prompt": "q", "chosen": " a", "rejected": " b"})
    outcome = orpo("check", "a.jsonl", "--objective", "kot")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert "did you mean 'kto'?" in outcome.err
