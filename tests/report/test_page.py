"""The page as a document: valid, self-contained, small, and plain about what is not there."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import Document

from orpo.errors import StorageError, UserError
from orpo.report.page import render_report, write_report

KINDS = ("orpo", "sft", "no-eval", "failed")
SECTIONS = {"verdict", "curves", "pairs", "alarms", "samples", "data", "win-rate", "benchmarks", "cost", "config", "reproduce"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_with_one_h1_unique_ids_and_references_that_lead_somewhere(kind: str, make_run: Any) -> None:
    page = Document(render_report(make_run(kind)))
    assert page.headings.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert set(page.ids) >= SECTIONS
    levels = [int(heading[1]) for heading in page.headings]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "a heading level is skipped"


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_asks_for_nothing_from_anywhere(kind: str, make_run: Any) -> None:
    text = render_report(make_run(kind))
    page = Document(text)
    names = {name for _, name, _ in page.attributes}
    assert not names & {"src", "srcset", "action", "style", "data", "xlink:href", "poster", "background"}
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_forbids_everything_but_the_one_style_sheet_by_its_hash(make_run: Any) -> None:
    text = render_report(make_run())
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(value for tag, name, value in Document(text).attributes if tag == "meta" and name == "content" and "default-src" in value)
    assert policy.split("; ")[:3] == ["default-src 'none'", "script-src 'none'", f"style-src 'sha256-{digest}'"]
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<body>")


@pytest.mark.parametrize("kind", KINDS)
def test_each_chart_has_a_title_and_a_description_in_words(kind: str, make_run: Any) -> None:
    text = render_report(make_run(kind))
    drawings = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) >= 6
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]*\d[^<]*</desc>", drawing)


def test_an_sft_run_has_no_odds_part_and_says_so(make_run: Any) -> None:
    text = Document(render_report(make_run("sft"))).text
    assert "SFT: the loss is the NLL, there is no other part." in text
    assert "odds part, β" not in text


def test_a_run_without_held_out_pairs_says_so_and_draws_no_thick_line(make_run: Any) -> None:
    page = render_report(make_run("no-eval"))
    assert "No pairs were held out, or none were measured" in page
    assert 'class="thick"' not in page
    assert 'class="tiles"' not in page
    assert 'id="start-end"' not in page


def test_a_failed_run_says_where_why_and_that_figures_are_from_before(make_run: Any) -> None:
    text = Document(render_report(make_run("failed"))).text
    assert "This run failed after step 96 of 150, exit code 5" in text
    assert "pairs.jsonl:31: loss nan in step 97" in text
    assert "1 of 5 checks raised an alarm (1 could not be measured): values that are not finite." in text
    assert "2 logged values are not finite and cannot be drawn." in text


@pytest.mark.parametrize(
    "missing", ["metrics.jsonl", "summary.json", "samples.jsonl", "data_report.json", "env.json", "config.resolved.yaml"]
)
def test_a_missing_file_leaves_a_page_with_that_part_named_as_absent(missing: str, make_run: Any, orpo_files: dict[str, Any]) -> None:
    text = Document(render_report(make_run({name: content for name, content in orpo_files.items() if name != missing}))).text
    said = {
        "metrics.jsonl": "No step was logged.",
        "summary.json": "This run has no summary.json",
        "samples.jsonl": "No samples were written.",
        "data_report.json": "There is no data_report.json.",
        "config.resolved.yaml": "There is no config.resolved.yaml.",
    }
    assert said.get(missing, "How to reproduce it") in text


def test_a_run_with_only_a_config_or_one_step_still_has_a_page(make_run: Any) -> None:
    Document(render_report(make_run({"config.resolved.yaml": "beta: 0.1\n"}, name="config-only")))
    row = {"step": 1, "split": "train", "loss": 2.0, "nll_loss": 1.9, "logps/chosen": -1.9, "rewards/accuracies": 1.0, "grad_norm": 0.0}
    Document(render_report(make_run({"metrics.jsonl": [row]}, name="one-step")))


@pytest.mark.parametrize(
    "files",
    [
        {"data_report.json": {"rows": None, "dropped": [1], "warnings": 3, "tokens": "x", "files": "y", "errors": 4, "pairs": "many"}},
        {"env.json": {"a": {"b": {"c": {}}}, "d": None, "e": [], "f": 1e300, "g": [[1], {"h": 2}]}},
        {
            "summary.json": {
                "status": "done",
                "command": [],
                "started": "",
                "sections": {"evaluation": 3, "oracle": [], "alarms": {}, "beta": "x"},
            }
        },
        {"config.resolved.yaml": "seed: [1\n  : {"},
        {"config.resolved.yaml": "- a\n- b\n"},
        {
            "metrics.jsonl": [
                {"step": 10**400, "split": "train", "loss": 1.0},
                {"step": 1, "split": 3, "loss": "x"},
                {"step": -5, "loss": {}},
            ]
        },
        {"metrics.jsonl": [{"step": 1, "split": "eval", "rewards/accuracies": 3.5, "num_pairs": 2}]},
        {"samples.jsonl": [{"step": 1}, {"step": 1, "prompt": None, "before": 3, "after_tokens": "x"}]},
    ],
)
def test_odd_but_legal_content_does_not_stop_the_page(files: dict[str, Any], make_run: Any, orpo_files: dict[str, Any]) -> None:
    Document(render_report(make_run({**orpo_files, **files})))


def test_5000_logged_steps_stay_under_a_megabyte_and_the_rule_of_thinning_is_stated(
    make_run: Any, orpo_files: dict[str, Any], long_metrics: Any
) -> None:
    page = render_report(make_run({**orpo_files, "metrics.jsonl": long_metrics}))
    assert len(page.encode()) < 400_000
    assert "Of 5000 logged points the lowest and highest of each of 100 equal runs are drawn as dots." in page
    assert "mean of 167 points" in page


def test_the_worst_text_everywhere_stays_under_a_megabyte(make_run: Any, orpo_files: dict[str, Any], long_metrics: Any) -> None:
    worst = "\u202e" * 3_000
    names = ("prompt", "chosen", "rejected", "before", "after", "source")
    report = {"dropped": {f"{worst[:200]}{i}": i for i in range(500)}, "files": [{"path": worst, "sha256": worst}] * 500}
    report |= {"tokens": {str(i): {str(k): worst for k in range(50)} for i in range(100)}, "template": worst, "shape": worst}
    files = {
        "samples.jsonl": [{"step": 1, **dict.fromkeys(names, worst)}] * 100,
        "config.resolved.yaml": f"# {worst * 10}",
        "data_report.json": report,
    }
    summary = orpo_files["summary.json"]
    alarming = {**summary, "error": worst, "sections": {**summary["sections"], "alarms": [worst] * 500, "model": worst, "objective": worst}}
    files |= {"summary.json": alarming, "env.json": {f"{worst[:300]}{i}": worst for i in range(500)}, "metrics.jsonl": long_metrics}
    assert len(render_report(make_run({**orpo_files, **files})).encode()) < 1_000_000


def test_the_same_run_gives_the_same_page(make_run: Any) -> None:
    assert render_report(make_run(name="a/run")) == render_report(make_run(name="b/run"))


def test_the_report_is_written_as_report_html_and_nothing_else_is_left(make_run: Any) -> None:
    run_dir = make_run()
    before = set(run_dir.iterdir())
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.read_text(encoding="utf-8") == render_report(run_dir)
    assert set(run_dir.iterdir()) - before == {path}


def test_a_folder_that_is_no_run_is_a_user_error_and_a_damaged_file_is_named(
    tmp_path: Path, make_run: Any, orpo_files: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        render_report(tmp_path)
    with pytest.raises(StorageError, match="data_report"):
        render_report(make_run({**orpo_files, "data_report.json": "{"}))


def test_colours_of_text_have_a_contrast_of_at_least_4_5_on_every_ground() -> None:
    css = (Path(sys.modules["orpo.report.page"].__file__ or "").parent / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[:2]
    )
    for theme in (light, dark):
        for ground in ("paper", "card", "tint", "warn"):
            for colour in ("ink", "soft"):
                assert contrast(theme[colour], theme[ground]) >= 4.5, (colour, ground)
        for colour in ("chosen", "rejected", "total", "nll", "accuracy", "ratio", "plain", "good", "bad"):
            assert contrast(theme[colour], theme["card"]) >= 4.5, colour
            assert contrast(theme[colour], theme["paper"]) >= 4.5, colour


def contrast(first: str, second: str) -> float:
    """The WCAG 2 contrast ratio of two colours."""
    lights = sorted(luminance(colour) for colour in (first, second))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_21_for_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_room_imports_neither_torch_nor_transformers(make_run: Any) -> None:
    code = (
        "import sys, pathlib; from orpo.report import card, page; page.write_report(p := pathlib.Path(sys.argv[1])); card.write_card(p); "
    )
    code += "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, str(make_run())], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
