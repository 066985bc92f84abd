"""`orpo check` for people: rows shown on request, what each finding does and how to fix it, held-out data compared."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

Command = Callable[..., Any]


def write_rows(path: Path, *rows: Any) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def rows(num: int, **parts: str) -> list[dict[str, str]]:
    return [{"prompt": f"what is {i}?", "chosen": f" it is {i}", "rejected": " no idea", **parts} for i in range(num)]


def test_rows_are_shown_with_marks_and_a_legend_as_the_objective_learns_them(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *rows(3))
    shown = orpo("check", "a.jsonl", "--model", tiny_llama, "--show", 2)
    assert shown.exit_code == 0, shown.text
    assert re.findall(r"^(a\.jsonl:\d)$", shown.out, re.MULTILINE) == ["a.jsonl:1", "a.jsonl:2"]
    assert [line[:5] for line in shown.out.splitlines() if " │ " in line] == ["   │ ", "N+ │ ", " - │ "] * 2
    assert re.search(r"^margin +N the NLL raises these tokens; \+ .*; - .*; blank no loss$", shown.out, re.MULTILINE)
    assert "⟦</s>⟧" in shown.out
    sft = orpo("check", "a.jsonl", "--model", tiny_llama, "--show", 1, "--objective", "sft").out
    assert [line[:5] for line in sft.splitlines() if " │ " in line] == ["   │ ", "N  │ ", "   │ "]
    official = orpo("check", "a.jsonl", "--model", tiny_llama, "--show", 1, "--preset", "official").out
    assert [line[:5] for line in official.splitlines() if " │ " in line] == ["N  │ ", "N+ │ ", " - │ "]


def test_without_a_model_the_text_is_shown_and_what_is_unknown_is_said(orpo: Command, tmp_path: Path) -> None:
    chat = [[{"role": role, "content": text}] for role, text in (("user", "what?"), ("assistant", "this"), ("assistant", "that"))]
    write_rows(tmp_path / "a.jsonl", *[dict(zip(("prompt", "chosen", "rejected"), chat, strict=True))] * 2)
    shown = orpo("check", "a.jsonl", "--show", 1)
    assert shown.exit_code == 0, shown.text
    assert "   │ ⟦user: ⟧what?" in shown.out
    assert "N+ │ ⟦assistant: ⟧this" in shown.out
    assert re.search(r"^unknown +without --model", shown.out, re.MULTILINE)


def test_a_row_is_found_by_its_place_also_when_it_is_left_out_or_broken(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    long = {"prompt": "what?", "chosen": " yes" * 300, "rejected": " no"}
    same = {"prompt": "what?", "chosen": " a", "rejected": " a"}
    write_rows(tmp_path / "a.jsonl", *rows(2), long, same, "{broken")
    for place, said in (
        ("a.jsonl:2", "N+ │ ␣it is 1⟦</s>⟧"),
        ("3", "left out  too-long: "),
        ("a.jsonl:4", "a.jsonl:4: chosen and rejected are identical"),
        ("5", "a.jsonl:5: "),
    ):
        shown = orpo("check", "a.jsonl", "--model", tiny_llama, "--row", place, "--max-bad-rows", 1, "--max-length", 200)
        assert shown.exit_code == 0, shown.text
        assert said in shown.out
    absent = orpo("check", "a.jsonl", "--row", "a.jsonl:9", "--max-bad-rows", 1)
    assert (absent.exit_code, absent.err.splitlines()[0]) == (2, "there is no row at a.jsonl:9")


def test_flags_that_would_do_nothing_are_refused(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *rows(2))
    for flags, said in (
        (("--preset", "trl"), "--preset"),
        (("--show", 1, "--json"), "--json"),
        (("--show", 1, "--preset", "tlr"), "'tlr'"),
    ):
        refused = orpo("check", "a.jsonl", *flags)
        assert (refused.exit_code, refused.out) == (2, "")
        assert said in refused.err


def test_each_finding_says_what_it_does_and_how_to_fix_it(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *rows(4), *rows(1), {"prompt": "q", "chosen": " a", "rejected": " a"})
    shown = orpo("check", "a.jsonl").out
    for label, kind in (("dropped", "identical"), ("warning", "duplicates")):
        assert re.search(rf"^{label} +1 x {kind}: .*\n +does: .+\n +fix:  .+$", shown, re.MULTILINE)
    assert re.search(r"^repeats +1 pair repeated, 0 nearly, 0 contradicted; 1 prompt repeated, 0 nearly$", shown, re.MULTILINE)
    assert re.search(r"^lengths +chosen and rejected have the same length in every pair, on average 8.0", shown, re.MULTILINE)
    findings = json.loads(orpo("check", "a.jsonl", "--json").out)["findings"]
    assert [(finding["kind"], finding["num"], bool(finding["effect"] and finding["fix"])) for finding in findings] == [
        ("identical", 1, True),
        ("duplicates", 1, True),
    ]


def test_held_out_data_is_checked_too_and_compared(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    long = "how do people in this country go from the town to the sea, and how long does it take them on foot, by bus or by train in summer"
    write_rows(tmp_path / "a.jsonl", *rows(4), *rows(1, prompt=f"{long} usually?"))
    write_rows(
        tmp_path / "b.jsonl",
        *rows(2, chosen=" else"),
        *rows(1, prompt=f"{long} mostly?"),
        {"prompt": "new", "chosen": " a", "rejected": " b"},
    )
    shown = orpo("check", "a.jsonl", "--eval-data", "b.jsonl", "--model", tiny_llama)
    assert shown.exit_code == 0, shown.text
    assert "warning      prompts both held out and trained on: 2 to the letter, 1 nearly (b.jsonl:1, :2, :3)" in shown.out
    report = json.loads(orpo("check", "a.jsonl", "--eval-data", "b.jsonl", "--json").out)
    assert (report["held_out_prompts_also_trained_on"], report["held_out_prompts_nearly_trained_on"]) == (2, 1)
    assert (report["rows"], report["eval_data"]["rows"]) == (5, 4)
    write_rows(tmp_path / "b.jsonl", "{broken")
    assert orpo("check", "a.jsonl", "--eval-data", "b.jsonl").exit_code == 3


def test_max_lengths_are_compared_and_one_is_suggested(orpo: Command, tmp_path: Path, tiny_llama: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *rows(9), {"prompt": "what?", "chosen": " yes" * 400, "rejected": " no"})
    shown = orpo("check", "a.jsonl", "--model", tiny_llama).out
    lines = [line.split() for line in shown.splitlines() if re.match(r"^[\d,]+  ", line)]
    assert lines[0][0] == "512"
    assert lines[0][1:5] == ["1", "0", "1", "0"]
    assert re.search(r"suggested: --max-length \d+ keeps 100 % of the rows whole \(rule: the smallest multiple of 64", shown)
    write_rows(tmp_path / "a.jsonl", *rows(9), {"prompt": "what?", "chosen": " yes" * 2100, "rejected": " no"})
    shown = orpo("check", "a.jsonl", "--model", tiny_llama).out
    assert "--max-length 2048 keeps 90 % of the rows whole, and the model has no more positions" in shown


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_text_is_wrapped_beside_its_label(tmp_path: Path, width: int) -> None:
    from orpo.cli.check_text import ReportPrinter
    from orpo.data.checks import check_data

    write_rows(tmp_path / "a.jsonl", *rows(4), *rows(1))
    out = io.StringIO()
    printer = ReportPrinter(Console(file=out, force_terminal=True, color_system="standard", width=width))
    printer.report(check_data([str(tmp_path / "a.jsonl")]).report)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, plain)) <= width
    labels = [line[:13].strip() for line in plain if line[:13].strip()]
    assert labels == ["shape", "rows", "warning", "lengths", "repeats"]


def test_a_terminal_without_the_characters_gets_escapes(tmp_path: Path, tiny_llama: Path) -> None:
    import os
    import subprocess
    import sys

    write_rows(tmp_path / "a.jsonl", *rows(2, chosen=" Grüße"))
    program = "import sys; sys.argv = ['orpo', *sys.argv[1:]]; from orpo.cli.main import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, "check", str(tmp_path / "a.jsonl"), "--show", "1"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Gr\\xfc\\xdfe" in done.stdout
