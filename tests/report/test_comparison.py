"""The page of a comparison as a document: valid, self-contained, small, and plain about what is not there."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparisons import PIPELINES, comparison, running, with_failures, write_comparison_file
from documents import Document

from orpo.errors import StorageError, UserError
from orpo.report.comparison import render_comparison, write_comparison

TWELVE = (*PIPELINES, "sft > orpo", "sft > odds", "a pipeline with a very long name, of three stages indeed", "sft > dpo (beta 0.3)")
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "eight": comparison,
    "one": lambda: comparison(["orpo"]),
    "twelve": lambda: comparison(TWELVE),
    "one-seed": lambda: comparison(["orpo", "sft > dpo"], seeds=[3]),
    "running": lambda: running(comparison()),
    "failed": lambda: with_failures(comparison()),
    "bare": lambda: {"format": 1},
}
SECTIONS = {"verdict", "scores", "table", "cost", "curves", "equal", "replies", "failures", "reproduce"}


def rendered(folder: Path, value: Any) -> str:
    return render_comparison(write_comparison_file(folder, value))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_with_one_h1_unique_ids_and_references_that_lead_somewhere(kind: str, tmp_path: Path) -> None:
    page = Document(rendered(tmp_path, KINDS[kind]()))
    assert page.headings.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert set(page.ids) >= SECTIONS
    levels = [int(heading[1]) for heading in page.headings]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "a heading level is skipped"


@pytest.mark.parametrize("kind", ["eight", "failed"])
def test_the_page_asks_for_nothing_from_anywhere(kind: str, tmp_path: Path) -> None:
    text = rendered(tmp_path, KINDS[kind]())
    names = {name for _, name, _ in Document(text).attributes}
    assert not names & {"src", "srcset", "action", "style", "data", "xlink:href", "poster", "background"}
    assert all(value.startswith("#") for _, name, value in Document(text).attributes if name == "href")
    assert not [found for found in ("://", "url(", "@import", "<script") if found in text]


@pytest.mark.parametrize("kind", ["eight", "twelve", "one", "failed"])
def test_each_drawing_has_a_title_and_its_numbers_in_words(kind: str, tmp_path: Path) -> None:
    drawings = re.findall(r"<svg .*?</svg>", rendered(tmp_path, KINDS[kind]()), flags=re.DOTALL)
    assert len(drawings) >= 12
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]*\d[^<]*</desc>", drawing)


def test_a_page_stays_under_a_megabyte_with_twelve_pipelines(tmp_path: Path) -> None:
    assert len(rendered(tmp_path, KINDS["twelve"]()).encode()) < 500_000


def test_the_worst_text_everywhere_stays_under_a_megabyte(tmp_path: Path) -> None:
    worst = "\u202e" * 3_000
    value = comparison(TWELVE)
    for pipeline in value["pipelines"]:
        pipeline["name"] = worst[: 900 + len(pipeline["name"])]
        pipeline["samples"] = [{"prompt": f"{i}", "base": worst, "reply": worst, "verdict": None} for i in range(100)]
        for trial in pipeline["trials"]:
            trial |= {"error": worst, "chosen": False, "shared_with": []}
    value["failures"] = [{"pipeline": worst, "stage": 0, "seed": i, "error": worst} for i in range(500)]
    value["command"] = [worst * 10]
    value["environment"] = {f"{worst[:300]}{i}": worst for i in range(500)}
    value["equal"] |= {"settings": {f"{i}": worst for i in range(500)}, "split": worst, "model": worst}
    for metric in value["metrics"]:
        metric |= {"title": worst, "note": worst, "unit": worst[:100]}
    assert len(rendered(tmp_path, value).encode()) < 1_000_000


def test_the_same_file_gives_the_same_page_wherever_it_lies(tmp_path: Path) -> None:
    assert rendered(tmp_path / "a", comparison()) == rendered(tmp_path / "b", comparison())


def test_the_page_is_written_as_comparison_html_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = write_comparison_file(tmp_path / "compare-1", comparison())
    path = write_comparison(folder)
    assert path == folder / "comparison.html"
    assert path.read_text(encoding="utf-8") == render_comparison(folder)
    assert {one.name for one in folder.iterdir()} == {"compare.json", "comparison.html"}


def test_a_folder_without_a_comparison_is_a_user_error_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no comparison \(no compare.json\)"):
        render_comparison(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        render_comparison(tmp_path / "nowhere")
    for text, said in (
        ("{", "is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"format": 2}', "has format 2"),
        ("{}", "None"),
    ):
        (tmp_path / "compare.json").write_text(text)
        with pytest.raises(StorageError, match=said):
            render_comparison(tmp_path)
    (tmp_path / "compare.json").write_bytes(b'{"format": 1, "name": "\xff"}')
    with pytest.raises(StorageError, match="not UTF-8"):
        render_comparison(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"pipelines": 3, "metrics": "x", "base": [], "failures": {}, "equal": 4, "tuned_by": None, "environment": "e", "command": 7},
        {"pipelines": [{}], "metrics": [{}], "failures": [{}]},
        {
            "pipelines": [
                {"stages": [{}, 3], "trials": [{"stage": "x"}], "scores": {"a": 3, "b": {"mean": "x"}}, "cost": 5, "curves": [{"stage": 0}]}
            ]
        },
        {"pipelines": [{"curves": [{"stage": 0, "step": [1, 2], "logps/chosen": [1]}], "stages": [{}], "samples": [{}, 1]}]},
        {"base": {"scores": {"oracle/score": {"mean": 0.5}}}, "seconds": "long", "equal": {"seeds": 5, "budget": 3}},
    ],
)
def test_odd_but_legal_content_does_not_stop_the_page(change: dict[str, Any], tmp_path: Path) -> None:
    Document(rendered(tmp_path, {**comparison(["orpo", "sft"]), **change}))


def test_a_running_comparison_says_so_and_shows_what_is_there(tmp_path: Path) -> None:
    text = Document(rendered(tmp_path, running(comparison()))).text
    assert "This comparison is still going" in text
    assert "4 of 8 pipelines have no scores yet" in text
    assert "not measured" in text


def test_failures_and_lost_seeds_are_shown_where_they_matter(tmp_path: Path) -> None:
    text = Document(rendered(tmp_path, with_failures(comparison()))).text
    assert "6 trainings failed (see Failures). Fewer than 5 seeds: sft > dpo (4)." in text
    assert "loss nan in step 97" in text
    assert "4 of 5 seeds" in text
    assert "Not measured: simpo" in text


def test_intervals_and_n_are_named_beside_the_charts(tmp_path: Path) -> None:
    text = Document(rendered(tmp_path, comparison())).text
    assert "Whisker: 95 % interval, a bootstrap over seeds and prompts" in text
    assert text.count("n: 5 seeds, 120 items.") == 11


def test_metrics_that_nobody_measured_are_named_and_not_drawn(tmp_path: Path) -> None:
    value = comparison(["orpo", "sft"])
    for pipeline in value["pipelines"]:
        del pipeline["scores"]["win_rate"]
    page = rendered(tmp_path, value)
    assert "Not measured: win rate against the untrained model." in page
    assert page.count('id="score-') == 30, "10 figures, each with an id of its own, of its title and of its description"


def test_replies_stand_side_by_side_for_each_prompt_and_are_not_picked_by_score(tmp_path: Path) -> None:
    page = Document(rendered(tmp_path, comparison())).text
    assert "picked by place and not by score" in page
    assert page.count("It depends on what one means by a capital.") == 1
    assert page.count("Happy to help! The capital of Marun is Tavin.") == 8


def test_the_room_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = "import sys, pathlib; from orpo.report import comparison, rewriting; comparison.write_comparison(pathlib.Path(sys.argv[1])); "
    code += "print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'matplotlib') if name in sys.modules])"
    folder = write_comparison_file(tmp_path, comparison(["orpo"]))
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
